"""What the submitter reads and writes of weights' jobs. Each function is part of one unit of work."""

from typing import Any

import orjson
from sqlalchemy import bindparam, or_, select, update

from grid_node.chain.epochs import Epoch
from grid_node.chain.ports import Landed, Prepared
from grid_node.chain.sending import Sent
from grid_node.chain.weights_tables import COMPLETED, IS_UNFINISHED, RUNNING, UNFINISHED, as_text, jobs, without
from grid_node.database import Transaction
from grid_node.statements import prepared

RETRY_UNITS = 10
"""The longest pause between two looks, in units of the retry delay."""
ERROR_LENGTH = 500
"""Characters of an error that are kept: it may come from a node that is not ours."""

_OPEN = prepared(select(jobs).where(or_(IS_UNFINISHED, jobs.c.in_flight.is_(True))).order_by(jobs.c.number))
_HELD = prepared(select(jobs).where(jobs.c.number == bindparam("of")).with_for_update())
_HURRY = prepared(
    update(jobs)
    .where(or_(jobs.c.status == RUNNING, jobs.c.in_flight.is_(True)))
    .values(next_attempt_at=bindparam("now"))
)


def open_jobs(tx: Transaction) -> list[Any]:
    """Of each identity what is to be done next: an extrinsic of unknown fate goes before a newer job."""
    first: dict[str, Any] = {}
    for row in tx.execute(_OPEN, {}).all():
        first.setdefault(row.identity, row)
        if row.in_flight and not first[row.identity].in_flight:
            first[row.identity] = row
    return list(first.values())


def hurry(tx: Transaction, now: float) -> None:
    """Look at once at what a process was doing that is gone."""
    tx.execute(_HURRY, {"now": now})


def held(tx: Transaction, number: int) -> Any:
    """The row, which nobody else changes before the end of the unit; None: it was removed."""
    return tx.execute(_HELD, {"of": number}).one_or_none()


def is_unfinished(row: Any) -> bool:
    return row is not None and row.status in UNFINISHED


def change(tx: Transaction, number: int, now: float, **values: Any) -> None:
    tx.execute(update(jobs).where(jobs.c.number == number).values(updated_at=now, **values))


def begin(tx: Transaction, row: Any, now: float, then: float) -> None:
    """Count an attempt before it does anything: one that a crash ends is an attempt, too. The next may be at `then`."""
    started = now if row.started_at is None else row.started_at
    change(tx, row.number, now, status=RUNNING, attempts=row.attempts + 1, started_at=started, next_attempt_at=then)


def place(tx: Transaction, number: int, now: float, chain: str, epoch: Epoch) -> Epoch:
    """Give the job its chain, and its epoch unless another process has done so; the one that holds."""
    row = held(tx, number)
    if row is not None and row.epoch_end is not None:
        change(tx, number, now, chain=chain)
        return Epoch(row.epoch_start, row.epoch_end)
    change(tx, number, now, chain=chain, epoch_start=epoch.start, epoch_end=epoch.end)
    return epoch


def record(tx: Transaction, row: Any, now: float, extrinsic: Prepared, missing: list[str]) -> None:
    """Before an extrinsic is sent: what it takes to find it. `missing` are the hotkeys that are not on the subnet."""
    change(
        tx,
        row.number,
        now,
        in_flight=True,
        extrinsic_hash=extrinsic.extrinsic_hash,
        nonce=extrinsic.nonce,
        era_start=extrinsic.era_start,
        era_end=extrinsic.era_end,
        reveal_round=extrinsic.reveal_round,
        dropped=as_text(all_dropped(row, missing)),
    )


def all_dropped(row: Any, missing: list[str]) -> list[str]:
    """What was dropped when the weights were put, and what is `missing` at this attempt."""
    return without(orjson.loads(row.dropped), orjson.loads(row.weights)) + missing


def sent_of(row: Any) -> Sent:
    return Sent(row.extrinsic_hash, row.era_start, row.era_end)


def land(tx: Transaction, row: Any, now: float, landed: Landed) -> None:
    """The extrinsic did what it says. Weights that were superseded meanwhile stay so, and are known to have landed."""
    status = COMPLETED if row.status in UNFINISHED else row.status
    values = {"in_flight": False, "landed": True, "block_number": landed.block.number, "last_error": None}
    change(tx, row.number, now, status=status, next_attempt_at=None, **values)


def end(tx: Transaction, row: Any, now: float, status: str, error: str, **values: Any) -> None:
    """The job is over without having landed; one that was superseded stays so."""
    ended = {"in_flight": False, "next_attempt_at": None, "last_error": shortened(error)} | values
    change(tx, row.number, now, status=status if row.status in UNFINISHED else row.status, **ended)


def again(tx: Transaction, row: Any, now: float, at: float, error: str | None, *, in_flight: bool) -> None:
    """Come back to the job, or to what was sent of it, at `at`."""
    said = {} if error is None else {"last_error": shortened(error)}
    change(tx, row.number, now, in_flight=in_flight, next_attempt_at=at, **said)


def shortened(error: str) -> str:
    return error[:ERROR_LENGTH]
