"""Files of bittensor-wallet that hold a hotkey: where they lie, and what is in them."""

from pathlib import Path

from bittensor_wallet import Keypair
from bittensor_wallet.errors import ConfigurationError, KeyFileError
from bittensor_wallet.keyfile import deserialize_keypair_from_keyfile_data, keyfile_data_is_encrypted

from grid_node.chain.ports import Signer

FILE_MAX = 64 * 1024
"""Bytes of a key file at most; a real one has about 500."""
_MARKED = 16
"""Bytes at the start of a key file that tell whether it is encrypted; no secret begins within them."""


def hotkey_file(folder: Path, signer: Signer) -> Path:
    """Where bittensor-wallet keeps a hotkey."""
    return folder / signer.wallet / "hotkeys" / signer.hotkey


def read_keypair(path: Path) -> Keypair:
    """The key in a file, with its secret. Raises OSError, and ValueError with words that hold nothing of the file."""
    with path.open("rb") as file:
        content = file.read(FILE_MAX)
    if keyfile_data_is_encrypted(content):
        raise ValueError("it is encrypted")
    try:
        keypair: Keypair = deserialize_keypair_from_keyfile_data(content)
        keypair.sign(b"")  # raises where the file holds an address without its secret
    except (ValueError, KeyFileError, ConfigurationError):
        # the library's words may hold parts of the file
        raise ValueError("it holds no key") from None
    return keypair


def file_problem(path: Path) -> str | None:
    """Why nobody can sign with this file, as far as its rights and its first bytes tell."""
    try:
        if not path.is_file():
            return f"there is no hotkey file {path}"
        with path.open("rb") as file:
            marked = file.read(_MARKED)
    except OSError as error:
        return f"the hotkey file {path} cannot be read: {error.strerror}"
    if keyfile_data_is_encrypted(marked):
        return f"the hotkey file {path} is encrypted: nobody is here to type its password"
    return None


def key_problem(path: Path) -> str | None:
    """The same, and whether a hotkey is in it. Reads the key: for a process that ends soon."""
    problem = file_problem(path)
    if problem is not None:
        return problem
    try:
        read_keypair(path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        return f"the hotkey file {path} cannot be read: {why}"
    return None
