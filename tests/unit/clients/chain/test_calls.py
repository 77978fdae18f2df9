"""What each call sends, and what it returns."""

import inspect
import json
from typing import Any

import httpx
import pytest
from grid_client import chain
from grid_client.chain.asynchronous import AsyncIdentityApi, AsyncOpenAccessApi
from grid_client.chain.sync import IdentityApi, OpenAccessApi

from tests.unit.clients.chain.bodies import COLDKEY, HOTKEY
from tests.unit.clients.chain.services import ID, OPEN, Service

COMMON: dict[str, tuple[tuple[Any, ...], str, type]] = {
    "get_latest_neurons": ((), "/block/latest/neurons", chain.GetNeuronsResponse),
    "get_recent_neurons": ((), "/block/recent/neurons", chain.GetNeuronsResponse),
    "get_neurons": ((7,), "/block/7/neurons", chain.GetNeuronsResponse),
    "get_latest_validators": ((), "/block/latest/validators", chain.GetValidatorsResponse),
    "get_validators": ((7,), "/block/7/validators", chain.GetValidatorsResponse),
    "get_commitments": ((), "/block/latest/commitments", chain.GetCommitmentsResponse),
    "get_commitment": ((HOTKEY,), f"/block/latest/commitments/{HOTKEY}", chain.GetCommitmentResponse),
    "get_certificates": ((), "/block/latest/certificates", chain.GetCertificatesResponse),
    "get_certificate": ((HOTKEY,), f"/block/latest/certificates/{HOTKEY}", chain.GetCertificateResponse),
}
OWN: dict[str, tuple[tuple[Any, ...], str, type]] = {
    "get_own_commitment": ((), "GET /block/latest/commitments/self", chain.GetCommitmentResponse),
    "get_own_certificate": ((), "GET /block/latest/certificates/self", chain.GetCertificateResponse),
    "get_weights_status": ((), "GET /weights/status", chain.GetWeightsStatusResponse),
    "put_weights": (({HOTKEY: 0.5},), "PUT /weights", chain.SetWeightsResponse),
    "set_commitment": ((b"\x00\xff",), "POST /commitments", chain.SetCommitmentResponse),
    "generate_certificate": ((), "POST /certificates/self", chain.GenerateCertificateKeypairResponse),
}
BLOCKS: dict[str, tuple[tuple[Any, ...], str, type]] = {
    "get_latest_block_info": ((), "/api/v1/block/latest", chain.GetLatestBlockInfoResponse),
    "get_extrinsic": ((7, 0), "/api/v1/block/7/extrinsic/0", chain.GetExtrinsicResponse),
}


@pytest.mark.parametrize("method", COMMON)
def test_reads_of_open_access(driven: Any, method: str) -> None:
    arguments, below, kind = COMMON[method]
    service = Service()

    assert type(driven(service).open_access(method, 1, *arguments)) is kind
    assert service.paths == [OPEN + below]
    assert service.tokens == ["Bearer open-secret"]


@pytest.mark.parametrize("method", COMMON)
def test_reads_of_an_identity(driven: Any, method: str) -> None:
    arguments, below, kind = COMMON[method]
    service = Service()

    assert type(driven(service).identity(method, *arguments)) is kind
    assert service.paths == ["/api/v1/identities", ID + below]
    assert service.tokens == [None, "Bearer one-secret"]


@pytest.mark.parametrize("method", OWN)
def test_what_only_an_identity_may(driven: Any, method: str) -> None:
    arguments, asked, kind = OWN[method]
    service = Service()

    assert type(driven(service).identity(method, *arguments)) is kind
    assert f"{service.got[-1].method} {service.paths[-1].removeprefix(ID)}" == asked
    assert service.tokens[-1] == "Bearer one-secret"


@pytest.mark.parametrize("face", ["open_access", "identity"])
@pytest.mark.parametrize("method", BLOCKS)
def test_blocks_are_asked_for_with_the_token_of_open_access(driven: Any, face: str, method: str) -> None:
    arguments, path, kind = BLOCKS[method]
    service = Service()

    assert type(getattr(driven(service), face)(method, *arguments)) is kind
    assert (service.paths, service.tokens) == ([path], ["Bearer open-secret"])


def test_an_identity_without_open_access_asks_for_blocks_without_a_token(driven: Any) -> None:
    service = Service()
    driven(service, open_access_token=None).identity("get_latest_block_info")

    assert service.tokens == [None]


def test_an_open_service_gets_no_token(driven: Any) -> None:
    service = Service()
    driven(service, open_access_token="").open_access("get_latest_neurons", 1)

    assert service.tokens == [None]


