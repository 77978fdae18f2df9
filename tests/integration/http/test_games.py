"""Routes of games: lists with their ETag, changes by an operator, and updates by long poll."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.miners import SignedHttp, allow, game, new_keypair, public_key, put_games, rows
from tests.nodes import METRICS_HEADERS, LiveNode, running_node, until

RESUME_MAX = 4


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with running_node(tmp_path_factory.mktemp("games"), games_resume_max=RESUME_MAX) as live:
        sports = [("football", "NFL"), ("hockey", "NHL")]
        made = [
            game(f"start-{number}", sport=sports[number % 2][0], league=sports[number % 2][1], active=number % 4 < 2)
            for number in range(8)
        ]
        put_games(live, *made)
        yield live


@pytest.fixture(scope="module")
def admin(node: LiveNode) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {node.add_key('admin', ('admin',))}"}
    with httpx.Client(base_url=node.url, headers=headers, timeout=70) as client:
        yield client


@pytest.fixture
def miner(node: LiveNode) -> Iterator[SignedHttp]:
    keypair = new_keypair()
    allow(node, keypair)
    with SignedHttp(node, keypair) as made:
        yield made


_names = iter(range(10_000))


@pytest.fixture
def game_id(admin: httpx.Client) -> str:
    """A game of one test alone."""
    name = f"own-{next(_names)}"
    assert admin.put(f"/games/{name}", json=game(name)).status_code == 201
    return name


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"], body["code"], body["success"]) == (status, status, code, False), body
    return body


def end_of_log(miner: SignedHttp) -> tuple[str, int]:
    body = miner.get("/games", sport="none").json()
    return body["epoch"], body["seq"]


# --- lists ------------------------------------------------------------------------------------------------------------


def test_games_are_listed_whole(miner, game_id):
    body = miner.get("/games").json()

    assert body["success"] is True
    listed = body["games"][game_id]
    assert listed == {
        **game(game_id),
        **{name: listed[name] for name in ("create_date", "last_update_date", "event_start_date")},
        "team_a_odds": "1.8000",
        "team_b_odds": "2.1000",
    }


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({"sport": "hockey"}, {1, 3, 5, 7}),
        ({"league": "NFL", "active": "true"}, {0, 4}),
        ({"league": "NFL", "active": "1"}, {0, 4}),
        ({"sport": "hockey", "active": "false"}, {3, 7}),
        ({"sport": "hockey", "active": "0"}, {3, 7}),
        ({"sport": "hockey", "league": "NFL"}, set()),
    ],
)
def test_filters_choose_games(miner, query, numbers):
    found = miner.get("/games", **query).json()["games"]

    assert {name for name in found if name.startswith("start-")} == {f"start-{number}" for number in numbers}


@pytest.mark.parametrize("query", ["active=yes", "active=", "active=2", "colour=red", "sport=a&sport=b", "sport=%00"])
def test_filters_that_are_none(miner, query):
    assert refused(miner.request("GET", f"/games?{query}"), 400, "invalid_message")["fields"]


def test_games_that_did_not_change_are_not_sent_again(admin, game_id):
    first = admin.get("/games")
    tag = first.headers["ETag"]
    assert tag == f'"{first.json()["epoch"]}-{first.json()["seq"]}"'

    for shown in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        same = admin.get("/games", headers={"If-None-Match": shown})
        assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)

    admin.put(f"/games/{game_id}", json={"team_a_odds": "1.85"})
    changed = admin.get("/games", headers={"If-None-Match": tag})

    assert (changed.status_code, changed.headers["ETag"] != tag) == (200, True)
    assert changed.json()["games"][game_id]["team_a_odds"] == "1.8500"


def test_who_may_read_games(node, admin, miner):
    assert miner.get("/games").status_code == 200
    for path in ("/games", "/games/updates"):
        assert admin.get(path).status_code == 200
        refused(httpx.get(node.url + path), 401, "missing_auth")
        client = {"Authorization": f"Bearer {node.add_key('client')}"}
        refused(httpx.get(node.url + path, headers=client), 403, "forbidden")
        refused(httpx.get(node.url + path, headers={"Authorization": "Bearer nonsense"}), 401, "invalid_key")
        with SignedHttp(node, new_keypair()) as stranger:
            refused(stranger.get(path), 403, "not_registered")
            requests = "SELECT * FROM request_uuids WHERE public_key = :key"
            assert rows(node, requests, key=public_key(stranger.keypair).hex()) == []


# --- changes ----------------------------------------------------------------------------------------------------------


def test_a_new_game_and_its_change(miner, admin):
    epoch, seq = end_of_log(miner)
    made = admin.put("/games/fresh", json=game("fresh"))
    changed = admin.put("/games/fresh", json={"team_b_odds": "2.25"})

    assert (made.status_code, made.json()["created"], made.json()["changed"], made.json()["seq"]) == (
        201,
        True,
        True,
        seq + 1,
    )
    assert (changed.status_code, changed.json()["created"], changed.json()["changed"]) == (200, False, True)
    assert changed.json()["game"]["team_b_odds"] == "2.2500"
    whole, delta = miner.get("/games/updates", epoch=epoch, after=seq).json()["updates"]
    assert whole["updated_games"]["fresh"] == made.json()["game"]
    assert {name: value for name, value in delta["updated_games"]["fresh"].items() if name != "last_update_date"} == {
        "team_b_odds": "2.2500"
    }


def test_a_change_of_odds_that_is_too_small_is_none(miner, admin, game_id):
    before = end_of_log(miner)

    answer = admin.put(f"/games/{game_id}", json={"team_a_odds": "1.8005"})

    assert (answer.status_code, answer.json()["changed"], answer.json()["game"]["team_a_odds"]) == (
        200,
        False,
        "1.8000",
    )
    assert end_of_log(miner) == before


def test_a_final_outcome_stays_unless_forced(admin, game_id):
    assert admin.put(f"/games/{game_id}", json={"outcome": 0}).json()["changed"] is True
    assert admin.put(f"/games/{game_id}", json={"outcome": 0}).json()["changed"] is False

    refused(admin.put(f"/games/{game_id}", json={"outcome": 1}), 409, "outcome_conflict")

    forced = admin.put(f"/games/{game_id}", json={"outcome": 1, "force": True})
    assert (forced.status_code, forced.json()["game"]["outcome"]) == (200, 1)


def test_a_settled_prediction_says_what_it_came_to(node, miner, admin, game_id):
    won, lost = (miner.predict(game_id=game_id, wager="10.00", **made).json() for made in (WON, LOST))
    admin.put(f"/games/{game_id}", json={"outcome": 1})

    def settled() -> bool:
        return miner.get(f"/predictions/{lost['prediction_id']}").json()["settlement"] is not None

    until(settled)
    found = miner.get(f"/predictions/{won['prediction_id']}").json()

    assert (found["state"], found["receipt"], found["settlement"]) == (
        "settled",
        won,
        {"outcome": 1, "payout": "21.00"},
    )
    both = miner.get("/predictions").json()["predictions"]
    assert [one["settlement"]["payout"] for one in both] == ["21.00", "0.00"]


WON: dict[str, Any] = {}
LOST = {"predicted_outcome": 0, "predicted_odds": "1.80"}


def test_teams_of_a_game_with_predictions_keep_their_names(miner, admin, game_id):
    assert admin.put(f"/games/{game_id}", json={"team_a": "Jets"}).status_code == 200
    assert miner.predict(game_id=game_id, team_a="Jets").status_code == 200

    refused(admin.put(f"/games/{game_id}", json={"team_a": "Bills"}), 409, "game_locked")


def test_odds_that_changed_refuse_a_prediction_with_the_old_ones(miner, admin, game_id):
    admin.put(f"/games/{game_id}", json={"team_b_odds": "2.50"})

    answer = miner.predict(game_id=game_id)

    body = refused(answer, 422, "odds_mismatch")
    assert body["current"]["team_b_odds"] == "2.5000"


@pytest.mark.parametrize(
    "members",
    [
        {"team_a_odds": "1"},
        {"team_b_odds": "NaN"},
        {"team_a": "Same", "team_b": "Same"},
        {"tie_odds": "3.00"},
        {"event_start_date": "2026-11-20T12:00:00"},
        {"outcome": 4},
        {"active": "yes"},
        {"colour": "red"},
        {"force": "yes"},
        {"game_id": "another"},
    ],
)
def test_a_game_that_cannot_be(node, admin, game_id, members):
    before = rows(node, "SELECT * FROM games WHERE game_id = :id", id=game_id)

    assert refused(admin.put(f"/games/{game_id}", json=members), 422, "invalid_game")["fields"]

    assert rows(node, "SELECT * FROM games WHERE game_id = :id", id=game_id) == before


@pytest.mark.parametrize("name", ["a b", "x" * 65, "%00", "a|b"])
def test_an_id_that_cannot_be(admin, name):
    refused(admin.put(f"/games/{name}", json=game("x")), 422, "invalid_game")


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"text"'])
def test_a_change_that_is_no_object(admin, game_id, body):
    refused(admin.put(f"/games/{game_id}", content=body), 422, "invalid_game")


def test_a_new_game_needs_all_of_its_members(admin):
    refused(admin.put("/games/half", json={"team_a": "A"}), 422, "invalid_game")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [(b"", 400, "invalid_json"), (b'{"active":1e400}', 400, "invalid_json"), (b" " * 65537, 413, "payload_too_large")],
)
def test_a_body_that_is_none(admin, game_id, body, status, code):
    refused(admin.put(f"/games/{game_id}", content=body), status, code)


def test_a_body_without_a_length(admin, game_id):
    refused(admin.put(f"/games/{game_id}", content=iter([b"{}"])), 411, "length_required")


def test_who_may_change_games(node, miner, game_id):
    path = f"/games/{game_id}"
    client = {"Authorization": f"Bearer {node.add_key('no-admin', ('client', 'worker'))}"}

    refused(httpx.put(node.url + path, json={}), 401, "unauthorized")
    refused(httpx.put(node.url + path, json={}, headers={"Authorization": "Bearer nonsense"}), 401, "unauthorized")
    refused(httpx.put(node.url + path, json={}, headers=client), 403, "forbidden")
    refused(miner.request("PUT", path, b'{"active":false}'), 403, "forbidden")
    refused(httpx.get(node.url + path), 405, "method_not_allowed")


# --- updates ----------------------------------------------------------------------------------------------------------


def test_nothing_new_is_an_empty_list_at_the_deadline(miner):
    epoch, seq = end_of_log(miner)
    empty = {"success": True, "recovered": True, "epoch": epoch, "updates": [], "last_seq": seq}

    assert miner.get("/games/updates", epoch=epoch, after=seq, wait=0).json() == empty
    assert miner.get("/games/updates", epoch=epoch, after=seq, wait=0.2).json() == empty


def test_a_change_ends_every_wait(node, miner, admin, game_id):
    epoch, seq = end_of_log(miner)
    with ThreadPoolExecutor() as threads:
        polls = [threads.submit(waiting, miner, epoch, seq) for _ in range(2)]
        until_waiting(admin, 2)
        admin.put(f"/games/{game_id}", json={"team_a_odds": "1.90"})
        answers = [poll.result(30).json() for poll in polls]

    assert [answer["last_seq"] for answer in answers] == [seq + 1, seq + 1]
    assert [answer["updates"][0]["updated_games"][game_id]["team_a_odds"] for answer in answers] == ["1.9000", "1.9000"]


def test_a_change_by_another_process_ends_a_wait(node, miner, admin):
    epoch, seq = end_of_log(miner)
    with ThreadPoolExecutor() as threads:
        poll = threads.submit(waiting, miner, epoch, seq)
        until_waiting(admin, 1)
        put_games(node, game("imported"))
        answer = poll.result(30).json()

    assert list(answer["updates"][0]["updated_games"]) == ["imported"]


def test_many_games_come_in_few_updates_and_the_same_again_in_none(node, miner):
    epoch, seq = end_of_log(miner)
    imported = [game(f"many-{number}", event_start_date="2027-01-01T00:00:00Z") for number in range(300)]

    put_games(node, *imported)
    first = miner.get("/games/updates", epoch=epoch, after=seq, wait=20).json()
    put_games(node, *imported)
    again = miner.get("/games/updates", epoch=epoch, after=seq + 2, wait=1).json()

    assert [len(one["updated_games"]) for one in first["updates"]] == [200, 100]
    assert (again["updates"], again["last_seq"]) == ([], seq + 2)


def waiting(miner: SignedHttp, epoch: str, seq: int) -> httpx.Response:
    with SignedHttp.__new__(SignedHttp) as own:
        own.__dict__ |= {**miner.__dict__, "_client": httpx.Client(base_url=miner._client.base_url, timeout=70)}
        return own.get("/games/updates", epoch=epoch, after=seq, wait=50)


def until_waiting(admin: httpx.Client, count: int) -> None:
    """Returns once so many requests wait."""
    until(lambda: f'grid_connections{{face="poll"}} {count}.0' in admin.get("/metrics", headers=METRICS_HEADERS).text)


def test_updates_come_in_order_and_in_pages(miner, admin, game_id):
    epoch, seq = end_of_log(miner)
    for odds in ("1.91", "1.92", "1.93"):
        admin.put(f"/games/{game_id}", json={"team_a_odds": odds})

    first = miner.get("/games/updates", epoch=epoch, after=seq, limit=2).json()
    rest = miner.get("/games/updates", epoch=epoch, after=seq + 2, limit=2).json()

    assert [one["seq"] for one in first["updates"] + rest["updates"]] == [seq + 1, seq + 2, seq + 3]
    assert (first["last_seq"], rest["last_seq"]) == (seq + 3, seq + 3)


@pytest.mark.parametrize("reason", ["epoch_changed", "ahead", "too_many", None])
def test_what_cannot_be_resumed_gets_a_snapshot_and_the_reason(miner, admin, game_id, reason):
    epoch, seq = end_of_log(miner)
    for number in range(RESUME_MAX + 1):
        admin.put(f"/games/{game_id}", json={"team_a_odds": f"1.{60 + number}"})
    position = {
        "epoch_changed": {"epoch": "0" * 16, "after": seq},
        "ahead": {"epoch": epoch, "after": seq + 100},
        "too_many": {"epoch": epoch, "after": seq},
        None: {},
    }[reason]

    body = miner.get("/games/updates", **position).json()

    newest = end_of_log(miner)
    assert (body["recovered"], body["reason"], (body["epoch"], body["seq"])) == (False, reason, newest)
    (part,) = body["snapshot"]
    assert (part["kind"], part["seq"], part["part"], part["parts"]) == ("snapshot", newest[1], 1, 1)
    assert part["updated_games"][game_id]["team_a_odds"] == "1.6400"


@pytest.mark.parametrize(
    "query",
    [
        "epoch=0000000000000000",
        "after=1",
        "epoch=xyz&after=1",
        "epoch=000000000000000G&after=1",
        "epoch=0000000000000000&after=-1",
        "epoch=0000000000000000&after=1.5",
        "epoch=0000000000000000&after=x",
        "epoch=0000000000000000&after=1&wait=56",
        "epoch=0000000000000000&after=1&wait=-1",
        "epoch=0000000000000000&after=1&limit=0",
        "epoch=0000000000000000&after=1&limit=501",
        "epoch=0000000000000000&after=1&colour=red",
    ],
)
def test_a_position_that_is_none(miner, query):
    assert refused(miner.request("GET", f"/games/updates?{query}"), 400, "invalid_message")["fields"]


def test_a_miner_waits_twice_at_most_and_one_that_leaves_makes_room(node, miner, admin, game_id):
    epoch, seq = end_of_log(miner)
    with ThreadPoolExecutor() as threads:
        polls = [threads.submit(waiting, miner, epoch, seq) for _ in range(2)]
        until_waiting(admin, 2)

        third = miner.get("/games/updates", epoch=epoch, after=seq)

        assert refused(third, 503, "overloaded")["retry_after"] == 1
        assert third.headers["Retry-After"] == "1"
        admin.put(f"/games/{game_id}", json={"team_a_odds": "1.95"})
        assert [poll.result(30).status_code for poll in polls] == [200, 200]
    leave(miner, epoch, seq + 1, admin)
    until_waiting(admin, 0)


def leave(miner: SignedHttp, epoch: str, seq: int, admin: httpx.Client) -> None:
    """Ask, and close the connection while the node waits."""
    path = f"/games/updates?epoch={epoch}&after={seq}&wait=50"
    headers = miner.headers("GET", path)
    impatient = httpx.Client(base_url=miner._client.base_url, timeout=0.5)
    with pytest.raises(httpx.ReadTimeout):
        impatient.get(path, headers=headers)
    impatient.close()


def test_a_node_that_stops_answers_those_who_wait(tmp_path):
    answers: list[Future[httpx.Response]] = []
    with running_node(tmp_path) as node, ThreadPoolExecutor() as threads:
        put_games(node)
        keypair = new_keypair()
        allow(node, keypair)
        admin = httpx.Client(base_url=node.url)
        with SignedHttp(node, keypair) as miner:
            epoch, seq = end_of_log(miner)
            answers.append(threads.submit(waiting, miner, epoch, seq))
            until_waiting(admin, 1)
            stopping = threading.Thread(target=node.terminate)
            stopping.start()
            answer = answers[0].result(20)
            stopping.join()
        admin.close()

    assert (answer.status_code, answer.json()["updates"]) == (200, [])
