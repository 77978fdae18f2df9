"""Parts of the chain's process that can be looked at one by one; whole, it is in the integration tests."""

import socket
import threading

import pytest

from grid_node.chain.backends import Writers
from grid_node.chain.certificates import Issued
from grid_node.chain.frames import FRAME_MAX, Answer, Kind, receive
from grid_node.chain.ports import Block, Landed, Signer
from grid_node.chain.worker import Wire
from grid_node.errors import ChainNotFound, ChainQueueFull, StoreUnavailable

SN1 = Signer("sn1", 1, "w", "h")


@pytest.fixture
def peers():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_an_answer_and_a_refusal_on_the_wire(peers):
    ours, theirs = peers
    wire = Wire(theirs)
    wire.answer(7, Answer({"state": "a"}, b"body"))
    wire.answer(8, ChainNotFound("Subnet 7 not found."))
    wire.answer(9, ChainQueueFull())

    assert receive(ours) == (Kind.ANSWER, 7, {"state": "a"}, b"body")
    refused = {"code": "chain_not_found", "text": "Subnet 7 not found.", "data": {}}
    assert receive(ours) == (Kind.REFUSED, 8, refused, b"")
    assert receive(ours).meta["data"] == {"retry_after": 1}


def test_an_answer_that_is_too_large_is_a_fault_of_ours(peers):
    ours, theirs = peers
    Wire(theirs).answer(7, Answer({}, bytes(FRAME_MAX)))

    assert receive(ours).meta["code"] == "chain_fault"


def test_frames_of_many_threads_do_not_mix(peers):
    ours, theirs = peers
    wire = Wire(theirs)
    threads = [
        threading.Thread(target=wire.answer, args=(number, Answer({"n": number}, bytes([number]) * 100_000)))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    frames = [receive(ours) for _ in threads]
    for thread in threads:
        thread.join()

    assert sorted(frame.id for frame in frames) == list(range(20))
    assert all(frame.body == bytes([frame.id]) * 100_000 and frame.meta == {"n": frame.id} for frame in frames)


def test_to_a_peer_that_is_gone_nothing_is_said(peers):
    ours, theirs = peers
    ours.close()
    wire = Wire(theirs)
    wire.answer(1, Answer({}, b"x" * 1000))

    assert not wire.wait()


class Runner:
    """The weights, as far as a turn needs them."""

    def __init__(self, *problems):
        self.problems = list(problems)
        self.recovered = self.steps = 0

    def recover(self):
        self.recovered += 1
        if self.problems:
            raise self.problems.pop()

    def step(self):
        self.steps += 1
        return 2.0


def test_the_weights_are_recovered_before_the_first_step_and_once():
    runner = Runner(StoreUnavailable(retry_after=1))
    writers = Writers(None, None, runner)
    with pytest.raises(StoreUnavailable):
        writers.turn()
    assert runner.steps == 0

    assert [writers.turn(), writers.turn()] == [2.0, 2.0]
    assert (runner.recovered, runner.steps) == (2, 2)


def test_without_identities_there_are_no_turns():
    assert Writers(None, None, None).turn() is None


def test_a_certificate_comes_with_where_it_landed():
    landed = Landed(Block(7, "0x00", 1), "0x01")

    class Certificates:
        def generate(self, signer, algorithm):
            assert (signer, algorithm) == (SN1, 1)
            return Issued(landed, b"{}")

    assert Writers(None, Certificates(), None).generate(SN1, 1) == (landed, b"{}")
