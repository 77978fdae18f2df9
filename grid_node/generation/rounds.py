"""One round of dispatch, in one transaction.

Every fresh pull is looked at (live leases, cooldown, room for work), then open tasks are handed out, keys in turn, to
the workers that have been idle longest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

from sqlalchemy import Select, String, bindparam, case, func, literal, select, text, update

from grid_node.database import Transaction
from grid_node.generation import workers
from grid_node.generation.holds import hold_dispatch
from grid_node.generation.leases import Leases
from grid_node.generation.lifecycle import Lifecycle
from grid_node.generation.pulls import Pull, no_task
from grid_node.generation.tables import QUEUED, Copy, KeyTurn, Task
from grid_node.settings import Settings
from grid_node.statements import Prepared, prepared

tasks = Task.__table__
copies = Copy.__table__
turns = KeyTurn.__table__

CANDIDATES = 128
"""Open tasks looked at in one round."""
SPARE = 8
"""Candidates above the number of pulls at the first look, which is cheap and nearly always enough."""
_RANK = func.row_number().over(partition_by=tasks.c.key_id, order_by=tasks.c.number).label("rank")
_SLOT_FREE = tasks.c.open_slots > 0
_QUEUE = (
    select(tasks.c.number, func.coalesce(turns.c.turn, 0).label("turn"), _RANK)
    .join(turns, turns.c.key_id == tasks.c.key_id, isouter=True)
    .where(
        tasks.c.finished_at.is_(None),
        tasks.c.deadline > bindparam("now"),
        # Only for kinds that are asked for: others would fill the candidates.
        bindparam("kinds", type_=String).like(literal("% ") + tasks.c.kind + literal(" %")),
    )
    .order_by("rank", "turn", tasks.c.number)
    .limit(bindparam("most"))
)


def _candidates(queue: Select[Any]) -> Prepared:
    """Whole rows for the few numbers that are left when the whole queue has been ranked: sorting whole rows is dear."""
    chosen = queue.subquery("chosen")
    return prepared(select(tasks, chosen.c.turn).join(chosen, chosen.c.number == tasks.c.number))


_FOR_ALL = _candidates(_QUEUE.where(_SLOT_FREE))
_FOR_STRONG = _candidates(_QUEUE.where(_SLOT_FREE | ~tasks.c.strong_taken))
_FIRST_GRANT = tasks.c.status == QUEUED
_HAD = prepared(select(copies.c.task_id, copies.c.worker).where(copies.c.task_id.in_(bindparam("ids", expanding=True))))
_TAKE_SLOT = prepared(
    update(tasks)
    .where(
        tasks.c.id == bindparam("task_id"),
        tasks.c.finished_at.is_(None),
        tasks.c.open_slots >= bindparam("slot"),
        (bindparam("slot") == 1) | ~tasks.c.strong_taken,
    )
    .values(
        open_slots=tasks.c.open_slots - bindparam("slot"),
        strong_taken=tasks.c.strong_taken | bindparam("is_strong"),
        attempts=tasks.c.attempts + 1,
        settle_at=None,
        due_at=bindparam("due"),
        started_at=func.coalesce(tasks.c.started_at, bindparam("now")),
        status=case((_FIRST_GRANT, "started"), else_=tasks.c.status),
        seq=case((_FIRST_GRANT, tasks.c.seq + 1), else_=tasks.c.seq),
    )
    .returning(tasks.c.id, tasks.c.seq, tasks.c.attempts)
)
_NEXT_TURN = prepared(
    text(
        "INSERT INTO key_turns (key_id, turn) VALUES (:key, (SELECT coalesce(max(turn), 0) + 1 FROM key_turns))"
        " ON CONFLICT (key_id) DO UPDATE SET turn = excluded.turn"
    )
)


@dataclass
class _Offer:
    """An open task in a round, with what the round has already taken of it."""

    task: Any
    had: set[str]
    slots: int
    strong_taken: bool

    def take(self, worker: str, strong: bool, extra: bool) -> None:
        self.had.add(worker)
        self.strong_taken = self.strong_taken or strong
        self.slots -= 0 if extra else 1


class Rounds:
    """Serves the waiting pulls of one process, round by round."""

    def __init__(self, settings: Settings, leases: Leases, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._leases = leases
        self._lifecycle = lifecycle
        self.observe: Callable[[float], None] = lambda _seconds: None
        """Hears the seconds from a task's acceptance to its first lease."""

    def serve(self, tx: Transaction, waiting: Sequence[Pull], now: float) -> list[tuple[Pull, dict[str, Any]]]:
        """Answers to those of the waiting pulls that have one now."""
        hold_dispatch(tx)
        answers: list[tuple[Pull, dict[str, Any]]] = []
        able: list[tuple[Pull, bool]] = []
        came: list[tuple[Any, Pull]] = []
        for pull in waiting:
            if pull.done.is_set():
                continue
            answer = None
            if pull.fresh:
                came.append((workers.known(tx, pull.worker), pull))
                answer = self._look(tx, pull, came[-1][0], now)
            if answer is not None:
                answers.append((pull, answer))
            else:
                able.append((pull, bool(pull.strong)))
        if able and self._leases.scoring_backlog(tx):
            answers += [(pull, no_task(5)) for pull, _ in able if pull.fresh]
        else:
            answers += self._match(tx, able, now)
        for row, pull in sorted(came, key=lambda one: one[1].worker):  # last and by name, see `holds`
            workers.mark_seen(tx, row, pull.kinds, pull.max_parallel, now)
        return answers

    def _look(self, tx: Transaction, pull: Pull, row: Any, now: float) -> dict[str, Any] | None:
        """What the worker with this row is told at once, if anything; notes whether it is strong."""
        live = self._leases.live(tx, pull.worker)
        for copy in live:
            if copy.lease_id not in pull.holding and copy.lease_expires_at > now:
                return {**no_task(), "task": self._leases.redeliver(tx, copy)}
        cooldown = workers.cooldown_view(row, now)
        if cooldown is not None:
            rest = row.cooldown_until - now + 10 * (row.violations // 100)
            return no_task(ceil(rest), cooldown)
        if len(live) >= pull.max_parallel:
            return no_task(max(1, ceil(min(copy.lease_expires_at for copy in live) - now)))
        if pull.strong is None:
            pull.strong = workers.is_strong(row.recent)
        return None

    def _match(
        self, tx: Transaction, able: Sequence[tuple[Pull, bool]], now: float
    ) -> list[tuple[Pull, dict[str, Any]]]:
        """The leases of this round. Whoever finds nothing among the few tasks looked at first gets a longer look."""
        few = min(len(able) + SPARE, CANDIDATES)
        served, seen = self._match_among(tx, able, now, few)
        if seen == few < CANDIDATES and len(served) < len(able):
            lucky = {id(pull) for pull, _ in served}
            served += self._match_among(tx, [one for one in able if id(one[0]) not in lucky], now, CANDIDATES)[0]
        return served

    def _match_among(
        self, tx: Transaction, able: Sequence[tuple[Pull, bool]], now: float, most: int
    ) -> tuple[list[tuple[Pull, dict[str, Any]]], int]:
        """Leases out of the first `most` tasks that these pulls could take, and how many tasks those were."""
        offers = self._offers(tx, able, now, most) if able else {}
        seen = sum(map(len, offers.values()))
        served: list[tuple[Pull, dict[str, Any]]] = []
        for pull, strong in able:
            if not offers:
                break
            answer = self._serve_one(tx, offers, pull, strong, now)
            if answer is not None:
                served.append((pull, answer))
        return served, seen

    def _serve_one(
        self, tx: Transaction, offers: dict[str, list[_Offer]], pull: Pull, strong: bool, now: float
    ) -> dict[str, Any] | None:
        looked = pull.fresh
        while (found := _choose(offers, pull, strong)) is not None:
            if not looked:  # while it waited here, another node may have given it work, or a verdict a cooldown
                answer = self._look(tx, pull, workers.known(tx, pull.worker), now)
                if answer is not None:
                    return answer
                looked = True
            key, offer = found
            lease = self._hand_out(tx, offer, pull, strong, now)
            if lease is not None:
                tx.execute(_NEXT_TURN, {"key": key})
                offers[key] = offers.pop(key)
                return {**no_task(), "task": lease}
            offers[key].remove(offer)  # another process was faster
        return None

    def _offers(
        self, tx: Transaction, able: Sequence[tuple[Pull, bool]], now: float, most: int
    ) -> dict[str, list[_Offer]]:
        """Open tasks by key, the key served longest ago first, oldest task first within a key."""
        kinds = workers.kinds_text(sorted({kind for pull, _ in able for kind in pull.kinds}))
        wanted = _FOR_STRONG if any(strong for _, strong in able) else _FOR_ALL
        rows = tx.execute(wanted, {"now": now, "kinds": kinds, "most": most}).all()
        had: dict[str, set[str]] = {row.id: set() for row in rows}
        granted = [row.id for row in rows if row.attempts]
        for copy in tx.execute(_HAD, {"ids": granted}) if granted else ():
            had[copy.task_id].add(copy.worker)
        offers: dict[str, list[_Offer]] = {}
        for row in sorted(rows, key=lambda row: (row.turn, row.number)):
            offer = _Offer(row, had[row.id], row.open_slots, row.strong_taken)
            offers.setdefault(row.key_id, []).append(offer)
        return offers

    def _hand_out(self, tx: Transaction, offer: _Offer, pull: Pull, strong: bool, now: float) -> dict[str, Any] | None:
        """Take the slot and grant the lease; None when the slot is gone."""
        extra = offer.slots <= 0
        due = min(now + self._settings.worker_lease, offer.task.deadline, offer.task.due_at)
        values = {"task_id": offer.task.id, "slot": 0 if extra else 1, "is_strong": strong, "due": due, "now": now}
        task = tx.execute(_TAKE_SLOT, values).one_or_none()
        if task is None:
            return None
        offer.take(pull.worker, strong, extra)
        lease = self._leases.grant(tx, offer.task, pull.worker, strong, extra, now)
        if task.attempts == 1:
            self._lifecycle.announce(tx, task, task.seq, "started", now)
            tx.on_commit(partial(self.observe, now - offer.task.created_at))
        return lease


def _choose(offers: dict[str, list[_Offer]], pull: Pull, strong: bool) -> tuple[str, _Offer] | None:
    """The first offer that fits: keys in turn, oldest task first within a key."""
    for key, queue in offers.items():
        for offer in queue:
            if _fits(offer, pull, strong):
                return key, offer
    return None


def _fits(offer: _Offer, pull: Pull, strong: bool) -> bool:
    free = offer.slots > 0 or (strong and not offer.strong_taken)
    return free and offer.task.kind in pull.kinds and pull.worker not in offer.had
