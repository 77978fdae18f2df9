"""Settlement: payouts of accepted predictions, in pages, however it is interrupted; and what is forgotten."""

import threading
from functools import partial
from typing import Any

import pytest
from sqlalchemy import insert, select

from grid_node.errors import GameLocked
from grid_node.predictions.games import offer_of
from grid_node.predictions.settlement import PAGE
from grid_node.predictions.tables import Game, MinerDailyWager, MinerPrediction, Settlement
from tests.stadium import MINER, Stadium, bet_row

DAY = 86400.0


def purge(stadium: Stadium) -> bool:
    return stadium.store.write(lambda tx: stadium.settling.purge(tx, stadium.clock.now()))


def many(stadium: Stadium, count: int, at: float | None = None, **row: Any) -> None:
    """So many bets of 10.00 on team B at 2.1000, a millisecond apart or all `at` once."""
    now = stadium.clock.now()
    times = [now + number / 1000 if at is None else at for number in range(count)]
    stadium.bet_many([bet_row(f"p{n:05d}", "g", 1, 1000, 21000, True, time) for n, time in enumerate(times)])


def kept(stadium: Stadium) -> set[str]:
    query = select(MinerPrediction.__table__.c.prediction_id)
    return set(stadium.store.read(lambda tx: tx.execute(query).scalars().all()))


def test_a_final_outcome_pays_who_was_right(stadium: Stadium) -> None:
    stadium.add()
    stadium.bet("right", outcome=1, wager=1000, odds=21000)
    stadium.bet("wrong", outcome=0)
    stadium.bet("refused", accepted=False)
    assert stadium.settle() == 0
    stadium.put(outcome=1)
    assert not stadium.is_settled()
    stadium.settle()
    assert stadium.settlements() == {"right": (1, 2100), "wrong": (1, 0)}
    assert stadium.is_settled()
    assert not stadium.settling.tick()


@pytest.mark.parametrize(
    ("wager", "odds", "payout"), [(1, 15000, 2), (1, 25000, 2), (3, 15000, 4), (333, 15001, 500), (1, 10001, 1)]
)
def test_a_payout_is_rounded_half_even_to_a_cent(stadium: Stadium, wager: int, odds: int, payout: int) -> None:
    stadium.add()
    stadium.bet("p", wager=wager, odds=odds)
    stadium.put(outcome=1)
    stadium.settle()
    assert stadium.settlements() == {"p": (1, payout)}


def test_the_odds_that_were_accepted_count_not_those_of_the_end(stadium: Stadium) -> None:
    stadium.add()
    stadium.bet("p", odds=21000)
    stadium.put(team_b_odds="9.00", outcome=1)
    stadium.settle()
    assert stadium.settlements() == {"p": (1, 2100)}


def test_a_draw_pays_who_said_so(stadium: Stadium) -> None:
    stadium.add(can_tie=True, tie_odds="3.00")
    stadium.bet("tie", outcome=2, odds=30000)
    stadium.bet("team", outcome=0)
    stadium.put(outcome=2)
    stadium.settle()
    assert stadium.settlements() == {"tie": (2, 3000), "team": (2, 0)}


def test_a_forced_outcome_settles_anew(stadium: Stadium) -> None:
    stadium.add()
    stadium.bet("a", outcome=0)
    stadium.bet("b", outcome=1)
    stadium.put(outcome=0)
    stadium.settle()
    stadium.put(outcome=1, force=True)
    assert not stadium.is_settled()
    stadium.settle()
    assert stadium.settlements() == {"a": (1, 0), "b": (1, 2100)}


def test_an_outcome_that_is_taken_back_takes_its_settlements_along(stadium: Stadium) -> None:
    stadium.add()
    many(stadium, PAGE + 1)
    stadium.put(outcome=1)
    stadium.settle()
    assert stadium.count(Settlement) == PAGE + 1
    stadium.put(outcome=3, force=True)
    assert stadium.settle() == 2
    assert (stadium.count(Settlement), stadium.is_settled()) == (0, True)


