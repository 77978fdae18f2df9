"""The only module that emits. Facts come from stream entries, after their commit."""

import logging
from typing import Any

from grid_node.streams.service import Entry
from grid_node.wire.server import WireServer

log = logging.getLogger(__name__)

CLIENTS = "/"
WORKERS = "/worker"


class Publisher:
    """Sends events to single sockets. A socket that is gone is no error: its owner resumes by seq."""

    def __init__(self, server: WireServer) -> None:
        self._server = server

    def task_update(self, sid: str, entry: Entry) -> None:
        self._push("task_update", entry, sid, CLIENTS)

    def feedback(self, sid: str, entry: Entry) -> None:
        self._push("feedback", entry, sid, WORKERS)

    def lease_cancelled(self, sid: str, entry: Entry) -> None:
        self._push("lease_cancelled", entry, sid, WORKERS)

    def challenge(self, sid: str, message: dict[str, Any]) -> None:
        self._send("challenge", message, sid, WORKERS)

    def closing(self, sid: str, namespace: str, closing: dict[str, Any]) -> None:
        """Say why, then end the connection."""
        self._send("closing", closing, sid, namespace)
        self._server.disconnect(sid, namespace=namespace)

    def _push(self, event: str, entry: Entry, sid: str, namespace: str) -> None:
        """Send the entry's own text: a socket of this process needs no rooms, and no JSON written twice."""
        session = self._server.eio.sockets.get(self._server.manager.eio_sid_from_sid(sid, namespace))
        if session is not None:
            prefix = "2" if namespace == CLIENTS else f"2{namespace},"
            session.send_text(f'{prefix}["{event}",{entry.text}]')

    def _send(self, event: str, body: dict[str, Any], sid: str, namespace: str) -> None:
        self._server.emit(event, body, to=sid, namespace=namespace)


def closing(code: int, reason: str, error: str, retry_after: int | None = None) -> dict[str, Any]:
    """The body of a `closing` event."""
    body: dict[str, Any] = {"code": code, "reason": reason, "error": error}
    return body if retry_after is None else {**body, "retry_after": retry_after}


AUTH_FAILED = closing(4401, "auth_failed", "Invalid authentication")
AUTH_TIMEOUT = closing(4402, "auth_timeout", "Authentication deadline exceeded")
KEY_REMOVED = closing(4401, "auth_failed", "Invalid API Key")
NOT_REGISTERED = closing(4403, "not_registered", "Unregistered hotkey", 3600)
DEREGISTERED = closing(4405, "deregistered", "Hotkey is no longer registered", 3600)
BLACKLISTED = closing(4404, "blacklisted", "Hotkey is blacklisted", 3600)
REPLACED = closing(4409, "replaced", "New connection established")
SHUTDOWN = closing(4503, "shutdown", "Server shutting down", 2)
