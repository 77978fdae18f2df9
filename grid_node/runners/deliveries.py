"""Webhooks to clients: owed in the transaction of the change, sent by the errands process, tried again, kept in a log.

A delivery is a row. Whoever sends it claims the row for a limited time, so that a process that dies holds it up for
seconds; the receiver may then get it twice, under one `webhook-id`.
"""

import logging
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import orjson
from sqlalchemy import update

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import BadCursor, DeliveryNotFound, RunnerPredictionNotFound, WebhookNotAllowed
from grid_node.runners import delivery_rows as rows
from grid_node.runners.delivery_rows import DELIVERED, FAILED, PENDING
from grid_node.runners.guarded_http import Answer, Unreachable, post
from grid_node.runners.hook_secrets import HookSecrets, signature
from grid_node.runners.ids import random_text
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.prediction import COMPLETED, LOGS, OUTPUT, Prediction, by_number, of_owner
from grid_node.runners.secrets_box import SecretsBox
from grid_node.runners.views import prediction_view
from grid_node.settings import Settings

log = logging.getLogger(__name__)

PAUSES = (0.0, 2.0, 10.0, 60.0, 300.0, 1800.0, 7200.0)
"""Seconds before each try of `completed`, give or take JITTER; other events have one try."""
JITTER = 0.1
SPACING = 0.5
"""Seconds between two deliveries of `output`, and of `logs`."""
MARGIN = 10.0
"""Seconds beyond the time limit of a try after which its claim no longer counts."""
GRACE = 2.0
"""Seconds for which a delivery that is due is left to the queue."""
SWEEP_AGAIN = 30.0
"""Seconds after which a delivery is enqueued once more that the sweeper enqueued before."""
BODY_KEPT = 16 * 1024
"""Characters of a body of `output` or `logs` that is kept after its delivery: a long run makes thousands of them."""
_ID = re.compile(r"msg_[a-z2-7]{26}")
INTERRUPTED = "The node stopped during the try."


