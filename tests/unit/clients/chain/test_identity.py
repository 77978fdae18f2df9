"""How an identity finds its subnet and shows who it is, in services of both kinds, and how it waits for weights."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from grid_client import chain

from tests.dialect_a import DialectA, Got, Said
from tests.dialect_a import refusal as old_refusal
from tests.unit.clients.chain.bodies import HOTKEY, READS, STATUS
from tests.unit.clients.chain.conftest import ADDRESS, IDENTITY, Time
from tests.unit.clients.chain.services import Service, refusal

LOGIN = ("POST", "/api/v1/login/identity/sn1")


def test_the_subnet_is_asked_for_once(driven: Any) -> None:
    service = Service()
    client = driven(service)
    for _ in range(3):
        client.identity("get_latest_neurons")

    assert service.paths.count("/api/v1/identities") == 1


def test_many_first_calls_at_once_ask_once() -> None:
    service, together, inside = Service(), threading.Barrier(4), threading.Barrier(2)

    def asked(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/identities":
            with contextlib.suppress(threading.BrokenBarrierError):
                inside.wait(0.2)  # time for a second thread to come in
        return service(request)

    def call(_: int) -> None:
        together.wait(10)
        client.identity.get_latest_neurons()

    client = chain.PylonClient(config(chain.Config), transport=httpx.MockTransport(asked))
    with client, ThreadPoolExecutor(4) as threads:
        list(threads.map(call, range(4)))
    assert service.paths.count("/api/v1/identities") == 1


def test_many_first_tasks_at_once_ask_once() -> None:
    service = Service()

    async def asked(request: httpx.Request) -> httpx.Response:
        for _ in range(10):
            await asyncio.sleep(0)
        return service(request)

    async def calls() -> None:
        transport = httpx.MockTransport(asked)
        async with chain.AsyncPylonClient(config(chain.AsyncConfig), transport=transport) as client:
            await asyncio.gather(*(client.identity.get_latest_neurons() for _ in range(4)))

    asyncio.run(calls())
    assert service.paths.count("/api/v1/identities") == 1


def config(kind: Any) -> Any:
    return kind(address=ADDRESS, **IDENTITY)


def test_after_a_move_the_call_is_made_once_more(driven: Any) -> None:
    service = Service(refusal(308, "Identity 'sn1' is bound to subnet 1, not 2"))
    service.netuids = [2, 1]
    client = driven(service)

    assert client.identity("get_latest_neurons").neurons
    assert [path.split("/")[-4] for path in service.paths if "/subnet/" in path] == ["2", "1"]
    client.identity("get_latest_neurons")
    assert service.paths.count("/api/v1/identities") == 2


def test_a_service_that_contradicts_itself_is_not_asked_for_ever(driven: Any) -> None:
    service = Service(refusal(308), refusal(308))
    with pytest.raises(chain.PylonNetuidMismatch):
        driven(service).identity("get_latest_neurons")

    assert len(service.got) == 4


def test_an_identity_that_the_service_does_not_have(driven: Any) -> None:
    client = driven(Service(), identity_name="sn9")
    with pytest.raises(chain.PylonMisconfigured, match="'sn9'"):
        client.identity("get_latest_neurons")


def test_a_wrong_token_is_not_sent_twice(driven: Any) -> None:
    service = Service(refusal(403, "Invalid authorization token"))
    with pytest.raises(chain.PylonForbidden):
        driven(service).identity("get_latest_neurons")

    assert len(service.got) == 2


@pytest.mark.parametrize("method", ["get_latest_neurons", "get_commitments", "get_own_commitment"])
def test_an_older_service_tells_the_same(driven: Any, method: str) -> None:
    old = DialectA(READS)

    assert driven(old.transport()).identity(method) == driven(Service()).identity(method)
    assert len(old.asked(*LOGIN)) == 1


def test_at_an_older_service_the_cookie_alone_shows_who_it_is(driven: Any) -> None:
    old = DialectA(READS)
    client = driven(old.transport())
    client.identity("get_latest_neurons")
    client.identity("put_weights", {HOTKEY: 0.5})
    client.open_access("get_latest_neurons", 1)

    login, _read, put, openly = old.got[-4:]
    assert login.body == {"token": "one-secret", "identity_name": "sn1"}
    assert put.body == {"weights": {HOTKEY: 0.5}}
    assert ["authorization" in got.headers for got in old.got] == [False, False, False, False, True]
    assert "cookie" in put.headers
    assert "cookie" not in openly.headers


def test_a_session_that_ended_is_begun_anew(driven: Any) -> None:
    old = DialectA(READS)
    client = driven(old.transport())
    client.identity("get_latest_neurons")
    old.sessions.clear()

    assert client.identity("get_latest_neurons").neurons
    assert [len(old.asked(*LOGIN)), len(old.asked("GET", "/api/v1/identities"))] == [2, 1]


def test_a_session_that_never_counts_is_not_begun_for_ever(driven: Any) -> None:
    old = DialectA(READS)

    def none_counts(got: Got) -> Said | None:
        return old_refusal(401, "no") if "/subnet/" in got.path else None

    old.before = none_counts
    with pytest.raises(chain.PylonUnauthorized):
        driven(old.transport()).identity("get_latest_neurons")

    assert len(old.asked(*LOGIN)) == 2


def test_a_wrong_token_at_an_older_service(driven: Any) -> None:
    old = DialectA(READS)
    with pytest.raises(chain.PylonForbidden):
        driven(old.transport(), identity_token="wrong").identity("put_weights", {HOTKEY: 1.0})

    assert old.written == []


def test_a_token_that_is_not_ascii_goes_out_as_utf_8(driven: Any) -> None:
    service = Service()
    driven(service, open_access_token="schlüssel").open_access("get_latest_neurons", 1)

    assert (b"Authorization", "Bearer schlüssel".encode()) in service.got[0].headers.raw


# --- a client that is not ready ---------------------------------------------------------------------------------------


def test_calls_need_an_open_client(driven: Any) -> None:
    client = driven(Service())
    with pytest.raises(ValueError, match="already open"):
        client.open()
    client.close()
    for face, arguments in (("open_access", (1,)), ("identity", ())):
        with pytest.raises(chain.PylonClosed):
            getattr(client, face)("get_latest_neurons", *arguments)
    with pytest.raises(ValueError, match="already closed"):
        client.close()
    client.open()
    assert client.identity("get_latest_neurons").neurons


def test_a_call_ends_with_the_client() -> None:
    """One that would have been tried again."""
    client = chain.PylonClient(config(chain.Config), transport=httpx.MockTransport(lambda _: leave()))

    def leave() -> httpx.Response:
        client.close()
        raise httpx.ConnectError("refused")

    client.open()
    with pytest.raises(chain.PylonClosed):
        client.identity.get_latest_neurons()


def test_a_task_ends_with_the_client() -> None:
    async def leave(_: httpx.Request) -> httpx.Response:
        await client.close()
        raise httpx.ConnectError("refused")

    async def call() -> None:
        await client.open()
        with pytest.raises(chain.PylonClosed):
            await client.identity.get_latest_neurons()

    client = chain.AsyncPylonClient(config(chain.AsyncConfig), transport=httpx.MockTransport(leave))
    asyncio.run(call())


def test_what_is_not_configured_cannot_be_used(driven: Any) -> None:
    closed = driven(Service(), open_access_token=None)
    with pytest.raises(chain.PylonMisconfigured, match="open_access_token"):
        closed.open_access("get_latest_neurons", 1)
    nobody = driven(Service(), identity_name=None, identity_token=None)
    with pytest.raises(chain.PylonMisconfigured, match="identity_name"):
        nobody.identity("get_latest_neurons")
    assert nobody.client.v1.open_access is nobody.client.open_access


@pytest.mark.parametrize("given", [{"identity_name": "sn1"}, {"identity_token": "one-secret"}])
@pytest.mark.parametrize("kind", [chain.Config, chain.AsyncConfig])
def test_a_name_needs_its_token(kind: Any, given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"Identity name must be provided in pair with identity token\."):
        kind(address=ADDRESS, **given)


@pytest.mark.parametrize("address", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://[", "//host"])
def test_an_address_is_a_url(address: str) -> None:
    with pytest.raises(ValueError, match="must be an http:// or https:// URL"):
        chain.Config(address=address)


# --- weights ----------------------------------------------------------------------------------------------------------


def status(word: str, **fields: Any) -> httpx.Response:
    return httpx.Response(200, json={**STATUS, "status": word, **fields})


@pytest.mark.parametrize("end", ["completed", "superseded", "tempo_expired", "failed"])
def test_weights_are_waited_for_until_nothing_more_is_tried(driven: Any, time: Time, end: str) -> None:
    service = Service(status("scheduled"), status("running"), status("a later word"), status(end, block_number=9))
    found = driven(service).identity("wait_for_weights", timeout=60)

    assert (found.status, found.block_number, found.is_over) == (end, 9, True)
    assert time.slept == [0.25, 0.5, 1.0]


def test_a_wait_bears_a_service_that_is_away(driven: Any, time: Time) -> None:
    service = Service(httpx.ConnectError("refused"), refusal(502), refusal(503), refusal(504), status("completed"))

    assert driven(service).identity("wait_for_weights", timeout=60).is_over
    assert time.slept == [0.25, 0.5, 1.0, 2.0]


def test_a_wait_ends_in_time_and_says_what_was_seen(driven: Any, time: Time) -> None:
    service = Service(*(status("running", last_error="Chain queue is full.") for _ in range(99)))
    with pytest.raises(chain.PylonTimeoutException) as found:
        driven(service).identity("wait_for_weights", timeout=20)

    assert (found.value.reason, found.value.timeout_seconds) == (chain.TimeoutReason.JOB, 20)
    assert found.value.detail == "it is running (Chain queue is full.)"
    assert time.slept == [0.25, 0.5, 1, 2, 4, 4, 4, 4, 0.25]
    assert [float(request.headers["X-Pylon-Timeout"]) for request in service.got] == [
        20,
        20,
        19.75,
        19.25,
        18.25,
        16.25,
        12.25,
        8.25,
        4.25,
        0.25,
    ]


def test_a_wait_begins_a_session_where_that_is_how(driven: Any) -> None:
    old = DialectA({"/weights/status": {**STATUS, "status": "completed"}})

    assert driven(old.transport()).identity("wait_for_weights", timeout=60).is_over


def test_a_wait_for_no_weights_ends_at_once(driven: Any, time: Time) -> None:
    service = Service(refusal(404, "No weights job for identity 'sn1'."))
    with pytest.raises(chain.PylonNotFound, match="No weights job"):
        driven(service).identity("wait_for_weights", timeout=60)

    assert time.slept == []


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_no_time_to_wait_is_a_timeout(driven: Any, seconds: float) -> None:
    service = Service()
    with pytest.raises(chain.PylonTimeoutException):
        driven(service).identity("wait_for_weights", timeout=seconds)

    assert service.got == []
