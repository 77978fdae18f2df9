"""The Socket.IO server: python-socketio with our transport, strict packets, and an answer to every event."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import socketio
from socketio.exceptions import ConnectionRefusedError as Refused

from grid_node.errors import InvalidJson, InvalidMessage, MessageTooLarge, TooManyInFlight
from grid_node.wire import strict_json
from grid_node.wire.engine import WireEngine
from grid_node.wire.events import (
    FALLBACK,
    RESERVED,
    ErrorBody,
    FallbackRoute,
    Later,
    Observe,
    Route,
    error_body,
    payload_of,
    unknown_event,
)
from grid_node.wire.frames import Message
from grid_node.wire.handshake import Environ
from grid_node.wire.limits import WireLimits
from grid_node.wire.packets import (
    ACK,
    BINARY_ACK,
    BINARY_EVENT,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    Head,
    WirePacket,
    ack_text,
    fill_placeholders,
)
from grid_node.wire.session import ProtocolViolation, WireSocket

log = logging.getLogger(__name__)

UNKNOWN = FallbackRoute(FALLBACK, unknown_event)


def byte_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


class Assembly:
    """A binary packet whose attachments are still coming. Above the limit it keeps counting, but no bytes."""

    __slots__ = ("attachments", "head", "missing", "size", "too_large")

    def __init__(self, head: Head, limits: WireLimits) -> None:
        self.head = head
        self.missing = head.attachments
        self.size = byte_size(head.body)
        self.attachments: list[bytes] = []
        self.too_large = False
        if head.attachments > limits.attachments:
            raise ProtocolViolation("too many attachments")

    def add(self, data: bytes, limit: int) -> None:
        self.missing -= 1
        self.size += len(data)
        if self.size > limit:
            self.too_large = True
            self.attachments.clear()
        if not self.too_large:
            self.attachments.append(data)


class WireServer(socketio.Server):
    """socketio.Server whose events are answered in the reader, or in a task of their own when they wait."""

    def __init__(
        self,
        *,
        limits: WireLimits,
        error_body: ErrorBody = error_body,
        observe: Observe | None = None,
        **options: Any,
    ) -> None:
        self.limits = limits
        self.error_body = error_body
        self.observe = observe
        self.elsewhere: dict[str, dict[str, Any]] = {}
        """By namespace, what the answer to a message above the limit says besides: where a larger one may go."""
        self.message_limits: dict[str, int] = {}
        """By namespace, another limit than `limits.message_bytes`."""
        self.too_large: dict[str, type[MessageTooLarge]] = {}
        """By namespace, another error for it than MessageTooLarge itself."""
        self.error_bodies: dict[str, ErrorBody] = {}
        """By namespace, another form of what it refuses than `error_body`."""
        self._assemblies: dict[str, Assembly] = {}
        self._welcomes: dict[str, Callable[[str], None]] = {}
        self.listeners: dict[str, Callable[[str], None]] = {}
        """By namespace, who is told the sid of each packet that a socket sends: that it lives."""
        self.violations: dict[str, Callable[[str, int], None]] = {}
        """By namespace, who is told the sid and the close code before a connection ends for what its peer has sent."""
        self.transport_limits: dict[str, int] = {}
        """By namespace, another limit than `limits.transport_bytes`."""
        # async_handlers off: `Route.waits` says which events get a task of their own.
        super().__init__(serializer=WirePacket, async_handlers=False, limits=limits, **options)
        self.eio.violated = self._violated

    def _engineio_server_class(self) -> type[WireEngine]:
        return WireEngine

    def welcome(self, namespace: str, handler: Callable[[str], None]) -> None:
        """Call `handler(sid)` once the client has been told that it is in, so that it may emit to it."""
        self._welcomes[namespace] = handler

    # Incoming packets

    def _handle_eio_message(self, eio_sid: str, data: Message) -> None:
        """One Socket.IO packet or attachment; raises ProtocolViolation for what is neither."""
        assembly = self._assemblies.get(eio_sid)
        if isinstance(data, bytes):
            if assembly is None:
                raise ProtocolViolation("attachment without a packet")
            self._attach(eio_sid, assembly, data)
            return
        if assembly is not None:
            del self._assemblies[eio_sid]
            raise ProtocolViolation("packet in place of an attachment")
        head = Head(data)
        if head.kind == EVENT:
            self._receive_event(eio_sid, head, None)
        elif head.kind in (BINARY_EVENT, BINARY_ACK) and head.attachments:
            self._require_sid(eio_sid, head.namespace)
            self._assemblies[eio_sid] = Assembly(head, self.limits)
        else:
            self._receive_other(eio_sid, head)

    def _receive_other(self, eio_sid: str, head: Head) -> None:
        if head.kind == CONNECT:
            self._join(eio_sid, head)
        elif head.kind == DISCONNECT:
            self._handle_disconnect(eio_sid, head.namespace, self.reason.CLIENT_DISCONNECT)
            self._look_if_left(eio_sid)
        elif head.kind == ACK:
            self._receive_ack(eio_sid, head, [])
        else:
            raise ProtocolViolation("packet type not allowed from a client")

    def _attach(self, eio_sid: str, assembly: Assembly, data: bytes) -> None:
        assembly.add(data, self._message_limit(assembly.head.namespace))
        if assembly.missing:
            return
        del self._assemblies[eio_sid]
        if assembly.head.kind == BINARY_EVENT:
            self._receive_event(eio_sid, assembly.head, assembly)
        elif not assembly.too_large:
            self._receive_ack(eio_sid, assembly.head, assembly.attachments)

    def _message_limit(self, namespace: str) -> int:
        return self.message_limits.get(namespace, self.limits.message_bytes)

    def _require_sid(self, eio_sid: str, namespace: str) -> str:
        sid = self.manager.sid_from_eio_sid(eio_sid, namespace)
        if sid is None or not self.manager.is_connected(sid, namespace):
            raise ProtocolViolation("namespace not joined")
        if namespace in self.listeners:
            self.listeners[namespace](sid)
        return str(sid)

    def _receive_ack(self, eio_sid: str, head: Head, attachments: list[bytes]) -> None:
        sid = self._require_sid(eio_sid, head.namespace)
        if byte_size(head.body) > self._message_limit(head.namespace):
            raise ProtocolViolation("ack too large")
        try:
            data = fill_placeholders(strict_json.loads(head.body or "[]", self.limits.depth), attachments)
        except strict_json.InvalidJSON:
            raise ProtocolViolation("ack is not JSON") from None
        if not isinstance(data, list) or not head.ack_id:  # python-socketio keeps its counter under id 0
            raise ProtocolViolation("ack without id or arguments")
        self.manager.trigger_callback(sid, head.ack_id, data)

    # Events

    def _receive_event(self, eio_sid: str, head: Head, assembly: Assembly | None) -> None:
        sid = self._require_sid(eio_sid, head.namespace)
        try:
            name, arguments = self._parse_event(head, assembly)
        except (InvalidMessage, InvalidJson, MessageTooLarge) as fault:
            self._refuse(eio_sid, head, fault)
            return
        self._dispatch(eio_sid, sid, head, name, arguments)

    def _parse_event(self, head: Head, assembly: Assembly | None) -> tuple[str, list[Any]]:
        limit = self._message_limit(head.namespace)
        if byte_size(head.body) > limit or (assembly is not None and assembly.too_large):
            error = self.too_large.get(head.namespace, MessageTooLarge)
            raise error(limit=limit, **self.elsewhere.get(head.namespace, {}))
        try:
            data = strict_json.loads(head.body, self.limits.depth)
        except strict_json.InvalidJSON as error:
            raise InvalidJson(reason=str(error)) from None
        if type(data) is not list or not data or type(data[0]) is not str:
            raise InvalidMessage("An event is an array that starts with its name")
        if assembly is not None:
            try:
                data = fill_placeholders(data, assembly.attachments)
            except ProtocolViolation as violation:
                raise InvalidMessage(str(violation)) from None
        return data[0], data[1:]

    def _refuse(self, eio_sid: str, head: Head, fault: Exception) -> None:
        """Answer a message that never became an event; without an ack id nobody hears it, so it is a strike."""
        if head.ack_id is None:
            raise ProtocolViolation(str(fault))
        self._send_ack(eio_sid, head.namespace, head.ack_id, self._body(head.namespace, fault))
        session = self.eio.sockets.get(eio_sid)
        if session is not None:
            session.strike(str(fault))

    def _dispatch(self, eio_sid: str, sid: str, head: Head, name: str, arguments: list[Any]) -> None:
        routes = self.handlers.get(head.namespace, {})
        route = routes.get(name) if name not in RESERVED else None
        if route is None:
            route = routes.get(FALLBACK, UNKNOWN)
        if not route.waits:
            self._acknowledge(eio_sid, head, self._answer(head.namespace, route, sid, name, arguments))
            return
        session = self.eio.sockets.get(eio_sid)
        if session is None:  # a test client without a transport: answered in turn
            self._acknowledge(eio_sid, head, self._answer(head.namespace, route, sid, name, arguments))
        elif session.in_flight >= self.limits.in_flight:
            busy = TooManyInFlight(limit=self.limits.in_flight)
            self._acknowledge(eio_sid, head, self._body(head.namespace, busy))
        else:
            session.in_flight += 1
            self.start_background_task(self._answer_later, session, head, route, sid, name, arguments)

    def _answer_later(
        self, session: WireSocket, head: Head, route: Route, sid: str, name: str, arguments: list[Any]
    ) -> None:
        try:
            self._acknowledge(session.sid, head, self._answer(head.namespace, route, sid, name, arguments))
        finally:
            session.in_flight -= 1

    def _answer(self, namespace: str, route: Route, sid: str, name: str, arguments: list[Any]) -> Any:
        """What the handler returns, or the body of what it raises: the boundary of every event."""
        started = time.perf_counter()
        try:
            answer = route.call(sid, name, payload_of(arguments))
            if answer is None:
                answer = {"success": True}
        except Exception as error:  # noqa: BLE001 the boundary: error_body logs what is ours
            answer = self._body(namespace, error)
        if self.observe is not None:
            self.observe(route.name, time.perf_counter() - started)
        return answer

    def _acknowledge(self, eio_sid: str, head: Head, answer: Any) -> None:
        if isinstance(answer, Later):
            answer.then(partial(self._acknowledge, eio_sid, head))
        elif head.ack_id is not None:
            self._send_ack(eio_sid, head.namespace, head.ack_id, answer)

    def _send_ack(self, eio_sid: str, namespace: str, ack_id: int, answer: Any) -> None:
        """Acknowledge; an answer that cannot be written is our fault and is told as one."""
        try:
            text = ack_text(namespace, ack_id, answer)
        except ValueError as error:
            text = ack_text(namespace, ack_id, self._body(namespace, error))
        session = self.eio.sockets.get(eio_sid)
        if text is not None and session is not None:
            session.send_text(text)
            return
        self._send_packet(eio_sid, WirePacket(ACK, data=[answer], namespace=namespace, id=ack_id))

    # Joining a namespace

    def _join(self, eio_sid: str, head: Head) -> None:
        try:
            auth = strict_json.loads(head.body, self.limits.depth) if head.body else None
        except strict_json.InvalidJSON as error:
            self._refuse_join(eio_sid, head.namespace, self._refusal(head.namespace, InvalidJson(reason=str(error))))
            return
        environ = self.environ.get(eio_sid)
        sid = self.manager.pre_connect(eio_sid, head.namespace) if self._serves(head.namespace) else None
        if sid is None or environ is None:
            self._refuse_join(eio_sid, head.namespace, {"message": "Unable to connect"})
            return
        refusal = self._ask_connect(sid, head.namespace, environ, auth)
        if refusal is None:
            self._let_in(eio_sid, sid, head.namespace)
        else:
            self.manager.disconnect(sid, head.namespace, ignore_queue=True)
            self._refuse_join(eio_sid, head.namespace, refusal)

    def _serves(self, namespace: str) -> bool:
        return namespace in self.handlers or namespace in self.namespaces

    def _ask_connect(self, sid: str, namespace: str, environ: Environ, auth: Any) -> Any:
        """None when the connect handler lets the socket in, otherwise what the client is told."""
        try:
            handler = self.handlers.get(namespace, {}).get("connect")
            let_in = handler is None or handler(sid, environ, auth) is not False
            return None if let_in else {"message": "Connection rejected by server"}
        except Refused as refused:
            return refused.error_args
        except Exception as error:  # noqa: BLE001 the boundary: error_body logs what is ours
            return self._refusal(namespace, error)

    def _refusal(self, namespace: str, error: Exception) -> dict[str, Any]:
        """What Socket.IO clients hand to `connect_error`."""
        body = self._body(namespace, error)
        return {"message": body.get("error") or body.get("detail", ""), "data": body}

    def _body(self, namespace: str, error: Exception) -> dict[str, Any]:
        return self.error_bodies.get(namespace, self.error_body)(error)

    def _let_in(self, eio_sid: str, sid: str, namespace: str) -> None:
        self._send_packet(eio_sid, WirePacket(CONNECT, data={"sid": sid}, namespace=namespace))
        self.manager.connect(sid, namespace)
        session = self.eio.sockets.get(eio_sid)
        if session is not None:
            self.eio.mark_joined(session, self.transport_limits.get(namespace))
        if eio_sid not in self.environ:  # its polling session ended while the connect handler waited
            self._handle_disconnect(eio_sid, namespace, self.reason.TRANSPORT_CLOSE)
        elif namespace in self._welcomes:
            self._welcomes[namespace](sid)

    def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        eio_sid = self.manager.eio_sid_from_sid(sid, namespace or "/")
        super().disconnect(sid, namespace, ignore_queue)
        if eio_sid is not None:
            self._look_if_left(eio_sid)

    def _look_if_left(self, eio_sid: str) -> None:
        """A transport that is in no namespace any more does not stay for ever."""
        session = self.eio.sockets.get(eio_sid)
        if session is not None and not any(self.manager.sid_from_eio_sid(eio_sid, name) for name in self.handlers):
            self.eio.mark_left(session)

    def _violated(self, eio_sid: str, code: int) -> None:
        for namespace, tell in self.violations.items():
            sid = self.manager.sid_from_eio_sid(eio_sid, namespace)
            if sid is not None:
                tell(sid, code)

    def _refuse_join(self, eio_sid: str, namespace: str, refusal: Any) -> None:
        self._send_packet(eio_sid, WirePacket(CONNECT_ERROR, data=refusal, namespace=namespace))
        session = self.eio.sockets.get(eio_sid)
        if session is not None:
            session.strike("refused")

    def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        self._assemblies.pop(eio_sid, None)
        super()._handle_eio_disconnect(eio_sid, reason)


def build_server(
    *,
    async_mode: str,
    limits: WireLimits | None = None,
    error_body: ErrorBody = error_body,
    observe: Observe | None = None,
    **options: Any,
) -> WireServer:
    """The node's Socket.IO server. `options` are those of socketio.Server and engineio.Server.

    `error_body` turns any exception of a handler into the ack that the client sees, and logs those that are ours.
    `observe` is told the name and the seconds of each answered event.
    """
    return WireServer(
        async_mode=async_mode,
        limits=limits or WireLimits(),
        error_body=error_body,
        observe=observe,
        **options,
    )


def attach(extension: Any, server: WireServer) -> None:
    """Put the server in place of the one that a Flask-SocketIO object made for itself."""
    extension.server = server
    extension.server_options["async_mode"] = server.async_mode
    extension.sockio_mw.engineio_app = server
