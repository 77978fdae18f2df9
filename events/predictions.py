"""Events of miners, namespace `/predictions`: who a miner is, then load, call, dump."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from events.miner_watch import MinerWatch
from events.miners import Flow, MinerSession, MinerSessions
from events.publisher import AUTH_FAILED, BLACKLISTED, FLOW_VIOLATION, MINERS, NOT_REGISTERED, REPLACED, Publisher
from grid_node.errors import (
    Blacklisted,
    GridError,
    InvalidMessage,
    NotRegistered,
    SenderMismatch,
    ShuttingDown,
    TooManyInFlight,
    UnknownEvent,
    WebsocketDisabled,
)
from grid_node.predictions.broadcast import Follower
from grid_node.predictions.messages import check_base
from grid_node.predictions.pending import Answer
from grid_node.predictions.ports import Miner
from grid_node.predictions.update_log import Position, read_position
from grid_node.services import Services
from grid_node.settings import MIB
from grid_node.wire.events import Ack, Events, JsonText, Later
from grid_node.wire.server import WireServer

log = logging.getLogger(__name__)

CLOSINGS = {NotRegistered: NOT_REGISTERED, Blacklisted: BLACKLISTED}
MinerHandler = Callable[[MinerSession, Miner, Any], Ack | Later]


class PredictionEvents:
    """`authenticate`, `prediction`, `prediction_status`, `games`, `resume`, `update_ack`, `heartbeat`."""

    def __init__(self, services: Services, server: WireServer, publisher: Publisher) -> None:
        settings = services.settings
        self._services = services
        self._settings = settings
        self._clock = services.clock
        self._predicting = services.predicting
        self._predictions = services.predicting.predictions
        self._log = services.predicting.log
        self._server = server
        self._publisher = publisher
        self._sessions = MinerSessions(settings.websocket_max_connections, settings.websocket_max_pending_per_ip)
        self.watch = MinerWatch(services, server, publisher, self._sessions)
        self._broadcast = self.watch.broadcast

    def register(self, events: Events) -> None:
        events.on_connect(self.connect)
        events.on_joined(self.greet)
        events.on_disconnect(self.disconnect)
        events.fallback(self.unknown)
        events.on("authenticate", self.authenticate, waits=True)
        events.on("prediction", self._for_miners(self.prediction))
        events.on("prediction_status", self._for_miners(_one_by_one(self.prediction_status)), waits=True)
        events.on("games", self._for_miners(_one_by_one(self.games)), waits=True)
        events.on("resume", self._for_miners(_one_by_one(self.resume)), waits=True)
        events.on("update_ack", self._for_miners(self.update_ack))
        events.on("heartbeat", self._for_miners(self.heartbeat))
        self._server.listeners[MINERS] = self.watch.heard
        self._server.violations[MINERS] = self.watch.violated

    def counts(self) -> dict[str, int]:
        return self.watch.counts()

    def recheck(self) -> None:
        self.watch.recheck()

    def shut_down(self) -> None:
        self.watch.shut_down()

    # --- connection -------------------------------------------------------------------------------------------

    def connect(self, sid: str, environ: dict[str, Any], _auth: Any) -> None:
        """Raises WebsocketDisabled, ShuttingDown, ServerFull."""
        if not self._settings.websocket_enabled:
            raise WebsocketDisabled()
        if self._services.draining:
            raise ShuttingDown()
        challenge = self._predicting.authentication.challenge()
        flow = Flow(self._settings.prediction_max_in_flight)
        follower = Follower(partial(self.watch.send_update, sid))
        address = environ.get("REMOTE_ADDR", "")
        self._sessions.add(MinerSession(sid, address, challenge, self._clock.steady(), flow, follower))
        self.watch.start()

    def greet(self, sid: str) -> None:
        """Push the challenge once the socket is in."""
        session = self._sessions.get(sid)
        if session is not None:
            self._publisher.challenge(sid, session.challenge.message, MINERS)

    def disconnect(self, sid: str, _reason: str) -> None:
        session = self._sessions.get(sid)
        if session is not None:
            self.watch.forget(session)

    # --- authentication ---------------------------------------------------------------------------------------

    def authenticate(self, sid: str, payload: Any) -> Later:
        """Once per socket. A failure is answered, then the connection ends."""
        session = self._sessions.attempt(sid)
        try:
            return self._welcome(session, payload)
        except GridError as error:
            return self._answer_and_close(session, self._server.error_body(error), _closing_for(error))

    def _welcome(self, session: MinerSession, payload: Any) -> Later:
        miner, introduction, reply = self._predicting.authentication.identify(session.challenge, payload, session.ip)
        session.compressed = "zlib" in introduction.get("compression", ())
        given = introduction.get("position")
        after, place = self._place(Position(given["epoch"], given["seq"]) if given else None)
        members = {**self._terms(), "last_seq": self._predictions.last_seq(miner), **place}
        now = self._clock.steady()
        session.heard_at, session.heartbeat_at = now, now + self._settings.websocket_heartbeat_interval
        older = self._sessions.let_in(session, miner)
        self._publisher.trust(session.sid, max(MIB, self._settings.prediction_max_batch_bytes))
        return _answer_then(reply(**members), partial(self._opened, session, miner, older, after))

    def _place(self, given: Position | None) -> tuple[Position | None, dict[str, Any]]:
        """From where a miner follows the games (None: it needs a snapshot), and how `authenticated` says so."""
        if given is None:
            newest = self._log.newest
            return None, {"epoch": newest.epoch, "seq": newest.seq, "recovered": None}
        resumed = self._log.resume(given)
        place = {"epoch": resumed.position.epoch, "seq": resumed.position.seq, "recovered": resumed.recovered}
        return given if resumed.recovered else None, place

    def _terms(self) -> dict[str, int]:
        """What holds on this connection; whole numbers, for the message is signed."""
        settings = self._settings
        return {
            "heartbeat_interval": max(1, int(settings.websocket_heartbeat_interval)),
            "connection_timeout": max(1, int(settings.websocket_connection_timeout)),
            "max_in_flight": settings.prediction_max_in_flight,
            "max_message_bytes": settings.prediction_max_bytes,
            "max_batch": settings.prediction_max_batch,
        }

    def _opened(self, session: MinerSession, miner: Miner, older: MinerSession | None, after: Position | None) -> None:
        log.info("WebSocket connection established with miner %s (UID: %s)", miner.address, miner.uid)
        if older is not None:
            self.watch.close(older, REPLACED)
        self._broadcast.join(session.follower, after)

    # --- what a miner asks ------------------------------------------------------------------------------------

    def unknown(self, sid: str, _name: str, _payload: Any) -> Ack:
        self._sessions.opened(sid)
        raise UnknownEvent()

    def prediction(self, session: MinerSession, miner: Miner, payload: Any) -> Later:
        """Handed on in the reader, so in the order of arrival; answered after the commit."""
        if not session.flow.take():
            return self._refuse(session)
        later = Later()
        pending = self._predictions.submit(miner, payload, "websocket", refusal=session.refused)
        pending.then(partial(self._answered, session, miner, later))
        return later

    def _refuse(self, session: MinerSession) -> Later:
        body = self._server.error_body(TooManyInFlight(limit=self._settings.prediction_max_in_flight))
        if session.flow.is_violated:
            return self._answer_and_close(session, body, FLOW_VIOLATION)
        return _answer_then(body)

    def _answered(self, session: MinerSession, miner: Miner, later: Later, answer: Answer) -> None:
        session.flow.free()
        faults = answer.codes.count(InvalidMessage.code)
        if faults and session.flow.fault(self._clock.steady(), faults):
            later.finish(JsonText(answer.text), partial(self.watch.close, session, FLOW_VIOLATION))
        else:
            later.finish(JsonText(answer.text))
        for prediction_id in answer.ids:
            log.info("Sent confirmation for prediction %s to %s via WebSocket", prediction_id, miner.address)

    def prediction_status(self, _session: MinerSession, miner: Miner, payload: Any) -> Ack:
        given = _object(payload)
        if "prediction_id" not in given:
            raise InvalidMessage(fields={"prediction_id": ["Missing data for required field."]})
        return self._predictions.status(miner, given["prediction_id"])

    def games(self, _session: MinerSession, _miner: Miner, payload: Any) -> Ack:
        return JsonText(self._predicting.games.listing(_object(payload)).text)

    def resume(self, session: MinerSession, _miner: Miner, payload: Any) -> Later:
        """The answer first, then what was missed or a snapshot, then what follows."""
        given = _position(payload)
        resumed = self._log.resume(given)
        self._broadcast.pause(session.follower)
        answer: dict[str, Any] = {"success": True, "recovered": resumed.recovered}
        answer |= {"replayed": resumed.replayed} if resumed.recovered else {"reason": resumed.reason}
        answer |= {"epoch": resumed.position.epoch, "seq": resumed.position.seq}
        after = given if resumed.recovered else None
        return _answer_then(answer, partial(self._broadcast.join, session.follower, after))

    def update_ack(self, session: MinerSession, _miner: Miner, payload: Any) -> Ack:
        self._broadcast.acknowledge(session.follower, _position(payload))
        return {"success": True}

    def heartbeat(self, _session: MinerSession, miner: Miner, payload: Any) -> Ack:
        check_base(payload, "heartbeat")
        if payload["sender_hotkey"] != miner.address:
            raise SenderMismatch()
        return self.watch.heartbeat()

    # --- shared -----------------------------------------------------------------------------------------------

    def _for_miners(self, handler: MinerHandler) -> Callable[[str, Any], Ack | Later]:
        """A handler of an open socket, which ends when it has sent too much that is no message at all."""

        def handle(sid: str, payload: Any) -> Ack | Later:
            session, miner = self._sessions.opened(sid)
            try:
                return handler(session, miner, payload)
            except InvalidMessage as error:
                if not session.flow.fault(self._clock.steady()):
                    raise
                return self._answer_and_close(session, self._server.error_body(error), FLOW_VIOLATION)

        return handle

    def _answer_and_close(self, session: MinerSession, answer: Ack, closing: dict[str, Any]) -> Later:
        return _answer_then(answer, partial(self.watch.close, session, closing))


def _one_by_one(handler: MinerHandler) -> MinerHandler:
    def handle(session: MinerSession, miner: Miner, payload: Any) -> Ack | Later:
        with session.asking:
            return handler(session, miner, payload)

    return handle


def _answer_then(answer: Ack, afterwards: Callable[[], None] | None = None) -> Later:
    later = Later()
    later.finish(answer, afterwards)
    return later


def _closing_for(error: GridError) -> dict[str, Any]:
    """Why a socket ends whose authentication failed so."""
    closing = CLOSINGS.get(type(error), AUTH_FAILED)
    return closing if error.retry_after is None else {**closing, "retry_after": error.retry_after}


def _object(payload: Any) -> dict[str, Any]:
    if not isinstance(payload, dict):
        raise InvalidMessage(fields={"_schema": ["Not an object."]})
    return payload


def _position(payload: Any) -> Position:
    given = _object(payload)
    return read_position(given.get("epoch"), given.get("seq"))
