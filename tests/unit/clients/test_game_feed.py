import json
import zlib
from typing import Any

import pytest
from grid_client import game_feed, game_notices
from grid_client.clock import seconds_of
from grid_client.game_feed import GameFeed, GameUpdate, InvalidUpdate, Position, Step, unpacked
from grid_client.game_notices import GameNotices

from tests.unit.clients.prediction_node import EPOCH, NODE, STRANGER, delta, game, packed, snapshot

HERE = object()


class Changes(list[GameUpdate]):
    """What a feed told of."""

    def seqs(self) -> list[int]:
        return [update.position.seq for update in self]


def feed_of(*messages: Any) -> tuple[GameFeed, Changes]:
    changes = Changes()
    feed = GameFeed(NODE.ss58_address, NODE, changes.append)
    feed.follow(HERE)
    for message in messages:
        feed.apply(HERE, message)
    return feed, changes


def test_a_snapshot_begins_and_deltas_follow() -> None:
    feed, changes = feed_of(snapshot(4, {"g1": game()}), delta(5, {"g1": {"team_b_odds": "2.3000"}}))
    assert feed.position == Position(EPOCH, 5)
    assert feed.games["g1"] == game(team_b_odds="2.3000", event_start_date=feed.games["g1"]["event_start_date"])
    assert [update.kind for update in changes] == ["snapshot", "delta"]
    assert changes[1].changes == {"g1": {"team_b_odds": "2.3000"}}
    assert changes[1].games["g1"]["team_a"] == "Giants"


def test_a_snapshot_in_parts_counts_once_it_is_complete() -> None:
    feed, changes = feed_of()
    assert feed.apply(HERE, snapshot(4, {"g1": game("g1")}, 1, 2)) is Step.PART
    assert feed.position is None
    assert feed.apply(HERE, snapshot(4, {"g2": game("g2")}, 2, 2)) is Step.APPLIED
    assert sorted(feed.games) == ["g1", "g2"]
    assert changes.seqs() == [4]


def test_parts_of_two_snapshots_do_not_mix() -> None:
    feed, _ = feed_of(snapshot(4, {"g1": game("g1")}, 1, 2))
    assert feed.apply(HERE, snapshot(5, {"g3": game("g3")}, 2, 2)) is Step.PART
    assert feed.apply(HERE, snapshot(5, {"g2": game("g2")}, 1, 2)) is Step.APPLIED
    assert sorted(feed.games) == ["g2", "g3"]


def test_what_was_applied_is_dropped_and_what_is_missing_is_a_gap() -> None:
    feed, changes = feed_of(snapshot(4, {"g1": game()}))
    assert feed.apply(HERE, delta(4, {"g1": {"active": False}})) is Step.OLD
    assert feed.apply(HERE, delta(6, {"g1": {"active": False}})) is Step.GAP
    assert feed.apply(HERE, delta(5, {"g1": {"active": False}}, epoch="b" * 16)) is Step.GAP
    assert feed.games["g1"]["active"] is True
    assert changes.seqs() == [4]
    assert feed.apply(HERE, delta(5, {"g1": {"active": False}})) is Step.APPLIED


def test_without_a_snapshot_every_delta_is_a_gap() -> None:
    feed, changes = feed_of()
    assert feed.apply(HERE, delta(1, {"g1": game()})) is Step.GAP
    assert (feed.position, changes) == (None, [])


def test_a_delta_brings_new_games_but_none_of_which_only_a_piece_is_known() -> None:
    feed, changes = feed_of(snapshot(0, {}))
    feed.apply(HERE, delta(1, {"new": game("new"), "far": {"team_b_odds": "3.0000"}}))
    assert list(feed.games) == list(changes[1].games) == ["new"]
    assert feed.position == Position(EPOCH, 1)


def test_a_snapshot_of_a_new_epoch_replaces_everything() -> None:
    feed, _ = feed_of(snapshot(9, {"g1": game()}), snapshot(1, {"g2": game("g2")}, epoch="b" * 16))
    assert feed.position == Position("b" * 16, 1)
    assert list(feed.games) == ["g2"]


def test_only_the_followed_source_counts() -> None:
    feed, changes = feed_of(snapshot(4, {"g1": game()}))
    other = object()
    assert feed.apply(other, delta(5, {"g1": {"active": False}})) is Step.IGNORED
    assert not feed.follow_unless(other)
    assert feed.follow(other) == Position(EPOCH, 4)
    assert feed.apply(HERE, snapshot(2, {})) is Step.IGNORED
    feed.leave(HERE)
    assert feed.apply(other, delta(5, {"g1": {"active": False}})) is Step.APPLIED
    feed.leave(other)
    assert feed.follow_unless(HERE)
    assert changes.seqs() == [4, 5]


def test_the_games_handed_out_are_copies() -> None:
    feed, changes = feed_of(snapshot(1, {"g1": game()}))
    feed.games["g1"]["active"] = changes[0].games["g1"]["active"] = None
    assert feed.games["g1"]["active"] is True


def test_the_start_of_a_known_game_is_known() -> None:
    feed, _ = feed_of(snapshot(1, {"g1": game(event_start_date="2026-11-20T17:00:00+05:00")}))
    assert feed.starts_at("g1") == seconds_of("2026-11-20T12:00:00.000Z")
    assert feed.starts_at("g2") is None
    assert feed.starts_at(7) is None
    assert seconds_of("2026-11-20T12:00:00") is None
    assert seconds_of(None) is None


