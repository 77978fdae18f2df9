"""The only module that emits. Facts come from stream entries, after their commit."""

import logging
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from grid_node.predictions.update_log import Update
from grid_node.streams.service import Entry
from grid_node.wire import strict_json
from grid_node.wire.server import WireServer
from grid_node.wire.session import WireSocket

log = logging.getLogger(__name__)

CLIENTS = "/"
WORKERS = "/worker"
MINERS = "/predictions"
RUNS = "/v1"
RUNNERS = "/runner"
CHAIN = "/chain"
HEARTBEAT_ACK = 1
"""The ack id of every heartbeat: who answers lives, whatever it says."""
POLL_LAST = 2.0
"""Seconds that a polling peer gets to fetch its last words."""


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

    def challenge(self, sid: str, message: dict[str, Any], namespace: str = WORKERS) -> None:
        self._send("challenge", message, sid, namespace)

    def game_update(self, sid: str, compressed: bool, update: Update) -> bool:
        """Hand one update of the games to a miner's socket; the text is made once for all of them.

        False: what was sent before has yet to be read.
        """
        session = self._session(sid, MINERS)
        if session is None:
            return True
        if session.ws is not None and session.ws.backlogged:
            return False
        if compressed:
            session.send_with_attachment(_packed_head(update.raw_size), update.packed())
        else:
            session.send_text(_update_text(update))
        return True

    def trust(self, sid: str, max_bytes: int) -> None:
        """Take messages of this size from a miner that has proved who it is."""
        session = self._session(sid, MINERS)
        if session is not None:
            session.allow(max_bytes)

    def heartbeat(self, sid: str, text: str) -> None:
        """`text` is the HeartbeatMessage as JSON."""
        session = self._session(sid, MINERS)
        if session is not None:
            session.send_text(f'2{MINERS},{HEARTBEAT_ACK}["heartbeat",{text}]')

    def runner_ready(self, sid: str, message: dict[str, Any]) -> None:
        """Tell an agent that it is in."""
        self._send("ready", message, sid, RUNNERS)

    def runner_replaced(self, sid: str) -> None:
        """Tell an agent that it is here a second time, then end this connection."""
        self._send("replaced", {}, sid, RUNNERS)
        self._server.disconnect(sid, namespace=RUNNERS)

    def runner_call(self, sid: str, message: dict[str, Any], on_answer: Callable[..., None]) -> Callable[[], None]:
        """Ask an agent to call its worker. `on_answer` gets the members of its acknowledgement, or is never called;
        who waits no longer calls what comes back, else the server would remember the call as long as the socket."""
        self._send("http", message, sid, RUNNERS, on_answer)
        return partial(self._forget_call, sid, on_answer)

    def _forget_call(self, sid: str, on_answer: Callable[..., None]) -> None:
        waiting = self._server.manager.callbacks.get(sid, {})
        for number in [number for number, waits in list(waiting.items()) if waits == on_answer]:
            waiting.pop(number, None)
        if self._session(sid, RUNNERS) is None:  # it left while the call was on its way out
            self._server.manager.callbacks.pop(sid, None)

    def prediction_event(self, sid: str, body: dict[str, Any]) -> None:
        """An update of a prediction on somebody's model."""
        session = self._session(sid, RUNS)
        if session is not None:
            session.send_text(f'2{RUNS},["prediction.event",{strict_json.dumps(body)}]')

    def head(self, sid: str, text: str) -> None:
        """A new block; `text` is its number, hash and timestamp as JSON."""
        session = self._session(sid, CHAIN)
        if session is not None:
            session.send_text(f'2{CHAIN},["head",{text}]')

    def closing(self, sid: str, namespace: str, closing: dict[str, Any]) -> None:
        """Say why, then end the connection."""
        self._send("closing", closing, sid, namespace)
        self._server.disconnect(sid, namespace=namespace)

    def hang_up(self, sid: str, closing: dict[str, Any]) -> None:
        """Say why to a miner, then end its transport too. Waits for nobody, least of all for one that does not read."""
        session = self._session(sid, MINERS)
        self.closing(sid, MINERS, closing)
        if session is None:
            return
        if session.ws is not None and session.ws.backlogged:
            session.ws.abort()
        else:
            self._server.start_background_task(self._cut, session, closing)

    def _cut(self, session: WireSocket, closing: dict[str, Any]) -> None:
        if session.ws is None:
            self._server.sleep(POLL_LAST)
        session.cut(closing["code"], closing["reason"])

    def _push(self, event: str, entry: Entry, sid: str, namespace: str) -> None:
        """Send the entry's own text: a socket of this process needs no rooms, and no JSON written twice."""
        session = self._session(sid, namespace)
        if session is not None:
            prefix = "2" if namespace == CLIENTS else f"2{namespace},"
            session.send_text(f'{prefix}["{event}",{entry.text}]')

    def _session(self, sid: str, namespace: str) -> WireSocket | None:
        try:
            eio_sid = self._server.manager.eio_sid_from_sid(sid, namespace)
        except KeyError:  # the last socket of the namespace leaves just now, in another thread
            return None
        session: WireSocket | None = self._server.eio.sockets.get(eio_sid)
        return session

    def _send(
        self,
        event: str,
        body: dict[str, Any],
        sid: str,
        namespace: str,
        on_answer: Callable[..., None] | None = None,
    ) -> None:
        self._server.emit(event, body, to=sid, namespace=namespace, callback=on_answer)


@lru_cache(maxsize=64)
def _update_text(update: Update) -> str:
    return f'2{MINERS},["game_update",{update.text}]'


def _packed_head(raw_size: int) -> str:
    """The packet that goes before its one attachment."""
    head = f'"message_type":"game_update","encoding":"zlib","raw_size":{raw_size}'
    return f'51-{MINERS},["game_update",{{{head},"data":{{"_placeholder":true,"num":0}}}}]'


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
STALE = closing(4408, "stale", "Connection timeout")
REPLACED = closing(4409, "replaced", "New connection established")
MODEL_REMOVED = closing(4410, "model_removed", "Model not found.")
PAYLOAD_TOO_LARGE = closing(4413, "payload_too_large", "Message too large")
FLOW_VIOLATION = closing(4429, "flow_violation", "Flow control violated")
SLOW_CONSUMER = closing(4430, "slow_consumer", "Updates not acknowledged in time")
SHUTDOWN = closing(4503, "shutdown", "Server shutting down", 2)
