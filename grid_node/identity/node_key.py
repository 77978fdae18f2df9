"""The node's own hotkey: an unencrypted file as bittensor writes it, readable by its owner alone.

It signs what the node answers, and nothing on any chain.
"""

import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bittensor_wallet import Keypair

from grid_node.clock import Clock, rfc3339
from grid_node.identity.hotkeys import decode_hotkey, format_signature, message_bytes
from grid_node.identity.keys import RandomBytes
from grid_node.settings import BadSetting, Settings

_LARGEST = 65536
"""Bytes; a key file has about 600."""
FILE_NAME = "node_hotkey"


class NodeKey:
    """Signs as the node. The secret stays inside the key pair; `repr` shows the public part."""

    def __init__(self, keypair: Keypair) -> None:
        self._keypair = keypair
        self.hotkey = str(keypair.ss58_address)
        self.public_key = decode_hotkey(self.hotkey)

    def __repr__(self) -> str:
        return f"NodeKey({self.hotkey})"

    @classmethod
    def load(cls, settings: Settings, random: RandomBytes = secrets.token_bytes) -> "NodeKey":
        """The key of GRID_NODE_KEY_FILE, or the one in the data folder, made when it is not there yet.

        Raises BadSetting when a named file is missing, or any is readable by others or holds no key.
        """
        if settings.node_key_file:
            return cls(_read(Path(settings.node_key_file)))
        path = settings.data_dir / FILE_NAME
        if not path.exists():
            _make(path, random)
        return cls(_read(path))

    def sign(self, data: bytes) -> bytes:
        """64 bytes, different each time: never an id."""
        return bytes(self._keypair.sign(data))

    def sign_message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The message with its `signature`."""
        return {**message, "signature": format_signature(self.sign(message_bytes(message)))}

    def base_fields(self, message_type: str, clock: Clock) -> dict[str, Any]:
        """The four members that every message of the node begins with."""
        return {
            "message_id": clock.new_id(),
            "sender_hotkey": self.hotkey,
            "timestamp": rfc3339(clock.now()),
            "message_type": message_type,
        }


def _read(path: Path) -> Keypair:
    content = _private_bytes(path)
    try:
        fields = json.loads(content)
        keypair = _keypair(fields)
    except (ValueError, TypeError, AttributeError, KeyError):
        raise BadSetting(f"GRID_NODE_KEY_FILE: {path} is no unencrypted bittensor hotkey file") from None
    if fields.get("ss58Address", keypair.ss58_address) != keypair.ss58_address:
        raise BadSetting(f"GRID_NODE_KEY_FILE: the address in {path} does not belong to its secret")
    return keypair


def _private_bytes(path: Path) -> bytes:
    """The file's content, if nobody but its owner can read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadSetting(f"GRID_NODE_KEY_FILE: {path} cannot be read: {error.strerror}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise BadSetting(f"GRID_NODE_KEY_FILE: {path} is no file")
        if mode & 0o077:
            raise BadSetting(f"GRID_NODE_KEY_FILE: {path} is open to others; run: chmod 600 {path}")
        return os.read(descriptor, _LARGEST)
    finally:
        os.close(descriptor)


def _keypair(fields: dict[str, Any]) -> Keypair:
    if fields.get("secretSeed"):
        return _from_seed(fields["secretSeed"])
    return Keypair.create_from_mnemonic(fields["secretPhrase"])


def _from_seed(seed: str) -> Keypair:
    create: Callable[[str], Keypair] = Keypair.create_from_seed  # type: ignore[assignment]  # its stub says bytes
    return create(seed)


def _make(path: Path, random: RandomBytes) -> None:
    """Write a new key beside `path` and link it there: complete or not at all, and never over another one."""
    seed = "0x" + random(32).hex()
    keypair = _from_seed(seed)
    public = "0x" + NodeKey(keypair).public_key.hex()
    fields = {"accountId": public, "publicKey": public, "secretPhrase": None, "secretSeed": seed}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{random(4).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            json.dump({**fields, "ss58Address": keypair.ss58_address}, file)
            file.flush()
            os.fsync(descriptor)
        os.link(draft, path)
    except FileExistsError:
        pass  # another process of this node was first; its key counts
    finally:
        draft.unlink()
