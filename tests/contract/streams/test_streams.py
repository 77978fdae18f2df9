"""Every entry reaches every subscriber once and in order, whichever process wrote it."""

import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from grid_node.database import Store, Transaction
from grid_node.streams.service import Entry, Streams, Subscription

NOW = 1_800_000_000.0


class Writer:
    """A process that appends: it counts seq of each stream as a service does in a row of its own."""

    def __init__(self, store: Store, streams: Streams, seqs: dict[str, int]) -> None:
        self.store = store
        self.streams = streams
        self.seqs = seqs

    def append(self, stream: str = "task:a", count: int = 1) -> None:
        self.store.write(partial(self._append, stream=stream, count=count))

    def _append(self, tx: Transaction, stream: str, count: int) -> None:
        for _ in range(count):
            seq = self.seqs[stream] = self.seqs.get(stream, 0) + 1
            self.streams.append(tx, stream, seq, NOW, {"seq": seq})


class Follower:
    """A reader that writes down what it is given."""

    def __init__(self, streams: Streams, stream: str = "task:a", after: int = 0) -> None:
        self.seqs: list[int] = []
        self.subscription: Subscription = streams.subscribe(stream, after, self._take)

    def _take(self, entry: Entry) -> None:
        assert entry.body == {"seq": entry.seq}
        self.seqs.append(entry.seq)


@pytest.fixture
def here(store: Store) -> Streams:
    streams = Streams(store)
    streams.start_tail()
    return streams


@pytest.fixture
def there(store: Store) -> Writer:
    """Another process on the same database."""
    return Writer(store, Streams(store), {})


def test_a_subscriber_hears_of_an_entry_of_its_own_process_at_once(store: Store, here: Streams) -> None:
    follower = Follower(here)
    Writer(store, here, {}).append(count=3)
    assert follower.seqs == [1, 2, 3]


def test_a_subscriber_hears_of_another_process_when_it_looks(here: Streams, there: Writer) -> None:
    follower = Follower(here)
    there.append(count=3)
    assert follower.seqs == []
    assert here.poll()
    assert not here.poll()
    assert follower.seqs == [1, 2, 3]


def test_what_was_rolled_back_is_told_to_nobody(store: Store, here: Streams) -> None:
    follower = Follower(here)

    def unit(tx: Transaction) -> None:
        here.append(tx, "task:a", 1, NOW, {"seq": 1})
        raise RuntimeError("the rest of the unit failed")

    with pytest.raises(RuntimeError):
        store.write(unit)
    assert not here.poll()
    assert follower.seqs == []


def test_a_reader_that_comes_back_gets_what_follows_its_seq_from_any_process(
    store: Store, here: Streams, there: Writer
) -> None:
    there.append(count=5)
    assert [entry.seq for entry in here.after("task:a", 2)] == [3, 4, 5]
    follower = Follower(here, after=2)
    follower.subscription.catch_up()
    there.append()
    here.poll()
    assert follower.seqs == [3, 4, 5, 6]


def test_an_entry_beyond_a_gap_brings_the_missing_ones_first(store: Store, here: Streams, there: Writer) -> None:
    follower = Follower(here)
    there.append(count=4)
    Writer(store, here, there.seqs).append()
    assert follower.seqs == [1, 2, 3, 4, 5]
    here.poll()
    assert follower.seqs == [1, 2, 3, 4, 5]


def test_one_look_is_enough_however_much_another_process_wrote(here: Streams, there: Writer) -> None:
    """A node that writes thousands of entries a second must not fall behind with those of others."""
    follower = Follower(here, "task:last")
    for number in range(30):
        there.append(f"task:{number}", 100)
    there.append("task:last")
    here.poll()
    assert follower.seqs == [1]


def test_a_subscriber_that_left_is_told_nothing_and_leaves_nothing_behind(here: Streams, there: Writer) -> None:
    follower, other = Follower(here), Follower(here)
    follower.subscription.close()
    follower.subscription.close()
    there.append()
    here.poll()
    assert (follower.seqs, other.seqs) == ([], [1])
    other.subscription.close()
    assert not here.followed("task:a")


@pytest.mark.parametrize("seed", range(4))
def test_random_interleavings_of_two_processes_lose_and_repeat_nothing(store: Store, seed: int) -> None:
    dice = random.Random(seed)
    seqs: dict[str, int] = {}
    processes = [Streams(store), Streams(store)]
    writers = [Writer(store, streams, seqs) for streams in processes]
    followers: list[tuple[str, int, Follower]] = []
    for streams in processes:
        streams.start_tail()

    def append() -> None:
        dice.choice(writers).append(dice.choice("abc"), dice.randint(1, 4))

    def follow() -> None:
        stream = dice.choice("abc")
        after = dice.randint(0, seqs.get(stream, 0))
        follower = Follower(dice.choice(processes), stream, after)
        follower.subscription.catch_up()
        followers.append((stream, after, follower))

    steps: list[Callable[[], Any]] = [append, append, follow, lambda: dice.choice(processes).poll()]
    for _ in range(60):
        dice.choice(steps)()
    for streams in processes:
        streams.poll()
    for stream, after, follower in followers:
        assert follower.seqs == list(range(after + 1, seqs.get(stream, 0) + 1))


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads that change places as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
def test_the_writer_a_poll_and_a_bell_at_the_same_time_deliver_each_entry_once_and_in_order(store: Store) -> None:
    """Where threads are real ones, all three meet at a subscription."""
    streams = Streams(store)
    follower = Follower(streams)
    entries = [Entry("task:a", seq, {"seq": seq}, f'{{"seq":{seq}}}') for seq in range(1, 2001)]
    together = threading.Barrier(4)

    def offer_all() -> None:
        together.wait()
        for entry in entries:
            follower.subscription.offer(entry)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(offer_all) for _ in range(4)]:
            future.result(20)
    assert follower.seqs == list(range(1, 2001))


def test_waiting_ends_with_the_first_entry_whoever_writes_it(store: Store, here: Streams, there: Writer) -> None:
    for writer in (Writer(store, here, there.seqs), there):
        after = there.seqs.get("task:a", 0)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(here.wait, "task:a", after, 20.0)
            while not here.followed("task:a"):
                threading.Event().wait(0.001)
            writer.append()
            here.poll()
            assert [entry.seq for entry in waiting.result(20)] == [after + 1]
    assert here.wait("task:a", 2, 0.01) == []


def test_old_entries_are_forgotten_and_young_ones_stay(store: Store, here: Streams, there: Writer) -> None:
    there.append(count=3)
    assert store.write(lambda tx: here.purge(tx, NOW)) == 0
    store.write(lambda tx: here.append(tx, "task:b", 1, NOW + 2, {}))
    assert store.write(lambda tx: here.purge(tx, NOW + 1)) == 3
    assert here.after("task:a", 0) == []
    assert len(here.after("task:b", 0)) == 1