def test_a_game_is_settled_in_pages(stadium: Stadium) -> None:
    stadium.add()
    many(stadium, 2 * PAGE + 100)
    stadium.put(outcome=1)
    for settled in (PAGE, 2 * PAGE, 2 * PAGE + 100):
        assert stadium.settling.tick()
        assert stadium.count(Settlement) == settled
    assert not stadium.is_settled()
    stadium.settle()
    assert stadium.is_settled()
    assert set(stadium.settlements().values()) == {(1, 2100)}


def test_predictions_of_one_moment_fill_more_than_a_page(stadium: Stadium) -> None:
    stadium.add()
    many(stadium, 2 * PAGE, at=stadium.clock.now())
    stadium.put(outcome=1)
    stadium.settle()
    assert stadium.count(Settlement) == 2 * PAGE


def test_a_process_that_dies_between_pages_leaves_the_rest_to_the_next(stadium: Stadium) -> None:
    stadium.add()
    many(stadium, PAGE + 10)
    stadium.put(outcome=1)
    stadium.settling.tick()
    successor = stadium.beside()
    successor.settle()
    assert (stadium.count(Settlement), stadium.is_settled()) == (PAGE + 10, True)


def test_an_outcome_forced_between_two_pages_counts_for_all(stadium: Stadium) -> None:
    stadium.add()
    many(stadium, PAGE + 10)
    stadium.put(outcome=0)
    stadium.settling.tick()
    stadium.put(outcome=1, force=True)
    stadium.settle()
    assert stadium.count(Settlement) == PAGE + 10
    assert set(stadium.settlements().values()) == {(1, 2100)}


def test_what_another_process_settled_otherwise_meanwhile_is_set_right(stadium: Stadium) -> None:
    stadium.add()
    many(stadium, 2 * PAGE)
    stadium.put(outcome=1)
    stadium.settling.tick()
    stadium.put(outcome=0, force=True)
    stadium.beside().settling.tick()
    stadium.put(outcome=1, force=True)
    stadium.settle()
    assert set(stadium.settlements().values()) == {(1, 2100)}


