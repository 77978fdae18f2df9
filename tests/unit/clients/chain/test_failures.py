"""What is tried again, and which exception everything else is."""

import gzip
import json
from typing import Any

import httpx
import pytest
from grid_client import chain
from grid_client.chain import exchange, transport
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tenacity import stop_after_attempt

from tests.unit.clients.chain.bodies import NEURONS
from tests.unit.clients.chain.conftest import Time
from tests.unit.clients.chain.services import Service, refusal

REFUSALS = [
    (308, chain.PylonNetuidMismatch),
    (400, chain.PylonResponseException),
    (401, chain.PylonUnauthorized),
    (403, chain.PylonForbidden),
    (404, chain.PylonNotFound),
    (429, chain.PylonResponseException),
    (500, chain.PylonResponseException),
    (502, chain.PylonBadGateway),
    (503, chain.PylonResponseException),
]
SILENCE = [
    (httpx.ConnectTimeout("late"), chain.TimeoutReason.CONNECT, 5.0),
    (httpx.ReadTimeout("late"), chain.TimeoutReason.READ, 60.0),
    (httpx.WriteTimeout("late"), chain.TimeoutReason.WRITE, 5.0),
    (httpx.PoolTimeout("late"), chain.TimeoutReason.POOL, 5.0),
]


@pytest.mark.parametrize(("status", "kind"), REFUSALS)
def test_a_refusal_is_not_tried_again(driven: Any, status: int, kind: type[chain.PylonResponseException]) -> None:
    extra = [{"message": "Field required", "key": "weights"}]
    service = Service(refusal(status, "said", extra=extra))
    with pytest.raises(chain.PylonResponseException) as found:
        driven(service).open_access("get_latest_neurons", 1)

    assert type(found.value) is kind
    assert (found.value.status_code, found.value.detail, found.value.extra) == (status, "said", extra)
    assert str(found.value).endswith(f"(HTTP {status}): said")
    assert len(service.got) == 1


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b'{"detail":5,"extra":"x"}', b'{"extra":[1]}', b"[" * 100_000]
)
def test_a_refusal_needs_no_readable_body(driven: Any, body: bytes) -> None:
    with pytest.raises(chain.PylonBadGateway) as found:
        driven(Service(httpx.Response(502, content=body))).open_access("get_latest_neurons", 1)

    assert (found.value.detail, found.value.extra) == (None, [])


def test_silence_is_tried_again(driven: Any, time: Time) -> None:
    """Three times, after pauses of about 0.1 and 0.2 s."""
    service = Service(httpx.ConnectError("refused"), httpx.ReadError("broken"))
    assert driven(service).open_access("get_latest_neurons", 1).neurons

    first, second = time.slept
    assert 0.1 <= first <= 0.3
    assert 0.2 <= second <= 0.4


def test_no_answer_from_the_chain_in_time_is_tried_again(driven: Any) -> None:
    service = Service(refusal(504, "Request timed out"), refusal(504, "Request timed out"))
    assert driven(service).open_access("get_latest_neurons", 1).neurons
    assert len(service.got) == 3

    with pytest.raises(chain.PylonTimeoutException) as found:
        driven(Service(*(refusal(504, "Request timed out") for _ in range(3)))).open_access("get_latest_neurons", 1)
    assert (found.value.reason, found.value.detail) == (chain.TimeoutReason.GATEWAY_TIMEOUT, "Request timed out")


def test_the_last_failure_is_raised_itself(driven: Any) -> None:
    service = Service(*(httpx.ConnectError("refused") for _ in range(3)))
    with pytest.raises(chain.PylonRequestException, match="ConnectError") as found:
        driven(service).open_access("get_latest_neurons", 1)

    assert isinstance(found.value.__cause__, httpx.ConnectError)
    assert not isinstance(found.value, chain.PylonTimeoutException)
    assert len(service.got) == 3


