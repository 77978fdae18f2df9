"""The adapter to a subtensor, against a small one that signs, lands and fails like a real one."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bittensor_wallet import Keypair

from grid_node.chain.ports import (
    BLOCK_MAX,
    Block,
    BlockUnknown,
    Certificate,
    Commitment,
    Hyperparams,
    Neuron,
    NodeUnreachable,
    Signer,
    StateDiscarded,
    SubnetUnknown,
    WriteRefused,
    WriteUncertain,
)
from grid_node.chain.samples import Samples
from grid_node.chain.subtensor import SubtensorChain
from grid_node.chain.subtensor.node import Node
from grid_node.settings import Settings
from tests.subtensor import FakeSubtensor
from tests.subtensor.metadata import SPEC_VERSION

KEYS = {name: Keypair.create_from_uri(f"//{name}") for name in ("Alice", "Bob", "Charlie", "Dave")}
ALICE, BOB, CHARLIE, DAVE = (str(key.ss58_address) for key in KEYS.values())
SIGNER = Signer("sn1", 1, "wallet", "Alice")
GENESIS = 1_760_000_000
SOON = 0.4
"""Seconds that a call may take where a test waits for its end."""


class DevKeys:
    """Hotkeys by the names of the development accounts."""

    def keypair(self, signer: Signer) -> Keypair:
        if signer.hotkey not in KEYS:
            raise WriteRefused(f"Hotkey of identity '{signer.identity}' cannot be read")
        return KEYS[signer.hotkey]

    def hotkey(self, signer: Signer) -> str:
        return str(self.keypair(signer).ss58_address)


def peopled(fake: FakeSubtensor) -> None:
    fake.chain.add_subnet(1, tempo=100, weights_version=7, reveal_period=2)
    fake.chain.add_neuron(
        1,
        ALICE,
        BOB,
        ip="1.2.3.0",
        port=8000,
        protocol=4,
        axon_version=5,
        incentive=1,
        rank=65535,
        emission=2_500_000_000,
        last_update=1,
        validator_permit=True,
        alpha_stake=1_000_000_000,
        tao_stake=500_000_000,
        total_stake=1_500_000_000,
    )
    fake.chain.add_neuron(1, BOB)
    fake.chain.advance()


def opened(fake: FakeSubtensor) -> SubtensorChain:
    return SubtensorChain(fake.uri, Settings(), DevKeys(), Samples())  # type: ignore[arg-type]


@contextmanager
def node(**options: Any) -> Iterator[FakeSubtensor]:
    fake = FakeSubtensor(**options)
    peopled(fake)
    with fake:
        yield fake


@pytest.fixture(autouse=True)
def no_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full collection for every connection is what takes longest in here."""
    monkeypatch.setattr("grid_node.chain.subtensor.node.settle", lambda: None)


@pytest.fixture
def fake() -> Iterator[FakeSubtensor]:
    """Includes what is sent at once."""
    with node(instant=True) as fake:
        yield fake


@pytest.fixture
def chain(fake: FakeSubtensor) -> Iterator[SubtensorChain]:
    chain = opened(fake)
    yield chain
    chain.close()


# --- blocks -----------------------------------------------------------------------------------------------------


