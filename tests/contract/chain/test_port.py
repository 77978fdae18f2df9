"""What every chain does for whoever holds its port, whatever is behind it.

The chain may make blocks of its own at any time, so a test reads at the head that it asked for last.
"""

import re

import pytest

from grid_node.chain.ports import (
    BLOCK_MAX,
    Block,
    BlockUnknown,
    Certificate,
    Commitment,
    Landed,
    Prepared,
    SubnetUnknown,
    WriteRefused,
)
from tests.ledgers import Yard, hotkey_of

TIMEOUT = 20.0
"""Seconds for a submission."""
MINER, OTHER = hotkey_of("miner"), hotkey_of("other")
KEY = Certificate(1, bytes([0, 0, *range(30)]))


@pytest.fixture
def subnet(yard: Yard) -> int:
    """A subnet with alice, who may set weights, at uid 0, and a miner at uid 1."""
    yard.add_subnet(1)
    yard.add_neuron(1, yard.hotkey(), stake_alpha=1000.0, validator_permit=True, axon=("1.2.3.4", 8000))
    yard.add_neuron(1, MINER)
    return 1


def prepared_weights(yard: Yard, weights: dict[int, int], name: str = "alice") -> Prepared:
    at = yard.port.hyperparams(1, yard.port.head())
    return yard.port.prepare_weights(yard.signer(1, name), list(weights), list(weights.values()), at)


def put_commitment(yard: Yard, data: bytes, name: str = "alice", netuid: int = 1) -> Landed:
    return yard.port.submit(yard.port.prepare_commitment(yard.signer(netuid, name), data), TIMEOUT)


def refusal(yard: Yard, prepared: Prepared) -> str:
    """Why it had no effect, whether or not the chain keeps extrinsics that it refuses."""
    try:
        landed = yard.port.submit(prepared, TIMEOUT)
    except WriteRefused as error:
        return str(error)
    assert landed.error is not None
    return landed.error


# --- blocks ---------------------------------------------------------------------------------------------------


def test_the_head_is_a_block_with_number_hash_and_time(yard: Yard) -> None:
    yard.add_subnet(1)

    head = yard.port.head()

    assert head.number > 0
    assert re.fullmatch("0x[0-9a-f]{64}", head.hash)
    assert isinstance(head.timestamp, int)
    assert yard.port.block(head.number) == head


def test_the_head_moves_on(yard: Yard) -> None:
    before = yard.port.head()
    yard.advance(3)
    after = yard.port.head()

    assert after.number >= before.number + 3
    assert after.timestamp >= before.timestamp
    assert after.hash != before.hash


def test_every_block_has_a_name_of_its_own(yard: Yard) -> None:
    yard.advance(5)
    head = yard.port.head()

    blocks = [yard.port.block(number) for number in range(head.number + 1)]

    assert [block.number for block in blocks] == list(range(head.number + 1))
    assert len({block.hash for block in blocks}) == len(blocks)
    assert [block.timestamp for block in blocks[1:]] == sorted(block.timestamp for block in blocks[1:])


def test_a_block_that_is_not_there_yet_is_unknown(yard: Yard) -> None:
    for number in (yard.port.head().number + 1_000_000, BLOCK_MAX):
        with pytest.raises(BlockUnknown):
            yard.port.block(number)


def test_the_chain_has_a_name_that_stays(yard: Yard) -> None:
    genesis = yard.port.genesis()
    yard.advance(3)

    assert re.fullmatch("0x[0-9a-f]{64}", genesis)
    assert yard.port.genesis() == genesis == yard.port.block(0).hash


def test_a_finalized_block_is_at_or_before_the_head(yard: Yard) -> None:
    yard.advance(2)

    finalized = yard.port.finalized()

    assert 0 <= finalized <= yard.port.head().number


# --- neurons --------------------------------------------------------------------------------------------------


def test_neurons_are_told_with_all_their_fields(yard: Yard) -> None:
    yard.add_subnet(7)
    yard.add_neuron(
        7,
        yard.hotkey(),
        coldkey=OTHER,
        stake_alpha=1.5,
        stake_tao=0.25,
        validator_permit=True,
        axon=("10.1.2.3", 65535),
    )
    yard.add_neuron(7, MINER)

    first, second = yard.port.neurons(7, yard.port.head())

    assert (first.uid, first.hotkey, first.coldkey) == (0, yard.hotkey(), OTHER)
    assert (first.stake_alpha, first.stake_tao, first.validator_permit) == (1.5, 0.25, True)
    assert (first.ip, first.port, first.active) == ("10.1.2.3", 65535, True)
    assert (second.uid, second.hotkey, second.validator_permit) == (1, MINER, False)
    assert (second.ip, second.port, second.pruning_score) == ("0.0.0.0", 0, 65535)
    assert second.stake_total == 0.0


