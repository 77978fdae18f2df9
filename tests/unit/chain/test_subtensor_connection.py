"""The connection to a chain node, against a server that does as it is told."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from grid_node.chain.ports import NodeUnreachable
from grid_node.chain.subtensor import connection as transport
from grid_node.chain.subtensor.connection import Connection, RpcError
from tests.nodes import until

Answer = Callable[[ServerConnection, dict[str, Any]], None]


@contextmanager
def node(answer: Answer) -> Iterator[str]:
    """Answers every request with `answer`; gives the address."""

    def talk(peer: ServerConnection) -> None:
        for frame in peer:
            answer(peer, json.loads(frame))

    with serve(talk, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


def say(peer: ServerConnection, request: dict[str, Any], **answer: Any) -> None:
    peer.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}))


@contextmanager
def connected(answer: Answer, seconds: float = 5.0) -> Iterator[Connection]:
    with node(answer) as uri:
        connection = Connection(uri)
        with connection.within(seconds):
            yield connection
        connection.close()


def test_a_call_gives_the_result() -> None:
    with connected(lambda peer, request: say(peer, request, result=request["params"])) as connection:
        assert connection.call("echo", [1, "two"]) == [1, "two"]
        assert connection.call("echo", [None]) == [None]
        assert connection.generation == 1


def test_an_error_tells_method_code_and_text() -> None:
    error = {"code": 4003, "message": "Client error", "data": "State already discarded"}
    with connected(lambda peer, request: say(peer, request, error=error)) as connection:
        with pytest.raises(RpcError) as caught:
            connection.call("state_call", [])
        assert (caught.value.method, caught.value.code) == ("state_call", 4003)
        assert caught.value.message == "Client error: State already discarded"
        assert connection.is_open


def test_a_node_that_says_nothing_is_left_at_the_deadline() -> None:
    with connected(lambda peer, request: None, seconds=0.2) as connection:
        begun = time.monotonic()
        with pytest.raises(NodeUnreachable, match="no answer in time"):
            connection.call("chain_getHead", [])
        assert time.monotonic() - begun < 2
        assert not connection.is_open


def test_updates_of_others_do_not_move_the_deadline() -> None:
    def chatter(peer: ServerConnection, request: dict[str, Any]) -> None:
        for _ in range(50):
            peer.send(json.dumps({"method": "news", "params": {"subscription": "x", "result": 1}}))
            time.sleep(0.01)

    with connected(chatter, seconds=0.2) as connection, pytest.raises(NodeUnreachable, match="no answer in time"):
        connection.call("chain_getHead", [])


@pytest.mark.parametrize(
    "frame",
    [
        "{",
        "[]",
        "1",
        '"text"',
        '{"id": 99, "result": 1}',
        '{"result": 1}',
        '{"id": 1}',
        '{"id": 1, "error": "no"}',
        '{"id": 1, "error": {"code": "x", "message": "y"}}',
        '{"id": 1, "error": {"code": 1, "message": null}}',
        '{"id": 1, "result": ' + "9" * 5000 + "}",
        "[" * 100_000,
        b"\xff\xfe\x00",
    ],
    ids=lambda frame: str(frame[:12]),
)
def test_garbage_closes_the_connection_and_the_next_call_opens_another(frame: str | bytes) -> None:
    frames = [frame]

    def answer(peer: ServerConnection, request: dict[str, Any]) -> None:
        peer.send(frames.pop()) if frames else say(peer, request, result="well")

    with connected(answer) as connection:
        with pytest.raises(NodeUnreachable, match="garbage"):
            connection.call("chain_getHead", [])
        assert not connection.is_open
        assert connection.call("chain_getHead", []) == "well"
        assert connection.generation == 2


def test_a_frame_above_the_limit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FRAME_MAX", 1000)
    with connected(lambda peer, request: say(peer, request, result="x" * 2000)) as connection:
        with pytest.raises(NodeUnreachable, match="too large"):
            connection.call("chain_getHead", [])
        assert not connection.is_open


def test_a_dropped_connection_is_told_and_opened_again() -> None:
    seen: list[int] = []

    def answer(peer: ServerConnection, request: dict[str, Any]) -> None:
        seen.append(request["id"])
        peer.close_socket() if len(seen) == 1 else say(peer, request, result="well")

    with connected(answer) as connection:
        with pytest.raises(NodeUnreachable, match="connection broke"):
            connection.call("chain_getHead", [])
        assert connection.call("chain_getHead", []) == "well"


def test_nobody_listening_is_told_at_once() -> None:
    with node(lambda peer, request: None) as uri:
        pass
    connection = Connection(uri)
    with connection.within(5), pytest.raises(NodeUnreachable, match="refused"):
        connection.call("chain_getHead", [])


def test_a_server_that_never_shakes_hands_is_left_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        connection = Connection(f"ws://127.0.0.1:{deaf.getsockname()[1]}")
        begun = time.monotonic()
        with connection.within(0.2), pytest.raises(NodeUnreachable, match="no answer in time"):
            connection.call("chain_getHead", [])
        assert time.monotonic() - begun < 3


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "nonsense", "ws://"])
def test_an_address_that_is_no_websocket_is_told(uri: str) -> None:
    connection = Connection(uri)
    with connection.within(5), pytest.raises(NodeUnreachable) as caught:
        connection.call("chain_getHead", [])
    assert "127.0.0.1" not in str(caught.value)


def test_updates_of_a_subscription_come_in_order_and_only_its_own() -> None:
    def answer(peer: ServerConnection, request: dict[str, Any]) -> None:
        peer.send(json.dumps({"method": "w", "params": {"subscription": "mine", "result": "ready"}}))
        say(peer, request, result="mine")
        peer.send(json.dumps({"method": "w", "params": {"subscription": "other", "result": "x"}}))
        peer.send(json.dumps({"method": "w", "params": {"subscription": "mine", "result": {"finalized": "0x1"}}}))

    with connected(answer) as connection:
        watch = connection.call("author_submitAndWatchExtrinsic", ["0x"])
        assert [connection.update(watch), connection.update(watch)] == ["ready", {"finalized": "0x1"}]


def test_an_inner_bound_never_outlasts_the_outer_one() -> None:
    connection = Connection("ws://127.0.0.1:1")
    with connection.within(1.0):
        with connection.within(60.0):
            assert connection.left() <= 1.0
        with connection.within(0.1):
            assert connection.left() <= 0.1
        assert connection.left() > 0.5
    with pytest.raises(NodeUnreachable):
        connection.left()


def test_a_name_server_that_says_nothing_is_left_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()
    resolve = socket.getaddrinfo

    def slowly(*args: Any, **given: Any) -> Any:
        asked.set()
        answer.wait(10)
        return resolve(*args, **given)

    with node(lambda peer, request: say(peer, request, result="here")) as uri:
        monkeypatch.setattr(socket, "getaddrinfo", slowly)
        connection = Connection(uri)
        begun = time.monotonic()
        with pytest.raises(NodeUnreachable, match="no answer in time"), connection.within(0.2):
            connection.call("system_chain", [])
        assert time.monotonic() - begun < 2.0
        assert asked.is_set()
        answer.set()  # what comes too late is closed
        until(lambda: not any(thread.name == "grid-chain-dial" for thread in threading.enumerate()))
        assert not connection.is_open
        with connection.within(5):
            assert connection.call("system_chain", []) == "here"
        connection.close()