class _Sent(NamedTuple):
    """What became of a try."""

    status: int | None = None
    error: str | None = None
    answer: str = ""
    is_final: bool = False
    """No further try can do better."""

    @property
    def arrived(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def may_be_repeated(self) -> bool:
        if self.status is None:
            return not self.is_final
        return self.status in (408, 429) or self.status >= 500


class _Claim(NamedTuple):
    """A delivery that this process tries now. `signers` are the secrets that sign it."""

    row: Any
    attempt: int
    until: float
    at: float
    signers: list[str]


class Deliveries:
    """`base_url` is where clients reach the node, without a slash at its end."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        base_url: str,
        box: SecretsBox,
        send: Callable[..., Answer] = post,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._base_url = base_url
        self._secrets = HookSecrets(store, clock, box)
        self._send = send
        self._chance = chance
        self._turns = _Turns(max(1, round(settings.errand_threads) - 1))
        self._swept: dict[str, float] = {}
        self.enqueue: Callable[[str, float], None] = lambda _id, _seconds: None
        """Called after a commit: the delivery is due in so many seconds. The sweeper finds what gets lost."""

    # --- owing ----------------------------------------------------------------------------------------------------

    def announce(self, tx: Transaction, prediction: Prediction, event: str, now: float) -> None:
        """Owe the client a webhook of this event, if it asked for such; in the transaction of the change."""
        if prediction.webhook is None or not _is_wanted(prediction, event):
            return
        if event == COMPLETED:
            tx.execute(rows.DROP, {"of": prediction.number, "now": now})
        due, body = now, _body(prediction, self._base_url)
        if event in (OUTPUT, LOGS):
            named = {"of": prediction.number, "kind": event}
            if tx.execute(rows.REFRESH, named | {"text": body}).rowcount:
                return
            last = tx.execute(rows.NEWEST, named).scalar()
            due = now if last is None else max(now, last + SPACING)
        self._owe(tx, prediction, event, body, due, now)

    def _owe(self, tx: Transaction, prediction: Prediction, event: str, body: str, due: float, now: float) -> None:
        id = f"msg_{random_text(26)}"
        owed = {
            "id": id,
            "prediction": prediction.number,
            "owner": prediction.owner,
            "event": event,
            "url": prediction.webhook,
            "body": body,
            "state": PENDING,
            "attempts": 0,
            "due_at": due,
            "claimed_until": None,
            "created_at": now,
        }
        tx.execute(rows.INSERT, owed)
        tx.on_commit(lambda: self.enqueue(id, due - now))

    # --- sending --------------------------------------------------------------------------------------------------

    def sweep(self) -> int:
        """Enqueue what is due and was lost by the queue, or by a process that died. How many that were."""
        now = self._clock.now()
        self._swept = {id: at for id, at in self._swept.items() if at > now - SWEEP_AGAIN}
        asked = {"due": now - GRACE, "now": now}
        found = [row.id for row in self._store.read(lambda tx: tx.execute(rows.WAITING, asked).all())]
        lost = [id for id in found if id not in self._swept]
        for id in lost:
            self._swept[id] = now
            self.enqueue(id, 0.0)
        return len(lost)

    def deliver(self, id: str) -> None:
        """Try a delivery once, if it is due and nobody else has it. For a process whose threads may wait."""
        row = self._store.read(lambda tx: tx.execute(rows.FIND, {"id": id}).one_or_none())
        if row is None:
            return
        with self._turns.one_of(row.owner) as has_turn:
            claim = self._store.write(partial(self._claim, id=id)) if has_turn else None
            if claim is not None:
                self._try(claim)

    def _claim(self, tx: Transaction, id: str) -> _Claim | None:
        now = self._clock.now()
        row = tx.execute(rows.HELD, {"id": id}).one_or_none()
        if row is None or row.state != PENDING or (row.claimed_until or now) > now:
            return None
        if row.due_at > now:
            tx.on_commit(lambda: self.enqueue(id, row.due_at - now))
            return None
        if row.claimed_until is not None and self._give_up(tx, row):
            return None
        until = now + self._settings.webhook_timeout_s + MARGIN
        _set(tx, id, claimed_until=until, attempts=row.attempts + 1, due_at=now)
        return _Claim(row, row.attempts + 1, until, now, self._secrets.signers(tx, row.owner, now))

    def _give_up(self, tx: Transaction, row: Any) -> bool:
        """Note the try whose process died; whether it was one too many."""
        at = row.claimed_until - self._settings.webhook_timeout_s - MARGIN
        _note(tx, row.id, row.attempts, at, _Sent(error=INTERRUPTED), 0)
        if row.attempts < len(PAUSES):
            return False
        _set(tx, row.id, state=FAILED, claimed_until=None)
        return True

    def _try(self, claim: _Claim) -> None:
        asked = {"id": claim.row.id, "claim": claim.until}
        body = self._store.read(lambda tx: tx.execute(rows.BODY, asked).scalar())
        if body is None:
            return  # its data were removed a moment ago
        started = self._clock.steady()
        sent = self._sent(claim, body)
        ms = round((self._clock.steady() - started) * 1000)
        self._store.write(partial(self._record, claim=claim, sent=sent, ms=ms))
        how = sent.status if sent.status is not None else sent.error
        log.info("webhook %s (%s), try %d: %s in %d ms", claim.row.id, claim.row.event, claim.attempt, how, ms)

    def _sent(self, claim: _Claim, body: str) -> _Sent:
        headers = (
            ("Content-Type", "application/json"),
            ("User-Agent", "grid-node"),
            ("webhook-id", claim.row.id),
            ("webhook-timestamp", str(int(claim.at))),
            ("webhook-signature", signature(claim.signers, claim.row.id, claim.at, body)),
        )
        given = {"timeout_s": self._settings.webhook_timeout_s, "allow_private": self._settings.webhook_allow_private}
        try:
            answer = self._send(claim.row.url, headers, body.encode(), **given)
        except WebhookNotAllowed as error:
            return _Sent(error=error.message, is_final=True)
        except Unreachable as error:
            return _Sent(error=str(error))
        return _Sent(answer.status, answer=answer.body.decode(errors="replace").replace("\0", ""))

    def _record(self, tx: Transaction, claim: _Claim, sent: _Sent, ms: int) -> None:
        row = tx.execute(rows.HELD, {"id": claim.row.id}).one_or_none()
        if row is None or row.claimed_until != claim.until:
            return  # forgotten, or taken over by somebody who noted this try as interrupted
        _note(tx, row.id, claim.attempt, claim.at, sent, ms)
        if sent.arrived:
            self._end(tx, row, DELIVERED)
        elif row.event == COMPLETED and sent.may_be_repeated and claim.attempt < len(PAUSES):
            self._later(tx, row.id, claim.attempt)
        else:
            self._end(tx, row, FAILED)

    def _later(self, tx: Transaction, id: str, attempt: int) -> None:
        now = self._clock.now()
        pause = PAUSES[attempt] * (1 - JITTER + 2 * JITTER * self._chance())
        _set(tx, id, due_at=now + pause, claimed_until=None)
        tx.on_commit(lambda: self.enqueue(id, pause))

    @staticmethod
    def _end(tx: Transaction, row: Any, state: str) -> None:
        is_big = row.event in (OUTPUT, LOGS) and row.size > BODY_KEPT
        _set(tx, row.id, state=state, claimed_until=None, **({"body": ""} if is_big else {}))

    # --- the log --------------------------------------------------------------------------------------------------

    def of_prediction(self, caller: RunnerCaller, id: str, cursor: str | None = None) -> list[dict[str, Any]]:
        """Deliveries of the caller's prediction with every try, newest first, at most `delivery_rows.PAGE` of them;
        those before the delivery `cursor`. Raises RunnerPredictionNotFound, BadCursor."""
        return self._store.read(partial(self._of_prediction, caller=caller, id=id, cursor=cursor))

    @staticmethod
    def _of_prediction(tx: Transaction, caller: RunnerCaller, id: str, cursor: str | None) -> list[dict[str, Any]]:
        prediction = of_owner(tx, caller.owner, id)
        if prediction is None:
            raise RunnerPredictionNotFound()
        if cursor is not None and not _ID.fullmatch(cursor):
            raise BadCursor()
        before = None if cursor is None else tx.execute(rows.FIND, {"id": cursor}).one_or_none()
        if cursor is not None and (before is None or before.prediction != prediction.number):
            raise BadCursor()
        return rows.views(tx, rows.page(tx, prediction.number, before, rows.PAGE))

    def redeliver(self, caller: RunnerCaller, id: str) -> dict[str, Any]:
        """Send it again, now, whatever became of it. Raises DeliveryNotFound."""
        return self._store.write(partial(self._redeliver, caller=caller, id=id))

    def _redeliver(self, tx: Transaction, caller: RunnerCaller, id: str) -> dict[str, Any]:
        row = tx.execute(rows.HELD, {"id": id}).one_or_none() if _ID.fullmatch(id) else None
        if row is None or row.owner != caller.owner:
            raise DeliveryNotFound()
        now = self._clock.now()
        if row.claimed_until is None or row.claimed_until <= now:
            _set(tx, id, state=PENDING, due_at=now, **self._body_again(tx, row))
            tx.on_commit(lambda: self.enqueue(id, 0.0))
        return rows.views(tx, [tx.execute(rows.FIND, {"id": id}).one()])[0]

    def _body_again(self, tx: Transaction, row: Any) -> dict[str, str]:
        """A body that was not kept is made of the prediction as it is now."""
        prediction = None if row.size else by_number(tx, row.prediction)
        return {} if prediction is None else {"body": _body(prediction, self._base_url)}


class _Turns:
    """How many deliveries of one owner are tried at a time: a receiver that does not answer holds up its owner's."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one_of(self, owner: str) -> Iterator[bool]:
        """Whether there is a turn for this owner; what has none is left to the sweeper."""
        with self._lock:
            has_turn = self._taken[owner] < self._most
            self._taken[owner] += has_turn
        try:
            yield has_turn
        finally:
            with self._lock:
                self._taken[owner] -= has_turn
                if not self._taken[owner]:
                    del self._taken[owner]


def _is_wanted(prediction: Prediction, event: str) -> bool:
    wanted = prediction.webhook_events
    return not wanted or event in wanted.split(",")


def _body(prediction: Prediction, base_url: str) -> str:
    return orjson.dumps(prediction_view(prediction, base_url)).decode()


def _set(tx: Transaction, id: str, **values: Any) -> None:
    tx.execute(update(rows.deliveries).where(rows.deliveries.c.id == id).values(**values))


def _note(tx: Transaction, id: str, attempt: int, at: float, sent: _Sent, ms: int) -> None:
    tried = {
        "delivery": id,
        "attempt": attempt,
        "at": at,
        "status": sent.status,
        "error": sent.error,
        "ms": ms,
        "answer": sent.answer,
    }
    tx.execute(rows.INSERT_TRY, tried)
