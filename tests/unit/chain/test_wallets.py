"""Hotkeys in the files of bittensor-wallet."""

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair, Wallet
from bittensor_wallet.keyfile import serialized_keypair_to_keyfile_data

from grid_node.chain.ports import Signer, WriteRefused
from grid_node.chain.pylon import PylonSettings
from grid_node.chain.wallets import Wallets
from grid_node.settings import Settings

SIGNER = Signer("sn1", 1, "cold", "hot")
ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


def key_file(folder: Path) -> Path:
    path = folder / "cold" / "hotkeys" / "hot"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def put_alice(folder: Path) -> None:
    key_file(folder).write_bytes(serialized_keypair_to_keyfile_data(Keypair.create_from_uri("//Alice")))


def refusal(wallets: Wallets) -> str:
    with pytest.raises(WriteRefused) as caught:
        wallets.keypair(SIGNER)
    return str(caught.value)


def test_a_wallet_of_bittensor_is_read(tmp_path: Path) -> None:
    theirs = Wallet(name="cold", hotkey="hot", path=str(tmp_path))
    theirs.create_new_hotkey(use_password=False, overwrite=False, suppress=True)

    wallets = Wallets(tmp_path, create_missing=False)

    assert wallets.hotkey(SIGNER) == theirs.hotkey.ss58_address
    signature = wallets.keypair(SIGNER).sign(b"message")
    assert theirs.hotkey.verify(b"message", signature)


def test_a_missing_wallet_is_made_in_the_format_of_bittensor(tmp_path: Path) -> None:
    made = Wallets(tmp_path, create_missing=True).hotkey(SIGNER)

    assert Wallet(name="cold", hotkey="hot", path=str(tmp_path)).hotkey.ss58_address == made
    assert Wallets(tmp_path, create_missing=True).hotkey(SIGNER) == made
    path = key_file(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["hot"]


def test_processes_that_make_a_wallet_at_once_agree(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from grid_node.chain.wallets import Wallets\n"
        "from grid_node.chain.ports import Signer\n"
        "wallets = Wallets(Path(sys.argv[1]), True); sys.stdin.read(1)\n"
        "print(wallets.hotkey(Signer('sn1', 1, 'cold', 'hot')))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"$NACL" + b"x" * 100,
        b'{"secretSeed":"0xnope"}',
        json.dumps({"ss58Address": ALICE}).encode(),
    ],
)
def test_a_key_that_cannot_be_read_is_refused_without_its_path(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    key_file(tmp_path).write_bytes(content)
    wallets = Wallets(tmp_path, create_missing=True)

    assert refusal(wallets) == "Hotkey of identity 'sn1' cannot be read"
    assert "nope" not in caplog.text
    put_alice(tmp_path)
    assert wallets.hotkey(SIGNER) == ALICE


def test_a_missing_wallet_is_refused_on_a_real_chain(tmp_path: Path) -> None:
    assert refusal(Wallets(tmp_path, create_missing=False)) == "Hotkey of identity 'sn1' cannot be read"
    assert list(tmp_path.iterdir()) == []


def chosen(tmp_path: Path, backend: str, **pylon: Any) -> Wallets:
    settings = Settings.load({}, data_dir=tmp_path / "data", chain_backend=backend)
    return Wallets.of(settings, PylonSettings(**pylon))


def test_the_ledger_takes_a_wallet_that_is_given_and_makes_others_in_the_data_folder(tmp_path: Path) -> None:
    given = tmp_path / "given"
    put_alice(given)

    assert chosen(tmp_path, "local", bittensor_wallet_path=given).hotkey(SIGNER) == ALICE
    made = chosen(tmp_path, "local").hotkey(SIGNER)
    assert made != ALICE
    assert key_file(tmp_path / "data" / "wallets").exists()
    assert chosen(tmp_path, "local", bittensor_wallet_path=tmp_path / "empty").hotkey(SIGNER) == made
    assert not (tmp_path / "empty").exists()


def test_a_real_chain_takes_only_a_wallet_that_is_given(tmp_path: Path) -> None:
    put_alice(tmp_path / "given")
    assert chosen(tmp_path, "subtensor", bittensor_wallet_path=tmp_path / "given").hotkey(SIGNER) == ALICE
    assert refusal(chosen(tmp_path, "subtensor", bittensor_wallet_path=tmp_path / "empty"))
