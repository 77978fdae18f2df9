"""Cursors into the update log: order, windows, snapshots, and who is too slow."""

import threading
from dataclasses import dataclass, field

import pytest

from grid_node.clock import ManualClock
from grid_node.errors import StoreUnavailable
from grid_node.predictions.broadcast import Broadcast, Follower, Place
from grid_node.predictions.update_log import Position, Snapshot
from grid_node.settings import Settings

EPOCH, OTHER_EPOCH = "a" * 16, "b" * 16
WINDOW, QUEUE, SLOW = 4, 20, 30.0


class FakeLog:
    """Updates are texts: `3` is entry 3, `snapshot 3` or `snapshot 3 2/5` the games at that place."""

    def __init__(self):
        self.newest = Position(EPOCH, 0)
        self.oldest = 1
        self.parts = 1
        self.snapshots = 0
        self.fails = False
        self.wake = None

    def follow(self, wake):
        self.wake = wake

    def append(self, count=1):
        self.newest = Position(self.newest.epoch, self.newest.seq + count)
        self.wake()

    def begin_anew(self, seq=0):
        self.newest = Position(OTHER_EPOCH, seq)
        self.wake()

    def get(self, epoch, seq):
        if self.fails:
            raise StoreUnavailable()
        return seq if epoch == self.newest.epoch and self.oldest <= seq <= self.newest.seq else None

    def snapshot(self):
        self.snapshots += 1
        if self.fails:
            raise StoreUnavailable()
        return Snapshot(self.newest, [f"snapshot {self.newest.seq} {part}" for part in range(self.parts)])


@dataclass
class Reader:
    """A follower and what it was sent; `room` is for how many more."""

    got: list = field(default_factory=list)
    room: int = 1_000_000

    def __post_init__(self):
        self.follower = Follower(self.send)

    def send(self, update):
        if not self.room:
            return False
        self.room -= 1
        self.got.append(update)
        return True

    def take(self):
        taken, self.got[:] = list(self.got), []
        return taken


@pytest.fixture
def log():
    return FakeLog()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def seconds():
    return []


@pytest.fixture
def broadcast(log, clock, seconds):
    settings = Settings(websocket_send_window=WINDOW, websocket_send_queue=QUEUE, websocket_slow_timeout=SLOW)
    return Broadcast(log, clock, settings, seconds.append)


@pytest.fixture
def reader(broadcast):
    """One that joined an empty log and has the snapshot of it."""
    reader = Reader()
    broadcast.join(reader.follower, None)
    assert reader.take() == ["snapshot 0 0"]
    broadcast.acknowledge(reader.follower, Position(EPOCH, 0))
    return reader


def test_one_wake_serves_everybody_in_order(log, broadcast):
    readers = [Reader() for _ in range(5)]
    for each in readers:
        broadcast.join(each.follower, Position(EPOCH, 0))
    log.append(3)
    assert broadcast.serve()
    assert [each.take() for each in readers] == [[1, 2, 3]] * 5


def test_who_joins_at_a_place_gets_what_follows_it_and_nothing_twice(log, broadcast):
    log.append(5)
    late = Reader()
    broadcast.join(late.follower, Position(EPOCH, 2))
    log.append()
    broadcast.serve()
    assert late.take() == [3, 4, 5, 6]


def test_who_joins_without_a_place_gets_a_snapshot_and_what_follows_it(log, broadcast):
    log.append(5)
    log.parts = 2
    late = Reader()
    broadcast.join(late.follower, None)
    log.append()
    broadcast.serve()
    assert late.take() == ["snapshot 5 0", "snapshot 5 1", 6]


def test_no_more_than_the_window_is_sent_before_it_is_acknowledged(log, broadcast, reader):
    log.append(10)
    broadcast.serve()
    assert reader.take() == [1, 2, 3, 4]
    broadcast.serve()
    assert reader.take() == []
    broadcast.acknowledge(reader.follower, Position(EPOCH, 2))
    assert reader.take() == [5, 6]
    broadcast.acknowledge(reader.follower, Position(EPOCH, 6))
    assert reader.take() == [7, 8, 9, 10]