def test_all_that_a_call_returns(driven: Any) -> None:
    client = driven(Service())
    neuron = client.open_access("get_latest_neurons", chain.NetUid(1)).neurons[HOTKEY]
    assert (neuron.axon_info.protocol, str(neuron.axon_info.ip)) == (chain.AxonProtocol.HTTP, "1.2.3.0")
    assert (neuron.emission.as_rao(), neuron.incentive) == (1, 1 / 65535)

    assert client.identity("get_certificates").certificates[HOTKEY].algorithm is chain.CertificateAlgorithm.ED25519
    assert client.identity("get_extrinsic", 7, 0).model_dump()["more"] == "is kept"
    put = client.identity("put_weights", {HOTKEY: 0.5, COLDKEY: 1})
    assert (put.job_id, put.count, put.dropped) == ("j1", 2, [COLDKEY])
    status = client.identity("get_weights_status")
    assert (status.status, status.is_over, status.epoch.end) == ("running", False, 1081)


@pytest.mark.parametrize("given", [b"\x00\xff", chain.CommitmentDataBytes(b"\x00\xff"), "0x00ff", "00ff"])
def test_a_commitment_goes_out_as_hex_digits(driven: Any, given: Any) -> None:
    service = Service()
    driven(service).identity("set_commitment", given)

    assert json.loads(service.got[-1].content) == {"commitment": "0x00ff"}


@pytest.mark.parametrize("given", [b"", "", "0x", "xyz", "0xf", 5, None])
def test_what_is_no_commitment_is_not_sent(driven: Any, given: Any) -> None:
    service = Service()
    with pytest.raises(ValueError):
        driven(service).identity("set_commitment", given)

    assert service.got == []


@pytest.mark.parametrize("given", [{}, {HOTKEY: float("nan")}, {HOTKEY: float("inf")}, {HOTKEY: "x"}, {HOTKEY: None}])
def test_what_are_no_weights_is_not_sent(driven: Any, given: Any) -> None:
    service = Service()
    with pytest.raises(ValueError):
        driven(service).identity("put_weights", given)

    assert service.got == []


@pytest.mark.parametrize(
    ("hotkey", "sent"),
    [("../../../identities", b"..%2F..%2F..%2Fidentities"), ("a b?c#d", b"a%20b%3Fc%23d"), ("ß", b"%C3%9F")],
)
def test_a_hotkey_stays_one_part_of_the_path(driven: Any, hotkey: str, sent: bytes) -> None:
    service = Service()
    with pytest.raises(chain.PylonNotFound):
        driven(service).open_access("get_commitment", 1, hotkey)

    assert service.got[0].url.raw_path == OPEN.encode() + b"/block/latest/commitments/" + sent


@pytest.mark.parametrize("hotkey", ["", ".", ".."])
def test_what_cannot_be_a_part_of_a_path_is_not_sent(driven: Any, hotkey: str) -> None:
    service = Service()
    with pytest.raises(ValueError, match="cannot be part of a path"):
        driven(service).open_access("get_commitment", 1, hotkey)

    assert service.got == []


def test_the_service_is_told_how_long_the_client_waits(driven: Any) -> None:
    service = Service()
    driven(service).open_access("get_latest_block_info")
    driven(service, timeout=chain.PylonTimeout(read=7.5)).open_access("get_latest_block_info")

    assert [request.headers["X-Pylon-Timeout"] for request in service.got] == ["60.0", "7.5"]
    waits = {"connect": 5.0, "read": 60.0, "write": 5.0, "pool": 5.0}
    assert [request.extensions["timeout"] for request in service.got] == [waits, {**waits, "read": 7.5}]


def test_an_address_may_end_with_a_slash_or_a_path(driven: Any) -> None:
    service = Service(*(httpx.Response(200, json={"identities": {}}) for _ in range(2)))
    for address in ("http://service/", "http://service/behind"):
        with pytest.raises(chain.PylonResponseException):
            driven(service, address=address).open_access("get_latest_block_info")

    assert [str(one.url) for one in service.got] == [
        "http://service/api/v1/block/latest",
        "http://service/behind/api/v1/block/latest",
    ]


@pytest.mark.parametrize(("plain", "awaited"), [(OpenAccessApi, AsyncOpenAccessApi), (IdentityApi, AsyncIdentityApi)])
def test_both_drivers_have_the_same_methods(plain: type, awaited: type) -> None:
    assert methods(plain) == methods(awaited)
    assert all(inspect.iscoroutinefunction(getattr(awaited, name)) for name in methods(awaited))


def methods(face: type) -> dict[str, inspect.Signature]:
    found = inspect.getmembers(face, inspect.isfunction)
    return {name: inspect.signature(function) for name, function in found if not name.startswith("_")}
