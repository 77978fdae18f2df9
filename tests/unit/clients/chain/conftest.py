"""Both drivers of the chain's client behind one face, over a scripted service."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from grid_client import chain

Handler = Callable[[httpx.Request], httpx.Response]
ADDRESS = "http://service"
IDENTITY = {"identity_name": "sn1", "identity_token": "one-secret", "open_access_token": "open-secret"}


class Driven:
    """A client of either kind; calls on it return what they come to."""

    def __init__(self, kind: str, transport: httpx.MockTransport, time: "Time", **config: Any) -> None:
        self._loop = asyncio.new_event_loop() if kind == "async" else None
        client, retries = chain.PylonClient, chain.DEFAULT_RETRIES
        if self._loop is not None:
            client, retries = chain.AsyncPylonClient, chain.ASYNC_DEFAULT_RETRIES
        sleep = time.sleep if self._loop is None else time.sleep_async
        given = {"address": ADDRESS, "retry": retries.copy(sleep=sleep), **IDENTITY, **config}
        self.config = chain.Config(**given) if self._loop is None else chain.AsyncConfig(**given)
        self.client = client(self.config, transport=transport, clock=time, sleep=sleep)

    def open(self) -> None:
        self.done(self.client.open())

    def close(self) -> None:
        self.done(self.client.close())

    def end(self) -> None:
        if self.client.is_open:
            self.close()
        if self._loop is not None:
            self._loop.close()

    def done(self, result: Any) -> Any:
        return self._loop.run_until_complete(result) if inspect.isawaitable(result) else result

    def open_access(self, method: str, *arguments: Any, **named: Any) -> Any:
        return self.done(getattr(self.client.open_access, method)(*arguments, **named))

    def identity(self, method: str, *arguments: Any, **named: Any) -> Any:
        return self.done(getattr(self.client.identity, method)(*arguments, **named))


class Time:
    """A clock that goes forward when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(params=["sync", "async"])
def driven(request: pytest.FixtureRequest, time: Time) -> Iterator[Callable[..., Driven]]:
    """Makes an open client over a handler or a transport."""
    made: list[Driven] = []

    def make(service: Handler | httpx.MockTransport, **config: Any) -> Driven:
        transport = service if isinstance(service, httpx.MockTransport) else httpx.MockTransport(service)
        made.append(Driven(request.param, transport, time, **config))
        made[-1].open()
        return made[-1]

    yield make
    for one in made:
        one.end()