def test_the_parts_of_a_snapshot_fill_the_window_until_its_seq_is_acknowledged(log, broadcast):
    log.append(5)
    log.parts = WINDOW
    late = Reader()
    broadcast.join(late.follower, None)
    late.take()
    log.append()
    broadcast.serve()
    assert late.take() == []
    broadcast.acknowledge(late.follower, Position(EPOCH, 5))
    assert late.take() == [6]


def test_what_the_transport_has_no_room_for_is_sent_in_a_later_round(log, broadcast):
    log.append(5)
    log.parts = 3
    narrow = Reader(room=2)
    broadcast.join(narrow.follower, None)
    log.append(2)
    broadcast.serve()
    assert narrow.take() == ["snapshot 5 0", "snapshot 5 1"]
    narrow.room = 1
    broadcast.serve()
    assert narrow.take() == ["snapshot 5 2"]
    narrow.room = 9
    broadcast.serve()
    assert narrow.take() == [6]
    broadcast.acknowledge(narrow.follower, Position(EPOCH, 6))
    assert narrow.take() == [7]


def test_who_reads_nothing_at_all_is_slow_too(clock, broadcast):
    stuck = Reader(room=0)
    broadcast.join(stuck.follower, None)
    clock.advance(SLOW)
    broadcast.serve()
    assert not broadcast.is_slow(stuck.follower)
    clock.advance(0.001)
    assert broadcast.is_slow(stuck.follower)


@pytest.mark.parametrize("position", [Position(EPOCH, 11), Position(EPOCH, 2**53 - 1), Position(OTHER_EPOCH, 4)])
def test_an_acknowledgement_of_what_is_not_there_opens_no_window(log, broadcast, reader, position):
    log.append(10)
    broadcast.serve()
    reader.take()
    broadcast.acknowledge(reader.follower, position)
    assert reader.take() == []


def test_an_older_acknowledgement_takes_nothing_back(log, broadcast, reader):
    log.append(4)
    broadcast.serve()
    broadcast.acknowledge(reader.follower, Position(EPOCH, 4))
    broadcast.acknowledge(reader.follower, Position(EPOCH, 1))
    log.append(4)
    broadcast.serve()
    assert reader.take() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_a_reader_has_by_another_way_is_not_sent(log, broadcast, reader):
    log.append(10)
    broadcast.serve()
    assert reader.take() == [1, 2, 3, 4]
    broadcast.acknowledge(reader.follower, Position(EPOCH, 9))
    assert reader.take() == [10]


def test_a_paused_reader_gets_nothing_until_it_joins_again(log, broadcast, reader):
    log.append(2)
    broadcast.serve()
    reader.take()
    broadcast.pause(reader.follower)
    log.append()
    broadcast.serve()
    broadcast.acknowledge(reader.follower, Position(EPOCH, 2))
    assert reader.take() == []
    broadcast.join(reader.follower, Position(EPOCH, 1))
    assert reader.take() == [2, 3]


def test_another_epoch_brings_everybody_a_snapshot(log, broadcast, reader):
    log.append(2)
    broadcast.serve()
    reader.take()
    log.begin_anew()
    broadcast.serve()
    assert reader.take() == ["snapshot 0 0"]
    log.append()
    broadcast.serve()
    assert reader.take() == [1]


def test_a_log_that_has_forgotten_what_is_missing_brings_a_snapshot(log, broadcast, reader):
    log.append(10)
    broadcast.serve()
    assert reader.take() == [1, 2, 3, 4]
    log.oldest = 8
    broadcast.acknowledge(reader.follower, Position(EPOCH, 4))
    assert reader.take() == ["snapshot 10 0"]


def test_a_snapshot_that_cannot_be_read_now_is_tried_again(log, broadcast):
    log.append(3)
    log.fails = True
    late = Reader()
    broadcast.join(late.follower, None)
    broadcast.serve()
    assert late.take() == []
    log.fails = False
    broadcast.serve()
    assert late.take() == ["snapshot 3 0"]


def test_an_update_that_cannot_be_read_now_is_tried_again(log, broadcast, reader):
    log.append(2)
    log.fails = True
    broadcast.serve()
    assert reader.take() == []
    log.fails = False
    broadcast.serve()
    assert reader.take() == [1, 2]


