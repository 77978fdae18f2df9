"""Signed HTTP requests in the style of Epistula version 2, each accepted once.

The signature covers `{sha256 of the body}.{uuid}.{timestamp in ms}.{receiver}`; a request without a body hashes the
text `METHOD /path?query` as it was sent.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from sqlalchemy import bindparam, delete, select, text

from grid_node.clock import Clock, rfc3339
from grid_node.database import Store, Transaction
from grid_node.errors import (
    BadSignature,
    InvalidMessage,
    MissingAuth,
    ReplayedRequest,
    StaleTimestamp,
    WrongReceiver,
)
from grid_node.identity.hotkeys import decode_hotkey, parse_signature, verify
from grid_node.identity.tables import UsedRequest
from grid_node.settings import Settings
from grid_node.statements import prepared

used = UsedRequest.__table__

VERSION = "2"
_MILLISECONDS = re.compile(r"[0-9]{1,15}")
_REMEMBER = prepared(
    text(
        "INSERT INTO request_uuids (public_key, uuid, expires_at) VALUES (:public_key, :uuid, :expires_at)"
        " ON CONFLICT DO NOTHING"
    )
)
_EXPIRED = (
    select(used.c.public_key, used.c.uuid)
    .where(used.c.expires_at < bindparam("now"))
    .order_by(used.c.expires_at)
    .limit(1000)
)
_FORGET = delete(used).where(used.c.public_key == bindparam("key"), used.c.uuid == bindparam("id"))


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What the headers claim; true only once `check` has passed."""

    public_key: bytes
    hotkey: str
    uuid: str
    """As sent: the signature covers this very text."""
    timestamp_ms: int
    signature: bytes

    @property
    def id(self) -> str:
        return str(uuid.UUID(self.uuid))


def body_digest(method: str, target: str, body: bytes) -> str:
    """Lower hex sha256 that a signature covers; `target` is path and query as they were sent."""
    return sha256(body or f"{method} {target}".encode("latin-1", "replace")).hexdigest()


class Epistula:
    """Judges signed requests that are addressed to this node."""

    def __init__(self, store: Store, clock: Clock, hotkey: str, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._hotkey = hotkey
        self._window_ms = settings.epistula_window_ms

    def open(self, headers: Mapping[str, str]) -> SignedRequest:
        """What can be judged before the body is read; `headers` looks names up in any case.

        Raises MissingAuth, InvalidMessage, InvalidHotkey, WrongReceiver, StaleTimestamp, BadSignature (form).
        """
        if not any(f"Epistula-{name}" in headers for name in ("Version", "Signed-By", "Request-Signature")):
            raise MissingAuth()
        claim = _claim(headers)
        public_key = decode_hotkey(claim["Signed-By"])
        if headers.get("Epistula-Signed-For") != self._hotkey:
            raise WrongReceiver()
        self._check_time(int(claim["Timestamp"]))
        return SignedRequest(
            public_key=public_key,
            hotkey=claim["Signed-By"],
            uuid=claim["Uuid"],
            timestamp_ms=int(claim["Timestamp"]),
            signature=parse_signature(headers.get("Epistula-Request-Signature")),
        )

    def check(self, request: SignedRequest, digest: str) -> None:
        """Raises BadSignature unless the claimed hotkey signed a body with this digest (of `body_digest`)."""
        covered = f"{digest}.{request.uuid}.{request.timestamp_ms}.{self._hotkey}".encode("ascii")
        if not verify(request.public_key, covered, request.signature):
            raise BadSignature()

    def remember(self, tx: Transaction, request: SignedRequest) -> None:
        """Use the request up, in the transaction that acts on it. Raises ReplayedRequest. Only after `check`."""
        row = {
            "public_key": request.public_key.hex(),
            "uuid": request.id,
            "expires_at": self._clock.now() + 2 * self._window_ms / 1000,
        }
        if tx.execute(_REMEMBER, row).rowcount == 0:
            raise ReplayedRequest()

    def accept(self, headers: Mapping[str, str], digest: str) -> SignedRequest:
        """`open`, `check` and `remember` in one."""
        request = self.open(headers)
        self.check(request, digest)
        self._store.write(partial(self.remember, request=request))
        return request

    def purge(self, tx: Transaction, now: float) -> int:
        """Forget some requests whose time has passed; returns how many. Call again while it is not 0."""
        rows = tx.execute(_EXPIRED, {"now": now}).all()
        if rows:
            tx.execute(_FORGET, [{"key": row.public_key, "id": row.uuid} for row in rows])
        return len(rows)

    def _check_time(self, timestamp_ms: int) -> None:
        now = self._clock.now()
        if abs(round(now * 1000) - timestamp_ms) > self._window_ms:
            raise StaleTimestamp(server_time=rfc3339(now))


def _claim(headers: Mapping[str, str]) -> dict[str, str]:
    """The plain headers, shaped as they must be. Raises InvalidMessage with `fields`."""
    names = ("Version", "Timestamp", "Uuid", "Signed-By")
    claim = {name: headers.get(f"Epistula-{name}", "") for name in names}
    wrong = {
        "Version": claim["Version"] != VERSION,
        "Timestamp": not _is_canonical_number(claim["Timestamp"]),
        "Uuid": not _is_uuid4(claim["Uuid"]),
        "Signed-By": not claim["Signed-By"],
    }
    fields = {f"Epistula-{name}": ["Missing or malformed."] for name, bad in wrong.items() if bad}
    if fields:
        raise InvalidMessage(fields=fields)
    return claim


def _is_canonical_number(text: str) -> bool:
    # the signature covers the text, and int() would forget leading zeros
    return _MILLISECONDS.fullmatch(text) is not None and str(int(text)) == text


def _is_uuid4(text: str) -> bool:
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        return False
    return parsed.version == 4 and str(parsed) == text.lower()
