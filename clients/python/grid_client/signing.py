"""Signatures of workers that are known by a hotkey (sr25519).

Messages: RFC 8785 canonical JSON, hashed, under `grid.v1.<message_type>.`. Requests: headers in the style of
Epistula version 2. A keypair is anything with the four members of `Keypair`, such as bittensor_wallet's.
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import rfc8785

from grid_client.errors import GridError


class Keypair(Protocol):
    @property
    def ss58_address(self) -> str: ...

    def sign(self, data: bytes, /) -> bytes: ...

    def verify(self, data: bytes, signature: bytes, /) -> bool: ...


def signing_input(message: Mapping[str, Any]) -> bytes:
    """The bytes that a message's signature covers."""
    unsigned = {name: value for name, value in message.items() if name != "signature"}
    digest = sha256(rfc8785.dumps(unsigned)).hexdigest()
    return f"grid.v1.{message['message_type']}.{digest}".encode("ascii")


def base_fields(keypair: Keypair, message_type: str, now: datetime) -> dict[str, Any]:
    stamp = now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "message_id": str(uuid.uuid4()),
        "sender_hotkey": keypair.ss58_address,
        "timestamp": stamp,
        "message_type": message_type,
    }


def signed(keypair: Keypair, message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its `signature` member."""
    return {**message, "signature": _hex(keypair.sign(signing_input(message)))}


def authenticate_message(keypair: Keypair, node_hotkey: str, nonce: str, now: datetime, **extra: Any) -> dict[str, Any]:
    """The answer to a node's `challenge`."""
    message = base_fields(keypair, "authenticate", now)
    message |= {"receiver_hotkey": node_hotkey, "nonce": nonce, "client_nonce": secrets.token_hex(32)}
    return signed(keypair, message | extra)


def check_authenticated(answer: Mapping[str, Any], sent: Mapping[str, Any], verifier: Keypair) -> None:
    """Raises GridError `wrong_node` unless the node whose key `verifier` holds answered this very message."""
    expected = {
        "message_type": "authenticated",
        "sender_hotkey": sent["receiver_hotkey"],
        "receiver_hotkey": sent["sender_hotkey"],
        "client_nonce": sent["client_nonce"],
    }
    if any(answer.get(name) != value for name, value in expected.items()):
        raise GridError("wrong_node", "the node's answer does not belong to this challenge")
    try:
        signature = bytes.fromhex(str(answer.get("signature", "")).removeprefix("0x"))
        genuine = verifier.verify(signing_input(answer), signature)
    except (ValueError, TypeError, rfc8785.CanonicalizationError):
        genuine = False
    if not genuine:
        raise GridError("wrong_node", "the node did not sign with the expected hotkey")


def result_signature(keypair: Keypair, asset_sha256: str, task_id: str, node_hotkey: str) -> str:
    """Binds the bytes of a result to the task and the node."""
    return _hex(keypair.sign(f"grid.v1.result.{asset_sha256}.{task_id}.{node_hotkey}".encode("ascii")))


def request_headers(
    keypair: Keypair, node_hotkey: str, body_sha256: str, now: datetime, request_id: uuid.UUID
) -> dict[str, str]:
    """Epistula headers; `body_sha256` is of the exact body, or of `GET /path?query` if there is none."""
    stamp = str(round(now.timestamp() * 1000))
    covered = f"{body_sha256}.{request_id}.{stamp}.{node_hotkey}".encode("ascii")
    return {
        "Epistula-Version": "2",
        "Epistula-Timestamp": stamp,
        "Epistula-Uuid": str(request_id),
        "Epistula-Signed-By": keypair.ss58_address,
        "Epistula-Signed-For": node_hotkey,
        "Epistula-Request-Signature": _hex(keypair.sign(covered)),
    }


def _hex(signature: bytes) -> str:
    return "0x" + signature.hex()


def load_keypair(path: Path) -> Keypair:
    """From a file with a 32-byte hex seed, a mnemonic, or an unencrypted bittensor hotkey (JSON)."""
    keypairs = _keypair_class()
    text = path.read_text(encoding="utf-8").strip()
    if text.startswith("{"):
        fields = json.loads(text)
        text = str(fields.get("secretSeed") or fields.get("secretPhrase") or "")
    if not text:
        raise GridError("bad_wallet", f"{path} holds no seed")
    create = keypairs.create_from_mnemonic if " " in text else keypairs.create_from_seed
    try:
        keypair: Keypair = create(text)
    except Exception as error:  # the wallet library raises bare Exception and ValueError
        raise GridError("bad_wallet", f"{path} holds no valid seed") from error
    return keypair


def public_keypair(hotkey: str) -> Keypair:
    """A keypair that can only verify."""
    try:
        keypair: Keypair = _keypair_class()(ss58_address=hotkey)
    except Exception as error:  # the wallet library raises bare Exception and ValueError
        raise GridError("bad_node_hotkey", f"{hotkey!r} is no hotkey") from error
    return keypair


def _keypair_class() -> Any:
    try:
        from bittensor_wallet import Keypair as WalletKeypair  # noqa: PLC0415 - optional extra
    except ImportError:
        message = "hotkeys need the extra: pip install 'grid-client[hotkey]'"
        raise GridError("missing_extra", message) from None
    return WalletKeypair
