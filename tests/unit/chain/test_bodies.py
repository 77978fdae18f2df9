"""The bodies of Pylon's answers, byte by byte, and how seldom the chain is asked for them."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.chain.bodies import Bodies
from grid_node.chain.ports import Certificate, Commitment, NodeUnreachable, SubnetUnknown
from grid_node.errors import ChainNotFound
from tests.chain_stub import StubChain, hotkey_of, neuron_of

WHOLE = ("neurons", "validators", "commitments", "certificates")


@pytest.fixture
def chain():
    return StubChain()


@pytest.fixture
def bodies():
    return Bodies()


def told(answer):
    return json.loads(answer[1])


def test_neurons_are_a_map_in_the_order_of_their_uids(chain, bodies):
    block = chain.subnet(1, neurons=(neuron_of(0), neuron_of(1, incentive=1 / 65535)))
    answer = told(bodies.neurons(chain, 1, block))
    assert answer["block"] == {"number": block.number, "hash": block.hash}
    assert list(answer) == ["block", "neurons"]
    assert [neuron["uid"] for neuron in answer["neurons"].values()] == [0, 1]
    first = answer["neurons"][hotkey_of("hotkey 1")]
    assert first == neuron_of(1, incentive=0.000015259021896696422).body()


def test_validators_are_those_with_a_permit_most_stake_first_then_by_uid(chain, bodies):
    stakes = {0: 5.0, 1: 9.0, 2: 5.0, 3: 100.0, 4: 0.0}
    neurons = tuple(neuron_of(uid, stake_total=total, validator_permit=uid != 3) for uid, total in stakes.items())
    block = chain.subnet(1, neurons=neurons)
    answer = told(bodies.validators(chain, 1, block))
    assert [neuron["uid"] for neuron in answer["validators"]] == [1, 0, 2, 4]
    assert answer["block"] == block.ref()


def test_commitments_and_certificates(chain, bodies):
    key, data, public = hotkey_of("a"), bytes.fromhex("00ff726177"), bytes(2) + bytes(range(30))
    block = chain.subnet(1, commitments={key: Commitment(key, data, 7)}, certificates={key: Certificate(1, public)})
    assert told(bodies.commitments(chain, 1, block)) == {"block": block.ref(), "commitments": {key: "0x00ff726177"}}
    assert told(bodies.certificates(chain, 1, block)) == {key: {"algorithm": 1, "public_key": public.hex()}}
    assert json.loads(bodies.commitment(chain, 1, key, block)) == {
        "block": block.ref(),
        "hotkey": key,
        "commitment": "0x00ff726177",
        "commitment_block_number": 7,
    }
    assert json.loads(bodies.certificate(chain, 1, key, block)) == {"algorithm": 1, "public_key": public.hex()}


def test_an_empty_subnet_is_an_object_too(chain, bodies):
    block = chain.subnet(1)
    answers = [told(getattr(bodies, kind)(chain, 1, block)) for kind in WHOLE]
    ref = {"block": block.ref()}
    assert answers == [{**ref, "neurons": {}}, {**ref, "validators": []}, {**ref, "commitments": {}}, {}]


def test_what_is_not_there_is_not_found(chain, bodies):
    block = chain.subnet(1)
    with pytest.raises(ChainNotFound, match=r"^Commitment not found\.$"):
        bodies.commitment(chain, 1, hotkey_of("a"), block)
    with pytest.raises(ChainNotFound, match=r"^Certificate not found or error fetching\.$"):
        bodies.certificate(chain, 1, hotkey_of("a"), block)
    with pytest.raises(ChainNotFound, match=rf"^Extrinsic {block.number}-99 not found\.$"):
        bodies.extrinsic(chain, block, 99)
    for kind in WHOLE:
        with pytest.raises(SubnetUnknown):
            getattr(bodies, kind)(chain, 2, block)


def test_an_unchanged_metagraph_at_a_new_block_is_not_read_again(chain, bodies):
    old = chain.seed(1, 3)
    before = bodies.neurons(chain, 1, old)
    new = chain.advance(5)
    after = bodies.neurons(chain, 1, new)
    bodies.validators(chain, 1, new)
    assert chain.calls["neurons"] == 1
    assert before[0] == after[0]
    assert told(after) == {**told(before), "block": new.ref()}


def test_a_changed_metagraph_is_read_and_the_old_one_stays_as_it_was(chain, bodies):
    old = chain.seed(1, 3)
    before = bodies.neurons(chain, 1, old)
    new = chain.subnet(1, neurons=(neuron_of(0),))
    after = bodies.neurons(chain, 1, new)
    assert after[0] != before[0]
    assert len(told(after)["neurons"]) == 1
    assert bodies.neurons(chain, 1, old) == before


def test_equal_commitments_have_equal_words_at_every_block(chain, bodies):
    key = hotkey_of("a")
    old = chain.subnet(1, commitments={key: Commitment(key, b"x", 7)})
    new = chain.advance()
    other = chain.subnet(1, commitments={key: Commitment(key, b"y", 8)})
    words = [bodies.commitments(chain, 1, block)[0] for block in (old, new, other)]
    assert words[0] == words[1] != words[2]
    bodies.commitments(chain, 1, old)
    assert chain.calls["commitments"] == 3


def test_subnets_do_not_meet(chain, bodies):
    chain.seed(1, 2)
    block = chain.seed(2, 5)
    assert len(told(bodies.neurons(chain, 1, block))["neurons"]) == 2
    assert len(told(bodies.neurons(chain, 2, block))["neurons"]) == 5


def test_a_failure_leaves_nothing_behind(chain, bodies):
    block = chain.seed(1, 2)
    chain.fail("neurons", NodeUnreachable("half a frame"))
    with pytest.raises(NodeUnreachable):
        bodies.neurons(chain, 1, block)
    assert len(told(bodies.neurons(chain, 1, block))["neurons"]) == 2


def test_nothing_is_kept_where_there_is_no_room(chain):
    bodies = Bodies(max_bytes=100)
    block = chain.seed(1, 2)
    assert bodies.neurons(chain, 1, block) == bodies.neurons(chain, 1, block)
    assert chain.calls["neurons"] == 2


@pytest.mark.parametrize("value", [2**128 - 1, "\ud800", [1, {"a": None}], -(2**70)])
def test_an_extrinsic_may_hold_what_a_chain_can_say(chain, bodies, monkeypatch, value):
    found = {"block_number": 1000, "call": {"call_args": [{"name": "a", "type": "u128", "value": value}]}}
    monkeypatch.setattr(chain, "extrinsic", lambda block, index: found)
    assert json.loads(bodies.extrinsic(chain, chain.at(1000), 0)) == found


floats = st.floats(0, 1e12, allow_nan=False)
neurons = st.builds(
    lambda uid, stake, incentive, permit, ip: replace(
        neuron_of(uid), stake_total=stake, incentive=incentive, validator_permit=permit, ip=ip
    ),
    st.integers(0, 255),
    floats,
    floats,
    st.booleans(),
    st.text(max_size=20).filter(lambda text: text.isprintable()),
)


@given(st.lists(neurons, max_size=8, unique_by=lambda one: one.uid))
def test_what_is_told_is_what_the_chain_said(listed):
    chain = StubChain()
    block = chain.subnet(1, neurons=tuple(listed))
    answer = told(Bodies().neurons(chain, 1, block))
    assert answer == {"block": block.ref(), "neurons": {one.hotkey: one.body() for one in listed}}
