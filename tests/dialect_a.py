"""A service as it was before version 2.0: identities log in and show a cookie, and nobody tells their subnets.

It answers reads with what it is given, keeps what is written, and notes each request that it gets.
"""

import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import httpx

PREFIX = "/api/v1"


class Got(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Said(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


class DialectA:
    """One subnet and one identity. `bodies`: what GET answers, by the path below the subnet."""

    def __init__(
        self, bodies: Mapping[str, Any], *, netuid: int = 1, name: str = "sn1", token: str = "one-secret"
    ) -> None:
        self.bodies = dict(bodies)
        self.netuid = netuid
        self.name = name
        self.token = token
        self.sessions: set[str] = set()
        self.got: list[Got] = []
        self.written: list[Got] = []
        self.before: Callable[[Got], Said | None] = lambda got: None
        """May answer in its place."""

    def asked(self, method: str, path: str) -> list[Got]:
        return [got for got in self.got if (got.method, got.path) == (method, path)]

    def answer(self, method: str, path: str, headers: Mapping[str, str], content: bytes) -> Said:
        lower = {name.lower(): value for name, value in headers.items()}
        got = Got(method, path, lower, json.loads(content) if content else None)
        self.got.append(got)
        return self.before(got) or self._routed(got)

    def _routed(self, got: Got) -> Said:
        if got.path == f"{PREFIX}/login/identity/{self.name}":
            return self._login(got)
        open_base, identity_base = (f"{PREFIX}{part}/subnet/{self.netuid}" for part in ("", f"/identity/{self.name}"))
        if got.path.startswith(open_base):
            return self._read(got, got.path.removeprefix(open_base))
        if not got.path.startswith(identity_base):
            return refusal(404, "Not Found")
        if self._session(got) not in self.sessions:
            return refusal(401, "Session is invalid or expired")
        below = got.path.removeprefix(identity_base)
        return self._read(got, below) if got.method == "GET" else self._write(got, below)

    def _login(self, got: Got) -> Said:
        if got.method != "POST" or got.body.get("token") != self.token:
            return refusal(403, "Invalid authorization token")
        session = secrets.token_hex(8)
        self.sessions.add(session)
        cookie = {"Set-Cookie": f"session={session}; HttpOnly; Path=/; SameSite=lax"}
        return Said(200, {"netuid": self.netuid, "identity_name": self.name}, cookie)

    def _session(self, got: Got) -> str:
        cookie = SimpleCookie(got.headers.get("cookie", ""))
        return cookie["session"].value if "session" in cookie else ""

    def _read(self, got: Got, below: str) -> Said:
        found = self.bodies.get(below)
        return refusal(404, "Not Found") if found is None or got.method != "GET" else Said(200, found)

    def _write(self, got: Got, below: str) -> Said:
        self.written.append(got)
        if (got.method, below) == ("PUT", "/weights"):
            return Said(200, {"detail": "weights update scheduled", "count": len(got.body["weights"])})
        if (got.method, below) == ("POST", "/commitments"):
            return Said(201, {"detail": "Commitment set successfully."})
        return refusal(404, "Not Found")

    def transport(self) -> httpx.MockTransport:
        """For clients that take one, with and without an event loop."""

        def handled(request: httpx.Request) -> httpx.Response:
            said = self.answer(request.method, request.url.path, request.headers, request.read())
            return httpx.Response(said.status, headers=said.headers, json=said.body)

        return httpx.MockTransport(handled)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """On loopback; its URL."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)


def refusal(status: int, detail: str) -> Said:
    return Said(status, {"status_code": status, "detail": detail})


def _handler(service: DialectA) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            said = service.answer(self.command, self.path, dict(self.headers.items()), content)
            body = json.dumps(said.body).encode()
            self.send_response(said.status)
            for name, value in {**said.headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = serve

        def log_message(self, format: str, *values: object) -> None:
            pass

    return Handler
