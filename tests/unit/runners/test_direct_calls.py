"""Calls to a worker that has an address of its own."""

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from grid_node.adapters.direct_calls import DirectCalls
from grid_node.clock import SystemClock
from grid_node.errors import (
    CallNotAllowed,
    GridError,
    ReplyTooLarge,
    RunnerOffline,
    RunnerTimeout,
    RunnerUnreachable,
)
from grid_node.runners.allowed_calls import REPLY_MAX


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing."""


class Worker:
    """Answers with `answer`: status, type and pieces of a body; `asked` is what came."""

    def __init__(self) -> None:
        self.url = ""
        self.answer: tuple[str, str, list[bytes]] = ("200 OK", "application/json", [b"{}"])
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.wait = threading.Event()
        self.wait.set()
        self.location = ""

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        headers = {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")}
        headers["CONTENT_TYPE"] = environ.get("CONTENT_TYPE", "")
        self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], headers, body))
        status, content_type, pieces = self.answer
        start_response(status, [("Content-Type", content_type), ("Location", self.location)])
        for piece in pieces:
            self.wait.wait(5)
            yield piece


@pytest.fixture(scope="module")
def served() -> Iterator[Worker]:
    worker = Worker()
    server = make_server("127.0.0.1", 0, worker.wsgi, threaded=True, request_handler=_Quiet)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    worker.url = f"http://127.0.0.1:{server.server_port}"
    yield worker
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def worker(served: Worker) -> Iterator[Worker]:
    address = served.url
    yield served
    served.wait.set()
    served.__init__()  # type: ignore[misc]
    served.url = address


@pytest.fixture(scope="module")
def calls(served: Worker) -> DirectCalls:
    return DirectCalls(SystemClock(), served.url)


def call(calls: DirectCalls, method: str = "GET", path: str = "/health-check", **given: Any) -> Any:
    return calls.call("m-x.lormul.test", method, path, **{"json": None, "headers": None, "timeout_s": 5.0, **given})


def test_a_call_carries_its_json_and_the_headers_that_are_allowed(calls: DirectCalls, worker: Worker) -> None:
    worker.answer = ("202 ACCEPTED", "application/json", [b'{"id": ', b'"p1"}'])

    reply = call(
        calls,
        "PUT",
        "/predictions/p1",
        json={"input": {"seed": 10**30, "prompt": "ä"}},
        headers={"prefer": "respond-async", "authorization": "Bearer key"},
    )

    ((method, path, headers, body),) = worker.asked
    assert reply == (202, {"id": "p1"})
    assert (method, path) == ("PUT", "/predictions/p1")
    assert json.loads(body) == {"input": {"seed": 10**30, "prompt": "ä"}}
    assert (headers["PREFER"], headers["CONTENT_TYPE"]) == ("respond-async", "application/json")
    assert "AUTHORIZATION" not in headers


def test_the_worker_s_name_stands_where_the_template_wants_it(worker: Worker) -> None:
    call(DirectCalls(SystemClock(), f"{worker.url}/of/{{hostname}}/"))

    assert worker.asked[0][1] == "/of/m-x.lormul.test/health-check"


@pytest.mark.parametrize(("method", "path"), [("POST", "/shutdown"), ("PUT", "/predictions/a/b")])
def test_what_is_not_on_the_list_is_not_sent(calls: DirectCalls, worker: Worker, method: str, path: str) -> None:
    with pytest.raises(CallNotAllowed):
        call(calls, method, path)

    assert worker.asked == []


def test_a_redirect_is_an_answer_and_is_not_followed(calls: DirectCalls, worker: Worker) -> None:
    worker.location = f"{worker.url}/shutdown"
    worker.answer = ("307 X", "application/json", [b"{}"])

    assert call(calls, "POST", "/predictions", json={}).status == 307
    assert len(worker.asked) == 1


def test_the_longest_answer_is_taken_and_a_longer_one_is_an_error(calls: DirectCalls, worker: Worker) -> None:
    worker.answer = ("200 OK", "application/json", [b'"' + b"x" * (REPLY_MAX - 2) + b'"'])
    assert len(call(calls).json) == REPLY_MAX - 2

    worker.answer = ("200 OK", "application/json", [b'"' + b"x" * (REPLY_MAX - 1), b'"'])
    with pytest.raises(ReplyTooLarge):
        call(calls)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("530 X", RunnerOffline),
        ("502 Bad Gateway", RunnerUnreachable),
        ("521 X", RunnerUnreachable),
        ("504 Gateway Timeout", RunnerTimeout),
        ("524 X", RunnerTimeout),
    ],
)
def test_what_the_edge_says_in_place_of_the_worker_is_an_error(
    calls: DirectCalls, worker: Worker, status: str, error: type[GridError]
) -> None:
    worker.answer = (status, "text/html", [b"<html>error 1033</html>"])

    with pytest.raises(error):
        call(calls)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe"])
def test_an_answer_without_json_has_its_status(calls: DirectCalls, worker: Worker, body: bytes) -> None:
    worker.answer = ("404 X", "text/html", [body])

    assert call(calls) == (404, None)


def test_a_worker_that_says_nothing_is_given_up(calls: DirectCalls, worker: Worker) -> None:
    worker.wait.clear()

    with pytest.raises(RunnerTimeout):
        call(calls, timeout_s=0.1)


def test_a_worker_that_answers_bit_by_bit_is_given_up(worker: Worker) -> None:
    class Stepping(SystemClock):
        at = 0.0

        def steady(self) -> float:
            self.at += 2.0
            return self.at

    worker.answer = ("200 OK", "application/json", [b"1"] * 20000)

    with pytest.raises(RunnerTimeout):
        call(DirectCalls(Stepping(), worker.url), timeout_s=1.0)


def test_a_worker_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        calls = DirectCalls(SystemClock(), f"http://127.0.0.1:{nobody.getsockname()[1]}")

        with pytest.raises(RunnerUnreachable):
            call(calls)


def test_no_proxy_of_the_environment_is_used(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")

    assert call(DirectCalls(SystemClock(), worker.url)).status == 200
