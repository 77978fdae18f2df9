"""Receipts: the node's signed word that it stored a prediction, checked without network and without the node.

A receipt is the `confirmation` message as the node sent it. Its signature covers the RFC 8785 bytes of everything in
it, `body_sha256` those of the prediction it is about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Self

import rfc8785

from grid_client.errors import GridError
from grid_client.signing import Keypair, public_keypair, signing_input

LARGEST = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""
PREDICTION_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
OTHER_NODE = "it comes from another node"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{128}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_ODDS = re.compile(r"[0-9]{1,4}\.[0-9]{4}")


class InvalidReceipt(GridError):
    """`reason` says what is wrong with it."""

    def __init__(self, reason: str) -> None:
        super().__init__("invalid_receipt", reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the node decided about a prediction. `document` is the signed message, for `verify_receipt`."""

    prediction_id: str
    accepted: bool
    code: str
    message: str
    seq: int
    """The node's count of this miner's receipts, from 1."""
    received_at: str
    accepted_odds: str | None
    """The odds that count for the payout; None in a rejection."""
    document: dict[str, Any]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From a message that `verify_receipt` let pass."""
        return cls(
            prediction_id=document["prediction_id"],
            accepted=document["success"],
            code=document["code"],
            message=document["message"],
            seq=document["seq"],
            received_at=document["received_at"],
            accepted_odds=document.get("accepted_odds"),
            document=dict(document),
        )


def verify_receipt(receipt: object, node_hotkey: str, prediction: object | None = None) -> None:
    """Raises InvalidReceipt unless the node with this hotkey signed exactly this receipt.

    With the `prediction` (the object that was sent, without its envelope), the receipt must be about its very body.
    """
    fields = _shaped(receipt)
    if fields["sender_hotkey"] != node_hotkey:
        raise InvalidReceipt(OTHER_NODE)
    _check_signature(fields, node_hotkey)
    if prediction is not None:
        _check_subject(fields, prediction)


def canonical(value: object) -> bytes:
    """RFC 8785 bytes. Raises ValueError for what they cannot say: NaN, integers beyond 2**53 - 1, other types."""
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # what is no JSON raises
    except (RecursionError, TypeError, AttributeError, UnicodeEncodeError) as error:
        raise ValueError("the value has no canonical form") from error


def body_digest(prediction: object) -> str:
    """`body_sha256` of a prediction. Raises ValueError."""
    return sha256(canonical(prediction)).hexdigest()


def read_json(text: str) -> Any:
    """A value from a file; stricter than json.loads, since two readers must not see two things in one text.

    Raises ValueError for duplicate members, NaN, numbers out of range and nesting that is too deep.
    """
    try:
        value = json.loads(text, object_pairs_hook=_members, parse_constant=_refuse_constant)
        canonical(value)
    except RecursionError:
        raise ValueError("the text is nested too deeply") from None
    return value


def _shaped(receipt: object) -> dict[str, Any]:
    if not isinstance(receipt, dict):
        raise InvalidReceipt("it is no object")
    if receipt.get("message_type") != "confirmation":
        raise InvalidReceipt("it is no confirmation")
    for name, is_right in _MEMBERS.items():
        if not is_right(receipt.get(name)):
            raise InvalidReceipt(f"{name} is missing or malformed")
    if receipt["success"]:
        _shaped_acceptance(receipt)
    elif receipt.get("status") != 422 or "accepted_odds" in receipt:
        raise InvalidReceipt("it is neither an acceptance nor a rejection")
    return receipt


def _shaped_acceptance(receipt: Mapping[str, Any]) -> None:
    odds = receipt.get("accepted_odds")
    if receipt["code"] != "successful" or "error" in receipt:
        raise InvalidReceipt("it is neither an acceptance nor a rejection")
    if not isinstance(odds, str) or not _ODDS.fullmatch(odds):
        raise InvalidReceipt("accepted_odds is missing or malformed")


def _check_signature(receipt: Mapping[str, Any], node_hotkey: str) -> None:
    try:
        covered = signing_input(receipt)
        genuine = _verifier(node_hotkey).verify(covered, bytes.fromhex(receipt["signature"][2:]))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidReceipt("it has no canonical form") from None
    except GridError as error:
        if error.code == "missing_extra":
            raise
        raise InvalidReceipt(error.message) from None
    if not genuine:
        raise InvalidReceipt("the signature is not the node's, or something was changed")


@lru_cache(maxsize=16)
def _verifier(hotkey: str) -> Keypair:
    return public_keypair(hotkey)


def _check_subject(receipt: Mapping[str, Any], prediction: object) -> None:
    if not isinstance(prediction, Mapping) or receipt["prediction_id"] != prediction.get("prediction_id"):
        raise InvalidReceipt("it is about another prediction")
    try:
        digest = body_digest(prediction)
    except ValueError:
        raise InvalidReceipt("the prediction has no canonical form") from None
    if digest != receipt["body_sha256"]:
        raise InvalidReceipt("it is about another body of this prediction")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_time(value: object) -> bool:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_seq(value: object) -> bool:
    return type(value) is int and 1 <= value <= LARGEST


def _matches(pattern: re.Pattern[str]) -> Any:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


_MEMBERS = {
    "message_id": _is_text,
    "sender_hotkey": _is_text,
    "receiver_hotkey": _is_text,
    "timestamp": _is_time,
    "prediction_id": _matches(PREDICTION_ID),
    "success": lambda value: isinstance(value, bool),
    "code": _is_text,
    "message": _is_text,
    "body_sha256": _matches(_DIGEST),
    "received_at": _is_time,
    "seq": _is_seq,
    "miner_stats": lambda value: isinstance(value, Mapping),
    "signature": _matches(_SIGNATURE),
}


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
