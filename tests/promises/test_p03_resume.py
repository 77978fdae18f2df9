"""P3: whoever was away gets exactly what it missed, by (epoch, seq); a hole is said, and then comes a snapshot."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from bittensor_wallet import Keypair

from grid_node.clock import SystemClock
from grid_node.identity.hotkeys import check_message, decode_hotkey
from tests.miners import Bookmaker, Miner, RawMiner, SignedHttp, game
from tests.nodes import LiveNode, until
from tests.promises.conftest import started

MISSED = 40


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    """One of its own: its log is re-created and shortened here."""
    with started(tmp_path_factory.mktemp("resume")) as live:
        yield live


@pytest.fixture(scope="module")
def books(node: LiveNode) -> Bookmaker:
    return Bookmaker(node, games_log_max_entries=10)


@pytest.fixture
def cursor(books: Bookmaker, http: SignedHttp) -> dict[str, Any]:
    """The end of the log, which the node has noticed."""
    return books.seen(http)


def check(miner: Miner, updates: list[dict[str, Any]], after: dict[str, Any], odds: list[str]) -> None:
    """These updates are the ones after this position, whole, in order, and signed by the node."""
    assert [update["seq"] for update in updates] == [after["seq"] + 1 + number for number in range(len(odds))]
    assert [update["updated_games"] for update in updates] == [{"nfl-17": {"team_b_odds": text}} for text in odds]
    for update in updates:
        assert (update["kind"], update["epoch"]) == ("delta", after["epoch"])
        check_message(decode_hotkey(miner.node_hotkey), update)


def test_p3_forty_missed_updates_come_by_authenticate_in_order_and_nothing_else(
    books: Bookmaker, hotkey: Keypair, connect: Callable[..., Miner], cursor: dict[str, Any]
) -> None:
    odds = books.append(MISSED)

    after = connect(hotkey, position=cursor)
    assert (after.welcome["recovered"], after.welcome["epoch"]) == (True, cursor["epoch"])
    after.socket.wait_for("game_update", MISSED)
    (more,) = books.append(1)
    after.socket.wait_for("game_update", MISSED + 1)
    check(after, after.updates, cursor, [*odds, more])


def test_p3_forty_missed_updates_come_by_resume_and_by_long_poll(
    node: LiveNode, books: Bookmaker, hotkey: Keypair, http: SignedHttp, cursor: dict[str, Any]
) -> None:
    odds = books.append(MISSED)
    end = {"epoch": cursor["epoch"], "seq": cursor["seq"] + MISSED}

    answer = http.get("/games/updates", epoch=cursor["epoch"], after=cursor["seq"], wait=20).json()
    assert (answer["recovered"], answer["last_seq"]) == (True, end["seq"])

    with closing(RawMiner(node, hotkey)) as raw:
        assert raw.enter(position=end)["recovered"] is True
        assert raw.call("resume", cursor) == {"success": True, "recovered": True, **end, "replayed": MISSED}
        by_socket = [raw.wait_for("game_update", number) for number in range(1, MISSED + 1)]
    assert by_socket == answer["updates"]
    assert [update["updated_games"]["nfl-17"]["team_b_odds"] for update in by_socket] == odds


def test_p3_a_late_joiner_gets_a_snapshot_at_once(books: Bookmaker, miner: Miner, http: SignedHttp) -> None:
    (snapshot,) = miner.socket.wait_for("game_update")
    assert miner.welcome["recovered"] is None
    assert (snapshot["kind"], snapshot["part"], snapshot["parts"]) == ("snapshot", 1, 1)
    assert snapshot["seq"] == miner.welcome["seq"]
    assert snapshot["updated_games"] == http.get("/games").json()["games"]
    books.append(2)
    miner.socket.wait_for("game_update", 3)
    assert [update["seq"] for update in miner.updates] == [snapshot["seq"] + number for number in range(3)]


def told(http: SignedHttp, connect: Callable[..., Miner], hotkey: Keypair, cursor: dict[str, Any], reason: str) -> None:
    """A position that cannot be resumed is answered with the reason and a snapshot, wherever it is named."""
    by_route = http.get("/games/updates", epoch=cursor["epoch"], after=cursor["seq"], wait=1).json()
    assert (by_route["success"], by_route["recovered"], by_route["reason"]) == (True, False, reason)
    assert [part["kind"] for part in by_route["snapshot"]] == ["snapshot"]

    miner = connect(hotkey, position=cursor)
    assert miner.welcome["recovered"] is False
    (first,) = miner.socket.wait_for("game_update")
    answer = miner.socket.call("resume", cursor)
    expected = {"success": True, "recovered": False, "reason": reason, "epoch": first["epoch"], "seq": first["seq"]}
    assert answer == expected
    for update in miner.socket.wait_for("game_update", 2):
        assert (update["kind"], update["seq"]) == ("snapshot", first["seq"])
    assert {update["message_type"] for update in miner.updates} == {"game_update"}


def test_p3_a_position_of_the_future_is_said(
    http: SignedHttp, connect: Callable[..., Miner], hotkey: Keypair, cursor: dict[str, Any]
) -> None:
    told(http, connect, hotkey, {**cursor, "seq": cursor["seq"] + 1}, "ahead")


def test_p3_five_hundred_missed_updates_are_replayed_and_one_more_is_too_many(
    node: LiveNode,
    books: Bookmaker,
    http: SignedHttp,
    connect: Callable[..., Miner],
    hotkey: Keypair,
    cursor: dict[str, Any],
) -> None:
    books.append(500)
    with closing(RawMiner(node, hotkey)) as raw:
        assert raw.enter(position=cursor)["recovered"] is True
        last = {"epoch": cursor["epoch"], "seq": cursor["seq"]}
        while last["seq"] < cursor["seq"] + 500:
            update = raw.wait_for("game_update", last["seq"] - cursor["seq"] + 1)
            assert (update["kind"], update["seq"]) == ("delta", last["seq"] + 1)
            last["seq"] = update["seq"]
            raw.send("update_ack", last)
    books.append(1)
    books.seen(http)
    told(http, connect, hotkey, cursor, "too_many")


def test_p3_a_new_epoch_is_said_also_to_those_who_are_there(
    node: LiveNode,
    books: Bookmaker,
    http: SignedHttp,
    connect: Callable[..., Miner],
    new_hotkey: Callable[[], Keypair],
    hotkey: Keypair,
    cursor: dict[str, Any],
) -> None:
    there = connect(new_hotkey())
    there.socket.wait_for("game_update")
    books.log.new_epoch()
    until(lambda: http.get("/games").json()["epoch"] != cursor["epoch"])
    told(http, connect, hotkey, cursor, "epoch_changed")
    there.socket.wait_for("game_update", 2)
    assert (there.updates[1]["kind"], there.updates[1]["epoch"] != cursor["epoch"]) == ("snapshot", True)


def test_p3_receipts_that_a_miner_missed_are_found_by_its_last_seq(
    connect: Callable[..., Miner], hotkey: Keypair, http: SignedHttp
) -> None:
    miner = connect(hotkey)
    first = miner.predict()
    missed = [http.predict().json() for _ in range(5)]
    miner.close()
    assert connect(hotkey).welcome["last_seq"] == 6
    answer = http.get("/predictions", after_seq=first["seq"]).json()
    assert [row["receipt"] for row in answer["predictions"]] == missed
    assert answer["last_seq"] == 6


def test_p3_positions_survive_kill_9_and_one_older_than_the_log_is_said(
    node: LiveNode,
    books: Bookmaker,
    http: SignedHttp,
    connect: Callable[..., Miner],
    hotkey: Keypair,
    cursor: dict[str, Any],
) -> None:
    """What the node had in memory is gone; what the operator did meanwhile is there."""
    books.append(30)
    recent = books.seen(http)
    node.kill()
    odds = books.append(5)
    books.put(game("nfl-18"))
    while books.store.write(lambda tx: books.log.purge(tx, SystemClock().now())):
        pass
    node.start()

    miner = connect(hotkey, position=recent)
    assert miner.welcome["recovered"] is True
    miner.socket.wait_for("game_update", 6)
    check(miner, miner.updates[:5], recent, odds)
    assert set(miner.updates[5]["updated_games"]) == {"nfl-18"}
    told(http, connect, hotkey, cursor, "expired")
