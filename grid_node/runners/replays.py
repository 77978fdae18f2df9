"""Requests that are sent again: an idempotency key stands for what its first request made, for 24 hours."""

import hashlib
import hmac
import re
from typing import Any

import orjson
from sqlalchemy import bindparam, insert, select, text

from grid_node.database import Transaction
from grid_node.errors import InvalidPayload, RunnerIdempotencyConflict
from grid_node.runners.tables import RunnerRequest
from grid_node.statements import prepared

REPLAYED = 86400.0
"""Seconds for which a key counts."""
KEY_MAX = 128
_KEY = re.compile(rf"[\x20-\x7e]{{1,{KEY_MAX}}}")

requests = RunnerRequest.__table__
_FIND = prepared(
    select(requests.c.digest, requests.c.made).where(
        requests.c.owner == bindparam("owner"),
        requests.c.kind == bindparam("kind"),
        requests.c.key == bindparam("key"),
        requests.c.at > bindparam("edge"),
    )
)
_FORGET = prepared(
    text("DELETE FROM runner_requests WHERE owner = :owner AND kind = :kind AND key = :key AND at <= :edge")
)
"""Only what counts no more: a row that another unit wrote since `find` makes the insert fail, and the unit run anew."""
_PURGE = prepared(text("DELETE FROM runner_requests WHERE at <= :edge"))


class Replays:
    """The keys of one kind of request. Digests are keyed with the node's secret: they confirm no guess of a body."""

    def __init__(self, secret: bytes, kind: str) -> None:
        self._secret = secret
        self._kind = kind

    def find(self, tx: Transaction, owner: str, key: str | None, asked: Any, now: float) -> str | None:
        """Id of what the first request with this key made. Raises RunnerIdempotencyConflict."""
        if key is None:
            return None
        given = {"owner": owner, "kind": self._kind, "key": key, "edge": now - REPLAYED}
        first = tx.execute(_FIND, given).one_or_none()
        if first is None:
            return None
        if not hmac.compare_digest(first.digest, self._digest(asked)):
            raise RunnerIdempotencyConflict()
        return str(first.made)

    def remember(self, tx: Transaction, owner: str, key: str | None, asked: Any, made: str, now: float) -> None:
        """`asked` is the body, as plain data."""
        if key is None:
            return
        named = {"owner": owner, "kind": self._kind, "key": key}
        tx.execute(_FORGET, named | {"edge": now - REPLAYED})
        tx.execute(insert(requests), named | {"digest": self._digest(asked), "made": made, "at": now})

    def _digest(self, asked: Any) -> str:
        body = orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)
        return hmac.new(self._secret, body, hashlib.sha256).hexdigest()


def checked_key(key: Any) -> str | None:
    """An idempotency key, if there is one. Raises InvalidPayload."""
    if key is None or (isinstance(key, str) and _KEY.fullmatch(key)):
        return key
    raise InvalidPayload(fields={"Idempotency-Key": [f"Must be 1 to {KEY_MAX} printable characters."]})


def purge(tx: Transaction, now: float) -> None:
    tx.execute(_PURGE, {"edge": now - REPLAYED})