def test_an_axon_may_have_an_ipv6_address(yard: Yard) -> None:
    yard.add_subnet(1)
    yard.add_neuron(1, MINER, axon=("2001:db8::1", 9000))

    (neuron,) = yard.port.neurons(1, yard.port.head())

    assert (neuron.ip, neuron.port) == ("2001:db8::1", 9000)


def test_a_subnet_without_neurons_has_an_empty_list(yard: Yard) -> None:
    yard.add_subnet(3)

    assert yard.port.neurons(3, yard.port.head()) == []


def test_256_neurons_come_in_the_order_of_their_uids(yard: Yard) -> None:
    yard.add_subnet(1)
    hotkeys = [hotkey_of(f"neuron {number}") for number in range(256)]
    for hotkey in hotkeys:
        yard.add_neuron(1, hotkey)

    neurons = yard.port.neurons(1, yard.port.head())

    assert [(neuron.uid, neuron.hotkey) for neuron in neurons] == list(enumerate(hotkeys))


def test_a_neuron_that_left_is_gone_from_the_next_block_and_still_in_the_old_one(yard: Yard, subnet: int) -> None:
    before = yard.port.head()
    yard.remove_last_neuron(subnet, MINER)
    after = yard.port.head()

    assert [neuron.hotkey for neuron in yard.port.neurons(subnet, after)] == [yard.hotkey()]
    assert [neuron.hotkey for neuron in yard.port.neurons(subnet, before)] == [yard.hotkey(), MINER]


def test_subnets_do_not_mix(yard: Yard, subnet: int) -> None:
    yard.add_subnet(2)
    yard.add_neuron(2, OTHER)

    assert [neuron.hotkey for neuron in yard.port.neurons(2, yard.port.head())] == [OTHER]
    assert len(yard.port.neurons(subnet, yard.port.head())) == 2


# --- what is unknown ------------------------------------------------------------------------------------------


READS = {
    "neurons": lambda port, netuid, block: port.neurons(netuid, block),
    "hyperparams": lambda port, netuid, block: port.hyperparams(netuid, block),
    "commitments": lambda port, netuid, block: port.commitments(netuid, block),
    "commitment": lambda port, netuid, block: port.commitment(netuid, MINER, block),
    "certificates": lambda port, netuid, block: port.certificates(netuid, block),
    "certificate": lambda port, netuid, block: port.certificate(netuid, MINER, block),
}


@pytest.mark.parametrize("read", READS)
def test_an_unknown_subnet_is_told(yard: Yard, subnet: int, read: str) -> None:
    with pytest.raises(SubnetUnknown):
        READS[read](yard.port, 70, yard.port.head())


@pytest.mark.parametrize("read", READS)
def test_a_subnet_is_unknown_before_it_was_made(yard: Yard, read: str) -> None:
    yard.add_subnet(1)
    before = yard.port.head()
    yard.add_subnet(2)

    READS[read](yard.port, 2, yard.port.head())
    with pytest.raises(SubnetUnknown):
        READS[read](yard.port, 2, before)


@pytest.mark.parametrize("read", READS)
def test_a_block_that_nobody_has_is_told(yard: Yard, subnet: int, read: str) -> None:
    nowhere = Block(yard.port.head().number + 1_000_000, "0x" + "00" * 32, 0)

    with pytest.raises(BlockUnknown):
        READS[read](yard.port, subnet, nowhere)


def test_the_state_of_an_unknown_subnet_is_a_word_too(yard: Yard) -> None:
    yard.add_subnet(1)

    assert isinstance(yard.port.state(70, yard.port.head()), str)


# --- old blocks -----------------------------------------------------------------------------------------------


def test_an_old_block_reads_the_same_for_ever(yard: Yard, subnet: int) -> None:
    """Acceptance case 19."""
    old = put_commitment(yard, b"first").block
    neurons = yard.port.neurons(subnet, old)
    commitments = yard.port.commitments(subnet, old)

    put_commitment(yard, b"second")
    yard.port.submit(prepared_weights(yard, {0: 1, 1: 65535}), TIMEOUT)
    yard.add_neuron(subnet, OTHER)
    yard.advance(500)

    new = yard.port.head()
    assert yard.port.neurons(subnet, yard.port.block(old.number)) == neurons
    assert yard.port.commitments(subnet, old) == commitments
    assert len(yard.port.neurons(subnet, new)) == 3
    assert yard.port.block(old.number) == old


