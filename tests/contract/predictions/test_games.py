"""Games: what a PUT and an import write, what they refuse, and what the update log says of it."""

import json
import threading
from typing import Any

import pytest

from grid_node.errors import GameLocked, InvalidGame, InvalidMessage, NotFound, OutcomeConflict
from grid_node.predictions.games import ROWS_MAX, BadRows, ImportReport, offer_of
from grid_node.predictions.listings import KEPT
from grid_node.predictions.rules import Offer
from grid_node.predictions.tables import Game, GameUpdate
from tests.stadium import Stadium

WHOLE = {
    "game_id": "g",
    "team_a": "Giants",
    "team_b": "Cowboys",
    "sport": "football",
    "league": "NFL",
    "create_date": "2027-01-15T08:00:00.000Z",
    "last_update_date": "2027-01-15T08:00:00.000Z",
    "event_start_date": "2027-01-15T09:00:00.000Z",
    "active": True,
    "outcome": 3,
    "team_a_odds": "1.8000",
    "team_b_odds": "2.1000",
    "tie_odds": None,
    "can_tie": False,
}


# --- PUT


def test_a_new_game_is_whole_in_the_answer_and_in_its_delta(stadium: Stadium) -> None:
    made = stadium.games.put("g", stadium.game())
    assert made.created
    position = stadium.log.newest
    assert made.body == {
        "success": True,
        "created": True,
        "changed": True,
        "game": WHOLE,
        "epoch": position.epoch,
        "seq": 1,
    }
    assert stadium.delta(1) == {"g": WHOLE}


def test_a_change_of_odds_is_told_alone(stadium: Stadium) -> None:
    stadium.add()
    stadium.clock.advance(60)
    body = stadium.put(team_a_odds="1.9")
    assert (body["created"], body["changed"], body["seq"]) == (False, True, 2)
    changed = {"team_a_odds": "1.9000", "last_update_date": "2027-01-15T08:01:00.000Z"}
    assert stadium.delta(2) == {"g": changed}
    assert body["game"] == {**WHOLE, **changed}


@pytest.mark.parametrize("members", [{}, {"team_a_odds": "1.8005"}, {"team_a_odds": 1.801, "sport": "football"}])
def test_what_changes_nothing_is_neither_stored_nor_sent(stadium: Stadium, members: dict[str, Any]) -> None:
    stadium.add()
    stadium.clock.advance(60)
    body = stadium.put(**members, last_update_date=stadium.at(0))
    assert (body["changed"], body["seq"], body["game"]) == (False, 1, WHOLE)
    assert stadium.logged() == [1]


def test_small_steps_of_odds_add_up_against_what_is_stored(stadium: Stadium) -> None:
    stadium.add()
    assert not stadium.put(team_a_odds="1.8010")["changed"]
    assert stadium.put(team_a_odds="1.8011")["changed"]
    assert stadium.delta(2)["g"]["team_a_odds"] == "1.8011"


def test_a_small_step_stays_out_of_a_delta_that_tells_something_else(stadium: Stadium) -> None:
    stadium.add()
    body = stadium.put(team_a_odds="1.8005", active=False)
    assert stadium.delta(2) == {"g": {"active": False}}
    assert body["game"]["team_a_odds"] == "1.8000"


def test_the_smallest_step_that_counts_is_a_setting(make_stadium: Any) -> None:
    stadium = make_stadium(games_odds_epsilon=0.0)
    stadium.add()
    assert not stadium.put(team_a_odds="1.80000001")["changed"]
    assert stadium.put(team_a_odds="1.8001")["changed"]


def test_tie_odds_come_and_go(stadium: Stadium) -> None:
    stadium.add()
    assert stadium.put(can_tie=True, tie_odds="3.25")["game"]["tie_odds"] == "3.2500"
    assert stadium.put(can_tie=False, tie_odds=None)["game"]["tie_odds"] is None
    assert stadium.delta(3) == {"g": {"can_tie": False, "tie_odds": None}}


def test_a_start_with_an_offset_is_the_same_moment_in_utc(stadium: Stadium) -> None:
    body = stadium.add(event_start_date="2026-11-20T17:00:00+05:00")
    assert body["game"]["event_start_date"] == "2026-11-20T12:00:00.000Z"


def test_nothing_is_left_of_a_refused_game(stadium: Stadium) -> None:
    with pytest.raises(InvalidGame):
        stadium.add(team_a_odds="1")
    assert (stadium.count(Game), stadium.count(GameUpdate)) == (0, 0)


def test_a_member_that_does_not_go_with_the_stored_ones_is_refused(stadium: Stadium) -> None:
    stadium.add(can_tie=True, tie_odds="3.00")
    for members in ({"can_tie": False}, {"team_a": "Cowboys"}):
        with pytest.raises(InvalidGame):
            stadium.put(**members)
    assert stadium.logged() == [1]


