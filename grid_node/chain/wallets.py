"""Hotkeys of identities, in the files of bittensor-wallet. Never a coldkey; only the chain's process reads these."""

import logging
import os
import secrets
import threading
from pathlib import Path

from bittensor_wallet import Keypair
from bittensor_wallet.keyfile import serialized_keypair_to_keyfile_data

from grid_node.chain.keyfiles import hotkey_file, read_keypair
from grid_node.chain.ports import Signer, WriteRefused
from grid_node.chain.pylon import SUBTENSOR, PylonSettings, choose_backend
from grid_node.settings import Settings

FOLDER = "wallets"
"""Where in the data folder the ledger makes wallets."""

log = logging.getLogger(__name__)


class Wallets:
    """Keys by their wallet's and hotkey's names, read once. Threads may share it.

    With `create_missing` a hotkey that is in neither folder is made in `spare`, or in `path` where there is none.
    """

    def __init__(self, path: Path, create_missing: bool, spare: Path | None = None) -> None:
        self._folders = [path] if spare is None else [path, spare]
        self._create_missing = create_missing
        self._keys: dict[tuple[str, str], Keypair] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, settings: Settings, pylon: PylonSettings) -> "Wallets":
        """On a real chain Pylon's wallets; on the ledger these too, and what is missing is made in the data folder."""
        made, given = settings.data_dir.resolve() / FOLDER, pylon.bittensor_wallet_path
        if choose_backend(settings, pylon)[0] == SUBTENSOR:
            return cls(given or made, create_missing=False)
        return cls(made, create_missing=True) if given is None else cls(given, create_missing=True, spare=made)

    def keypair(self, signer: Signer) -> Keypair:
        """Raises WriteRefused when the key cannot be read; the log says why, the text names no file."""
        names = (signer.wallet, signer.hotkey)
        with self._lock:
            if names not in self._keys:
                try:
                    self._keys[names] = self._read(signer)
                except (OSError, ValueError) as error:
                    log.warning("hotkey of identity %s cannot be read: %s", signer.identity, error)
                    raise WriteRefused(f"Hotkey of identity '{signer.identity}' cannot be read") from None
            return self._keys[names]

    def hotkey(self, signer: Signer) -> str:
        """SS58 of the signer's hotkey. Raises WriteRefused."""
        return str(self.keypair(signer).ss58_address)

    def _read(self, signer: Signer) -> Keypair:
        paths = [hotkey_file(folder, signer) for folder in self._folders]
        present = [path for path in paths if path.exists()]
        if not present and self._create_missing:
            _make(paths[-1])
            present = paths[-1:]
        path = (present or paths)[0]
        try:
            return read_keypair(path)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _make(path: Path) -> None:
    """Write a new key beside `path` and link it there: complete or not at all, and never over another's."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = serialized_keypair_to_keyfile_data(Keypair.create_from_mnemonic(Keypair.generate_mnemonic()))
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(bytes(content))
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was faster: its key is the one
    finally:
        draft.unlink()