@pytest.mark.parametrize(("error", "reason", "seconds"), SILENCE)
def test_what_took_too_long_is_said(
    driven: Any, error: httpx.TimeoutException, reason: chain.TimeoutReason, seconds: float
) -> None:
    with pytest.raises(chain.PylonTimeoutException) as found:
        driven(Service(error, error, error)).open_access("get_latest_neurons", 1)

    assert (found.value.reason, found.value.timeout_seconds) == (reason, seconds)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_retries_are_set_as_documented(kind: str) -> None:
    """A copy of the defaults with something else; theirs is never changed, and the exception is always the client's."""
    defaults = chain.DEFAULT_RETRIES if kind == "sync" else chain.ASYNC_DEFAULT_RETRIES
    once = defaults.copy(stop=stop_after_attempt(1))
    config = (chain.Config if kind == "sync" else chain.AsyncConfig)(address="http://service", retry=once)

    assert config.retry is not once
    assert (config.retry.stop, config.retry.wait) == (once.stop, defaults.wait)
    assert (config.retry.reraise, once.reraise) == (True, False)


def test_retries_may_be_turned_off(driven: Any) -> None:
    client = driven(Service())
    once = client.config.retry.copy(stop=stop_after_attempt(1))
    service = Service(httpx.ConnectError("refused"))
    with pytest.raises(chain.PylonRequestException):
        driven(service, retry=once).open_access("get_latest_neurons", 1)

    assert len(service.got) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"block":{"number":1}}',
        json.dumps(NEURONS).encode()[:-1],
        json.dumps(NEURONS).replace("0.5", "NaN", 1).encode(),
        b"\xff\xfe",
        b'{"block":' * 10_000,
    ],
)
def test_an_answer_that_cannot_be_read(driven: Any, body: bytes) -> None:
    service = Service(httpx.Response(200, content=body))
    with pytest.raises(chain.PylonResponseException, match=r"^Answer cannot be read \(HTTP 200\)") as found:
        driven(service).open_access("get_latest_neurons", 1)

    assert found.value.status_code == 200
    assert len(service.got) == 1


@given(status=st.integers(200, 599), body=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_a_service_says_is_an_answer_or_an_exception_of_ours(status: int, body: bytes) -> None:
    with pytest.raises(chain.BasePylonException):
        exchange.parsed(exchange.accepted(exchange.Answer(status, body)), chain.GetNeuronsResponse)


def test_a_tokens_text_is_in_no_exception(driven: Any) -> None:
    with pytest.raises(chain.PylonForbidden) as found:
        driven(Service(refusal(403, "Invalid authorization token"))).identity("get_latest_neurons")

    assert "one-secret" not in repr(found.value)
    for wrong in ({"identity_token": "one-secret"}, {"open_access_token": "one-\nsecret"}):
        with pytest.raises(ValidationError) as invalid:
            chain.Config(address="http://service", **wrong)
        assert "secret" not in str(invalid.value)
    assert "secret" not in repr(chain.Config(address="http://service", open_access_token="secret"))


def test_an_answer_is_not_read_beyond_its_limit(driven: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ANSWER_MAX", 1000)
    with pytest.raises(chain.PylonResponseException, match="larger than 1000 bytes"):
        driven(Service(httpx.Response(200, content=b" " * 1001))).open_access("get_latest_neurons", 1)


def test_a_compressed_answer_is_not_unpacked(driven: Any) -> None:
    packed = httpx.Response(200, content=gzip.compress(b"0" * 10**7), headers={"Content-Encoding": "gzip"})
    service = Service(packed)
    with pytest.raises(chain.PylonResponseException, match="it is compressed"):
        driven(service).open_access("get_latest_neurons", 1)

    assert service.got[0].headers["Accept-Encoding"] == "identity"


def test_an_answer_that_never_ends_is_late(time: Time) -> None:
    request = exchange.Request("GET", "/")
    incoming = transport.Incoming(httpx.Response(200), request, chain.PylonTimeout(read=10), time)
    incoming.take(b"a")
    time.sleep(10.5)
    with pytest.raises(chain.PylonTimeoutException) as found:
        incoming.take(b"a")
    assert (found.value.reason, found.value.timeout_seconds) == (chain.TimeoutReason.READ, 10)


def test_a_redirect_is_not_followed(driven: Any) -> None:
    service = Service(httpx.Response(302, headers={"Location": "http://elsewhere/"}))
    with pytest.raises(chain.PylonResponseException):
        driven(service).open_access("get_latest_neurons", 1)

    assert len(service.got) == 1