def test_equal_states_mean_equal_neurons(yard: Yard, subnet: int) -> None:
    seen: dict[str, object] = {}
    for step in range(6):
        for _ in range(2):
            head = yard.port.head()
            neurons = yard.port.neurons(subnet, head)
            assert seen.setdefault(yard.port.state(subnet, head), neurons) == neurons
            yard.advance(200)
        yard.add_neuron(subnet, hotkey_of(f"new {step}"))
    assert len(seen) >= 6


# --- hyperparameters ------------------------------------------------------------------------------------------


def test_hyperparameters_are_the_subnets_own(yard: Yard) -> None:
    yard.add_subnet(1, tempo=99)
    yard.add_subnet(2)

    head = yard.port.head()

    assert yard.port.hyperparams(1, head).tempo == 99
    assert yard.port.hyperparams(2, head).tempo == 360
    assert not yard.port.hyperparams(1, head).commit_reveal


def test_commit_reveal_is_told_where_a_chain_has_it(yard: Yard) -> None:
    yard.add_subnet(1, commit_reveal=yard.has_commit_reveal)

    params = yard.port.hyperparams(1, yard.port.head())

    assert params.commit_reveal == yard.has_commit_reveal
    assert params.commit_reveal_version == 4


# --- commitments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"\x00\xffraw", b"x", bytes(128)], ids=["zeros first", "one byte", "128 zeros"])
def test_a_commitment_is_read_back_as_it_was_set(yard: Yard, subnet: int, data: bytes) -> None:
    """Acceptance case 6."""
    landed = put_commitment(yard, data)

    assert landed.error is None
    wanted = Commitment(yard.hotkey(), data, landed.block.number)
    assert yard.port.commitment(subnet, yard.hotkey(), landed.block) == wanted
    assert yard.port.commitments(subnet, yard.port.head()) == [wanted]


def test_a_second_commitment_takes_the_place_of_the_first(yard: Yard, subnet: int) -> None:
    first = put_commitment(yard, b"first")
    second = put_commitment(yard, b"second")

    assert yard.port.commitments(subnet, second.block) == [Commitment(yard.hotkey(), b"second", second.block.number)]
    assert yard.port.commitment(subnet, yard.hotkey(), first.block) == Commitment(
        yard.hotkey(), b"first", first.block.number
    )


def test_who_committed_nothing_has_none(yard: Yard, subnet: int) -> None:
    head = yard.port.head()

    assert yard.port.commitment(subnet, MINER, head) is None
    assert yard.port.commitments(subnet, head) == []


@pytest.mark.parametrize("size", [0, 129])
def test_a_commitment_of_another_size_is_refused(yard: Yard, subnet: int, size: int) -> None:
    with pytest.raises(WriteRefused):
        yard.port.prepare_commitment(yard.signer(subnet), bytes(size))


def test_a_stranger_commits_nothing(yard: Yard, subnet: int) -> None:
    prepared = yard.port.prepare_commitment(yard.signer(subnet, "bob"), b"x")

    assert refusal(yard, prepared)
    assert yard.port.commitments(subnet, yard.port.head()) == []


# --- certificates ---------------------------------------------------------------------------------------------


def test_a_certificate_is_published_and_the_axon_stays(yard: Yard, subnet: int) -> None:
    landed = yard.port.submit(yard.port.prepare_certificate(yard.signer(subnet), KEY), TIMEOUT)

    assert landed.error is None
    head = yard.port.head()
    assert yard.port.certificate(subnet, yard.hotkey(), head) == KEY
    assert yard.port.certificates(subnet, head) == {yard.hotkey(): KEY}
    assert (yard.port.neurons(subnet, head)[0].ip, yard.port.neurons(subnet, head)[0].port) == ("1.2.3.4", 8000)


def test_nobody_has_a_certificate_at_first(yard: Yard, subnet: int) -> None:
    head = yard.port.head()

    assert yard.port.certificate(subnet, MINER, head) is None
    assert yard.port.certificates(subnet, head) == {}


def test_a_stranger_publishes_no_certificate(yard: Yard, subnet: int) -> None:
    with pytest.raises(WriteRefused):
        yard.port.prepare_certificate(yard.signer(subnet, "bob"), KEY)


# --- weights --------------------------------------------------------------------------------------------------


