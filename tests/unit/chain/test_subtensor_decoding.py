"""What the runtime tells, as values of the port."""

import gc
import json
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from bittensor_wallet import Keypair
from hypothesis import given
from hypothesis import strategies as st

from grid_node.chain.ports import Certificate, Commitment
from grid_node.chain.subtensor import decoding
from grid_node.chain.subtensor.connection import RpcError
from grid_node.chain.subtensor.node import about_block, settle
from grid_node.chain.subtensor.writing import readable, refusal, status

ALICE = str(Keypair.create_from_uri("//Alice").ss58_address)
BOB = str(Keypair.create_from_uri("//Bob").ss58_address)


def lite(uid: int = 0, **fields: Any) -> dict[str, Any]:
    """A row of get_neurons_lite as the library tells it."""
    return {
        "hotkey": ALICE,
        "coldkey": BOB,
        "uid": uid,
        "netuid": 1,
        "active": True,
        "axon_info": {"ip": 16909056, "ip_type": 4, "port": 8000, "protocol": 4},
        "stake": [(BOB, 1_000_000_000)],
        "rank": 0,
        "emission": 0,
        "incentive": 0,
        "consensus": 0,
        "trust": 0,
        "validator_trust": 0,
        "dividends": 0,
        "last_update": 100,
        "validator_permit": True,
        "pruning_score": 65535,
        **fields,
    }


STATE = {"alpha_stake": [1_000_000_000] * 3, "tao_stake": [500_000_000] * 3, "total_stake": [1_500_000_000] * 3}


def test_a_neuron_has_the_units_of_the_api() -> None:
    (neuron,) = decoding.neurons([lite(incentive=1, emission=2_500_000_000)], STATE)
    assert neuron.body() == {
        "uid": 0,
        "coldkey": BOB,
        "hotkey": ALICE,
        "active": True,
        "axon_info": {"ip": "1.2.3.0", "port": 8000, "protocol": 4},
        "stake": 1.0,
        "rank": 0.0,
        "emission": 2.5,
        "incentive": 0.000015259021896696422,
        "consensus": 0.0,
        "trust": 0.0,
        "validator_trust": 0.0,
        "dividends": 0.0,
        "last_update": 100,
        "validator_permit": True,
        "pruning_score": 65535,
        "stakes": {"alpha": 1.0, "tao": 0.5, "total": 1.5},
    }


def test_neurons_come_in_the_order_of_their_uids() -> None:
    assert [one.uid for one in decoding.neurons([lite(2), lite(0), lite(1)], STATE)] == [0, 1, 2]


def test_a_state_shorter_than_the_neurons_is_no_state() -> None:
    with pytest.raises(IndexError):
        decoding.neurons([lite(3)], STATE)


@given(st.ip_addresses(v=4))
def test_an_address_of_version_4(ip: IPv4Address) -> None:
    assert decoding.address(int(ip), 4) == str(ip)
    assert decoding.address(int(ip), 0) == str(ip)


@given(st.ip_addresses(v=6))
def test_an_address_of_version_6(ip: IPv6Address) -> None:
    assert decoding.address(int(ip), 6) == str(ip)


def test_an_account_is_told_as_ss58_whatever_the_library_says() -> None:
    raw = bytes(Keypair.create_from_uri("//Alice").public_key or b"")
    assert decoding.account("0x" + raw.hex()) == ALICE
    assert decoding.account(ALICE) == ALICE
    assert decoding.account_of(b"hash" + raw) == ALICE
    for bad in ("0x00", "0xzz"):
        with pytest.raises(ValueError):
            decoding.account(bad)
    with pytest.raises(TypeError):
        decoding.account(None)
    with pytest.raises(ValueError):
        decoding.account_of(b"short")


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ([{"Raw4": "0xdeadbeef"}], bytes.fromhex("deadbeef")),
        ([[{"Raw5": "0x00ff726177"}]], b"\x00\xffraw"),
        (({"Raw0": "0x"},), b""),
        ([["ResetBondsFlag", {"Raw2": "0x6869"}]], b"hi"),
        ([{"BigRaw": "some text"}], b"some text"),
        ([{"BigRaw": "0xff00"}], b"\xff\x00"),
        ([{"Sha256": "0x" + "11" * 32}, {"Raw1": "0x01"}], b"\x01"),
    ],
)
def test_a_commitment_is_its_first_plain_bytes(fields: Any, data: bytes) -> None:
    registration = {"deposit": 0, "block": 77, "info": {"fields": fields}}
    assert decoding.commitment(ALICE, registration) == Commitment(ALICE, data, 77)