def test_who_acknowledges_nothing_in_time_is_slow(log, clock, broadcast, reader):
    log.append()
    broadcast.serve()
    clock.advance(SLOW)
    assert not broadcast.is_slow(reader.follower)
    clock.advance(0.001)
    assert broadcast.is_slow(reader.follower)


def test_a_snapshot_that_is_not_acknowledged_makes_slow(clock, broadcast):
    silent = Reader()
    broadcast.join(silent.follower, None)
    clock.advance(SLOW + 1)
    assert broadcast.is_slow(silent.follower)


def test_every_acknowledgement_that_brings_something_new_gives_time(log, clock, broadcast, reader):
    log.append(2)
    broadcast.serve()
    clock.advance(SLOW)
    broadcast.acknowledge(reader.follower, Position(EPOCH, 1))
    clock.advance(SLOW)
    assert not broadcast.is_slow(reader.follower)
    broadcast.acknowledge(reader.follower, Position(EPOCH, 1))
    clock.advance(0.001)
    assert broadcast.is_slow(reader.follower)


def test_who_had_everything_has_the_whole_time_for_the_next_update(log, clock, broadcast, reader):
    clock.advance(10 * SLOW)
    log.append()
    broadcast.serve()
    clock.advance(SLOW)
    assert not broadcast.is_slow(reader.follower)


def test_who_is_further_behind_than_the_queue_is_slow(log, broadcast, reader):
    log.append(QUEUE + WINDOW)
    broadcast.serve()
    assert not broadcast.is_slow(reader.follower)
    log.append()
    broadcast.serve()
    assert broadcast.is_slow(reader.follower)


def test_who_left_gets_nothing_and_cannot_come_back(log, broadcast, reader):
    broadcast.leave(reader.follower)
    broadcast.join(reader.follower, None)
    broadcast.pause(reader.follower)
    log.append()
    broadcast.serve()
    assert reader.take() == []
    assert len(broadcast) == 0
    assert reader.follower.place is Place.GONE
    assert not broadcast.is_slow(reader.follower)


def test_a_connection_may_end_while_it_is_sent_to(log, broadcast, reader):
    ending = Reader()
    ending.follower.send = lambda update: broadcast.leave(ending.follower) or True
    broadcast.join(ending.follower, Position(EPOCH, 0))
    log.append(3)
    broadcast.serve()
    assert len(broadcast) == 1
    assert reader.take() == [1, 2, 3]


def test_news_of_the_log_are_told_once(log, broadcast, reader, seconds):
    log.append(2)
    assert broadcast.news.is_set()
    assert broadcast.serve()
    assert not broadcast.news.is_set()
    assert not broadcast.serve()
    assert len(seconds) == 1


def test_acknowledgements_and_news_from_many_threads_keep_the_order(log, broadcast):
    total, readers = 3000, [Reader() for _ in range(3)]
    for each in readers:
        broadcast.join(each.follower, Position(EPOCH, 0))

    def write():
        for _ in range(total):
            log.append()

    def serve():
        while any(each.follower.sent < total for each in readers):
            broadcast.serve()

    def acknowledge(each):
        while each.follower.acked < total:
            broadcast.acknowledge(each.follower, Position(EPOCH, each.follower.sent))

    threads = [threading.Thread(target=target) for target in (write, serve, serve)]
    threads += [threading.Thread(target=acknowledge, args=(each,)) for each in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [each.got for each in readers] == [list(range(1, total + 1))] * 3


def test_many_large_updates_to_many_followers_let_others_run(log, clock, monkeypatch):
    times = type("Times", (), {"now": 0.0, "yields": 0})()
    monkeypatch.setattr("grid_node.predictions.turns.time.perf_counter", lambda: times.now)
    monkeypatch.setattr("grid_node.predictions.turns.time.sleep", lambda _: setattr(times, "yields", times.yields + 1))
    broadcast = Broadcast(log, clock, Settings.load({}))

    class Slow(Reader):
        def send(self, update):
            times.now += 0.003
            return super().send(update)

    readers = [Slow() for _ in range(10)]
    for reader in readers:
        broadcast.join(reader.follower, Position(EPOCH, 0))
    log.append()
    broadcast.serve()
    assert times.yields == 5, "once for each two of them"
    assert all(reader.got == [1] for reader in readers)
