"""Requests that are sent again: an idempotency key stands for its first answer for 24 hours."""

import hashlib
import hmac
import json
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import bindparam, insert, select, text

from grid_node.blobs.store import Blob
from grid_node.database import Transaction
from grid_node.errors import IdempotencyConflict
from grid_node.hosting.rights import ModelCaller
from grid_node.hosting.schemas import ServeRequest
from grid_node.hosting.tables import ServeRequest as ServeRequestRow
from grid_node.statements import prepared

REPLAYED = 86400.0
"""Seconds for which a key stands for its first answer."""

requests: Any = ServeRequestRow.__table__
_FIND = prepared(
    select(requests).where(
        requests.c.owner == bindparam("owner"), requests.c.key == bindparam("key"), requests.c.at > bindparam("edge")
    )
)
_FORGET = prepared(text("DELETE FROM serve_requests WHERE owner = :owner AND key = :key"))
_PURGE = prepared(text("DELETE FROM serve_requests WHERE at <= :edge"))


@dataclass(frozen=True)
class Served:
    """A model that is there."""

    model_id: str
    version: int
    sha256: str | None

    def body(self) -> dict[str, Any]:
        return {"success": True, "message": f"Model saved with id: {self.model_id}"}


class Replays:
    """Digests of requests are keyed with the node's `secret`: those of a model that was split must not confirm a guess
    of its bytes."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def find(self, tx: Transaction, caller: ModelCaller, request: ServeRequest, now: float) -> Any:
        """The row of the first request with this key, or None."""
        if request.idempotency_key is None:
            return None
        given = {"owner": caller.key_id, "key": request.idempotency_key, "edge": now - REPLAYED}
        return tx.execute(_FIND, given).one_or_none()

    def answer(self, first: Any, request: ServeRequest, blob: Blob | None) -> Served:
        """The first answer, if this is the first request again. Raises IdempotencyConflict."""
        if not hmac.compare_digest(first.digest, self._digest(request, blob)):
            raise IdempotencyConflict()
        return Served(**json.loads(first.answer))

    def remember(
        self, tx: Transaction, caller: ModelCaller, request: ServeRequest, blob: Blob | None, served: Served, now: float
    ) -> None:
        """Keep the answer; one that is past its time makes room."""
        if request.idempotency_key is None:
            return
        named = {"owner": caller.key_id, "key": request.idempotency_key}
        tx.execute(_FORGET, named)
        kept = {"digest": self._digest(request, blob), "answer": json.dumps(asdict(served)), "at": now}
        tx.execute(insert(requests), named | kept)

    @staticmethod
    def purge(tx: Transaction, now: float) -> None:
        tx.execute(_PURGE, {"edge": now - REPLAYED})

    def _digest(self, request: ServeRequest, blob: Blob | None) -> str:
        """Of everything that was asked for; how the bytes were coded does not matter."""
        asked = {**asdict(request), "model": blob and blob.sha256, "encoding": None}
        return hmac.new(self._secret, json.dumps(asked, sort_keys=True).encode(), hashlib.sha256).hexdigest()
