"""Types of the chain's client."""

import importlib
import subprocess
import sys

import pytest
from grid_client import chain
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.clients.chain.bodies import NEURON

CLIENTS = {"PylonClient", "AsyncPylonClient", "Config", "AsyncConfig", "DEFAULT_RETRIES", "ASYNC_DEFAULT_RETRIES"}
TYPES = {"Hotkey", "Coldkey", "BlockNumber", "NetUid", "Weight", "CommitmentDataBytes", "CommitmentDataHex"}
MODELS = {"Block", "Neuron", "AxonInfo", "Stakes", "GetNeuronsResponse"}
EXCEPTIONS = {"BasePylonException", "PylonRequestException", "PylonResponseException", "PylonUnauthorized",
              "PylonForbidden", "PylonClosed", "PylonMisconfigured"}  # fmt: skip


def test_every_name_of_the_document_is_there() -> None:
    assert set(chain.__all__) >= CLIENTS | TYPES | MODELS | EXCEPTIONS
    assert all(getattr(chain, name) is not None for name in chain.__all__)


def test_exceptions_are_a_tree() -> None:
    assert issubclass(chain.PylonTimeoutException, chain.PylonRequestException)
    refusals = ["Unauthorized", "Forbidden", "NotFound", "BadGateway", "NetuidMismatch"]
    assert all(issubclass(getattr(chain, f"Pylon{name}"), chain.PylonResponseException) for name in refusals)
    children = (chain.PylonRequestException, chain.PylonResponseException, chain.PylonClosed, chain.PylonMisconfigured)
    assert all(issubclass(child, chain.BasePylonException) for child in children)


def test_it_needs_little() -> None:
    heavy = ["flask", "eventlet", "torch", "socketio", "numpy", "bittensor_wallet"]
    program = f"import sys, {chain.__name__}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


@given(st.binary(min_size=1, max_size=128))
def test_commitments_are_bytes_or_digits(data: bytes) -> None:
    held = chain.CommitmentDataBytes(data)

    assert held.hex() == "0x" + data.hex()
    assert isinstance(held.hex(), chain.CommitmentDataHex)
    assert chain.CommitmentDataBytes.fromhex(held.hex()) == chain.CommitmentDataBytes.fromhex(data.hex()) == data
    assert chain.CommitmentDataHex(data.hex()) == chain.CommitmentDataHex(held.hex())


def test_digits_may_be_set_apart() -> None:
    assert chain.CommitmentDataBytes(b"\x01\x02\x03").hex(":") == "0x01:02:03"


@given(st.integers(0, 2**63))
def test_tokens_are_counted_in_rao(rao: int) -> None:
    tokens = chain.Currency[chain.Token.TAO].from_rao(rao)

    assert tokens == rao / 10**9
    assert abs(tokens.as_rao() - rao) <= rao * 2**-52
    assert isinstance(chain.Stakes(alpha=1, tao=2, total=3).tao, chain.Currency)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [2, 3, 7, 255])
def test_protocols_without_a_name_are_kept(number: int) -> None:
    axon = chain.AxonInfo.model_validate({"ip": "::1", "port": 1, "protocol": number})

    assert (axon.protocol, axon.protocol.name) == (number, f"UNKNOWN_{number}")
    assert axon.model_dump(mode="json") == {"ip": "::1", "port": 1, "protocol": number}


@pytest.mark.parametrize(("ip", "serves"), [("0.0.0.0", False), ("::", False), ("10.0.0.1", True), ("::1", True)])
def test_an_axon_without_an_address_serves_nowhere(ip: str, serves: bool) -> None:
    assert chain.AxonInfo.model_validate({"ip": ip, "port": 0, "protocol": 4}).is_serving is serves


@pytest.mark.parametrize("field", sorted(NEURON))
def test_a_neuron_has_all_its_fields(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        chain.Neuron.model_validate({name: value for name, value in NEURON.items() if name != field})


def test_keys_that_are_not_known_are_left_out() -> None:
    assert chain.Neuron.model_validate({**NEURON, "later": 1}).model_dump(mode="json") == NEURON


def test_the_module_is_found_by_its_name() -> None:
    assert importlib.import_module("grid_client.chain").PylonClient is chain.PylonClient
