"""Miners, the operator, the disk, time and restarts in any order, against a plain model of what must come of it.

Nothing acknowledged is lost, nothing has two effects, no sequence has a gap. `GRID_TEST_MACHINE_STEPS` sets how many
steps are made in all.
"""

import itertools
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule
from sqlalchemy import text

from grid_node.canonical import digest
from grid_node.clock import ManualClock, rfc3339
from grid_node.database import GroupCommitStore, make_engine
from grid_node.predictions.settlement import Settling
from grid_node.predictions.update_log import Position, UpdateLog
from grid_node.settings import Settings
from tests.miners import keypair, prediction_body, public_key
from tests.promises.desk import Desk, Signing

STEPS = int(os.environ.get("GRID_TEST_MACHINE_STEPS", "900"))
STEPS_OF_AN_EXAMPLE = 30
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
HOUR = 3600.0
LIMIT = Decimal(1000)
MINERS = ["anna", "boris"]
GAMES = ["g0", "g1", "g2"]
KEPT = 1
"""Updates that a purge leaves."""

miners = st.sampled_from(MINERS)
games = st.sampled_from([*GAMES, *GAMES, "unknown"])
wagers = st.sampled_from(["1.00", "10.10", "20.20", "333.33", "900.00", "0.50", "-1", "1.001", "NaN"])
transports = st.sampled_from(["websocket", "http"])
sides = st.sampled_from([0, 1])
old_odds = st.sampled_from([False, False, False, True])


@dataclass
class Known:
    """A game as the model has it."""

    start: float
    odds: list[Decimal]
    outcome: int = 3


@dataclass
class Given:
    """What the model knows of an id that has a verdict."""

    body: dict[str, Any]
    seq: int
    code: str
    wager: Decimal
    accepted_odds: Decimal
    day: str
    receipt: str | None = None
    """The text that the miner saw; None while every answer was lost."""


@dataclass
class Account:
    """A miner of the model."""

    ids: dict[str, Given] = field(default_factory=dict)
    wagered: dict[str, Decimal] = field(default_factory=dict)
    taken: int = 0


class Reader:
    """Follows the games: by the update log as long as it can, else from a snapshot."""

    def __init__(self) -> None:
        self.position = Position("0" * 16, 0)
        self.games: dict[str, dict[str, Any]] = {}

    def catch_up(self, log: UpdateLog) -> None:
        log.poll()
        resumed = log.resume(self.position)
        if not resumed.recovered:
            assert resumed.reason in ("epoch_changed", "expired", "ahead", "too_many")
            snapshot = log.snapshot()
            self.position, self.games = snapshot.position, {}
            for part in snapshot.parts:
                self.games |= json.loads(part.text)["updated_games"]
            return
        updates = log.updates(self.position, 500)
        assert len(updates) == resumed.replayed, "all of them or none"
        for update in updates:
            message = json.loads(update.text)
            assert (message["epoch"], message["seq"]) == (self.position.epoch, self.position.seq + 1), "a gap"
            self.position = Position(message["epoch"], message["seq"])
            for game_id, changes in message["updated_games"].items():
                self.games[game_id] = {**self.games.get(game_id, {}), **changes}


