"""One Socket.IO connection: calls with acknowledgements and deadlines, pushes, and the news of its end.

A session is used once. Whoever needs a lasting connection opens a new session after `ConnectionLost`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import engineio
import socketio
import socketio.packet

from grid_client.bounded_socket import BoundedWebSocket
from grid_client.errors import ConnectionLost, DeadlineExceeded, GridError, SessionClosed

log = logging.getLogger(__name__)

Push = Callable[[Any], Any]
"""Takes an event's payload; what it returns is the ack, if the node asked for one. A Future is acknowledged once it is
done, and what comes after it is read meanwhile."""
CONNECT_TIMEOUT = 10.0
"""Seconds for TCP, the WebSocket upgrade and the namespace, each."""
CLOSE_TIMEOUT = 0.2


class _OrderedEngine(engineio.Client):
    """Engine.IO that hands messages on one after the other.

    The stock client starts a thread for each message, so pushes overtake each other and binary parts can be
    attached to the wrong event.
    """

    def _trigger_event(self, event: str, *args: Any, **options: Any) -> Any:
        if event == "message":
            options["run_async"] = False
        return super()._trigger_event(event, *args, **options)

    def disconnect(self, abort: bool = False, reason: str | None = None) -> None:
        """Leaves within a moment, also a peer that is silent: websocket-client would wait for a close frame behind
        the read loop, which waits for the peer. Called by the read loop itself, for a message that ends the
        connection, it does not wait for that loop."""
        if self.ws is not None:
            self.ws.close = self._hang_up
        super().disconnect(abort or threading.current_thread() is self.read_loop_task, reason)

    def _hang_up(self) -> None:
        """Gives the loops time to say goodbye, then wakes them."""
        self.queue.put(None)  # the write loop may have taken the first one before it could see what it means
        for loop in (self.write_loop_task, self.read_loop_task):
            if loop is not None and loop is not threading.current_thread():
                loop.join(CLOSE_TIMEOUT)
        with contextlib.suppress(OSError):
            if self.ws.sock is not None:  # its own shutdown, under TLS, would take the reader's state away
                socket.socket.shutdown(self.ws.sock, socket.SHUT_RDWR)

    def _reset(self) -> None:
        """The stock client forgets the socket of a connection that broke and leaves it open, and takes the word that
        ends the write loop out of its queue."""
        super()._reset()
        self.queue.put(None)
        if self.ws is not None:
            self.ws.shutdown()


class _OrderedClient(socketio.Client):
    def _engineio_client_class(self) -> type[engineio.Client]:
        return _OrderedEngine

    def _handle_event(self, namespace: str | None, id: int | None, data: list[Any]) -> None:
        answer = self._trigger_event(data[0], namespace or "/", *data[1:])
        acknowledge = functools.partial(self._acknowledge, namespace or "/", id)
        if isinstance(answer, Future):
            answer.add_done_callback(lambda done: None if done.cancelled() else acknowledge(done.result()))
        else:
            acknowledge(answer)

    def _acknowledge(self, namespace: str, id: int | None, answer: object) -> None:
        """A connection that has ended takes none."""
        if id is not None:
            data = [] if answer is None else [answer]
            self._send_packet(self.packet_class(socketio.packet.ACK, namespace=namespace, id=id, data=data))


class Session:
    def __init__(
        self,
        url: str,
        namespace: str = "/",
        pushes: Mapping[str, Push] | None = None,
        on_end: Callable[[], None] = lambda: None,
        tls: ssl.SSLContext | None = None,
        max_message: int | None = None,
    ) -> None:
        """`pushes` are called in the order of the events, `on_end` once, when the connection is over.

        `max_message` is in bytes; a node that sends more loses the connection.
        """
        self._url = url
        self._namespace = namespace
        self._on_end = on_end
        self._refusal: GridError | None = None
        self._pending: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._closing = threading.Lock()
        self.ended = threading.Event()
        self.closing: SessionClosed | None = None
        """The node's `closing` message, if it sent one."""
        self._socket = _OrderedClient(
            reconnection=False,
            handle_sigint=False,
            request_timeout=CONNECT_TIMEOUT,
            websocket_extra_options=_transport_options(tls, max_message),
        )
        self._socket.on("connect_error", self._refused, namespace=namespace)
        self._socket.on("disconnect", self._lost, namespace=namespace)
        self._socket.on("closing", self._told_to_close, namespace=namespace)
        for event, push in (pushes or {}).items():
            self._socket.on(event, push, namespace=namespace)

    def connect(self, auth: Mapping[str, Any] | None = None) -> None:
        """Raises GridError with the node's refusal, or ConnectionLost."""
        try:
            with self._closing:  # half a connection cannot be closed
                self._socket.connect(
                    self._url,
                    auth=dict(auth or {}),
                    namespaces=[self._namespace],
                    transports=["websocket"],
                    wait_timeout=CONNECT_TIMEOUT,
                )
        except socketio.exceptions.ConnectionError as error:
            self.close()
            raise self._refusal or ConnectionLost(f"cannot connect to {self._url}: {error}") from None
        if self.ended.is_set():
            self.close()
            raise self.closing or ConnectionLost("the session was closed")

    def call(self, event: str, data: object, timeout: float) -> dict[str, Any]:
        """The ack of an event. Raises GridError for a refusal, ConnectionLost, or DeadlineExceeded."""
        return self.wait(self.send(event, data), timeout)

    def send(self, event: str, data: object) -> Future[Any]:
        """Emits and returns the coming ack; the future also ends when the connection does."""
        answer: Future[Any] = Future()
        with self._lock:
            if self.ended.is_set():
                raise self.closing or ConnectionLost()
            self._pending.add(answer)
        answer.add_done_callback(self._forget)
        try:
            with self._send_lock:  # python-socketio: emit is not thread safe
                self._socket.emit(event, data, namespace=self._namespace, callback=_settler(answer))
        except socketio.exceptions.SocketIOError as error:
            answer.cancel()
            raise ConnectionLost(str(error)) from None
        return answer

    def emit(self, event: str, data: object) -> None:
        """Emits what needs no ack. Raises ConnectionLost, or what the node closed with."""
        if self.ended.is_set():
            raise self.closing or ConnectionLost()
        try:
            with self._send_lock:
                self._socket.emit(event, data, namespace=self._namespace)
        except socketio.exceptions.SocketIOError as error:
            raise ConnectionLost(str(error)) from None

    def ask(self, event: str, data: object, timeout: float) -> Any:
        """The ack of an event whatever it is, a refusal too. Raises ConnectionLost or DeadlineExceeded."""
        return self._outcome(self.send(event, data), timeout)

    def wait(self, answer: Future[Any], timeout: float) -> dict[str, Any]:
        body = self._outcome(answer, timeout)
        if not isinstance(body, dict):
            raise GridError("bad_answer", "the node's ack is no object")
        if body.get("success") is False:
            raise GridError.from_body(body)
        return body

    def _outcome(self, answer: Future[Any], timeout: float) -> Any:
        try:
            return answer.result(timeout)
        except FutureTimeout:
            answer.cancel()
            raise DeadlineExceeded(f"no answer within {timeout:g} s") from None

    def close(self) -> None:
        """From any thread. One that finds another at it does not wait; a `connect` under way closes when it is done."""
        self._end(ConnectionLost("the session was closed"))
        if not self._closing.acquire(blocking=False):
            return
        try:
            self._socket.disconnect()
        except (socketio.exceptions.SocketIOError, OSError, ValueError):
            log.debug("socket was already gone", exc_info=True)
        finally:
            self._closing.release()

    def _refused(self, data: object = None) -> None:
        inner = data.get("data") if isinstance(data, Mapping) else None
        if isinstance(inner, Mapping):
            self._refusal = GridError.from_body(inner)

    def _told_to_close(self, data: object = None) -> None:
        self.closing = SessionClosed.from_event(data)

    def _lost(self, reason: object = None) -> None:
        self._end(self.closing or ConnectionLost(f"connection ended: {reason}"))

    def _end(self, error: GridError) -> None:
        with self._lock:
            if self.ended.is_set():
                return
            self.ended.set()
            pending = list(self._pending)
        for answer in pending:
            _settle(answer, error)
        self._on_end()

    def _forget(self, answer: Future[Any]) -> None:
        with self._lock:
            self._pending.discard(answer)


def _transport_options(tls: ssl.SSLContext | None, max_message: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {"sslopt": {"context": tls}} if tls else {}
    if max_message is not None:
        options["class_"] = functools.partial(BoundedWebSocket, limit=max_message)
    return options


def _settler(answer: Future[Any]) -> Callable[..., None]:
    def settle(*arguments: object) -> None:
        _settle(answer, arguments[0] if arguments else None)

    return settle


def _settle(answer: Future[Any], outcome: object) -> None:
    try:
        if isinstance(outcome, GridError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)
    except InvalidStateError:
        log.debug("an answer came after its deadline")
