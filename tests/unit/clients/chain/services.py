"""A service since 2.0, scripted: it notes what it gets and answers as a real one would, or as it is told."""

from collections.abc import Callable
from typing import Any

import httpx

from tests.unit.clients.chain.bodies import BLOCK_READS, READS, WRITES

OPEN, ID = "/api/v1/subnet/1", "/api/v1/identity/sn1/subnet/1"


def refusal(status: int, detail: str = "no", **more: Any) -> httpx.Response:
    return httpx.Response(status, json={"status_code": status, "detail": detail, **more})


class Service:
    """`script`: answers, or exceptions, for the next requests but those about identities."""

    def __init__(self, *script: httpx.Response | Exception) -> None:
        self.script = list(script)
        self.got: list[httpx.Request] = []
        self.netuids = [1]
        """Of sn1; the last stays."""
        self.identities: Callable[[], httpx.Response] = self._identities

    @property
    def paths(self) -> list[str]:
        return [request.url.path for request in self.got]

    @property
    def tokens(self) -> list[str | None]:
        return [request.headers.get("Authorization") for request in self.got]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.got.append(request)
        if request.url.path == "/api/v1/identities":
            return self.identities()
        if self.script:
            said = self.script.pop(0)
            if isinstance(said, Exception):
                raise said
            return said
        return self._routed(request)

    def _identities(self) -> httpx.Response:
        netuid = self.netuids.pop(0) if len(self.netuids) > 1 else self.netuids[0]
        return httpx.Response(200, json={"identities": {"sn1": netuid, "sn2": 2}})

    def _routed(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path in BLOCK_READS:
            return httpx.Response(200, json=BLOCK_READS[path])
        below = path.removeprefix(ID).removeprefix(OPEN)
        if request.method == "GET" and below in READS:
            return httpx.Response(200, json=READS[below])
        status, body = WRITES.get(f"{request.method} {below}", (404, {"status_code": 404, "detail": "Not Found"}))
        return httpx.Response(status, json=body)
