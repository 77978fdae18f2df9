"""Tunnels of our own: agents that dial out over Socket.IO, and the calls that go back through their sockets.

No account, no DNS. What a registration gets has the shape of Cloudflare's answer, so that one client serves both. The
links are this process's: a call goes out from the process that has the agent's socket, see `runners.dispatch`.
"""

import base64
import hashlib
import logging
import secrets
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from grid_node.clock import Clock, rfc3339
from grid_node.errors import (
    CallNotAllowed,
    GridError,
    ReplyTooLarge,
    RunnerGone,
    RunnerOffline,
    RunnerTimeout,
    RunnerUnreachable,
    TryAgain,
)
from grid_node.runners.allowed_calls import REPLY_MAX, allowed_headers, check_call
from grid_node.runners.health import OFFLINE, UNKNOWN, best
from grid_node.runners.ids import RandomBytes
from grid_node.runners.ports import Reply, Runner
from grid_node.runners.standing_log import StandingLog
from grid_node.settings import Settings

log = logging.getLogger(__name__)

CALLS_MAX = 64
"""Calls of one link that wait for their answer."""
_FAILURES: dict[str, type[GridError]] = {
    **{error.code: error for error in (CallNotAllowed, RunnerOffline, RunnerTimeout, RunnerUnreachable, ReplyTooLarge)},
    TryAgain.code: RunnerGone,  # the agent's hands are full: its worker has not got it
}
"""What an agent may say that went wrong on its side."""

Forget = Callable[[], None]


class AgentLink(Protocol):
    """The socket of one agent."""

    def send(self, message: dict[str, Any], on_answer: Callable[..., None]) -> Forget:
        """Send one call; `on_answer` gets the members of the acknowledgement. What comes back lets it be forgotten."""

    def replaced(self) -> None:
        """The same agent is here again: say so, and hang up."""

    def removed(self) -> None:
        """Its model is not there any more: say so, and hang up."""


class _Call:
    """One call on its way; ends once, with an answer or an error."""

    __slots__ = ("answer", "done", "error")

    def __init__(self) -> None:
        self.answer: Any = None
        self.error: GridError | None = None
        self.done = threading.Event()

    def answered(self, *arguments: Any) -> None:
        if not self.done.is_set():
            self.answer = arguments[0] if len(arguments) == 1 else None
            self.done.set()

    def lost(self) -> None:
        if not self.done.is_set():
            self.error = RunnerOffline()
            self.done.set()


class _Way:
    """One agent's link with the calls that wait on it."""

    def __init__(self, link: AgentLink) -> None:
        self.link = link
        self.status = UNKNOWN
        self._calls: set[_Call] = set()
        self._lock = threading.Lock()
        self._closed = False

    def begin(self) -> _Call:
        """Raises RunnerGone, also when too many wait already."""
        call = _Call()
        with self._lock:
            if self._closed or len(self._calls) >= CALLS_MAX:
                raise RunnerGone()
            self._calls.add(call)
        return call

    def end(self, call: _Call) -> None:
        with self._lock:
            self._calls.discard(call)

    def close(self) -> None:
        """Whoever waits learns at once that no answer comes."""
        with self._lock:
            self._closed = True
            calls = list(self._calls)
        for call in calls:
            call.lost()