def test_weights_land_and_mark_the_validator(yard: Yard, subnet: int) -> None:
    landed = yard.port.submit(prepared_weights(yard, {0: 0, 1: 65535}), TIMEOUT)

    assert landed.error is None
    assert (yard.weights(subnet, yard.hotkey()) or {})[1] == 65535
    assert yard.port.neurons(subnet, landed.block)[0].last_update == landed.block.number


def test_the_last_weights_count(yard: Yard, subnet: int) -> None:
    yard.port.submit(prepared_weights(yard, {1: 65535}), TIMEOUT)
    yard.port.submit(prepared_weights(yard, {0: 65535}), TIMEOUT)

    assert yard.weights(subnet, yard.hotkey()) == {0: 65535}


def test_a_stranger_sets_no_weights(yard: Yard, subnet: int) -> None:
    assert "HotKeyNotRegisteredInSubNet" in refusal(yard, prepared_weights(yard, {1: 1}, "bob"))


def test_weights_for_a_uid_that_nobody_has_are_refused(yard: Yard, subnet: int) -> None:
    assert "UidVecContainInvalidOne" in refusal(yard, prepared_weights(yard, {1: 1, 9: 1}))
    assert yard.weights(subnet, yard.hotkey()) is None


def test_without_a_permit_no_weights_are_set(yard: Yard, subnet: int) -> None:
    yard.add_neuron(subnet, yard.hotkey("bob"))

    assert "NeuronNoValidatorPermit" in refusal(yard, prepared_weights(yard, {1: 1}, "bob"))


def test_a_wallet_that_cannot_be_read_signs_nothing(yard: Yard, subnet: int) -> None:
    missing = yard.signer(subnet, "missing")
    at = yard.port.hyperparams(subnet, yard.port.head())

    with pytest.raises(WriteRefused):
        yard.port.hotkey(missing)
    with pytest.raises(WriteRefused):
        yard.port.prepare_commitment(missing, b"x")
    with pytest.raises(WriteRefused):
        yard.port.prepare_weights(missing, [0], [1], at)
    with pytest.raises(WriteRefused):
        yard.port.prepare_certificate(missing, KEY)


def test_the_hotkey_of_a_signer_is_told(yard: Yard) -> None:
    assert yard.port.hotkey(yard.signer(1)) == yard.hotkey()


# --- extrinsics -----------------------------------------------------------------------------------------------


def test_what_is_prepared_can_be_recognised(yard: Yard, subnet: int) -> None:
    head = yard.port.head()

    prepared = yard.port.prepare_commitment(yard.signer(subnet), b"x")

    assert re.fullmatch("0x[0-9a-f]{64}", prepared.extrinsic_hash)
    assert prepared.nonce == 0
    assert prepared.reveal_round is None
    assert prepared.era_start >= head.number - 8
    assert 0 < prepared.era_end - prepared.era_start <= 16
    assert prepared.era_end > head.number


def test_extrinsics_of_equal_content_differ(yard: Yard, subnet: int) -> None:
    first = put_commitment(yard, b"same")
    second = yard.port.prepare_commitment(yard.signer(subnet), b"same")

    assert second.extrinsic_hash != first.extrinsic_hash
    assert second.nonce == 1


def test_nothing_is_on_the_chain_before_it_is_submitted(yard: Yard, subnet: int) -> None:
    prepared = yard.port.prepare_commitment(yard.signer(subnet), b"x")
    yard.advance(1)

    assert yard.port.find(prepared.extrinsic_hash, prepared.era_start, yard.port.finalized()) is None
    assert yard.port.commitments(subnet, yard.port.head()) == []


def test_what_landed_is_found_by_its_hash(yard: Yard, subnet: int) -> None:
    prepared = yard.port.prepare_commitment(yard.signer(subnet), b"x")
    landed = yard.port.submit(prepared, TIMEOUT)

    number = landed.block.number
    assert yard.port.find(prepared.extrinsic_hash, prepared.era_start, number) == landed
    assert yard.port.find(prepared.extrinsic_hash, number, number) == landed
    assert yard.port.find(prepared.extrinsic_hash, prepared.era_start, number - 1) is None
    assert landed.block == yard.port.block(number)
    assert landed.extrinsic_hash == prepared.extrinsic_hash


def test_what_is_submitted_twice_lands_once(yard: Yard, subnet: int) -> None:
    prepared = yard.port.prepare_commitment(yard.signer(subnet), b"x")
    landed = yard.port.submit(prepared, TIMEOUT)

    try:
        again = yard.port.submit(prepared, TIMEOUT)
    except WriteRefused:
        again = landed

    assert again == landed
    (commitment,) = yard.port.commitments(subnet, yard.port.head())
    assert commitment.block_number == landed.block.number


