"""Events of runners' agents, namespace `/runner`: who an agent is, its worker's health, and the way for calls to it."""

import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from marshmallow import EXCLUDE, Schema, validate

from events.publisher import MODEL_REMOVED, RUNNERS, Publisher
from grid_node.adapters.socket_tunnel import SocketTunnel
from grid_node.database import Transaction
from grid_node.errors import GridError, InvalidPayload, MissingKey, ModelNotFound, RunnerKeyInvalid, ShuttingDown
from grid_node.fields import StrictInt, StrictText, load, no_control_characters
from grid_node.runners import agents
from grid_node.runners.agents import Agent
from grid_node.runners.allowed_calls import REPLY_MAX
from grid_node.runners.health import READY, UNKNOWN, Health, health_of
from grid_node.services import Services
from grid_node.wire.events import Events
from grid_node.wire.server import WireServer

log = logging.getLogger(__name__)

PROTOCOL = 1
MESSAGE_MAX = 4 * REPLY_MAX
"""Bytes of one message of an agent: a reply as large as allowed, however its JSON is escaped. A reply of more is told
as too large; only above that does the connection end."""
READY_EVERY = 0.5
"""Seconds between two times that an agent's word wakes dispatch, where it says nothing new."""
WRITE_CHANGE, WRITE_SAME = 1.0, 10.0
"""Seconds between two writes of one agent's health that has changed, and that has not."""


class ConnectSchema(Schema):
    """What an agent shows when it connects: the tunnel's token, or a key of the model's owner."""

    class Meta:
        unknown = EXCLUDE

    protocol = StrictInt(required=True, validate=validate.Equal(PROTOCOL))
    model_id = StrictText(required=True, validate=validate.Length(1, 64))
    instance = StrictText(required=True, validate=validate.Regexp(r"^[0-9a-f]{32}\Z", error="must be 32 hex digits"))
    token = StrictText(allow_none=True, load_default=None, validate=validate.Length(1, 4096))
    key = StrictText(allow_none=True, load_default=None, validate=validate.Length(1, 4096))
    agent = StrictText(load_default="", validate=[validate.Length(0, 64), no_control_characters])


CONNECT = ConnectSchema()


@dataclass(eq=False)
class RunnerSession:
    """A socket of `/runner`, and the AgentLink through which calls go. `owner` is the key whose model it is.

    `owed` is a word of the worker that is not in the database yet.
    """

    publisher: Publisher
    sid: str
    agent: Agent
    owner: str
    status: str = UNKNOWN
    owed: Health | None = None
    wrote_at: float = 0.0
    ready_at: float = 0.0
    joined: bool = False

    def send(self, message: dict[str, Any], on_answer: Callable[..., None]) -> Callable[[], None]:
        return self.publisher.runner_call(self.sid, message, on_answer)

    def replaced(self) -> None:
        self.publisher.runner_replaced(self.sid)

    def removed(self) -> None:
        self.publisher.closing(self.sid, RUNNERS, MODEL_REMOVED)