def test_a_second_final_outcome_needs_force(stadium: Stadium) -> None:
    stadium.add()
    assert stadium.put(outcome=0)["changed"]
    assert not stadium.put(outcome=0)["changed"]
    for other in (1, 2, 3):
        with pytest.raises(OutcomeConflict):
            stadium.put(outcome=other)
    assert stadium.put(outcome=1, force=True)["game"]["outcome"] == 1
    assert stadium.games.put("g", {"outcome": 3}, force=True).body["game"]["outcome"] == 3
    assert [stadium.delta(seq)["g"] for seq in (2, 3, 4)] == [{"outcome": 0}, {"outcome": 1}, {"outcome": 3}]


def test_teams_stay_once_a_prediction_was_accepted(stadium: Stadium) -> None:
    stadium.add()
    stadium.bet("refused", accepted=False)
    assert stadium.put(team_a="Jets")["changed"]
    stadium.bet("taken")
    for members in ({"team_a": "Giants"}, {"team_a": "Cowboys", "team_b": "Jets"}):
        with pytest.raises(GameLocked):
            stadium.put(**members, force=True)
    assert stadium.put(team_a="Jets", team_b_odds="2.5")["changed"]


def test_only_a_known_game_is_closed(stadium: Stadium) -> None:
    stadium.add()
    assert stadium.games.close("g", 2).body["game"]["outcome"] == 2
    with pytest.raises(NotFound):
        stadium.games.close("h", 2)
    assert stadium.logged() == [1, 2]


def test_an_offer_is_what_the_rules_judge_by(stadium: Stadium) -> None:
    stadium.add(can_tie=True, tie_odds="3.00", active=False)
    found = stadium.store.write(lambda tx: (offer_of(tx, "g"), offer_of(tx, "h")))
    start = stadium.clock.now() + 3600
    assert found == (Offer("g", "Giants", "Cowboys", start, False, 3, 18000, 21000, 30000), None)


# --- lists


def test_games_are_listed_by_what_is_asked(stadium: Stadium) -> None:
    stadium.add("late", event_start_date=stadium.at(7200))
    stadium.add("early")
    stadium.add("other", sport="tennis", league="ATP", active=False)

    def listed(**filters: object) -> list[str]:
        return list(stadium.games.list(filters)["games"])

    assert listed() == ["early", "other", "late"]
    assert listed(sport="football") == ["early", "late"]
    assert listed(league="ATP", active=False) == listed(active="false") == ["other"]
    assert listed(sport="tennis", active="True") == listed(sport="chess") == []
    body = stadium.games.list({"league": "ATP"})
    assert (body["success"], body["epoch"], body["seq"]) == (True, stadium.log.newest.epoch, 3)
    assert body["games"]["other"] == stadium.delta(3)["other"]


@pytest.mark.parametrize("filters", [None, [], {"team": "x"}, {"sport": 1}, {"active": "maybe"}, {"league": "\0"}])
def test_a_filter_that_is_none_is_refused(stadium: Stadium, filters: object) -> None:
    with pytest.raises(InvalidMessage):
        stadium.games.list(filters)


def test_a_list_is_made_once_until_a_game_changes(stadium: Stadium) -> None:
    stadium.add("g")
    first = stadium.games.listing({})
    assert stadium.games.listing({}) is first
    assert stadium.games.listing({"sport": "tennis"}).text != first.text
    assert stadium.games.listing({}) is first
    stadium.beside().games.put("g", {"team_a": "Bears"})
    second = stadium.games.listing({})
    assert second.position.seq == first.position.seq + 1
    assert json.loads(second.text)["games"]["g"]["team_a"] == "Bears"


def test_only_the_lists_asked_for_last_are_kept(stadium: Stadium) -> None:
    kept = [stadium.games.listing({"league": f"{number}"}) for number in range(KEPT)]
    assert stadium.games.listing({"league": "0"}) is kept[0]
    stadium.games.listing({"league": "another"})
    assert stadium.games.listing({"league": "0"}) is kept[0]
    assert stadium.games.listing({"league": "1"}) is not kept[1]


# --- imports


def test_an_import_tells_what_is_new_what_changed_and_what_did_not(stadium: Stadium) -> None:
    rows = stadium.rows(3)
    assert stadium.games.import_games(rows) == ImportReport(3, 0, 0)
    assert stadium.games.import_games(rows) == ImportReport(0, 0, 3)
    rows[1]["team_a_odds"] = "1.95"
    rows[2]["active"] = False
    assert stadium.games.import_games([*rows, {**rows[0], "game_id": "new"}]) == ImportReport(1, 2, 1)
    assert stadium.logged() == [1, 2]
    delta = stadium.delta(2)
    assert delta["game-00001"] == {"team_a_odds": "1.9500"}
    assert delta["game-00002"] == {"active": False}
    assert delta["new"]["team_a"] == "Giants"
    assert len(delta) == 3


def test_a_large_import_is_split_into_deltas_of_two_hundred(stadium: Stadium) -> None:
    assert stadium.games.import_games(stadium.rows(1001)).new == 1001
    assert [len(stadium.delta(seq)) for seq in stadium.logged()] == [200, 200, 200, 200, 200, 1]