def test_the_head_has_number_hash_and_whole_seconds(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    there = fake.chain.advance(4)
    assert chain.head() == Block(5, "0x" + there.hash.hex(), GENESIS + 5 * 12)
    assert chain.block(0).number == 0
    assert chain.block(3) == Block(3, "0x" + (fake.chain.hash_of(3) or b"").hex(), GENESIS + 36)
    assert chain.finalized() == 5
    fake.chain.advance()
    assert chain.head().number == 6


def test_a_block_that_is_not_there_is_unknown(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    for number in (99, BLOCK_MAX):
        with pytest.raises(BlockUnknown, match=f"Block {number} not found."):
            chain.block(number)
    asked = sum(fake.calls.values())
    for number in (-1, BLOCK_MAX + 1):
        with pytest.raises(BlockUnknown):
            chain.block(number)
    assert sum(fake.calls.values()) == asked


def test_the_number_of_a_block_that_may_be_undone_is_asked_again() -> None:
    with node(finality_lag=3) as fake:
        chain = opened(fake)
        fake.chain.advance(4)
        before, final = chain.block(5), chain.finalized()
        assert final == 2
        fake.chain.reorganise(2)
        assert chain.block(5).hash != before.hash
        assert chain.block(5).hash == "0x" + fake.chain.head.hash.hex()
        chain.close()


def test_the_state_is_named_by_the_block(chain: SubtensorChain) -> None:
    head = chain.head()
    assert chain.state(1, head) == head.hash


# --- reads ------------------------------------------------------------------------------------------------------


def test_neurons_have_exact_units(chain: SubtensorChain) -> None:
    alice, bob = chain.neurons(1, chain.head())
    assert alice.body() == {
        "uid": 0,
        "coldkey": BOB,
        "hotkey": ALICE,
        "active": True,
        "axon_info": {"ip": "1.2.3.0", "port": 8000, "protocol": 4},
        "stake": 1.0,
        "rank": 1.0,
        "emission": 2.5,
        "incentive": 0.000015259021896696422,
        "consensus": 0.0,
        "trust": 0.0,
        "validator_trust": 0.0,
        "dividends": 0.0,
        "last_update": 1,
        "validator_permit": True,
        "pruning_score": 65535,
        "stakes": {"alpha": 1.0, "tao": 0.5, "total": 1.5},
    }
    assert (bob.uid, bob.hotkey, bob.ip, bob.port) == (1, BOB, "0.0.0.0", 0)


def test_an_axon_of_version_6_is_told_as_such(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    fake.chain.set_neuron(1, BOB, ip="2001:db8::7", port=1)
    fake.chain.advance()
    assert chain.neurons(1, chain.head())[1].ip == "2001:db8::7"


def test_an_old_block_stays_as_it_was(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    before = chain.head()
    told = chain.neurons(1, before)
    fake.chain.replace_neuron(1, 1, CHARLIE)
    fake.chain.advance()
    assert [one.hotkey for one in chain.neurons(1, chain.head())] == [ALICE, CHARLIE]
    assert chain.neurons(1, before) == told


def test_a_subnet_without_neurons_is_a_subnet(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    fake.chain.add_subnet(2)
    fake.chain.advance()
    head = chain.head()
    assert chain.neurons(2, head) == []
    assert chain.commitments(2, head) == []
    assert chain.certificates(2, head) == {}


@pytest.mark.parametrize("netuid", [70, 65535, 65536, -1])
def test_a_subnet_that_is_not_there_is_unknown_to_every_read(chain: SubtensorChain, netuid: int) -> None:
    head = chain.head()
    for read in (chain.neurons, chain.hyperparams, chain.commitments, chain.certificates):
        with pytest.raises(SubnetUnknown, match=f"Subnet {netuid} not found."):
            read(netuid, head)
    for one in (chain.commitment, chain.certificate):
        with pytest.raises(SubnetUnknown):
            one(netuid, ALICE, head)


def test_hyperparams_are_the_subnets_own(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    assert chain.hyperparams(1, chain.head()) == Hyperparams(100, False, 4, 2, 7)
    fake.chain.set_subnet(1, commit_reveal=True, tempo=99)
    fake.chain.advance()
    assert chain.hyperparams(1, chain.head()) == Hyperparams(99, True, 4, 2, 7)


def test_commitments_keep_every_byte(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    fake.chain.set_commitment(1, ALICE, bytes.fromhex("00ff726177"))
    fake.chain.set_commitment(1, BOB, b"0x00")
    fake.chain.advance()
    head = chain.head()
    kept = {one.hotkey: one for one in chain.commitments(1, head)}
    assert kept == {ALICE: Commitment(ALICE, b"\x00\xffraw", 2), BOB: Commitment(BOB, b"0x00", 2)}
    assert chain.commitment(1, ALICE, head) == kept[ALICE]
    assert chain.commitment(1, CHARLIE, head) is None
    assert chain.commitment(1, "nobody", head) is None


def test_more_commitments_than_a_page_holds(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    for number in range(600):
        fake.chain.set_commitment(1, number.to_bytes(32, "big"), number.to_bytes(2, "big"))
    fake.chain.advance()
    assert {int.from_bytes(one.data, "big") for one in chain.commitments(1, chain.head())} == set(range(600))


def test_certificates_keep_every_byte(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    text, zeros = b"a key that happens to be ASCII.." * 1, bytes(31) + b"\x07"
    fake.chain.set_certificate(1, ALICE, text)
    fake.chain.set_certificate(1, BOB, zeros, algorithm=2)
    fake.chain.advance()
    head = chain.head()
    assert chain.certificates(1, head) == {ALICE: Certificate(1, text), BOB: Certificate(2, zeros)}
    assert chain.certificate(1, BOB, head) == Certificate(2, zeros)
    assert chain.certificate(1, CHARLIE, head) is None
    assert chain.certificate(1, "0x00", head) is None


def test_an_extrinsic_is_told_as_pylon_does(chain: SubtensorChain) -> None:
    landed = chain.submit(chain.prepare_weights(SIGNER, [0, 1], [65535, 1], Hyperparams(100, False, 4, 1, 7)), 5)
    first, second = chain.extrinsic(landed.block, 0), chain.extrinsic(landed.block, 1)
    assert first is not None
    assert second is not None
    assert first["address"] is None
    assert first["call"]["call_module"] == "Timestamp"
    assert first["call"]["call_args"][0]["value"] == landed.block.timestamp * 1000
    assert second["address"] == ALICE
    assert second["extrinsic_hash"] == landed.extrinsic_hash
    assert (second["block_number"], second["extrinsic_index"]) == (landed.block.number, 1)
    assert second["extrinsic_length"] > 100
    call = second["call"]
    assert (call["call_module"], call["call_function"]) == ("SubtensorModule", "set_weights")
    told = {arg["name"]: arg["value"] for arg in call["call_args"]}
    assert told == {"netuid": 1, "dests": [0, 1], "weights": [65535, 1], "version_key": 7}
    assert chain.extrinsic(landed.block, 2) is None


def test_state_that_the_node_threw_away_is_discarded_and_the_archive_has_it(
    fake: FakeSubtensor, chain: SubtensorChain
) -> None:
    old = chain.block(1)
    fake.chain.advance(5)
    fresh = opened(fake)
    fake.faults.prune(4)
    for read in (chain.neurons, chain.hyperparams, chain.commitments, chain.certificates):
        with pytest.raises(StateDiscarded):
            read(1, old)
    with pytest.raises(StateDiscarded):
        fresh.block(1)
    assert chain.head().number == 6
    with fake.archive() as other:
        archive = opened(other)
        assert archive.block(1) == old
        assert len(archive.neurons(1, old)) == 2
        archive.close()
    fresh.close()


def test_a_block_of_nobody_is_unknown(chain: SubtensorChain) -> None:
    nowhere = Block(1, "0x" + "ab" * 32, 0)
    for read in (chain.neurons, chain.hyperparams, chain.commitments, chain.certificates):
        with pytest.raises(BlockUnknown):
            read(1, nowhere)
    with pytest.raises(BlockUnknown):
        chain.extrinsic(nowhere, 0)


# --- runtimes and the connection ----------------------------------------------------------------------------------


def test_metadata_are_asked_once_for_a_runtime(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    for _ in range(3):
        chain.neurons(1, chain.head())
        fake.chain.advance()
        chain.close()
    assert fake.connections == 3
    assert fake.calls["Metadata_metadata_at_version"] == 1


def test_a_runtime_upgrade_brings_new_metadata(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    before = chain.head()
    told = fake.node.methods["state_getRuntimeVersion"]
    chain.neurons(1, before)
    fake.node.methods["state_getRuntimeVersion"] = lambda at=None: {**told(at), "specVersion": SPEC_VERSION + 1}
    fake.chain.advance(2)
    assert len(chain.neurons(1, chain.head())) == 2
    assert fake.calls["Metadata_metadata_at_version"] == 2
    assert len(chain.neurons(1, before)) == 2
    assert fake.calls["Metadata_metadata_at_version"] == 2


def test_a_runtime_that_answers_in_bytes_of_its_own_is_too_old(chain: SubtensorChain) -> None:
    at = chain.head()
    runtime = chain._node.runtime
    assert runtime is not None
    output = runtime.runtime_api_map["NeuronInfoRuntimeApi"]["get_neurons_lite"]["output"]
    runtime.type_id_to_name[output] = "Vec<u8>"
    with pytest.raises(BlockUnknown, match="too old"):
        chain.neurons(1, at)


def test_a_node_without_the_metadata_that_we_read_is_no_node(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    old = "Client error: Execution failed: Other: Exported method Metadata_metadata_at_version is not found"
    fake.faults.error(4003, old, "Metadata_metadata_at_version")
    with pytest.raises(NodeUnreachable):
        chain.head()


def test_nothing_is_asked_before_the_first_call(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    assert chain.endpoints() == [{"uri": fake.uri, "ok": False, "error": None}]
    assert fake.connections == 0
    chain.head()
    assert chain.endpoints() == [{"uri": fake.uri, "ok": True, "error": None}]


READS = {
    "head": "chain_getHead",
    "finalized": "chain_getFinalizedHead",
    "block": "chain_getBlockHash",
    "neurons": "NeuronInfoRuntimeApi_get_neurons_lite",
    "hyperparams": "state_queryStorageAt",
    "commitments": "state_getKeysPaged",
    "commitment": "state_getStorage",
    "certificates": "state_getKeysPaged",
    "certificate": "state_getStorage",
    "extrinsic": "chain_getBlock",
}


def read(chain: SubtensorChain, name: str, at: Block) -> Any:
    arguments: dict[str, tuple[Any, ...]] = {
        "head": (),
        "finalized": (),
        "block": (1,),
        "commitment": (1, ALICE, at),
        "certificate": (1, ALICE, at),
        "extrinsic": (at, 0),
    }
    return getattr(chain, name)(*arguments.get(name, (1, at)))


@pytest.mark.parametrize("name", READS)
def test_every_read_survives_a_node_that_drops_lies_and_refuses(
    fake: FakeSubtensor, chain: SubtensorChain, name: str
) -> None:
    at = chain.head()
    good = read(chain, name, at)
    method, faults = READS[name], fake.faults
    spoil = [
        lambda: faults.drop(method, times=1),
        lambda: faults.half_frame(method, times=1),
        lambda: faults.wrong_id(method, times=1),
        lambda: faults.error(-32603, "Internal error", method, times=1),
        *(
            lambda kind=kind: faults.garbage(kind, method, times=1)
            for kind in ("text", "cut", "list", "number", "empty")
        ),
    ]
    for fault in spoil:
        fake.chain.advance()
        fault()
        with pytest.raises(NodeUnreachable) as caught:
            read(chain, name, at)
        assert "127.0.0.1" not in str(caught.value)
        assert chain.endpoints()[0]["ok"] is False
        if name in ("head", "finalized"):
            assert read(chain, name, at) != good
        else:
            assert read(chain, name, at) == good
        assert chain.endpoints()[0]["ok"] is True


@pytest.mark.parametrize("name", ["head", "neurons", "commitments", "extrinsic"])
def test_a_read_ends_at_its_deadline_when_the_node_stalls(
    fake: FakeSubtensor, chain: SubtensorChain, name: str
) -> None:
    at = chain.head()
    chain.timeout = SOON
    fake.faults.stall(READS[name], times=1)
    begun = time.monotonic()
    with pytest.raises(NodeUnreachable, match="no answer in time"):
        read(chain, name, at)
    assert time.monotonic() - begun < SOON + 2
    chain.timeout = 10.0
    read(chain, name, at)


@pytest.mark.parametrize("name", ["head", "finalized", "block", "neurons", "commitment", "hyperparams", "extrinsic"])
def test_results_that_make_no_sense_are_no_answer(fake: FakeSubtensor, chain: SubtensorChain, name: str) -> None:
    at = chain.head()
    method = {"neurons": "state_call"}.get(name, READS[name])
    kept = fake.node.methods[method]
    for result in (None, 7, "0x", "0x01", "0x" + "ff" * 64, "no hex", [], {"a": 1}):
        fake.node.methods[method] = lambda *params, result=result: result
        try:
            told = read(chain, name, at)
        except (NodeUnreachable, BlockUnknown, SubnetUnknown) as error:
            told = error
        # an absent row, an absent block and an absent subnet are answers
        assert isinstance(told, NodeUnreachable) or result is None
        fake.node.methods[method] = kept
        assert chain.head() == at
        assert len(chain.neurons(1, at)) == 2


@pytest.mark.parametrize("seed", range(4))
def test_bytes_that_are_not_as_the_metadata_say_are_no_neurons(
    fake: FakeSubtensor, chain: SubtensorChain, seed: int
) -> None:
    """Bytes are changed, cut out and put in at random places; what is told is told in time."""
    at, chance = chain.head(), random.Random(seed)
    good = fake.node.methods["state_call"]

    def spoilt(*params: Any) -> str:
        raw = bytearray.fromhex(good(*params)[2:])
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(raw))
            raw[place : place + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 5))
        return "0x" + raw.hex()

    told = {"neurons": 0, "garbage": 0}
    for _ in range(40):
        fake.node.methods["state_call"] = spoilt
        begun = time.monotonic()
        try:
            neurons = chain.neurons(1, at)
        except (NodeUnreachable, SubnetUnknown):
            told["garbage"] += 1
        else:
            told["neurons"] += all(isinstance(one, Neuron) for one in neurons)
        assert time.monotonic() - begun < 5
        fake.node.methods["state_call"] = good
    assert told["garbage"] > 10
    assert sum(told.values()) == 40
    assert len(chain.neurons(1, at)) == 2


def test_an_error_about_storage_is_never_taken_for_the_default(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    at = chain.head()
    fake.faults.error(-32603, "Internal error", "state_getStorage", times=1)
    with pytest.raises(NodeUnreachable, match="refused state_getStorage"):
        chain.commitments(1, at)


def test_a_node_that_is_gone_and_comes_back(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    at = chain.head()
    fake.stop()
    with pytest.raises(NodeUnreachable):
        chain.head()
    with pytest.raises(NodeUnreachable, match="connection refused"):
        chain.head()
    fake.start()
    assert chain.head() == at
    assert len(chain.neurons(1, at)) == 2


def test_a_connection_that_was_closed_while_idle_costs_no_call(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    at = chain.head()
    fake.stop()
    fake.start()
    end = time.monotonic() + 5
    while chain._node.connection.is_open and time.monotonic() < end:
        time.sleep(0.01)
    assert chain.head() == at
    assert fake.connections == 2


def test_another_chain_at_the_same_address_is_refused(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    chain.head()
    told = fake.node.methods["chain_getBlockHash"]
    fake.node.methods["chain_getBlockHash"] = lambda number=None: "0x" + "ab" * 32 if number == 0 else told(number)
    chain.close()
    with pytest.raises(NodeUnreachable, match="another chain"):
        chain.head()


# --- writes -----------------------------------------------------------------------------------------------------

PLAIN = Hyperparams(tempo=100, commit_reveal=False, commit_reveal_version=4, reveal_period=1, weights_version=7)
SEALED = Hyperparams(tempo=100, commit_reveal=True, commit_reveal_version=4, reveal_period=1, weights_version=7)


def test_weights_land(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    final = chain.finalized()
    prepared = chain.prepare_weights(SIGNER, [0, 1], [65535, 32768], PLAIN)
    assert (prepared.nonce, prepared.era_start, prepared.era_end, prepared.reveal_round) == (0, final, final + 8, None)
    landed = chain.submit(prepared, 5)
    ((block, sent),) = fake.chain.landed("set_weights", ALICE)
    assert landed.error is None
    assert landed.extrinsic_hash == prepared.extrinsic_hash == "0x" + sent.hash.hex()
    assert landed.block == chain.block(block.number)
    row = fake.chain.weights(1, ALICE)
    assert row is not None
    assert (row.values, row.version_key) == ({0: 65535, 1: 32768}, 7)
    assert chain.prepare_commitment(SIGNER, b"next").nonce == 1


def test_the_hotkey_of_a_signer(chain: SubtensorChain) -> None:
    assert chain.hotkey(SIGNER) == ALICE
    with pytest.raises(WriteRefused):
        chain.hotkey(Signer("sn1", 1, "wallet", "missing"))


def test_sealed_weights_land(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    fake.chain.set_subnet(1, commit_reveal=True)
    fake.chain.advance()
    prepared = chain.prepare_weights(SIGNER, [0, 1], [65535, 0], SEALED)
    assert prepared.reveal_round is not None
    assert prepared.reveal_round > 20_000_000
    assert chain.submit(prepared, 5).error is None
    (commit,) = fake.chain.commits(1, ALICE)
    assert commit.reveal_round == prepared.reveal_round
    assert len(commit.data) > 100


def test_weights_are_sealed_with_the_epochs_state_of_the_head(
    fake: FakeSubtensor, chain: SubtensorChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def seal(**arguments: Any) -> tuple[bytes, int]:
        asked.update(arguments)
        return b"0xab\x00\xff", 123

    monkeypatch.setattr("grid_node.chain.subtensor.epochs.bittensor_drand.get_encrypted_commit_v2", seal)
    monkeypatch.setattr("grid_node.chain.subtensor.epochs.BLOCK_SECONDS", 99.0)
    fake.chain.set_subnet(1, commit_reveal=True, pending_epoch_at=77, epoch_index=5)
    head = fake.chain.advance(120)
    landed = chain.submit(chain.prepare_weights(SIGNER, [0, 1], [65535, 3], SEALED), 5)
    subnet = head.state.subnets[1]
    assert landed.error is None
    assert asked == {
        "uids": [0, 1],
        "weights": [65535, 3],
        "version_key": 7,
        "last_epoch_block": subnet.last_epoch_block,
        "pending_epoch_at": 77,
        "subnet_epoch_index": subnet.epoch_index,
        "tempo": 100,
        "blocks_since_last_step": head.number - subnet.last_step_block,
        "current_block": head.number,
        "subnet_reveal_period_epochs": 1,
        "block_time": 12.0,
        "hotkey": KEYS["Alice"].public_key,
    }
    assert subnet.epoch_index == 6
    (commit,) = fake.chain.commits(1, ALICE)
    assert (commit.data, commit.reveal_round) == (b"0xab\x00\xff", 123)


def test_a_runtime_without_the_epochs_state_is_named(chain: SubtensorChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Node, "has_storage", lambda self, pallet, name: name not in ("PendingEpochAt", "LastEpochBlock")
    )
    with pytest.raises(WriteRefused, match="does not tell LastEpochBlock, PendingEpochAt"):
        chain.prepare_weights(SIGNER, [0], [65535], SEALED)


def test_weights_that_cannot_be_sealed_are_refused(chain: SubtensorChain, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**arguments: Any) -> tuple[bytes, int]:
        raise ValueError("no round")

    monkeypatch.setattr("grid_node.chain.subtensor.epochs.bittensor_drand.get_encrypted_commit_v2", fail)
    with pytest.raises(WriteRefused, match="could not be sealed: no round"):
        chain.prepare_weights(SIGNER, [0], [65535], SEALED)


@pytest.mark.parametrize(("uid", "value"), [(65536, 1), (-1, 1), (0, 65536), (0, -1)])
def test_numbers_of_more_than_16_bits_are_refused_unasked(
    fake: FakeSubtensor, chain: SubtensorChain, uid: int, value: int
) -> None:
    with pytest.raises(WriteRefused, match="16 bits"):
        chain.prepare_weights(SIGNER, [uid], [value], PLAIN)
    assert fake.connections == 0


def test_a_commit_reveal_version_that_nobody_can_seal_for_is_refused(chain: SubtensorChain) -> None:
    newer = Hyperparams(tempo=100, commit_reveal=True, commit_reveal_version=5, reveal_period=1, weights_version=7)
    with pytest.raises(WriteRefused, match="version 5"):
        chain.prepare_weights(SIGNER, [0], [65535], newer)


@pytest.mark.parametrize("data", [b"\x00", bytes.fromhex("00ff726177"), b"0x1234", bytes(range(128))])
def test_a_commitment_lands_byte_for_byte(fake: FakeSubtensor, chain: SubtensorChain, data: bytes) -> None:
    landed = chain.submit(chain.prepare_commitment(SIGNER, data), 5)
    assert fake.chain.commitment(1, ALICE) == data
    assert chain.commitment(1, ALICE, landed.block) == Commitment(ALICE, data, landed.block.number)


@pytest.mark.parametrize("data", [b"", bytes(129)])
def test_a_commitment_of_no_size_is_refused_unasked(fake: FakeSubtensor, chain: SubtensorChain, data: bytes) -> None:
    with pytest.raises(WriteRefused, match="1 to 128 bytes"):
        chain.prepare_commitment(SIGNER, data)
    assert fake.connections == 0


def test_a_certificate_keeps_the_axon(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    key = b"0x" + bytes(29) + b"\x07"
    before = chain.neurons(1, chain.head())[0]
    landed = chain.submit(chain.prepare_certificate(SIGNER, Certificate(1, key)), 5)
    assert landed.error is None
    assert fake.chain.certificate(1, ALICE) == (1, key)
    assert chain.certificate(1, ALICE, landed.block) == Certificate(1, key)
    after = chain.neurons(1, landed.block)[0]
    assert (after.ip, after.port, after.protocol) == (before.ip, before.port, before.protocol)


def test_a_call_that_fails_lands_with_the_pallets_own_word(chain: SubtensorChain) -> None:
    wrong = Hyperparams(tempo=100, commit_reveal=False, commit_reveal_version=4, reveal_period=1, weights_version=6)
    landed = chain.submit(chain.prepare_weights(SIGNER, [0], [65535], wrong), 5)
    assert landed.error == "SubtensorModule.IncorrectWeightVersionKey"


def test_a_refusal_says_why_and_is_certain(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    fake.faults.refuse(1)
    with pytest.raises(WriteRefused, match=r"Invalid Transaction: Custom error: 6 \(RateLimitExceeded\)"):
        chain.submit(chain.prepare_commitment(SIGNER, b"x"), 5)
    assert chain.submit(chain.prepare_commitment(SIGNER, b"x"), 5).error is None
    assert len(fake.chain.landed()) == 1


def test_a_hotkey_that_nobody_knows_is_refused(chain: SubtensorChain) -> None:
    with pytest.raises(WriteRefused, match="refused it"):
        chain.submit(chain.prepare_commitment(Signer("sn1", 1, "wallet", "Dave"), b"x"), 5)


def test_an_extrinsic_that_is_forgotten_is_uncertain_and_not_found(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    fake.faults.forget(1)
    prepared = chain.prepare_commitment(SIGNER, b"x")
    begun = time.monotonic()
    with pytest.raises(WriteUncertain, match="no answer in time"):
        chain.submit(prepared, SOON)
    assert time.monotonic() - begun < SOON + 2
    fake.chain.advance(8)
    assert chain.find(prepared.extrinsic_hash, prepared.era_start, prepared.era_end) is None


def test_an_extrinsic_that_landed_unseen_is_found_by_its_hash(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    fake.faults.hush(1)
    prepared = chain.prepare_commitment(SIGNER, b"x")
    with pytest.raises(WriteUncertain):
        chain.submit(prepared, SOON)
    found = chain.find(prepared.extrinsic_hash, prepared.era_start, prepared.era_end)
    assert found is not None
    assert found.error is None
    assert found.block.number == fake.chain.landed()[0][0].number
    assert chain.submit(prepared, 5) == found
    assert len(fake.chain.landed()) == 1


def test_only_final_blocks_are_searched() -> None:
    with node(finality_lag=2) as fake:
        chain = opened(fake)
        fake.chain.advance(2)
        prepared = chain.prepare_commitment(SIGNER, b"x")
        fake.chain.submit(prepared.payload.extrinsic)
        fake.chain.advance()
        assert chain.find(prepared.extrinsic_hash, prepared.era_start, prepared.era_end) is None
        fake.chain.advance(2)
        assert chain.find(prepared.extrinsic_hash, prepared.era_start, prepared.era_end) is not None
        chain.close()


def test_a_search_in_discarded_blocks_is_no_answer(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    fake.faults.hush(1)
    prepared = chain.prepare_commitment(SIGNER, b"x")
    with pytest.raises(WriteUncertain):
        chain.submit(prepared, SOON)
    fake.chain.advance(20)
    fake.faults.prune(15)
    with pytest.raises(BlockUnknown):
        chain.find(prepared.extrinsic_hash, prepared.era_start, prepared.era_end)


@pytest.mark.parametrize("kind", ["drop", "half_frame", "garbage"])
def test_a_connection_that_breaks_on_sending_is_uncertain(
    fake: FakeSubtensor, chain: SubtensorChain, kind: str
) -> None:
    prepared = chain.prepare_commitment(SIGNER, b"x")
    getattr(fake.faults, kind)(method="author_submitAndWatchExtrinsic", times=1)
    with pytest.raises(WriteUncertain):
        chain.submit(prepared, 5)
    assert chain.submit(prepared, 5).error is None


def test_a_node_that_was_gone_before_sending_is_unreachable(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    prepared = chain.prepare_commitment(SIGNER, b"x")
    chain.close()
    fake.stop()
    with pytest.raises(NodeUnreachable):
        chain.submit(prepared, 5)
    fake.start()
    fake.faults.refuse(1)
    with pytest.raises(WriteRefused):
        chain.submit(prepared, 5)


def test_an_outcome_that_cannot_be_read_is_uncertain(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    prepared = chain.prepare_commitment(SIGNER, b"x")
    fake.faults.drop("chain_getBlock", times=1)
    with pytest.raises(WriteUncertain, match="It landed"):
        chain.submit(prepared, 5)
    found = chain.find(prepared.extrinsic_hash, prepared.era_start, prepared.era_end)
    assert found is not None


@pytest.mark.parametrize("last", ["dropped", "invalid", {"usurped": "0x01"}, {"finalityTimeout": "0x01"}], ids=str)
def test_an_extrinsic_that_the_node_lost_sight_of_is_uncertain(
    fake: FakeSubtensor, chain: SubtensorChain, monkeypatch: pytest.MonkeyPatch, last: Any
) -> None:
    def lose(raw: bytes, watcher: Any = None, **options: Any) -> bytes:
        for told in ("future", "ready", {"broadcast": ["peer"]}, {"inBlock": "0x01"}, {"retracted": "0x01"}, last):
            watcher(told)
        return b""

    prepared = chain.prepare_commitment(SIGNER, b"x")
    with monkeypatch.context() as patch:
        patch.setattr(fake.chain, "submit", lose)
        with pytest.raises(WriteUncertain, match="lost sight"):
            chain.submit(prepared, 5)
    assert chain.submit(prepared, 5).error is None


def test_an_extrinsic_that_a_fork_takes_along_is_told_where_it_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    with node(finality_lag=3) as fake:
        fake.chain.advance(5)
        chain = opened(fake)
        submit = fake.chain.submit

        def forked(raw: bytes, watcher: Any = None, **options: Any) -> bytes:
            told = submit(raw, watcher, **options)
            fake.chain.advance()
            fake.chain.reorganise(2)
            fake.chain.advance(5)
            return told

        monkeypatch.setattr(fake.chain, "submit", forked)
        landed = chain.submit(chain.prepare_commitment(SIGNER, b"x"), 5)
        ((block, _),) = fake.chain.landed()
        assert landed.block == chain.block(block.number)
        assert landed.block.hash == "0x" + block.hash.hex()
        chain.close()


def test_two_extrinsics_of_one_state_never_both_land(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    one, two = chain.prepare_commitment(SIGNER, b"one"), chain.prepare_commitment(SIGNER, b"two")
    assert one.nonce == two.nonce
    assert chain.submit(one, 5).error is None
    with pytest.raises(WriteRefused, match="outdated"):
        chain.submit(two, 5)
    assert fake.chain.commitment(1, ALICE) == b"one"


def test_an_era_that_is_over_is_refused(fake: FakeSubtensor, chain: SubtensorChain) -> None:
    prepared = chain.prepare_commitment(SIGNER, b"x")
    fake.chain.advance(8)
    with pytest.raises(WriteRefused):
        chain.submit(prepared, 5)


def test_finality_is_waited_for() -> None:
    with node(instant=True, finality_lag=2) as fake:
        fake.chain.advance(3)
        chain = opened(fake)
        landed = chain.submit(chain.prepare_commitment(SIGNER, b"x"), 5)
        assert landed.block.number <= chain.finalized()
        chain.close()


def test_without_wallets_nothing_is_written(fake: FakeSubtensor) -> None:
    chain = SubtensorChain(fake.uri, Settings(), None, Samples())
    with pytest.raises(WriteRefused, match="no wallets"):
        chain.prepare_commitment(SIGNER, b"x")


# --- samples ----------------------------------------------------------------------------------------------------


def test_operations_are_measured_under_their_names(fake: FakeSubtensor) -> None:
    samples = Samples()
    chain = SubtensorChain(fake.uri, Settings(), DevKeys(), samples)  # type: ignore[arg-type]
    at = chain.head()
    chain.neurons(1, at)
    chain.submit(chain.prepare_weights(SIGNER, [0], [65535], PLAIN), 5)
    with pytest.raises(BlockUnknown):
        chain.block(99)
    told = [(name, status, netuid, hotkey) for _, name, status, _, netuid, hotkey, _ in samples.drain()]
    assert told == [
        ("get_latest_block", "success", "N/A", "N/A"),
        ("get_neurons_list", "success", 1, "N/A"),
        ("get_subnet_state", "success", 1, "N/A"),
        ("get_neurons", "success", 1, "N/A"),
        ("set_weights", "success", 1, ALICE),
        ("get_block", "error", "N/A", "N/A"),
    ]
    chain.close()