def test_two_processes_settle_one_game_once(stadium: Stadium) -> None:
    stadium.add()
    many(stadium, 3 * PAGE)
    stadium.put(outcome=1)
    raised: list[BaseException] = []

    def settle(one: Stadium) -> None:
        try:
            one.settle()
        except BaseException as error:  # noqa: BLE001 - the test judges
            raised.append(error)

    threads = [threading.Thread(target=settle, args=(stadium.beside(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (raised, stadium.count(Settlement), stadium.is_settled()) == ([], 3 * PAGE, True)


def test_games_without_predictions_are_settled_at_once(stadium: Stadium) -> None:
    stadium.games.import_games(stadium.rows(3, outcome="TeamAWin"))
    stadium.settle()
    assert not stadium.settling.tick()


def test_a_prediction_in_hand_when_the_outcome_comes_is_settled(stadium: Stadium) -> None:
    """It read the offer before the outcome was written, and commits after the outcome was asked for."""
    stadium.add()
    other, done = stadium.beside(), threading.Event()

    def close() -> None:
        other.put(outcome=1)
        other.settle()
        done.set()

    closing = threading.Thread(target=close)
    stadium.store.write(partial(_accept, meanwhile=closing, done=done, now=stadium.clock.now()))
    closing.join(30)
    stadium.settle()
    assert stadium.settlements() == {"p": (1, 2100)}


def test_a_game_is_not_renamed_under_a_prediction_in_hand(stadium: Stadium) -> None:
    stadium.add()
    other, done = stadium.beside(), threading.Event()
    refused: list[str] = []

    def rename() -> None:
        try:
            other.put(team_a="Jets")
        except GameLocked as error:
            refused.append(error.code)
        done.set()

    renaming = threading.Thread(target=rename)
    stadium.store.write(partial(_accept, meanwhile=renaming, done=done, now=stadium.clock.now()))
    renaming.join(30)
    assert refused == ["game_locked"]


def _accept(tx: Any, meanwhile: threading.Thread, done: threading.Event, now: float) -> None:
    """Read the offer, let somebody else do something unless this transaction keeps it back, then accept."""
    offer = offer_of(tx, "g")
    assert offer is not None
    assert (offer.outcome, offer.team_a) == (3, "Giants")
    meanwhile.start()
    done.wait(0.3)
    tx.execute(insert(MinerPrediction.__table__), {**bet_row("p", "g", 1, 1000, 21000, True, now), "seq": 1})


# --- retention


def test_predictions_of_past_games_go_after_the_retention(make_stadium: Any) -> None:
    stadium = make_stadium(prediction_retention_days=10)
    stadium.add("past", event_start_date=stadium.at(0.05 * DAY))
    stadium.add("future", event_start_date=stadium.at(20 * DAY))
    stadium.bet("settled", "past")
    stadium.bet("refused", "past", accepted=False)
    stadium.bet("of no game", "nothing", accepted=False)
    stadium.bet("early", "future")
    stadium.put("past", outcome=1)
    stadium.settle()
    stadium.clock.advance(9.9 * DAY)
    stadium.bet("fresh", "nothing", accepted=False)
    purge(stadium)
    assert len(kept(stadium)) == 5
    stadium.clock.advance(0.2 * DAY)
    purge(stadium)
    assert kept(stadium) == {"early", "fresh"}
    assert stadium.settlements() == {}


def test_a_game_that_waits_for_its_settlement_keeps_its_predictions(make_stadium: Any) -> None:
    stadium = make_stadium(prediction_retention_days=10)
    stadium.add()
    stadium.bet("p")
    stadium.clock.advance(11 * DAY)
    stadium.put(outcome=1)
    purge(stadium)
    assert kept(stadium) == {"p"}
    stadium.settle()
    purge(stadium)
    assert kept(stadium) == set()


def test_a_prediction_made_long_before_its_game_is_there_for_the_outcome(make_stadium: Any) -> None:
    stadium = make_stadium(prediction_retention_days=10)
    stadium.add("final", event_start_date=stadium.at(20 * DAY))
    stadium.bet("early", "final")
    stadium.clock.advance(20.1 * DAY)
    purge(stadium)
    assert kept(stadium) == {"early"}, "the game is on: nobody knows its outcome yet"
    stadium.put("final", outcome=1)
    stadium.settle()
    purge(stadium)
    assert len(stadium.settlements()) == 1
    stadium.clock.advance(10 * DAY)
    purge(stadium)
    assert kept(stadium) == set()


def test_games_go_when_they_are_long_past_and_nothing_refers_to_them(make_stadium: Any) -> None:
    stadium = make_stadium(prediction_retention_days=10)
    stadium.add("predicted")
    stadium.add("alone")
    stadium.add("later", event_start_date=stadium.at(5 * DAY))
    stadium.clock.advance(11 * DAY)
    stadium.bet("p", "predicted")
    purge(stadium)
    assert stadium.games.list({})["games"].keys() == {"predicted", "later"}


def test_a_game_that_a_snapshot_may_hold_stays_however_short_the_retention(make_stadium: Any) -> None:
    stadium = make_stadium(prediction_retention_days=0.5)
    stadium.add()
    stadium.clock.advance(3 * DAY)
    purge(stadium)
    assert stadium.count(Game) == 1
    stadium.clock.advance(2 * DAY)
    purge(stadium)
    assert stadium.count(Game) == 0


def test_predictions_are_forgotten_in_pages(make_stadium: Any) -> None:
    stadium = make_stadium(prediction_retention_days=10)
    stadium.add()
    many(stadium, PAGE + 1)
    stadium.clock.advance(11 * DAY)
    assert purge(stadium)
    assert stadium.count(MinerPrediction) == 1
    assert not purge(stadium)
    assert stadium.count(MinerPrediction) == 0


def test_what_was_wagered_on_days_long_past_is_forgotten(make_stadium: Any) -> None:
    stadium = make_stadium(prediction_retention_days=10)
    table = MinerDailyWager.__table__
    rows = [{"miner": MINER, "utc_day": day, "wagered": 100, "accepted": 1} for day in ("2027-01-04", "2027-01-05")]
    stadium.store.write(lambda tx: tx.execute(insert(table), rows))
    purge(stadium)
    assert stadium.store.read(lambda tx: tx.execute(select(table.c.utc_day)).scalars().all()) == ["2027-01-05"]
