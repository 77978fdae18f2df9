"""What the database may do to a verdict, and what several processes may do to each other."""

import json
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from grid_node.database import DirectStore, GroupCommitStore, Store, Transaction, Unit, make_engine
from grid_node.errors import StoreFull, StoreUnavailable
from tests.contract.predictions.records import ANNA, BERT, rows, wagered
from tests.miners import keypair, prediction_body, public_key
from tests.promises.desk import WAIT, Desk
from tests.stores import call


class Troubled:
    """A real store on a bad day. `trouble` runs a unit in its own way while it is set."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.trouble: Callable[[Store, Unit[Any]], Any] | None = None

    def write(self, unit: Unit[Any]) -> Any:
        return self._store.write(unit) if self.trouble is None else self.trouble(self._store, unit)

    def read(self, unit: Unit[Any]) -> Any:
        return self._store.read(unit)

    def close(self) -> None:
        self._store.close()


class Undone(Exception):
    """Makes a store undo a unit."""


def run_in_vain(store: Store, unit: Unit[Any], error: Exception) -> None:
    """The unit runs to its end, and is undone."""

    def undone(tx: Transaction) -> None:
        unit(tx)
        raise error

    store.write(undone)


@pytest.fixture
def troubled(store: Store) -> Troubled:
    return Troubled(store)


@pytest.fixture
def desk(make_desk: Callable[..., Desk], troubled: Troubled) -> Desk:
    made = make_desk(troubled, prediction_daily_limit="1000.00")
    made.put_games(made.game())
    return made


# --- one process ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StoreUnavailable(retry_after=3), StoreFull(retry_after=60)])
def test_what_cannot_be_committed_is_no_verdict(desk: Desk, troubled: Troubled, error: Exception) -> None:
    body = prediction_body(wager="600.00")
    troubled.trouble = lambda store, unit: run_in_vain(store, unit, error)

    answer = desk.send(ANNA, desk.message(ANNA, body))

    assert json.loads(answer.text) == {
        "success": False,
        "error": "The prediction could not be stored",
        "code": "storage_unavailable",
        "status": 503,
        "retry_after": error.retry_after,  # type: ignore[attr-defined]
    }
    assert rows(desk) == []
    troubled.trouble = None
    receipt = json.loads(desk.send(ANNA, desk.message(ANNA, body)).text)
    assert (receipt["seq"], receipt["miner_stats"]["wagered"]) == (1, "600.00")


def test_a_commit_that_was_reported_lost_has_one_effect(desk: Desk, troubled: Troubled) -> None:
    """The connection broke after the commit: the answer is 503, the same id gets the receipt that is there."""

    def lose_the_answer(store: Store, unit: Unit[Any]) -> None:
        store.write(unit)
        raise StoreUnavailable(retry_after=1)

    body = prediction_body(wager="600.00")
    troubled.trouble = lose_the_answer
    assert desk.send(ANNA, desk.message(ANNA, body)).codes == ("storage_unavailable",)
    troubled.trouble = None

    answer = desk.send(ANNA, desk.message(ANNA, body))

    assert (answer.status, answer.replayed, answer.text) == (200, True, rows(desk)[0].receipt)
    assert wagered(desk) == {"2027-01-15": (60000, 1)}


def test_who_is_not_answered_in_time_gets_the_receipt_under_the_same_id(
    make_desk: Callable[..., Desk], desk: Desk, troubled: Troubled
) -> None:
    """That it took too long says nothing of what became of it."""
    opened = threading.Event()

    def held(store: Store, unit: Unit[Any]) -> Any:
        assert opened.wait(WAIT)
        return store.write(unit)

    hurried, body = make_desk(troubled, prediction_commit_timeout=0.05), prediction_body(wager="600.00")
    troubled.trouble = held
    answer = hurried.send(ANNA, hurried.message(ANNA, body))
    assert (answer.status, answer.codes, answer.retry_after) == (503, ("commit_timeout",), 1)
    opened.set()
    hurried.close()

    answer = desk.send(ANNA, desk.message(ANNA, body))

    assert (answer.status, answer.replayed, answer.text) == (200, True, rows(desk)[0].receipt)
    assert wagered(desk) == {"2027-01-15": (60000, 1)}


def test_a_unit_that_the_database_makes_run_again_counts_once(
    make_desk: Callable[..., Desk], troubled: Troubled
) -> None:
    """As PostgreSQL does after a deadlock. Neither the day nor the rate is charged twice."""

    def run_twice(store: Store, unit: Unit[Any]) -> None:
        with pytest.raises(Undone):
            run_in_vain(store, unit, Undone())
        store.write(unit)

    desk = make_desk(troubled, prediction_rate=4.0, prediction_burst=2)
    desk.put_games(desk.game())
    troubled.trouble = run_twice

    receipts = [desk.predict(ANNA, wager="300.00") for _ in range(2)]

    assert [(one["seq"], one["miner_stats"]["wagered"]) for one in receipts] == [(1, "300.00"), (2, "600.00")]
    assert [row.receipt for row in rows(desk)] == [
        json.dumps(one, sort_keys=True, separators=(",", ":")) for one in receipts
    ]
    assert desk.predict(ANNA)["code"] == "rate_limited"


def test_verdicts_follow_arrival_whatever_the_disk_does(desk: Desk, troubled: Troubled) -> None:
    dice = random.Random(20261121)
    pause = threading.Event()

    def slowly(store: Store, unit: Unit[Any]) -> Any:
        pause.wait(dice.uniform(0.0, 0.004))
        return store.write(unit)

    troubled.trouble = slowly
    sent: dict[str, list[str]] = defaultdict(list)
    pending = []
    for _ in range(60):
        miner = dice.choice([ANNA, BERT])
        messages = [desk.message(miner, wager=dice.choice(["1", "0"])) for _ in range(dice.choice([1, 1, 3]))]
        sent[public_key(miner).hex()] += [message["prediction"]["prediction_id"] for message in messages]
        payload = {"messages": messages} if len(messages) > 1 else messages[0]
        pending.append(desk.submit(miner, payload, dice.choice(["websocket", "http"])))
        pause.wait(dice.uniform(0.0, 0.002))

    assert all(one.wait(WAIT).status in (200, 422) for one in pending)  # type: ignore[union-attr]
    for miner, ids in sent.items():
        mine = [row for row in rows(desk) if row.miner == miner]
        assert [row.prediction_id for row in mine] == ids
        assert [row.seq for row in mine] == list(range(1, len(ids) + 1))


# --- two processes of one node ----------------------------------------------------------------------------------------


@pytest.fixture
def pair(store: Any, make_desk: Callable[..., Desk]) -> Iterator[tuple[Desk, Desk]]:
    """Two services with a connection of their own each to the same rows."""
    engine = make_engine(store.engine.url.render_as_string(hide_password=False))
    beside = GroupCommitStore(engine, call) if isinstance(store, GroupCommitStore) else DirectStore(engine)
    first, second = make_desk(Troubled(store)), make_desk(Troubled(beside))
    first.put_games(first.game())
    yield first, second
    second.close()
    beside.close()


def in_vain(desk: Desk) -> list[Unit[Any]]:
    """The units of this service that the database undid and ran again."""
    again: list[Unit[Any]] = []

    def run(store: Store, unit: Unit[Any]) -> Any:
        runs: list[Unit[Any]] = []

        def noted(tx: Transaction) -> Any:
            runs.append(unit)
            return unit(tx)

        try:
            return store.write(noted)
        finally:
            again.extend(runs[1:])

    assert isinstance(desk.store, Troubled)
    desk.store.trouble = run
    return again


def test_a_verdict_waits_for_what_another_process_has_said_to_the_miner_and_not_committed(
    pair: tuple[Desk, Desk],
) -> None:
    """It is not judged in vain either, by a sum that is about to change."""
    first, second = pair
    judged, release = threading.Event(), threading.Event()

    def hold(store: Store, unit: Unit[Any]) -> Any:
        def held(tx: Transaction) -> None:
            unit(tx)
            judged.set()
            assert release.wait(WAIT)

        return store.write(held)

    assert first.predict(ANNA)["seq"] == 1
    assert isinstance(first.store, Troubled)
    first.store.trouble = hold
    undone = in_vain(second)
    one = first.submit(ANNA, first.message(ANNA, wager="600.00"))
    assert judged.wait(WAIT)

    other = second.submit(ANNA, second.message(ANNA, wager="600.00"))
    assert other.wait(0.2) is None
    release.set()

    assert one.wait(WAIT).codes == ("successful",)  # type: ignore[union-attr]
    assert other.wait(WAIT).codes == ("daily_limit_exceeded",)  # type: ignore[union-attr]
    assert undone == []


def test_two_processes_together_keep_the_limit_and_the_order_of_seq(pair: tuple[Desk, Desk]) -> None:
    start = threading.Barrier(20)

    def wager(number: int) -> dict[str, Any]:
        desk = pair[number % 2]
        message = desk.message(ANNA, wager="100.00")
        start.wait(WAIT)
        body: dict[str, Any] = json.loads(desk.send(ANNA, message).text)
        return body

    with ThreadPoolExecutor(20) as pool:
        receipts = sorted(pool.map(wager, range(20)), key=lambda receipt: receipt["seq"])

    assert [receipt["seq"] for receipt in receipts] == list(range(1, 21))
    assert [receipt["code"] for receipt in receipts] == ["successful"] * 10 + ["daily_limit_exceeded"] * 10
    assert wagered(pair[0]) == {"2027-01-15": (100000, 10)}


def test_one_prediction_at_two_processes_at_once_has_one_effect_and_one_receipt(pair: tuple[Desk, Desk]) -> None:
    bodies = [prediction_body() for _ in range(20)]
    start = threading.Barrier(2)

    def send(desk: Desk) -> list[str]:
        start.wait(WAIT)
        return [desk.send(ANNA, desk.message(ANNA, body)).text for body in bodies]

    with ThreadPoolExecutor(2) as pool:
        by_first, by_second = pool.map(send, pair)

    assert by_first == by_second == [row.receipt for row in rows(pair[0])]


def test_two_processes_that_meet_the_same_miners_and_games_in_another_order_do_not_block_each_other(
    pair: tuple[Desk, Desk],
) -> None:
    """Each holds the rows of its miners and games until its commit."""
    miners = [keypair(f"miner {number}") for number in range(6)]
    games = [f"game-{number}" for number in range(6)]
    pair[0].put_games(*(pair[0].game(game_id) for game_id in games))
    undone = in_vain(pair[0]), in_vain(pair[1])
    start = threading.Barrier(3)

    def send(desk: Desk) -> list[str]:
        turn = 1 if desk is pair[0] else -1
        wagers = list(zip(miners[::turn], games[::turn], strict=True)) * 10
        messages = [(one, desk.message(one, game_id=game_id)) for one, game_id in wagers]
        start.wait(WAIT)
        pending = [desk.submit(one, message) for one, message in messages]
        return [code for one in pending for code in one.wait(WAIT).codes]  # type: ignore[union-attr]

    with ThreadPoolExecutor(2) as pool:
        sent = pool.map(send, pair)
        start.wait(WAIT)
        for number in range(10):
            pair[1].put_games(*(pair[1].game(game_id, league=f"L{number}") for game_id in games[::-1]))
        codes = [code for some in sent for code in some]

    assert set(codes) == {"successful"}
    for one in miners:
        seqs = [row.seq for row in rows(pair[0]) if row.miner == public_key(one).hex()]
        assert seqs == list(range(1, 21))
    assert [len(some) for some in undone] == [0, 0]


def test_a_game_that_gets_its_outcome_takes_no_prediction_afterwards(pair: tuple[Desk, Desk]) -> None:
    """What is accepted was accepted before the outcome: a settlement that looks after it sees all of it."""
    bookmaker, desk = pair
    pending = [desk.submit(ANNA, desk.message(ANNA)) for _ in range(50)]
    bookmaker.games.put("nfl-17", {"outcome": 1})
    settled_over = len([row for row in rows(bookmaker) if row.accepted])

    codes = [one.wait(WAIT).codes[0] for one in pending]  # type: ignore[union-attr]

    assert codes == ["successful"] * settled_over + ["game_started"] * (50 - settled_over)
