"""The published client library, connected to a double, and the keys of the tests."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from async_substrate_interface.sync_substrate import ExtrinsicReceipt, SubstrateInterface
from bittensor_wallet import Keypair

from tests.subtensor.server import FakeSubtensor

ALICE = Keypair.create_from_uri("//Alice")
BOB = Keypair.create_from_uri("//Bob")
STRANGER = Keypair.create_from_uri("//Stranger")
ERA_BLOCKS = 8
NO_ANSWER_SECONDS = 0.3
OLD_CONNECT = "ignore:connect\\(\\) must be used as a context manager:DeprecationWarning"
"""For `filterwarnings`: the library opens its connection in a way that websockets 17.1 wants to leave behind."""

Call = tuple[str, str, Mapping[str, Any]]
"""Pallet, function and arguments."""


@contextmanager
def connected(double: FakeSubtensor, seconds: float = 20.0) -> Iterator[SubstrateInterface]:
    """A client that gives up after one try of `seconds`."""
    client = SubstrateInterface(double.uri, ss58_format=42, retry_timeout=seconds, max_retries=1)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def impatient(client: SubstrateInterface) -> Iterator[None]:
    """For calls that are to have no answer: it waits for a moment only."""
    seconds, client.retry_timeout = client.retry_timeout, NO_ANSWER_SECONDS
    try:
        yield
    finally:
        client.retry_timeout = seconds


def signed(client: SubstrateInterface, keypair: Keypair, call: Call, **options: Any) -> Any:
    """`options` are those of `create_signed_extrinsic`."""
    composed = client.compose_call(call[0], call[1], dict(call[2]))
    return client.create_signed_extrinsic(composed, keypair, **{"era": {"period": ERA_BLOCKS}, **options})


def submit(client: SubstrateInterface, keypair: Keypair, call: Call, **options: Any) -> ExtrinsicReceipt:
    """Waits until it is finalized."""
    return client.submit_extrinsic(signed(client, keypair, call, **options), wait_for_finalization=True)


def set_weights(netuid: int, row: Mapping[int, int], version_key: int = 0) -> Call:
    arguments = {"netuid": netuid, "dests": [*row], "weights": [*row.values()], "version_key": version_key}
    return "SubtensorModule", "set_weights", arguments


def set_commitment(netuid: int, data: bytes) -> Call:
    info = {"fields": [[{f"Raw{len(data)}": data}]]}
    return "Commitments", "set_commitment", {"netuid": netuid, "info": info}