class RunnerEvents:
    """`health` comes in; `ready`, `http` and `replaced` go out."""

    def __init__(self, services: Services, server: WireServer, publisher: Publisher) -> None:
        self._services = services
        self._publisher = publisher
        self._node = services.clock.new_id()
        """This process, while it runs: an agent's row says where its socket is."""
        self._sessions: dict[str, RunnerSession] = {}
        self._alive_at = 0.0
        server.message_limits[RUNNERS] = MESSAGE_MAX
        server.transport_limits[RUNNERS] = MESSAGE_MAX

    def __len__(self) -> int:
        return len(self._sessions)

    def register(self, events: Events) -> None:
        events.on_connect(self.connect)
        events.on_joined(self.joined)
        events.on_disconnect(self.disconnect)
        events.on("health", self.health, waits=True)

    # --- connection -------------------------------------------------------------------------------------------

    def connect(self, sid: str, environ: dict[str, Any], auth: Any) -> None:
        """Raises ShuttingDown, InvalidPayload, MissingKey, RunnerKeyInvalid, TooManyBadKeys, WrongScope, ModelNotFound,
        TooManyRunners."""
        if self._services.draining:
            raise ShuttingDown()
        given = load(CONNECT, auth)
        if given["token"] is None and given["key"] is None:
            raise MissingKey()
        key_id = None
        if given["token"] is None:
            access = self._services.running.access
            key_id = access.by_key(given["key"], environ.get("REMOTE_ADDR", ""), "runner").owner
        if not isinstance(self._services.running.provider, SocketTunnel):
            raise ModelNotFound()  # this node's models are reached by another way
        agent = Agent(given["model_id"], given["instance"], self._node, given["agent"])
        owner = self._services.store.write(partial(self._admit, agent=agent, token=given["token"], key_id=key_id))
        self._sessions[sid] = RunnerSession(self._publisher, sid, agent, owner)

    def _admit(self, tx: Transaction, agent: Agent, token: str | None, key_id: str | None) -> str:
        """The key of the model's owner, which must be in force however the agent comes in."""
        model = agents.ready_model(tx, agent.model_id)
        if token is not None:
            shown = sha256(token.encode()).hexdigest()
            if model.secret_hash is None or not hmac.compare_digest(shown, model.secret_hash):
                raise RunnerKeyInvalid()
            self._services.running.access.require(tx, model.owner, "runner")
        elif model.owner != key_id:
            raise ModelNotFound()
        agents.connect(tx, agent, self._services.settings.runners_per_model, self._services.clock.now())
        return str(model.owner)

    def joined(self, sid: str) -> None:
        """Greet the agent; from now on calls may go through it, and no more through an older socket of the same."""
        session = self._sessions.get(sid)
        if session is None:
            return
        model_id, instance = session.agent.model_id, session.agent.instance
        upload_url = f"{self._services.settings.public_url}/pc/client-api/upload"
        greeting = {"runner_id": instance, "model_id": model_id, "upload_url": upload_url}
        self._publisher.runner_ready(sid, {**greeting, "max_message_bytes": MESSAGE_MAX})
        older = self._tunnel.join(model_id, instance, session)
        session.joined = True
        if older is not None:
            older.replaced()
        self._services.running.dispatching.signal()

    def disconnect(self, sid: str, _reason: str) -> None:
        session = self._sessions.pop(sid, None)
        if session is None:
            return
        agent = session.agent
        current = self._tunnel.leave(agent.model_id, agent.instance, session)
        if not current and session.joined:
            return  # the same agent is in by another socket
        try:
            self._services.store.write(partial(agents.gone, agent=agent, now=self._services.clock.now()))
        except GridError as error:
            log.warning("the end of an agent is not noted: %s", error)  # it is buried, as those of dead processes are
        self._services.running.watching.signal()

    # --- health -----------------------------------------------------------------------------------------------

    def health(self, sid: str, payload: Any) -> dict[str, Any]:
        """The worker's health-check, whole. Raises InvalidPayload."""
        session = self._sessions.get(sid)
        if session is None:
            raise MissingKey()
        if not isinstance(payload, dict) or not isinstance(payload.get("status"), str):
            raise InvalidPayload(fields={"status": ["must be a string"]})
        health = health_of(payload)
        changed = health.status != session.status
        session.status, session.owed = health.status, health
        agent = session.agent
        self._tunnel.heard(agent.model_id, agent.instance, session, health.status)
        if health.status == READY:
            self._pass_on(session, changed)
        self._note(session, WRITE_CHANGE if changed else WRITE_SAME)
        return {"success": True}

    def _pass_on(self, session: RunnerSession, changed: bool) -> None:
        """The worker has room. Who says so without end is not listened to without end."""
        steady = self._services.clock.steady()
        if changed or steady - session.ready_at >= READY_EVERY:
            session.ready_at = steady
            self._services.running.dispatching.ready(session.agent.model_id, session.agent.instance)

    def _note(self, session: RunnerSession, after: float) -> None:
        """Write what is owed, if the last write is so many seconds ago."""
        steady = self._services.clock.steady()
        health = session.owed
        if health is None or steady - session.wrote_at < after:
            return
        session.owed, session.wrote_at = None, steady
        now = self._services.clock.now()
        self._services.store.write(partial(agents.heard, agent=session.agent, health=health, now=now))

    # --- what others did --------------------------------------------------------------------------------------

    def tend(self) -> None:
        """Write what is owed, let go of agents that are elsewhere by now or whose model is gone, and keep the rows of
        this process from being buried. Cheap; called about once a second."""
        sessions = [session for session in list(self._sessions.values()) if session.joined]
        for session in sessions:
            self._note(session, WRITE_CHANGE)
        if sessions:
            self._let_go(sessions)
        steady = self._services.clock.steady()
        if steady - self._alive_at >= agents.ALIVE_EVERY:
            self._alive_at = steady
            self._services.store.write(self._refresh)

    def _let_go(self, sessions: list[RunnerSession]) -> None:
        models = {session.agent.model_id for session in sessions}
        store = self._services.store
        here, there = store.read(lambda tx: (agents.of_node(tx, self._node), agents.existing(tx, models)))
        for session in sessions:
            if session.sid not in self._sessions:
                continue  # it left meanwhile, and its row with it
            if session.agent.model_id not in there:
                session.removed()
            elif (session.agent.model_id, session.agent.instance) not in here:
                session.replaced()

    def _refresh(self, tx: Transaction) -> None:
        now = self._services.clock.now()
        agents.alive(tx, self._node, now)
        agents.bury(tx, now)
        agents.purge(tx, now)

    @property
    def _tunnel(self) -> SocketTunnel:
        tunnel = self._services.running.provider
        assert isinstance(tunnel, SocketTunnel)  # nobody is let in otherwise
        return tunnel

    # --- for the face as a whole ------------------------------------------------------------------------------

    def sids(self) -> list[str]:
        return list(self._sessions)

    def keys(self) -> set[str]:
        """Keys whose models have agents here."""
        return {session.owner for session in list(self._sessions.values())}

    def of_key(self, key_id: str) -> list[str]:
        return [sid for sid, session in list(self._sessions.items()) if session.owner == key_id]
