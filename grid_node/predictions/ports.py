"""What predictions ask of identity. `adapters.py` answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Miner:
    """Who predicts. Rows carry `identity`, messages `address`."""

    identity: str
    """Lower hex of the public key, or `key:<id>` in a private grid."""
    address: str
    """The hotkey as SS58, or `key:<id>`."""
    public_key: bytes | None
    """None: a private grid's miner, which signs nothing."""
    uid: int | None = None

    @classmethod
    def of_hotkey(cls, public_key: bytes, hotkey: str, uid: int | None = None) -> "Miner":
        return cls(public_key.hex(), hotkey, public_key, uid)

    @classmethod
    def of_key(cls, key_id: str) -> "Miner":
        """The holder of this API key, in a private grid."""
        return cls(f"key:{key_id}", f"key:{key_id}", None)


class Registry(Protocol):
    """Knows who may predict."""

    def admit(self, public_key: bytes) -> int | None:
        """The uid of a hotkey that may predict now, if a chain gives it one.

        Raises NotRegistered, Blacklisted, RegistrationUnknown.
        """


class Signatures(Protocol):
    """Knows hotkeys and what they sign."""

    def decode(self, hotkey: object) -> bytes:
        """The 32 bytes behind an SS58 text. Raises InvalidHotkey."""

    def check(self, public_key: bytes, message: Mapping[str, Any]) -> None:
        """Raises BadSignature unless the holder of the key signed this message as it is."""


class Signer(Protocol):
    """Signs as the node."""

    hotkey: str

    def base_fields(self, message_type: str) -> dict[str, Any]:
        """The four members that every message of the node begins with."""

    def signed(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The message with its `signature`."""
