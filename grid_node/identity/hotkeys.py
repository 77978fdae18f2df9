"""Hotkeys: sr25519 public keys, their SS58 text, and signatures over domain-separated hashes.

A signature covers `grid.v1.<message_type>.<lower hex sha256 of the RFC 8785 form without signature>`: it is good for
one kind of message, and since messages name their receiver, for one node. The identity is the 32-byte public key.
Verifying takes about 40 microseconds, less than handing it to another thread.
"""

import re
from collections.abc import Mapping
from typing import Any

from grid_node import ss58
from grid_node.canonical import digest
from grid_node.errors import BadSignature, InvalidHotkey, InvalidMessage

_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{128}")


def encode_hotkey(public_key: bytes) -> str:
    """SS58 with prefix 42 of 32 bytes."""
    return ss58.encode(public_key)


def decode_hotkey(text: object) -> bytes:
    """The 32 bytes behind SS58 text with prefix 42 and no other. Raises InvalidHotkey."""
    if not isinstance(text, str):
        raise InvalidHotkey()
    try:
        return ss58.decode(text)
    except ValueError:
        raise InvalidHotkey() from None


def verify(public_key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether the holder of the key signed exactly these bytes."""
    try:
        return bool(ss58.keypair(public_key).verify(bytes(data), bytes(signature)))
    except ValueError:
        return False


def parse_signature(text: object) -> bytes:
    """64 bytes from `0x` and 128 hex digits. Raises BadSignature."""
    if not isinstance(text, str) or not _SIGNATURE.fullmatch(text):
        raise BadSignature()
    return bytes.fromhex(text[2:])


def format_signature(signature: bytes) -> str:
    return "0x" + signature.hex()


def canonical_digest(value: Any) -> str:
    """Lower hex sha256 of the RFC 8785 bytes. Raises InvalidMessage for what JSON cannot say exactly."""
    try:
        return digest(value)
    except ValueError as error:
        raise InvalidMessage("The message has no canonical form") from error


def message_bytes(message: Mapping[str, Any]) -> bytes:
    """What the signature of a message covers. The message has passed its schema: `message_type` is plain text."""
    unsigned = dict(message)
    unsigned.pop("signature", None)
    return f"grid.v1.{message['message_type']}.{canonical_digest(unsigned)}".encode("ascii")


def check_message(public_key: bytes, message: Mapping[str, Any]) -> None:
    """Raises BadSignature unless the holder of the key signed this message as it is."""
    signature = parse_signature(message.get("signature"))
    if not verify(public_key, message_bytes(message), signature):
        raise BadSignature()


def result_bytes(asset_sha256: str, task_id: str, node_hotkey: str) -> bytes:
    """What a worker signs with a result: these bytes, for this task, for this node."""
    return f"grid.v1.result.{asset_sha256}.{task_id}.{node_hotkey}".encode("ascii")


def check_result(public_key: bytes, signature: object, asset_sha256: str, task_id: str, node_hotkey: str) -> None:
    """Raises BadSignature unless the worker signed this asset for this task of this node."""
    if not verify(public_key, result_bytes(asset_sha256, task_id, node_hotkey), parse_signature(signature)):
        raise BadSignature()