@pytest.mark.parametrize("fields", [[], ["None"], [{"Keccak256": "0x" + "00" * 32}], [["ResetBondsFlag"]]])
def test_a_commitment_without_plain_bytes_is_none(fields: Any) -> None:
    assert decoding.commitment(ALICE, {"deposit": 0, "block": 1, "info": {"fields": fields}}) is None


@given(st.binary(max_size=63), st.integers(0, 255))
def test_a_certificate_keeps_its_bytes(key: bytes, algorithm: int) -> None:
    raw = bytes([len(key) << 2]) + key + bytes([algorithm])
    assert decoding.certificate(raw) == Certificate(algorithm, key)


@pytest.mark.parametrize("raw", [b"", b"\x04", b"\x04a", b"\x04aaa", b"\x03" + b"a" * 40, b"\xfd"])
def test_what_is_no_certificate_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        decoding.certificate(raw)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_any_value_of_a_call_goes_into_json(value: Any) -> None:
    json.dumps(decoding.plain(value))


def test_an_extrinsic_is_told_as_pylon_does() -> None:
    value = {"call": {"call_module": "Timestamp", "call_function": "set", "call_args": []}}
    value["call"]["call_args"] = [{"name": "now", "type": "Moment", "value": 12}]  # type: ignore[index]
    told = decoding.extrinsic(9, 0, b"\x04", value)
    assert told["address"] is None
    assert told["extrinsic_length"] == 1
    assert told["extrinsic_hash"] == decoding.extrinsic_hash(b"\x04")
    assert told["call"]["call_args"] == [{"name": "now", "type": "Moment", "value": 12}]
    assert decoding.extrinsic(9, 1, b"\x04", {**value, "address": ALICE})["address"] == ALICE


def event(index: int | None, name: str, module: str = "System", **attributes: Any) -> dict[str, Any]:
    return {"extrinsic_idx": index, "event": {"module_id": module, "event_id": name, "attributes": attributes}}


def test_only_the_extrinsics_own_events_tell_how_it_fared() -> None:
    events = [
        event(None, "NewAccount"),
        event(0, "ExtrinsicSuccess"),
        event(1, "WeightsSet", module="SubtensorModule"),
        event(1, "ExtrinsicFailed", dispatch_error={"Module": {"index": 7, "error": "0x0a000000"}}),
    ]
    assert decoding.failure(events, 0) is None
    failed = decoding.failure(events, 1)
    assert failed is not None
    assert decoding.module_error(failed) == (7, 10)
    with pytest.raises(ValueError):
        decoding.failure(events, 2)


def test_an_error_that_is_no_pallets_has_its_own_words() -> None:
    assert decoding.module_error("BadOrigin") is None
    assert decoding.words("BadOrigin") == "BadOrigin"
    assert decoding.words({"Token": "FundsUnavailable"}) == "Token: FundsUnavailable"
    assert decoding.module_error({"Module": (7, 3)}) == (7, 3)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (4003, "Client error: UnknownBlock: State already discarded for 0xab", "StateDiscarded"),
        (4003, "State discarded", "StateDiscarded"),
        (4003, "Client error", "StateDiscarded"),
        (4003, "Client error: UnknownBlock: Header was not found in the database: 0xab", "BlockUnknown"),
        (4003, "Client error: Execution failed: Runtime panicked", "NoneType"),
        (-32603, "Internal error", "NoneType"),
    ],
)
def test_what_a_node_says_about_a_block(code: int, text: str, kind: str) -> None:
    assert type(about_block(RpcError("state_call", code, text))).__name__ == kind


@pytest.mark.parametrize("code", [1010, 1014, 1016, -32601])
def test_a_refusal_is_certain(code: int) -> None:
    assert type(refusal(RpcError("a", code, "Invalid Transaction"))).__name__ == "WriteRefused"


@pytest.mark.parametrize("code", [1012, 1013, -32603, 1])
def test_a_refusal_of_what_the_node_may_have_is_not(code: int) -> None:
    assert type(refusal(RpcError("a", code, "Already imported"))).__name__ == "WriteUncertain"


@given(st.text())
def test_a_nodes_words_are_one_bounded_line(text: str) -> None:
    told = readable(text)
    assert len(told) <= 200
    assert told.isprintable()


def test_what_was_decoded_once_is_not_looked_at_by_every_collection() -> None:
    held = [{"a": number} for number in range(1000)]
    settle()
    try:
        assert gc.get_freeze_count() >= len(held)
    finally:
        gc.unfreeze()


def test_updates_of_an_extrinsic() -> None:
    assert status("ready") == ("ready", None)
    assert status({"inBlock": "0x1"}) == ("inblock", "0x1")
    assert status({"finalized": "0x1"}) == ("finalized", "0x1")
    assert status(None) == ("none", None)
    assert status({"a": 1, "b": 2})[1] is None
