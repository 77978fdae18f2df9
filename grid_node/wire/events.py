"""Event handlers of one namespace: `handler(sid, payload) -> dict`, and the dict is the ack.

An event has no argument or one; none and null both mean `{}`. Whatever a handler raises becomes the ack through the
server's `error_body`, so an event with an ack id is always answered.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from grid_node.errors import GridError, InvalidMessage, UnknownEvent


class JsonText(str):
    """An answer that is JSON text already and is sent as it is."""

    __slots__ = ()


class Later:
    """An answer that comes after its handler has returned, from whichever task has it: the reader goes on meanwhile.

    Events that are answered so are taken up in the order in which they came. The first `finish` counts.
    """

    __slots__ = ("_afterwards", "_answer", "_finished", "_lock", "_then")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished = False
        self._answer: Ack | None = None
        self._afterwards: Callable[[], None] = _nothing
        self._then: Callable[[Ack], None] | None = None

    def finish(self, answer: Ack, afterwards: Callable[[], None] | None = None) -> None:
        """Never waits; what it calls neither. `afterwards` is called once the answer is on its way: what it sends
        comes after the answer."""
        with self._lock:
            if self._finished:
                return
            self._finished, self._answer, then = True, answer, self._then
            self._afterwards = afterwards or _nothing
        if then is not None:
            then(answer)
            self._afterwards()

    def then(self, send: Callable[[Ack], None]) -> None:
        """Call `send` with the answer, at once if it is there; asked once, by the server."""
        with self._lock:
            self._then = send
            finished = self._finished
        if finished:
            send(self._answer)  # type: ignore[arg-type]
            self._afterwards()


def _nothing() -> None:
    pass


Ack = dict[str, Any] | list[Any] | JsonText
Answer = Ack | Later | None
"""What a handler returns; None is `{"success": true}`."""
Handler = Callable[[str, Any], Answer]
Fallback = Callable[[str, str, Any], Answer]
ErrorBody = Callable[[Exception], dict[str, Any]]
Observe = Callable[[str, float], None]
"""Called with the registered event name (`*` for unknown ones) and the seconds the handler took."""

RESERVED = frozenset({"connect", "disconnect", "connect_error", "newListener", "removeListener"})
FALLBACK = "*"


log = logging.getLogger(__name__)


def error_body(error: Exception) -> dict[str, Any]:
    """The ack of an exception: the house's errors as they are, anything else logged and told without detail."""
    if isinstance(error, GridError):
        return error.body()
    log.error("event failed", exc_info=error)
    return GridError().body()


class EventServer(Protocol):
    """What `Events` needs of the server."""

    def on(self, event: str, handler: Any, namespace: str | None = None) -> Any: ...
    def welcome(self, namespace: str, handler: Callable[[str], None]) -> None: ...


class Route:
    """One registered event. `waits` says that its handler may block, so it runs in a task of its own."""

    __slots__ = ("handler", "name", "waits")

    def __init__(self, name: str, handler: Callable[..., Answer], waits: bool = False) -> None:
        self.name = name
        self.handler = handler
        self.waits = waits

    def call(self, sid: str, name: str, payload: Any) -> Answer:
        return self.handler(sid, payload)


class FallbackRoute(Route):
    """Answers the events that have no route: its handler also gets the name, which is the client's text."""

    __slots__ = ()

    def call(self, sid: str, name: str, payload: Any) -> Answer:
        return self.handler(sid, name, payload)


def payload_of(arguments: list[Any]) -> Any:
    """The one argument of an event; none and null are `{}`. Raises InvalidMessage for more."""
    if len(arguments) > 1:
        raise InvalidMessage("An event takes one argument at most")
    value = arguments[0] if arguments else None
    return {} if value is None else value


def unknown_event(_sid: str, _name: str, _payload: Any) -> Ack:
    raise UnknownEvent


class Events:
    """Registers the events of one namespace. An event without a handler is answered 404 `unknown_event`."""

    def __init__(self, server: EventServer, namespace: str = "/") -> None:
        self.server = server
        self.namespace = namespace
        self.fallback(unknown_event)

    def on(self, name: str, handler: Handler, *, waits: bool = False) -> None:
        """Answer event `name` with what `handler(sid, payload)` returns.

        A handler that may wait (a long poll, a commit, a lock) must say so with `waits`: the others run in the reader,
        which is faster, and nothing else of that socket is read meanwhile. Events that wait may overtake each other;
        where the order matters, a handler that does not wait starts the work and returns a `Later`.
        """
        if name in RESERVED or name == FALLBACK:
            raise ValueError(f"{name} is reserved")
        self.server.on(name, Route(name, handler, waits), namespace=self.namespace)

    def fallback(self, handler: Fallback, *, waits: bool = False) -> None:
        """Answer every event that has no handler of its own with `handler(sid, name, payload)`."""
        self.server.on(FALLBACK, FallbackRoute(FALLBACK, handler, waits), namespace=self.namespace)

    def on_connect(self, handler: Callable[[str, dict[str, Any], Any], None]) -> None:
        """`handler(sid, environ, auth)` lets the socket in by returning and refuses it by raising."""
        self.server.on("connect", handler, namespace=self.namespace)

    def on_joined(self, handler: Callable[[str], None]) -> None:
        """`handler(sid)` runs after the client has been told that it is in: the place for a first push."""
        self.server.welcome(self.namespace, handler)

    def on_disconnect(self, handler: Callable[[str, str], None]) -> None:
        """`handler(sid, reason)` hears of each socket that `on_connect` let in, once."""
        self.server.on("disconnect", handler, namespace=self.namespace)
