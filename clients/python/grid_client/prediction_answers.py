"""What a node's answer to a prediction means for its entry in the outbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grid_client.errors import GridError
from grid_client.miner_identity import MinerIdentity
from grid_client.outbox import Ending, Entry
from grid_client.receipts import InvalidReceipt, verify_receipt

REFUSED = frozenset({400, 413, 422})
"""Statuses that say: this very message, never."""
CONFLICT = "duplicate_prediction"


def ending_of(entry: Entry, body: object, miner: MinerIdentity) -> Ending:
    """How the entry ends by this answer to its message.

    Raises InvalidReceipt for a receipt that is not the node's word on this very prediction, and the node's GridError
    where the message may be sent again.
    """
    if isinstance(body, Mapping) and body.get("message_type") == "confirmation":
        return ending_by_receipt(entry, body, miner)
    error = GridError.from_body(body)
    if error.code == CONFLICT:
        return Ending(entry, "conflict", error=_kept(error))
    if error.status in REFUSED or error.code == "uid_mismatch":
        return Ending(entry, "rejected", error=_kept(error))
    raise error


def ending_by_receipt(entry: Entry, receipt: object, miner: MinerIdentity) -> Ending:
    """Raises InvalidReceipt."""
    verify_receipt(receipt, miner.node_hotkey, entry.prediction)
    assert isinstance(receipt, Mapping)
    if receipt["receiver_hotkey"] != miner.address:
        raise InvalidReceipt("it is addressed to another miner")
    return Ending(entry, "accepted" if receipt["success"] else "rejected", document=receipt)


def ending_unsent(entry: Entry, state: str, error: GridError) -> Ending:
    """`expired` or `unresolved`, and why."""
    return Ending(entry, state, error=_kept(error))


def each_of(entries: Sequence[Entry], body: object) -> list[Any]:
    """The answers to the entries of one payload. Raises GridError when a batch was refused as a whole."""
    if len(entries) == 1:
        return [body]
    results = body.get("results") if isinstance(body, Mapping) else None
    if isinstance(results, list) and len(results) == len(entries):
        return results
    error = GridError.from_body(body)
    raise error if error.status else GridError("bad_answer", "the node did not answer each message of a batch")


def _kept(error: GridError) -> dict[str, Any]:
    """What of a refusal goes into the outbox."""
    return {"code": error.code, "error": error.message, "status": error.status, **_named(error.body)}


def _named(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in ("fields", "limit") if name in body}
