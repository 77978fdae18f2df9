"""What the node tells of a chain, over every chain that its port is filled by."""

import itertools
import json
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grid_node.chain.lanes import InlineLane, Lane
from grid_node.chain.metagraph import ChainMetagraph
from grid_node.chain.ports import KINDS, Certificate
from grid_node.errors import ChainNotFound
from grid_node.ss58 import decode
from tests.chain_reads import Reading, until
from tests.ledgers import Yard

NUMBERS = itertools.count()
"""One yard serves all examples of a property: no name comes twice."""


@pytest.fixture
def subnet(yard: Yard) -> int:
    yard.add_subnet(1)
    yard.add_neuron(1, yard.hotkey(), stake_alpha=2.0, validator_permit=True)
    yard.add_neuron(1, yard.hotkey("bob"), stake_alpha=1.0)
    return 1


@pytest.fixture(params=[InlineLane, Lane], ids=["inline", "threads"])
def node(request, yard: Yard, subnet: int):
    clock = {"clock": yard.clock} if hasattr(yard, "clock") else {}
    node = Reading(chain=yard.port, lane=request.param, overrides={"chain_netuid": 1}, **clock)
    node.link.start()
    until(lambda: node.reads.head is not None)
    yield node
    node.close()


def told(answer):
    return json.loads(answer.body)


def commit(yard: Yard, data: bytes, name: str = "alice"):
    return yard.port.submit(yard.port.prepare_commitment(yard.signer(1, name), data), 30.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_is_told_by_its_number_as_it_was_told_as_the_latest(node, yard, kind):
    latest = node.reads.latest(kind, 1, 30)
    commit(yard, b"after")
    yard.advance(3)
    before = node.reads.at(kind, 1, latest.block.number, 30)
    assert (before.body, before.block) == (latest.body, latest.block)


def test_a_write_is_in_the_next_latest_and_old_blocks_stay_byte_for_byte(node, yard):
    before = node.reads.latest("commitments", 1, 30)
    landed = commit(yard, bytes.fromhex("00ff726177"))
    node.reads.wrote(landed.block.number)
    after = node.reads.latest("commitments", 1, 30)
    assert told(after)["commitments"] == {yard.hotkey(): "0x00ff726177"}
    assert after.block.number >= landed.block.number
    old = node.reads.at("commitments", 1, before.block.number, 30)
    assert old.body == before.body
    single = told(node.reads.commitment(1, yard.hotkey(), 30))
    assert (single["commitment"], single["commitment_block_number"]) == ("0x00ff726177", landed.block.number)


def test_what_another_process_wrote_is_told_after_the_next_beat(node, yard):
    assert node.reads.latest("neurons", 1, 30) is not None
    with pytest.raises(ChainNotFound):
        node.reads.commitment(1, yard.hotkey("bob"), 30)
    yard.add_neuron(1, yard.hotkey("carol"))
    landed = commit(yard, b"b", "bob")
    node.tick()
    until(lambda: node.reads.head.number >= landed.block.number)
    node.refresh()
    assert yard.hotkey("carol") in told(node.reads.ready("neurons", 1))["neurons"]
    assert told(node.reads.commitment(1, yard.hotkey("bob"), 30))["commitment"] == "0x62"


def test_all_shapes(node, yard):
    certificate = Certificate(1, bytes(2) + bytes(range(30)))
    landed = yard.port.submit(yard.port.prepare_certificate(yard.signer(1), certificate), 30.0)
    node.reads.wrote(landed.block.number)
    neurons = told(node.reads.latest("neurons", 1, 30))
    assert set(neurons) == {"block", "neurons"}
    assert list(neurons["neurons"]) == [yard.hotkey(), yard.hotkey("bob")]
    assert neurons["neurons"][yard.hotkey()]["stakes"]["alpha"] == 2.0
    validators = told(node.reads.latest("validators", 1, 30))
    assert [one["hotkey"] for one in validators["validators"]] == [yard.hotkey()]
    body = {"algorithm": 1, "public_key": certificate.public_key.hex()}
    assert told(node.reads.latest("certificates", 1, 30)) == {yard.hotkey(): body}
    assert told(node.reads.certificate(1, yard.hotkey(), 30)) == body
    head = told(node.reads.latest_block(30))
    assert set(head) == {"number", "hash", "timestamp"}
    extrinsic = told(node.reads.extrinsic(landed.block.number, 0, 30))
    assert extrinsic["call"]["call_function"] == "set"


def test_what_is_not_there(node, yard):
    refusals = {
        "Subnet 70 not found.": lambda: node.reads.latest("neurons", 70, 30),
        "Block 4000000000 not found.": lambda: node.reads.at("neurons", 1, 4_000_000_000, 30),
        "Commitment not found.": lambda: node.reads.commitment(1, yard.hotkey(), 30),
        "Certificate not found or error fetching.": lambda: node.reads.certificate(1, yard.hotkey("bob"), 30),
        "Extrinsic 1-99 not found.": lambda: node.reads.extrinsic(1, 99, 30),
    }
    for text, read in refusals.items():
        with pytest.raises(ChainNotFound) as refused:
            read()
        assert refused.value.body() == {"status_code": 404, "detail": text}


def test_twenty_first_reads_ask_the_chain_once(node, yard, monkeypatch):
    calls, gate, neurons = [], threading.Event(), yard.port.neurons

    def slow(netuid, block):
        calls.append(block)
        gate.wait(10)
        return neurons(netuid, block)

    monkeypatch.setattr(yard.port, "neurons", slow)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(node.reads.latest("neurons", 1, 30))) for _ in range(20)]
    for thread in threads:
        thread.start()
    until(lambda: node.misses == 20)
    gate.set()
    for thread in threads:
        thread.join(30)
    assert len(calls) == 1
    assert len(answers) == 20
    assert all(answer is answers[0] for answer in answers)


def test_a_worker_that_was_deregistered_is_known_at_the_next_beat(node, yard):
    metagraph, changes = ChainMetagraph(node.reads, node.clock, node.settings, node.pylon), []
    metagraph.on_change = changes.append
    bob = decode(yard.hotkey("bob"))
    node.refresh()
    assert metagraph.standing(bob).registered is True
    yard.remove_last_neuron(1, yard.hotkey("bob"))
    node.tick()
    until(lambda: node.reads.head.number >= yard.port.head().number)
    node.refresh()
    assert metagraph.standing(bob).registered is False
    assert changes[-1].removed == {bob}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["commit", "advance", "neuron", "read"]), min_size=3, max_size=8))
def test_every_block_reads_for_ever_as_it_first_did(node, yard, steps):
    seen = {}
    for number, step in enumerate(steps):
        if step == "commit":
            node.reads.wrote(commit(yard, bytes([number])).block.number)
        elif step == "neuron" and len(told(node.reads.latest("neurons", 1, 30))["neurons"]) < 250:
            yard.add_neuron(1, yard.hotkey(f"extra {next(NUMBERS)}"))
        elif step == "advance":
            yard.advance(2)
        node.tick()
        for kind in KINDS:
            answer = node.reads.latest(kind, 1, 30)
            assert seen.setdefault((kind, answer.block), answer.body) == answer.body
    for (kind, block), body in seen.items():
        again = node.reads.at(kind, 1, block.number, 30)
        assert (again.block, again.body) == (block, body)