class SocketTunnel:
    """TunnelProvider over the sockets of this process."""

    name = "socketio"

    def __init__(
        self, settings: Settings, clock: Clock, node_id: str, random: RandomBytes = secrets.token_bytes
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._account = hashlib.sha256(node_id.encode()).hexdigest()[:32]
        self._random = random
        self._standings = StandingLog(clock)
        self._ways: dict[str, dict[str, _Way]] = defaultdict(dict)
        self._lock = threading.Lock()

    # --- tunnels ----------------------------------------------------------------------------------------------

    def create_tunnel(self, id: str) -> dict[str, Any]:
        """Nothing is made anywhere but here, in the answer: made twice, the one that was kept counts."""
        tunnel = str(uuid.UUID(bytes=self._random(16), version=4))
        secret = base64.b64encode(self._random(32)).decode()
        token = base64.b64encode(orjson.dumps({"a": self._account, "t": tunnel, "s": secret})).decode()
        result: dict[str, Any] = {
            "id": tunnel,
            "account_tag": self._account,
            "created_at": rfc3339(self._clock.now()),
            "deleted_at": None,
            "name": id,
            "connections": [],
            "conns_active_at": None,
            "conns_inactive_at": None,
            "tun_type": "cfd_tunnel",
            "metadata": {},
            "status": "inactive",
            "remote_config": False,
            "credentials_file": {
                "AccountTag": self._account,
                "TunnelID": tunnel,
                "TunnelName": id,
                "TunnelSecret": secret,
            },
            "token": token,
        }
        return {"success": True, "errors": [], "messages": [], "result": result}

    def create_hostname(self, id: str, target_content: str) -> dict[str, Any]:
        """There is no DNS, and so no record."""
        return {"success": True, "errors": [], "messages": [], "result": {}}

    def delete(self, id: str) -> None:
        with self._lock:
            ways = list(self._ways.get(id, {}).values())
        for way in ways:
            way.link.removed()

    # --- links ------------------------------------------------------------------------------------------------

    def join(self, model: str, instance: str, link: AgentLink) -> AgentLink | None:
        """Calls may go through this link from now on. Returns the link of the same instance that it takes the place of;
        what waits on that one fails."""
        with self._lock:
            older = self._ways[model].get(instance)
            self._ways[model][instance] = _Way(link)
        self._standings.note(model, instance, UNKNOWN)
        if older is None:
            return None
        older.close()
        return older.link

    def leave(self, model: str, instance: str, link: AgentLink) -> bool:
        """The link is gone, and its calls fail at once. Whether it was the instance's own still."""
        with self._lock:
            way = self._ways.get(model, {}).get(instance)
            if way is None or way.link is not link:
                return False
            del self._ways[model][instance]
            if not self._ways[model]:
                del self._ways[model]
        self._standings.note(model, instance, OFFLINE)
        way.close()
        return True

    def heard(self, model: str, instance: str, link: AgentLink, status: str) -> None:
        """The worker's own word, of Cog's health-check."""
        way = self._ways.get(model, {}).get(instance)
        if way is not None and way.link is link:
            way.status = status
            self._standings.note(model, instance, status)

    def runners(self, model: str) -> list[Runner]:
        with self._lock:
            return [Runner(instance, way.status) for instance, way in self._ways.get(model, {}).items()]

    # --- calls ------------------------------------------------------------------------------------------------

    def call(
        self,
        model: str,
        method: str,
        path: str,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 15.0,
        runner: str | None = None,
    ) -> Reply:
        """Raises RunnerGone, a RunnerOffline, when nothing was sent; RunnerOffline when the agent went meanwhile."""
        check_call(method, path)
        way = self._way(model, runner)
        message = {
            "call_id": self._clock.new_id().replace("-", ""),
            "method": method,
            "path": path,
            "headers": allowed_headers(headers),
            "json": json,
            "timeout_s": timeout_s,
        }
        call = way.begin()
        forget = way.link.send(message, call.answered)
        try:
            if not call.done.wait(timeout_s):
                raise RunnerTimeout()
        finally:
            way.end(call)
            forget()
        if call.error is not None:
            raise call.error
        return _reply(call.answer, message["call_id"])

    def _way(self, model: str, runner: str | None) -> _Way:
        """That runner's, or the one of the most hopeful. Raises RunnerGone."""
        with self._lock:
            ways = self._ways.get(model, {})
            if runner is not None:
                way = ways.get(runner)
            else:
                hopeful = best(way.status for way in ways.values())
                way = next((way for way in ways.values() if way.status == hopeful), None)
        if way is None:
            raise RunnerGone()
        return way


def _reply(answer: Any, call_id: str) -> Reply:
    """What the acknowledgement says; whatever does not look like one is no answer of a worker."""
    if not isinstance(answer, dict) or answer.get("call_id", call_id) != call_id:
        raise RunnerUnreachable()
    code = answer.get("code")
    if code is not None:
        raise _FAILURES.get(code, RunnerUnreachable)() if isinstance(code, str) else RunnerUnreachable()
    status = answer.get("status")
    if type(status) is not int or not 100 <= status <= 599:
        raise RunnerUnreachable()
    body = answer.get("json")
    if _size(body) > REPLY_MAX:
        raise ReplyTooLarge()
    return Reply(status, body)


def _size(body: Any) -> int:
    """Bytes as JSON. Raises RunnerUnreachable for numbers that no worker sends."""
    try:
        return len(orjson.dumps(body))
    except (TypeError, ValueError, RecursionError):
        raise RunnerUnreachable() from None
