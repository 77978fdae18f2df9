import json
from pathlib import Path

import pytest
from bittensor_wallet import Keypair
from grid_client.errors import GridError
from grid_client.signing import load_keypair, public_keypair, signed, signing_input

SEED = "0x" + "44" * 32
MNEMONIC = Keypair.generate_mnemonic()


@pytest.mark.parametrize(
    ("content", "address"),
    [
        (SEED + "\n", Keypair.create_from_seed(SEED).ss58_address),
        (json.dumps({"secretSeed": SEED, "ss58Address": "x"}), Keypair.create_from_seed(SEED).ss58_address),
        (MNEMONIC, Keypair.create_from_mnemonic(MNEMONIC).ss58_address),
    ],
    ids=["seed", "hotkey-file", "mnemonic"],
)
def test_a_hotkey_is_read_from_seed_mnemonic_or_hotkey_file(tmp_path: Path, content: str, address: str) -> None:
    file = tmp_path / "hotkey"
    file.write_text(content)
    assert load_keypair(file).ss58_address == address


@pytest.mark.parametrize("content", ["", "0x12", "{}", "no such words in any list", "zz" * 32])
def test_a_file_without_a_seed_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "hotkey"
    file.write_text(content)
    with pytest.raises(GridError) as refused:
        load_keypair(file)
    assert refused.value.code == "bad_wallet"
    assert not content or content == "{}" or content not in str(refused.value)


def test_a_text_that_is_no_hotkey_is_refused() -> None:
    with pytest.raises(GridError, match="bad_node_hotkey"):
        public_keypair("5nonsense")


def test_the_signature_covers_every_member_in_canonical_form() -> None:
    keypair = Keypair.create_from_seed(SEED)
    message = {"message_type": "authenticate", "b": 1, "a": {"y": "ü", "x": [1, 2]}}
    reordered = {"a": {"x": [1, 2], "y": "ü"}, "b": 1, "message_type": "authenticate", "signature": "0xold"}
    assert signing_input(message) == signing_input(reordered)
    assert signing_input(message).startswith(b"grid.v1.authenticate.")
    assert signing_input({**message, "b": 2}) != signing_input(message)
    signature = bytes.fromhex(signed(keypair, message)["signature"][2:])
    assert keypair.verify(signing_input(message), signature)