@pytest.mark.parametrize(
    "message",
    [
        delta(5, {"g1": {"active": False}}, keypair=STRANGER),
        {**delta(5, {"g1": {"active": False}}, keypair=STRANGER), "sender_hotkey": NODE.ss58_address},
        {**delta(5, {"g1": {"active": False}}), "updated_games": {"g1": {"active": True}}},
        {**delta(5, {"g1": {"active": False}}), "signature": "0x00"},
        {**delta(5, {"g1": {"active": False}}), "extra": float("nan")},
        delta(5, {"g1": {"active": False}}, message_type="confirmation"),
        delta(5, {"g1": 7}),
        delta(5, {}, updated_games=[]),
        delta(-1, {}),
        delta("5", {}),
        delta(5, {}, epoch="xyz"),
        delta(5, {}, kind="other"),
        delta(5, {}, kind="snapshot"),
        snapshot(5, {"g1": game()}, part=2, parts=1),
        snapshot(5, {"g1": game()}, part=0, parts=1),
        snapshot(5, {"g1": game()}, part=1, parts=10**9),
        snapshot(5, {"g1": {"active": False}}),
        None,
        [],
        "update",
    ],
)
def test_what_the_node_did_not_sign_or_cannot_mean_changes_nothing(message: Any) -> None:
    feed, changes = feed_of(snapshot(4, {"g1": game()}))
    with pytest.raises(InvalidUpdate):
        feed.apply(HERE, message)
    assert feed.position == Position(EPOCH, 4)
    assert feed.games["g1"]["active"] is True
    assert len(changes) == 1


def test_a_compressed_update_is_inflated_and_verified() -> None:
    feed, _ = feed_of(packed(snapshot(4, {"g1": game()})), packed(delta(5, {"g1": {"active": False}})))
    assert feed.games["g1"]["active"] is False
    with pytest.raises(InvalidUpdate, match="signature"):
        feed.apply(HERE, packed({**delta(6, {"g1": {}}), "updated_games": {"g1": {"active": True}}}))


def test_a_forged_size_is_refused() -> None:
    message = packed(snapshot(4, {"g1": game()}))
    for size in (message["raw_size"] - 1, message["raw_size"] + 1, 0, -1, True, "9", game_feed.INFLATED_MAX + 1):
        with pytest.raises(InvalidUpdate):
            unpacked({**message, "raw_size": size})


def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = zlib.compress(b"0" * (4 * game_feed.INFLATED_MAX), 9)
    for size in (1000, game_feed.INFLATED_MAX, 4 * game_feed.INFLATED_MAX):
        with pytest.raises(InvalidUpdate):
            unpacked({"encoding": "zlib", "raw_size": size, "data": bomb})


@pytest.mark.parametrize(
    "changes",
    [
        {"encoding": "gzip"},
        {"data": "text"},
        {"data": b"no zlib"},
        {"data": None},
        {"data": zlib.compress(b"[]"), "raw_size": 2},
        {"data": zlib.compress(b"{"), "raw_size": 1},
        {"data": zlib.compress(b"[" * 200_000), "raw_size": 200_000},
        {"data": zlib.compress(b"{}") + b"more", "raw_size": 2},
        {"data": zlib.compress(b"{}" * 50)[:-3], "raw_size": 100},
    ],
)
def test_what_does_not_inflate_to_an_update_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidUpdate):
        unpacked({**packed(delta(1, {})), **changes})


def test_nested_compression_is_no_update() -> None:
    inner = json.dumps({"encoding": "zlib", "raw_size": 2, "data": "x"}).encode()
    feed, _ = feed_of()
    with pytest.raises(InvalidUpdate):
        feed.apply(HERE, {"encoding": "zlib", "raw_size": len(inner), "data": zlib.compress(inner)})


def test_a_listener_that_falls_behind_gets_the_state_instead_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(game_notices, "WAITING", 3)
    notices, told = GameNotices(), Changes()
    feed = GameFeed(NODE.ss58_address, NODE, notices.put)
    feed.follow(HERE)
    busy, entered, stopping = threading.Event(), threading.Event(), threading.Event()

    def listener(update: GameUpdate) -> None:
        told.append(update)
        entered.set()
        assert busy.wait(10)
        if update.position.seq == 20:
            stopping.set()

    def broken(update: GameUpdate) -> None:
        raise RuntimeError("a listener's own fault")

    notices.add(broken)
    notices.add(listener)
    thread = threading.Thread(target=notices.run, args=(feed, stopping))
    thread.start()
    feed.apply(HERE, snapshot(0, {"g1": game()}))
    assert entered.wait(10)
    for seq in range(1, 20):
        feed.apply(HERE, delta(seq, {"g1": {"team_b_odds": f"2.{seq:04d}"}}))
    busy.set()
    while len(told) < 2:
        assert thread.is_alive()
    feed.apply(HERE, delta(20, {"g1": {"team_b_odds": "3.0000"}}))
    thread.join(10)
    assert [(update.kind, update.position.seq) for update in told] == [
        ("snapshot", 0),
        ("snapshot", 19),
        ("delta", 20),
    ]
    assert told[1].games["g1"]["team_b_odds"] == "2.0019"
