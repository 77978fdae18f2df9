"""One WebSocket to a Substrate node: JSON-RPC 2.0 calls, each with an end.

The methods and error codes are those of Substrate's `sc-rpc-api`.
"""

import itertools
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI, WebSocketException
from websockets.frames import CloseCode
from websockets.sync.client import ClientConnection, connect

from grid_node.chain.ports import NodeUnreachable

FRAME_MAX = 32 * 1024 * 1024
"""Bytes of one message. A node answers with 15 MiB at most unless told otherwise; the metadata are about 2 MiB."""
QUEUE_MAX = 4
"""Messages that may wait to be read; the node is held up when there are more."""
UPDATES_MAX = 256
"""Updates of subscriptions that may wait to be looked at; the oldest are forgotten."""
CLOSE_SECONDS = 1.0


class RpcError(Exception):
    """The node understood and answered with an error. `message` is the node's own text, not to be trusted."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(method, code, message)
        self.method, self.code, self.message = method, code, message


class Connection:
    """Opened by the first call, and again by the first one after a failure. For one thread.

    Every wait ends with the innermost `within`. Whatever goes wrong closes the connection: an answer that comes late
    is never taken for another call's.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._socket: ClientConnection | None = None
        self._held = ExitStack()
        self._ids = itertools.count(1)
        self._updates: deque[dict[str, Any]] = deque(maxlen=UPDATES_MAX)
        self._deadline = 0.0
        self.generation = 0
        """How often it was opened."""

    @property
    def is_open(self) -> bool:
        """Not so once the node has closed it, as it may do to one that was idle for long."""
        return self._socket is not None and self._socket.close_code is None

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """All that is done inside ends after this many seconds, or with the `within` around it."""
        before = self._deadline
        end = time.monotonic() + seconds
        self._deadline = min(before, end) if before else end
        try:
            yield
        finally:
            self._deadline = before

    def left(self) -> float:
        """Seconds until the deadline. Raises NodeUnreachable when there are none."""
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise NodeUnreachable("no answer in time")
        return seconds

    def open(self) -> None:
        """Raises NodeUnreachable."""
        if self.is_open:
            return
        self.close()
        self._updates.clear()
        try:
            self._socket, self._held = dialled(self._uri, self.left())
        except (OSError, EOFError, WebSocketException) as error:
            raise NodeUnreachable(reason(error)) from None
        self.generation += 1

    def call(self, method: str, params: list[Any]) -> Any:
        """The result. Raises RpcError, and NodeUnreachable when no answer came that is one."""
        self.open()
        number = next(self._ids)
        self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        while "method" in (message := self._receive()):
            self._updates.append(message)
        if message.get("id") != number:
            raise self._garbage()
        if (error := message.get("error")) is not None:
            raise self._error(method, error)
        if "result" not in message:
            raise self._garbage()
        return message["result"]

    def update(self, subscription: Any) -> Any:
        """The next thing that the node has to say on a subscription. Raises NodeUnreachable."""
        while True:
            message = self._updates.popleft() if self._updates else self._receive()
            params = message.get("params")
            if not isinstance(params, dict):
                raise self._garbage()
            if params.get("subscription") == subscription:
                return params.get("result")

    def close(self) -> None:
        """Safe at any time. It may be opened again."""
        self._socket = None
        try:
            self._held.close()
        except (OSError, WebSocketException):
            pass

    def _send(self, message: dict[str, Any]) -> None:
        assert self._socket is not None
        try:
            self._socket.send(json.dumps(message, separators=(",", ":")))
        except (OSError, EOFError, WebSocketException) as error:
            self.close()
            raise NodeUnreachable(reason(error)) from None

    def _receive(self) -> dict[str, Any]:
        """The next message. Raises NodeUnreachable."""
        if self._socket is None:
            raise NodeUnreachable("the connection broke")
        try:
            message = json.loads(self._socket.recv(timeout=self.left(), decode=False))
        except NodeUnreachable:
            self.close()
            raise
        except (ValueError, RecursionError):
            raise self._garbage() from None
        except (OSError, EOFError, WebSocketException) as error:
            self.close()
            raise NodeUnreachable(reason(error)) from None
        if not isinstance(message, dict):
            raise self._garbage()
        return message

    def _error(self, method: str, error: Any) -> Exception:
        if not isinstance(error, dict):
            return self._garbage()
        code, message = error.get("code"), error.get("message")
        if not isinstance(code, int) or not isinstance(message, str):
            return self._garbage()
        data = error.get("data")
        return RpcError(method, code, f"{message}: {data}" if isinstance(data, str) else message)

    def _garbage(self) -> NodeUnreachable:
        self.close()
        return NodeUnreachable("it answered with garbage")


Dialled = tuple[ClientConnection, ExitStack]
"""A connection, and what closes it."""


def dialled(uri: str, seconds: float) -> Dialled:
    """A new connection. In a thread of its own, because nothing else ends the wait for a name server, and an address
    after the other gets the whole time. Raises TimeoutError, and what `connect` raises."""
    outcome: Future[Dialled] = Future()
    threading.Thread(target=_dial, args=(outcome, uri, seconds), name="grid-chain-dial", daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        if outcome.cancel():
            raise
    return outcome.result()


def _dial(outcome: "Future[Dialled]", uri: str, seconds: float) -> None:
    """What nobody waits for any more is closed."""
    held = ExitStack()
    try:
        connection = held.enter_context(
            connect(
                uri,
                open_timeout=seconds,
                close_timeout=CLOSE_SECONDS,
                max_size=FRAME_MAX,
                max_queue=QUEUE_MAX,
                compression=None,
            )
        )
        bound_writes(connection.socket, seconds)
        outcome.set_result((connection, held))
    except BaseException as error:  # noqa: BLE001  it is raised where it is waited for
        with suppress(OSError, WebSocketException):
            held.close()
        with suppress(InvalidStateError):
            outcome.set_exception(error)


def bound_writes(sock: socket.socket, seconds: float) -> None:
    """A peer that reads nothing fails the connection, instead of holding the sender for ever."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(int(seconds * 1000), 1))


def reason(error: Exception) -> str:
    """In a few words that name no address."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, ConnectionClosed):
        sent = error.sent
        return "its answer is too large" if sent and sent.code == CloseCode.MESSAGE_TOO_BIG else "the connection broke"
    if isinstance(error, InvalidHandshake | InvalidURI):
        return "it is no WebSocket server"
    return "the connection broke"
