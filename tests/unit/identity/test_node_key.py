import json
import os
import stat

import pytest
from bittensor_wallet import Keyfile, Keypair

from grid_node.clock import ManualClock
from grid_node.identity.hotkeys import check_message
from grid_node.identity.node_key import FILE_NAME, NodeKey
from grid_node.settings import BadSetting, Settings

MNEMONIC = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"


def load(path=None, data_dir=None):
    return NodeKey.load(Settings(node_key_file=str(path or ""), data_dir=data_dir or path.parent))


@pytest.fixture
def wallet_file(tmp_path):
    path = tmp_path / "hotkey"
    pair = Keypair.create_from_mnemonic(MNEMONIC)
    Keyfile(path=str(path), name="hotkey").set_keypair(pair, encrypt=False, overwrite=True)
    return path


def test_a_bittensor_hotkey_file_is_read(wallet_file):
    key = load(wallet_file)
    assert key.hotkey == Keypair.create_from_mnemonic(MNEMONIC).ss58_address


def test_the_node_signs_messages_that_verify(wallet_file):
    key = load(wallet_file)
    message = key.sign_message(key.base_fields("authenticated", ManualClock(1_800_000_000.25)))
    assert message["sender_hotkey"] == key.hotkey
    assert message["timestamp"] == "2027-01-15T08:00:00.250Z"
    check_message(key.public_key, message)


def test_no_key_is_made_when_one_is_named(tmp_path):
    with pytest.raises(BadSetting, match="cannot be read: No such file"):
        load(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620])
def test_a_key_that_others_can_read_stops_the_start(wallet_file, mode):
    wallet_file.chmod(mode)
    with pytest.raises(BadSetting, match="chmod 600"):
        load(wallet_file)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "null",
        "5",
        '{"secretSeed": 5}',
        '{"secretSeed": "0x12"}',
        '{"secretPhrase": "no such words"}',
        "$NACL\x00",
        "{" * 100_000,
    ],
)
def test_a_file_without_a_key_stops_the_start_and_stays_unquoted(tmp_path, content):
    path = tmp_path / "hotkey"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(BadSetting, match="is no unencrypted bittensor hotkey file") as refusal:
        load(path)
    assert "such words" not in str(refusal.value)


def test_an_encrypted_wallet_is_refused(tmp_path):
    path = tmp_path / "hotkey"
    path.write_bytes(b"$NACL" + os.urandom(200))
    path.chmod(0o600)
    with pytest.raises(BadSetting, match="unencrypted"):
        load(path)


def test_a_secret_under_another_address_is_refused(wallet_file):
    fields = json.loads(wallet_file.read_text())
    fields["ss58Address"] = Keypair.create_from_seed("0x" + "01" * 32).ss58_address
    wallet_file.write_text(json.dumps(fields))
    with pytest.raises(BadSetting, match="does not belong"):
        load(wallet_file)


def test_a_folder_or_pipe_is_no_key(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path in (tmp_path, pipe):
        with pytest.raises(BadSetting, match="is no file"):
            load(path, data_dir=tmp_path)


def test_a_node_without_a_key_makes_one_and_keeps_it(tmp_path):
    folder = tmp_path / "instance"
    first = load(data_dir=folder)
    assert load(data_dir=folder).hotkey == first.hotkey
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]


def test_the_made_key_is_one_that_bittensor_reads(tmp_path):
    made = load(data_dir=tmp_path)
    read = Keyfile(path=str(tmp_path / FILE_NAME), name="hotkey").get_keypair()
    assert read.ss58_address == made.hotkey


def test_two_nodes_make_two_keys(tmp_path):
    assert load(data_dir=tmp_path / "a").hotkey != load(data_dir=tmp_path / "b").hotkey


def test_the_first_of_two_processes_decides(tmp_path, monkeypatch):
    first = load(data_dir=tmp_path)
    monkeypatch.setattr("pathlib.Path.exists", lambda self: False)
    assert load(data_dir=tmp_path).hotkey == first.hotkey
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_the_secret_is_not_shown(wallet_file):
    key = load(wallet_file)
    assert repr(key) == f"NodeKey({key.hotkey})"