class PredictionMachine(RuleBasedStateMachine):
    """Every rule is something that a miner, the operator or the world may do at any time."""

    template: Any = None
    used: Bundle[tuple[str, str]] = Bundle("used")
    """Miner and id of everything that was ever sent."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="grid-test-", dir=MEMORY))
        shutil.copy(self.template, self.folder / "grid.db")
        self.clock = ManualClock()
        self.numbers = itertools.count(1)
        self.disk_fails = ""
        self.accounts = {name: Account() for name in MINERS}
        self.bodies: dict[tuple[str, str], dict[str, Any]] = {}
        self.games: dict[str, Known] = {}
        self.reader = Reader()
        self.desk = self.opened()

    def opened(self) -> Desk:
        store = GroupCommitStore(make_engine(f"sqlite:///{self.folder / 'grid.db'}"), self.commit)
        return Desk(store, self.clock)

    def commit(self, function: Callable[[], Any]) -> None:
        fails, self.disk_fails = self.disk_fails, ""
        if fails != "before":
            function()
        if fails:
            raise sqlite3.OperationalError("disk I/O error")

    # --- the operator

    @initialize()
    def first_games(self) -> None:
        for number, game_id in enumerate(GAMES):
            self.put(game_id, self.clock.now() + (6 + 20 * number) * HOUR, [Decimal("1.8000"), Decimal("2.1000")])

    def put(self, game_id: str, start: float, odds: list[Decimal], outcome: int = 3) -> None:
        self.games[game_id] = Known(start, odds, outcome)
        self.desk.put_games(
            self.desk.game(
                game_id,
                event_start_date=rfc3339(start),
                team_a_odds=str(odds[0]),
                team_b_odds=str(odds[1]),
                outcome=outcome,
                create_date=rfc3339(0.0),
                last_update_date=rfc3339(0.0),
            )
        )

    @rule(changed=st.lists(st.sampled_from(GAMES), min_size=1, max_size=3), step=st.sampled_from([-3, 2, 7]))
    def odds_move(self, changed: list[str], step: int) -> None:
        for game_id in changed:
            game = self.games[game_id]
            odds = [max(Decimal("1.1000"), one + Decimal(step) / 20) for one in game.odds]
            self.put(game_id, game.start, odds, game.outcome)

    @rule(game_id=st.sampled_from(GAMES), outcome=st.sampled_from([0, 1]))
    @precondition(lambda self: any(game.outcome == 3 for game in self.games.values()))
    def a_game_ends(self, game_id: str, outcome: int) -> None:
        game = self.games[game_id]
        if game.outcome == 3:
            self.put(game_id, game.start, game.odds, outcome)

    @rule()
    def settle(self) -> None:
        settling = Settling(self.desk.store, self.clock, self.desk.settings)
        while settling.tick():
            pass

    @rule()
    def old_updates_go(self) -> None:
        short = Settings.load({}, games_log_max_entries=KEPT)
        log = UpdateLog(self.desk.store, self.clock, short, Signing(self.clock))
        self.desk.store.write(lambda tx: log.purge(tx, self.clock.now()))

    @rule()
    def a_new_epoch(self) -> None:
        before = self.desk.log.newest
        assert self.desk.log.new_epoch().epoch != before.epoch

    # --- miners

    def fresh_body(self, game_id: str, wager: str, side: int, is_old: bool) -> dict[str, Any]:
        game = self.games.get(game_id, Known(0.0, [Decimal("1.8000"), Decimal("2.1000")]))
        odds = [str(one + Decimal("0.0500") * is_old) for one in game.odds]
        return prediction_body(
            prediction_id=f"p-{next(self.numbers)}",
            game_id=game_id,
            wager=wager,
            predicted_outcome=side,
            predicted_odds=odds[side],
            team_a_odds=odds[0],
            team_b_odds=odds[1],
        )

    @rule(
        target=used,
        name=miners,
        game_id=games,
        wager=wagers,
        side=sides,
        is_old=old_odds,
        transport=transports,
        is_heard=st.booleans(),
    )
    def submit(
        self, name: str, game_id: str, wager: str, side: int, is_old: bool, transport: str, is_heard: bool
    ) -> tuple[str, str]:
        return self.send(name, self.fresh_body(game_id, wager, side, is_old), transport, is_heard)

    @rule(sent=used, transport=transports, is_heard=st.booleans())
    def send_again(self, sent: tuple[str, str], transport: str, is_heard: bool) -> None:
        self.send(sent[0], self.bodies[sent], transport, is_heard)

    @rule(sent=used, transport=transports)
    def send_another_body_under_its_id(self, sent: tuple[str, str], transport: str) -> None:
        name, prediction_id = sent
        other = {**self.bodies[sent], "wager": "2.00", "model_name": "another"}
        known = self.accounts[name].ids.get(prediction_id)
        self.send(name, other, transport, True)
        if known is None:
            self.bodies[sent] = other

    @rule(
        target=used,
        name=miners,
        game_id=games,
        chosen=st.lists(wagers, min_size=1, max_size=4),
        again=st.booleans(),
        is_heard=st.booleans(),
    )
    def submit_a_batch(self, name: str, game_id: str, chosen: list[str], again: bool, is_heard: bool) -> Any:
        bodies = [self.fresh_body(game_id, wager, 1, False) for wager in chosen]
        whole = [*bodies, *(bodies[:1] * again)]
        pair = keypair(name)
        payload = {"messages": [self.desk.message(pair, body) for body in whole]}
        answer = self.desk.send(pair, payload)
        assert answer.status == 200
        for body, result in zip(whole, json.loads(answer.text)["results"], strict=True):
            self.judge(name, body, result, is_heard)
        return multiple(*((name, body["prediction_id"]) for body in bodies))

    @rule(target=used, name=miners, game_id=games, wager=wagers, fails=st.sampled_from(["before", "after"]))
    def submit_while_the_disk_fails(self, name: str, game_id: str, wager: str, fails: str) -> tuple[str, str]:
        """Either way the miner is told the same; what is on disk differs."""
        body = self.fresh_body(game_id, wager, 0, False)
        pair = keypair(name)
        self.disk_fails = fails
        answer = self.desk.send(pair, self.desk.message(pair, body))
        assert (answer.status, json.loads(answer.text)["code"]) == (503, "storage_unavailable")
        if fails == "after":
            self.judge(name, body, None, False)
        self.bodies[name, body["prediction_id"]] = body
        return name, body["prediction_id"]

    def send(self, name: str, body: dict[str, Any], transport: str, is_heard: bool) -> tuple[str, str]:
        pair = keypair(name)
        answer = self.desk.send(pair, self.desk.message(pair, body), transport)
        result = json.loads(answer.text)
        known = self.accounts[name].ids.get(body["prediction_id"])
        assert answer.replayed == (known is not None and known.body == body)
        assert answer.status == result.get("status", 200)
        if answer.status in (200, 422) and is_heard and known is not None and known.receipt is not None:
            assert answer.text == known.receipt, "a repeat has other bytes"
        self.judge(name, body, result, is_heard, answer.text)
        return name, body["prediction_id"]

    def judge(
        self, name: str, body: dict[str, Any], result: dict[str, Any] | None, is_heard: bool, said: str | None = None
    ) -> None:
        """Compare an answer with the model; without a result, only the model goes on."""
        account, prediction_id = self.accounts[name], body["prediction_id"]
        self.bodies.setdefault((name, prediction_id), body)
        known = account.ids.get(prediction_id)
        if known is not None and known.body != body:
            assert result is not None
            assert result["code"] == "duplicate_prediction"
            return
        if known is None:
            known = account.ids[prediction_id] = self.verdict(account, body)
        if result is None:
            return
        assert (result["seq"], result["code"]) == (known.seq, known.code)
        assert result["body_sha256"] == digest(body)
        if is_heard:
            known.receipt = known.receipt or said

    def verdict(self, account: Account, body: dict[str, Any]) -> Given:
        """What the rules say, in the words of the model."""
        account.taken += 1
        day = rfc3339(self.clock.now())[:10]
        code, wager = self.code(account, body, day)
        game = self.games.get(body["game_id"])
        odds = game.odds[body["predicted_outcome"]] if game else Decimal(0)
        if code == "successful":
            account.wagered[day] = account.wagered.get(day, Decimal(0)) + wager
        return Given(body, account.taken, code, wager, odds, day)

    def code(self, account: Account, body: dict[str, Any], day: str) -> tuple[str, Decimal]:
        wager = Decimal(body["wager"])
        if not wager.is_finite() or wager != wager.quantize(Decimal("0.01")) or wager < 1:
            return "invalid_wager", wager
        if account.wagered.get(day, Decimal(0)) + wager > LIMIT:
            return "daily_limit_exceeded", wager
        game = self.games.get(body["game_id"])
        if game is None:
            return "game_not_found", wager
        if self.clock.now() >= game.start or game.outcome != 3:
            return "game_started", wager
        sent = [Decimal(body["team_a_odds"]), Decimal(body["team_b_odds"])]
        if any(abs(one - other) > Decimal("0.01") for one, other in zip(sent, game.odds, strict=True)):
            return "odds_mismatch", wager
        return "successful", wager

    # --- the world

    @rule(hours=st.sampled_from([0.1, 1.0, 5.0, 13.0]))
    def time_passes(self, hours: float) -> None:
        self.clock.advance(hours * HOUR)

    @rule()
    def restart(self) -> None:
        self.desk.close()
        self.desk.store.close()
        self.desk = self.opened()

    @rule(target=used, name=miners, game_id=games, count=st.integers(1, 5))
    def die_with_submissions_in_hand(self, name: str, game_id: str, count: int) -> Any:
        """Nobody hears an answer; whatever was committed before the end must be all, and in order."""
        bodies = [self.fresh_body(game_id, "1.00", 0, False) for _ in range(count)]
        pair = keypair(name)
        for body in bodies:
            self.desk.submit(pair, self.desk.message(pair, body))
        self.restart()
        for body in bodies:
            self.judge(name, body, None, False)
        return multiple(*((name, body["prediction_id"]) for body in bodies))

    @rule(missed=st.lists(st.sampled_from(GAMES), max_size=4), purges=st.booleans(), restarts=st.booleans())
    def the_reader_is_away(self, missed: list[str], purges: bool, restarts: bool) -> None:
        self.the_reader_comes_back()
        if missed:
            self.odds_move(missed, 2)
        if purges:
            self.old_updates_go()
        if restarts:
            self.restart()
        self.the_reader_comes_back()

    @rule()
    def the_reader_comes_back(self) -> None:
        self.reader.catch_up(self.desk.log)
        assert self.reader.position == self.desk.log.newest
        now = {}
        for part in self.desk.log.snapshot().parts:
            now |= json.loads(part.text)["updated_games"]
        assert {game_id: self.reader.games[game_id] for game_id in now} == now
        for game_id, game in now.items():
            assert [Decimal(game["team_a_odds"]), Decimal(game["team_b_odds"])] == self.games[game_id].odds
            assert game["outcome"] == self.games[game_id].outcome

    # --- what must hold

    @invariant()
    def every_miner_has_what_the_model_has(self) -> None:
        for name, account in self.accounts.items():
            receipts = self.desk.receipts(keypair(name))
            expected = sorted(account.ids.values(), key=lambda given: given.seq)
            assert [receipt["seq"] for receipt in receipts] == list(range(1, account.taken + 1)), "a gap"
            told = [(receipt["prediction_id"], receipt["code"], receipt["body_sha256"]) for receipt in receipts]
            assert told == [(one.body["prediction_id"], one.code, digest(one.body)) for one in expected]
            for receipt, given in zip(receipts, expected, strict=True):
                assert given.receipt is None or json.loads(given.receipt) == receipt, "a receipt changed"

    @invariant()
    def days_are_charged_once_for_each_acceptance(self) -> None:
        charged = {(row.miner, row.utc_day): Decimal(row.wagered) / 100 for row in self.rows("miner_daily_wagers")}
        names = {public_key(keypair(name)).hex(): name for name in MINERS}
        for (miner, day), wagered in charged.items():
            assert self.accounts[names[miner]].wagered.get(day) == wagered <= LIMIT
        assert len(charged) == sum(len(account.wagered) for account in self.accounts.values())

    @invariant()
    def what_is_settled_is_settled_right(self) -> None:
        names = {public_key(keypair(name)).hex(): name for name in MINERS}
        for row in self.rows("settlements"):
            given = self.accounts[names[row.miner]].ids[row.prediction_id]
            outcome = self.games[given.body["game_id"]].outcome
            won = given.body["predicted_outcome"] == outcome
            exact = (given.wager * given.accepted_odds).quantize(Decimal("0.01"), ROUND_HALF_EVEN)
            assert given.code == "successful"
            assert (row.outcome, Decimal(row.payout) / 100) == (outcome, exact if won else 0)

    def rows(self, table: str) -> list[Any]:
        return list(self.desk.store.read(lambda tx: tx.execute(text(f"SELECT * FROM {table}")).all()))

    def teardown(self) -> None:
        try:
            self.settle()
            self.what_is_settled_is_settled_right()
            due = [
                given
                for account in self.accounts.values()
                for given in account.ids.values()
                if given.code == "successful" and self.games[given.body["game_id"]].outcome != 3
            ]
            assert len(self.rows("settlements")) == len(due)
            self.the_reader_comes_back()
        finally:
            self.desk.close()
            self.desk.store.close()
            shutil.rmtree(self.folder)


@pytest.mark.timeout(3600)
def test_predictions_keep_their_promises_whatever_happens_in_whatever_order(sqlite_template: Any) -> None:
    PredictionMachine.template = sqlite_template
    machine = PredictionMachine.TestCase
    machine.settings = settings(
        max_examples=max(1, STEPS // STEPS_OF_AN_EXAMPLE), stateful_step_count=STEPS_OF_AN_EXAMPLE, deadline=None
    )
    machine().runTest()
