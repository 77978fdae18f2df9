"""Threads, processes and nodes of a load balancer that get in each other's way; each test was a defect once."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from grid_node.chain import lease
from grid_node.chain import weights_rows as rows
from grid_node.chain.calls import Calls
from grid_node.chain.epochs import Epoch
from grid_node.chain.follow import Follower, Pulse
from grid_node.chain.frames import FrameError, Kind, packed
from grid_node.chain.heads import Heads
from grid_node.chain.lanes import Lane
from grid_node.chain.ports import BlockUnknown, NodeUnreachable, WriteRefused
from grid_node.chain.proposals import Proposals
from grid_node.chain.recent import Refresher
from grid_node.chain.sending import Sent, fate
from grid_node.chain.weights_tables import RUNNING
from grid_node.clock import ManualClock
from grid_node.database import Store
from grid_node.errors import ChainFault, ChainQueueFull, ChainTimeout, ChainUnreachable
from tests.chain_stub import StubChain
from tests.contract.chain.subtensor_yard import SubtensorYard
from tests.contract.chain.weighing import A, World, identity
from tests.nodes import until
from tests.stores import postgres_tables, sqlite_template, store
from tests.subtensor import FakeSubtensor
from tests.unit.chain.test_desk import ThreadOf, at, threaded

__all__ = ["postgres_tables", "sqlite_template", "store"]


class Panic(BaseException):
    """What a library in Rust raises when it gives up: no Exception."""


# --- threads ------------------------------------------------------------------------------------------------------


def test_a_slow_node_serves_reads_between_two_looks() -> None:
    with threaded() as place:
        place.main.delays["head"] = 0.05
        over = threading.Event()

        def pulse() -> None:
            while not over.wait(0.005):
                place.link.desk.look()

        beating = threading.Thread(target=pulse)
        beating.start()
        try:
            until(lambda: place.main.calls["head"] >= 2)
            assert place.ask("block", number=900).meta == {"block": place.main.at(900).body()}
        finally:
            over.set()
            beating.join(5)


def test_a_library_that_panics_ends_neither_the_call_nor_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    with threaded() as place:
        place.main.fail("neurons", Panic("overflow"))  # type: ignore[arg-type]
        with pytest.raises(ChainFault):
            place.ask("neurons", **at(1079))
        assert json.loads(place.ask("neurons", **at(1079)).body)["neurons"]
    assert "Panic" in caplog.text


def test_a_turn_that_panics_is_taken_again() -> None:
    turns = []

    def turn() -> float | None:
        turns.append(1)
        raise Panic

    lane = Lane("writer", turn)
    lane.wake()
    until(lambda: len(turns) == 1)
    lane.wake()
    until(lambda: len(turns) == 2)
    lane.close(lambda: None)
    lane.join(5)


def test_writes_that_nobody_waits_for_any_more_still_count_against_the_queue() -> None:
    with threaded(chain_queue_max=3) as place, ThreadOf() as thread:
        with place.main.hold("prepare_certificate"):
            first = thread.ask(place, "generate_certificate", identity="sn1", algorithm=1)
            until(lambda: place.main.calls["prepare_certificate"] == 1)
            for _ in range(3):
                with pytest.raises(ChainTimeout):
                    place.ask("generate_certificate", timeout=0.01, identity="sn1", algorithm=1)
            with pytest.raises(ChainQueueFull):
                place.ask("generate_certificate", timeout=0.01, identity="sn1", algorithm=1)
        assert first.wait(5)
        until(lambda: place.main.calls["prepare_certificate"] == 4)


def test_what_is_no_text_is_no_frame() -> None:
    with pytest.raises(FrameError):
        packed(Kind.REFUSED, 1, {"text": "half of a pair: \ud800"})


def test_callers_that_left_are_not_kept_while_others_join() -> None:
    clock = ManualClock()
    calls = Calls(clock)
    call = calls.join("set_commitment", {"identity": "sn1", "data": "00"}, 1.0, lambda outcome: None)
    assert call is not None
    calls.begin(call)
    for _ in range(100):
        clock.advance(0.5)
        assert calls.join("set_commitment", call.args, 1.0, lambda outcome: None) is None

    assert len(call.waiters) <= 3


def test_a_beat_that_cannot_be_sent_is_not_the_last_one(caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def send() -> None:
        tried.append(1)
        if len(tried) == 1:
            raise FrameError("no frame")

    pulse = Pulse(lambda: None, send, lambda: False, 0.01)
    pulse.start()
    pulse.changed()
    until(lambda: len(tried) == 1)
    pulse.changed()
    until(lambda: len(tried) > 1)
    pulse.stop()
    assert "no frame" in caplog.text


# --- nodes behind one address -------------------------------------------------------------------------------------


@pytest.fixture
def nodes() -> Iterator[SubtensorYard]:
    with FakeSubtensor(instant=True) as fake:
        made = SubtensorYard(fake)
        made.add_subnet(1)
        made.add_neuron(1, made.hotkey())
        yield made
        made.port.close()


class Behind:
    """After `finalized` was asked, the connection leads to a node that is behind."""

    def __init__(self, yard: SubtensorYard, final: int) -> None:
        self._yard = yard
        self._final = final

    def finalized(self) -> int:
        told = self._yard.port.finalized()
        self._yard.fake.chain._finalized = self._final
        return told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._yard.port, name)


def test_a_node_that_is_behind_does_not_say_that_an_extrinsic_landed_nowhere(nodes: SubtensorYard) -> None:
    prepared = nodes.port.prepare_commitment(nodes.signer(1), b"x")
    landed = nodes.port.submit(prepared, 5.0)
    nodes.advance(10)
    behind = Behind(nodes, landed.block.number - 1)

    with pytest.raises(NodeUnreachable):
        fate(behind, Sent.of(prepared))  # type: ignore[arg-type]

    nodes.fake.chain._finalized = nodes.fake.chain.head.number
    found = fate(nodes.port, Sent.of(prepared))
    assert found.landed == landed


def test_what_the_node_threw_away_is_looked_for_in_the_archive(nodes: SubtensorYard) -> None:
    fake = nodes.fake
    with fake.archive() as other:
        archive = nodes.another_port(other.uri)
        port = nodes.another_port(fake.uri, archive)
        prepared = port.prepare_commitment(nodes.signer(1), b"x")
        sent = prepared.extrinsic_hash, prepared.era_start, prepared.era_end - 1
        landed = port.submit(prepared, 5.0)
        nodes.advance(30)
        fake.faults.prune(fake.chain.head.number)

        assert nodes.another_port(fake.uri, archive).find(*sent) == landed
        assert port.find("0x" + "00" * 32, *sent[1:]) is None
        assert [(one["uri"], one["ok"]) for one in port.endpoints()] == [(fake.uri, True), (other.uri, True)]

        fake.chain._finalized = landed.block.number - 1  # an archive that is behind cannot say
        with pytest.raises(NodeUnreachable):
            port.find(*sent)
        other.faults.drop()
        with pytest.raises(NodeUnreachable):
            port.find(*sent)
        port.close()
        assert not archive._node.connection.is_open


def test_a_newest_block_that_the_next_node_does_not_know_is_asked_for_again() -> None:
    with threaded() as place:
        place.main.fail("neurons", BlockUnknown("the node behind is one block behind"))
        told = place.ask("neurons", netuid=1, number=None)
        assert told.meta["block"] == place.main.at(1080).body()
        assert place.main.calls["head"] == 2


def test_a_head_that_the_next_node_does_not_know_is_asked_for_again(nodes: SubtensorYard) -> None:
    nodes.port.head()
    nodes.advance(1)
    nodes.fake.faults.answer(None, "chain_getHeader", times=1)

    assert nodes.port.head().number == nodes.fake.chain.head.number


def test_a_panic_of_a_library_is_the_nodes_doing(nodes: SubtensorYard, monkeypatch: pytest.MonkeyPatch) -> None:
    panic = type("PanicException", (BaseException,), {})

    def decode(*args: Any) -> Any:
        raise panic("called `Option::unwrap()` on a `None` value")

    with monkeypatch.context() as patched:
        patched.setattr(nodes.port._node, "value", decode)
        nodes.advance(1)
        with pytest.raises(NodeUnreachable, match="garbage"):
            nodes.port.head()
    assert nodes.port.head().number == nodes.fake.chain.head.number


def test_a_reveal_period_of_ages_does_not_keep_the_writer_busy_for_ages(nodes: SubtensorYard) -> None:
    nodes.add_subnet(2, commit_reveal=True)
    nodes.add_neuron(2, nodes.hotkey())
    told = replace(nodes.port.hyperparams(2, nodes.port.head()), reveal_period=2**32)

    with pytest.raises(WriteRefused, match="reveal period"):
        nodes.port.prepare_weights(nodes.signer(2), [0], [65535], told)


# --- a chain that is set back -------------------------------------------------------------------------------------


def test_blocks_of_a_chain_that_was_set_back_are_not_final_for_having_been_so_before() -> None:
    chain = StubChain(1000)
    follower = Follower(chain, ManualClock())
    follower.look()
    chain.head_number, chain.finalized_lag = 50, 3

    follower.look()

    assert follower.beat().finalized == 47


def test_a_chain_that_was_set_back_is_another_one_once() -> None:
    chain, clock = StubChain(1000), ManualClock()
    follower, heads = Follower(chain, clock), Heads(clock, 12.0)
    for head in (1000, 50, 51, 52):
        clock.advance(12)
        chain.head_number = head
        follower.look()
        heads.beat(follower.beat())

    assert heads.chain == 1


# --- one that fails does not take the others along ----------------------------------------------------------------


def test_a_subnet_that_cannot_be_read_does_not_keep_the_others_from_being_refreshed() -> None:
    done: list[int] = []

    def refresh(key: tuple[str, int]) -> None:
        if key[1] in (1, 3):
            raise ChainUnreachable("garbage")
        done.append(key[1])

    refresher = Refresher(ManualClock(), [("neurons", netuid) for netuid in range(1, 6)], refresh)
    for _ in range(6):
        refresher.round()

    assert {2, 4, 5} <= set(done[-3:])


@pytest.mark.parametrize("told", [0, 1_000_000])
def test_a_block_with_no_time_or_nonsense_for_one_does_not_have_decades_summed_up(store: Store, told: int) -> None:
    world = World(store)
    asked: list[tuple[float, float]] = []

    class Scores:
        def earned(self, since: float, until: float) -> dict[str, tuple[int, float]]:
            asked.append((since, until))
            return {}

        def blacklisted(self, hotkey: str) -> bool:
            return False

    head = world.chain.at(100)

    class Link:
        def ask(self, op: str, args: Any, timeout: float) -> Any:
            from grid_node.chain.frames import Answer

            if op == "hyperparams":
                return Answer({"block": head.body(), "tempo": 360}, b"")
            return Answer({"block": {"number": 0, "hash": head.hash, "timestamp": told}}, b"")

    Proposals(Scores(), world.reads, Link(), world.clock, world.settings, world.pylon).propose(identity(), 1.0)

    assert asked == [(head.timestamp - 100 * 12.0, world.clock.now())]


# --- processes ----------------------------------------------------------------------------------------------------


def test_processes_of_two_machines_with_one_name_are_not_taken_for_neighbours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    places = set()
    for boot in ("first", "second"):
        (tmp_path / boot).write_text(boot + "\n")
        monkeypatch.setattr(lease, "BOOT", str(tmp_path / boot))
        places.add(lease._place())

    assert len(places) == 2


def test_the_epoch_of_a_job_is_not_moved_by_one_who_comes_late(store: Store) -> None:
    world = World(store)
    world.put({A: 1.0})
    store.write(lambda tx: rows.begin(tx, rows.open_jobs(tx)[0], world.clock.now(), world.clock.now()))
    row = store.read(rows.open_jobs)[0]
    assert row.status == RUNNING
    now, genesis = world.clock.now(), world.chain.genesis()

    first = store.write(lambda tx: rows.place(tx, row.number, now, genesis, Epoch(719, 1080)))
    late = store.write(lambda tx: rows.place(tx, row.number, now, genesis, Epoch(1080, 1441)))

    assert (first, late) == (Epoch(719, 1080), Epoch(719, 1080))


def test_a_clock_that_is_set_back_makes_no_negative_duration(store: Store) -> None:
    world = World(store)
    world.put({A: 1.0})
    submit = world.chain.submit

    def slowly(*args: Any) -> Any:
        world.clock._now -= 3600
        return submit(*args)

    world.chain.submit = slowly  # type: ignore[method-assign]
    world.runner.step()

    assert [sample[4] for sample in world.samples.drain() if sample[0] == "job"] == [0.0]