def test_what_is_submitted_after_its_era_is_refused(yard: Yard, subnet: int) -> None:
    prepared = yard.port.prepare_commitment(yard.signer(subnet), b"x")
    yard.advance(prepared.era_end - yard.port.head().number + 1)

    with pytest.raises(WriteRefused):
        yard.port.submit(prepared, TIMEOUT)
    assert yard.port.commitments(subnet, yard.port.head()) == []


def test_of_two_with_one_nonce_one_lands(yard: Yard, subnet: int) -> None:
    first = yard.port.prepare_commitment(yard.signer(subnet), b"first")
    second = yard.port.prepare_commitment(yard.signer(subnet), b"second")
    yard.port.submit(first, TIMEOUT)

    with pytest.raises(WriteRefused):
        yard.port.submit(second, TIMEOUT)
    assert [one.data for one in yard.port.commitments(subnet, yard.port.head())] == [b"first"]


def test_every_block_begins_with_its_time(yard: Yard, subnet: int) -> None:
    head = yard.port.head()

    first = yard.port.extrinsic(head, 0)

    assert first is not None
    assert (first["block_number"], first["extrinsic_index"], first["address"]) == (head.number, 0, None)
    assert (first["call"]["call_module"], first["call"]["call_function"]) == ("Timestamp", "set")
    (now,) = first["call"]["call_args"]
    assert now["name"] == "now"
    assert now["value"] // 1000 == head.timestamp
    assert re.fullmatch("0x[0-9a-f]{64}", first["extrinsic_hash"])
    assert first["extrinsic_length"] > 0


def test_a_write_is_read_back_as_an_extrinsic(yard: Yard, subnet: int) -> None:
    landed = yard.port.submit(prepared_weights(yard, {0: 7, 1: 65535}), TIMEOUT)

    found = extrinsic_of(yard, landed)

    assert found["address"] == yard.hotkey()
    assert found["block_number"] == landed.block.number
    assert (found["call"]["call_module"], found["call"]["call_function"]) == ("SubtensorModule", "set_weights")
    args = {arg["name"]: arg["value"] for arg in found["call"]["call_args"]}
    assert args == {"netuid": 1, "dests": [0, 1], "weights": [7, 65535], "version_key": 0}
    assert all(set(arg) == {"name", "type", "value"} for arg in found["call"]["call_args"])


def test_a_commitment_is_an_extrinsic_of_its_pallet(yard: Yard, subnet: int) -> None:
    found = extrinsic_of(yard, put_commitment(yard, b"\x00\x01"))

    assert (found["call"]["call_module"], found["call"]["call_function"]) == ("Commitments", "set_commitment")
    assert [arg["name"] for arg in found["call"]["call_args"]] == ["netuid", "info"]


def test_a_certificate_is_an_extrinsic_with_the_axon(yard: Yard, subnet: int) -> None:
    landed = yard.port.submit(yard.port.prepare_certificate(yard.signer(subnet), KEY), TIMEOUT)

    found = extrinsic_of(yard, landed)

    assert (found["call"]["call_module"], found["call"]["call_function"]) == ("SubtensorModule", "serve_axon_tls")
    args = {arg["name"]: arg["value"] for arg in found["call"]["call_args"]}
    assert (args["netuid"], args["ip"], args["port"], args["ip_type"]) == (1, 0x01020304, 8000, 4)


def extrinsic_of(yard: Yard, landed: Landed) -> dict:
    for index in range(10):
        found = yard.port.extrinsic(landed.block, index)
        assert found is not None, "it is not in the block that it is said to be in"
        if found["extrinsic_hash"] == landed.extrinsic_hash:
            assert found["extrinsic_index"] == index
            return found
    raise AssertionError("not in the first ten")


def test_an_extrinsic_that_is_not_there_is_none(yard: Yard, subnet: int) -> None:
    assert yard.port.extrinsic(yard.port.head(), 99) is None


def test_extrinsics_of_an_unknown_block_are_unknown(yard: Yard) -> None:
    with pytest.raises(BlockUnknown):
        yard.port.extrinsic(Block(yard.port.head().number + 1_000_000, "0x" + "00" * 32, 0), 0)


# --- the connection -------------------------------------------------------------------------------------------


def test_connections_are_told_without_asking_the_chain(yard: Yard) -> None:
    yard.port.head()

    for one in yard.port.endpoints():
        assert set(one) == {"uri", "ok", "error"}
        assert one["ok"] is True
        assert one["error"] is None


def test_closing_twice_is_fine(yard: Yard) -> None:
    yard.port.close()
    yard.port.close()