def test_a_dry_run_says_what_would_be_and_writes_nothing(stadium: Stadium) -> None:
    stadium.games.import_games(stadium.rows(2))
    rows = stadium.rows(3, team_a_odds="1.50")
    assert stadium.games.import_games(rows, dry_run=True) == ImportReport(1, 2, 0)
    assert (stadium.count(Game), stadium.logged()) == (2, [1])
    assert stadium.games.import_games(rows) == ImportReport(1, 2, 0)


@pytest.mark.parametrize(
    "members",
    [
        {"team_a_odds": "1"},
        {"team_a_odds": float("nan")},
        {"event_start_date": "2027-01-15T09:00:00"},
        {"tie_odds": "3.0", "can_tie": False},
        {"team_b": "Giants"},
        {"game_id": "game-00000"},
        {"game_id": None},
        {"outcome": "Won"},
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_one_bad_row_stops_an_import(stadium: Stadium, members: dict[str, Any], dry_run: bool) -> None:
    rows = stadium.rows(3)
    rows[1] |= members
    with pytest.raises(BadRows) as refused:
        stadium.games.import_games(rows, dry_run=dry_run)
    assert list(refused.value.rows) == [2]
    assert (stadium.count(Game), stadium.logged()) == (0, [])


def test_every_bad_row_is_told_with_its_number(stadium: Stadium) -> None:
    stadium.add()
    stadium.add("done", outcome=1)
    stadium.bet("p")
    rows = [
        {"game_id": "g", "team_a": "Jets"},
        {"game_id": "done", "outcome": "Draw"},
        {"game_id": "done2"},
        {"game_id": "g2", **stadium.game()},
    ]
    with pytest.raises(BadRows) as refused:
        stadium.games.import_games(rows)
    kinds = {number: type(error) for number, error in refused.value.rows.items()}
    assert kinds == {1: GameLocked, 2: OutcomeConflict, 3: InvalidGame}
    with pytest.raises(BadRows) as refused:
        stadium.games.import_games([7, None, {"game_id": "x"}, [], {}])
    assert list(refused.value.rows) == [1, 2, 4, 5]
    assert stadium.logged() == [1, 2]


def test_an_import_reads_names_words_and_times_in_utc_when_told(stadium: Stadium) -> None:
    row = stadium.game(
        game_id="g", outcome="TeamBWin", active="False", can_tie=1, tie_odds="3", event_start_date="2027-01-15 09:00"
    )
    with pytest.raises(BadRows):
        stadium.games.import_games([row])
    stadium.games.import_games([row], assume_utc=True)
    assert stadium.games.list({})["games"]["g"] == {
        **WHOLE,
        "active": False,
        "outcome": 1,
        "can_tie": True,
        "tie_odds": "3.0000",
    }


def test_an_offset_counts_even_where_times_are_assumed_to_be_utc(stadium: Stadium) -> None:
    rows = stadium.rows(1, event_start_date="2027-01-15T09:00:00+01:00")
    stadium.games.import_games(rows, assume_utc=True)
    assert stadium.delta(1)["game-00000"]["event_start_date"] == "2027-01-15T08:00:00.000Z"


def test_an_import_has_a_limit(stadium: Stadium) -> None:
    with pytest.raises(InvalidGame):
        stadium.games.import_games([None] * (ROWS_MAX + 1))


# --- at the same time


def at_once(*actions: Any) -> list[BaseException]:
    """Do all of it at the same time; what was raised."""
    start, raised = threading.Barrier(len(actions)), []

    def run(action: Any) -> None:
        start.wait(10)
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - the caller judges
            raised.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return raised


def test_writers_at_the_same_time_leave_no_gap_in_the_log(stadium: Stadium) -> None:
    others = [stadium.beside() for _ in range(4)]

    def write(writer: Stadium, name: int) -> None:
        for number in range(5):
            writer.add(f"g{name}-{number}")
        writer.games.import_games(writer.rows(3, team_a_odds=f"1.{name}5"))

    actions = [lambda writer=writer, name=name: write(writer, name) for name, writer in enumerate(others, 1)]
    assert at_once(*actions) == []
    stadium.log.poll()
    assert stadium.logged() == list(range(1, stadium.log.newest.seq + 1))
    state: dict[str, Any] = {}
    for seq in stadium.logged():
        for game_id, members in stadium.delta(seq).items():
            state.setdefault(game_id, {}).update(members)
    assert state == stadium.games.list({})["games"]


def test_two_final_outcomes_at_the_same_time_are_one(stadium: Stadium) -> None:
    stadium.add()
    one, other = stadium.beside(), stadium.beside()
    (raised,) = at_once(lambda: one.put(outcome=0), lambda: other.put(outcome=1))
    assert isinstance(raised, OutcomeConflict)
    assert stadium.logged() == [1, 2]


def test_a_list_from_before_the_end_of_a_game_does_not_reopen_it(stadium: Stadium) -> None:
    rows = stadium.rows(2)
    stadium.games.import_games(rows)
    stadium.games.close(rows[0]["game_id"], 0, False)

    assert stadium.games.import_games([{**row, "outcome": "Unfinished"} for row in rows]) == ImportReport(0, 0, 2)
    assert stadium.games.list({})["games"][rows[0]["game_id"]]["outcome"] == 0
