"""Events that are named like paths: a name may end with a slash, and some carry the id of a model."""

from typing import Any
from urllib.parse import unquote

from grid_node.errors import InvalidPayload, UnknownEvent
from grid_node.wire.events import Answer, Events, Handler


class PathEvents:
    """Registers such events of one namespace; all of them may wait."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._handlers: dict[str, Handler] = {}
        self._with_id: set[str] = set()
        events.fallback(self._by_path, waits=True)

    def on(self, name: str, handler: Handler, *, with_id: bool = False) -> None:
        """`with_id`: the name may go on with `/<model_id>`, percent-decoded once, in place of the member."""
        self._events.on(name, handler, waits=True)
        self._handlers[name] = handler
        if with_id:
            self._with_id.add(name)

    def _by_path(self, sid: str, name: str, payload: Any) -> Answer:
        whole = self._handlers.get(name.removesuffix("/"))
        if whole is not None:
            return whole(sid, payload)
        for event in self._with_id:
            if name.startswith(event + "/"):
                return self._handlers[event](sid, _with_id(name[len(event) + 1 :], payload))
        raise UnknownEvent()


def _with_id(encoded: str, payload: Any) -> Any:
    """The payload with the id of the event's name; an id that cannot be one is not found."""
    if not isinstance(payload, dict):
        return payload
    if "model_id" in payload:
        raise InvalidPayload(fields={"model_id": ["is in the name of the event already"]})
    name = encoded.removesuffix("/") if encoded.count("/") == 1 else encoded
    return {**payload, "model_id": unquote(name, errors="replace")}
