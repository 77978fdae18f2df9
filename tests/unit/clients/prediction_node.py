"""A scripted node for miners: real Socket.IO and HTTP on loopback, with the faults that tests switch on."""

import json
import threading
import time
import uuid
import zlib
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import rfc8785
import socketio
from bittensor_wallet import Keypair
from grid_client.clock import rfc3339
from werkzeug.wrappers import Request, Response

WAIT = 15.0
NAMESPACE = "/predictions"
EPOCH = "00000000000000aa"
NODE = Keypair.create_from_seed("0x" + "5a" * 32)
STRANGER = Keypair.create_from_seed("0x" + "5b" * 32)
MINER = Keypair.create_from_seed("0x" + "5c" * 32)
Body = dict[str, Any]


class ManualClock:
    """Both clocks of a client, moved by the test."""

    def __init__(self, at: float | None = None) -> None:
        self._at = time.time() if at is None else at

    def now(self) -> float:
        return self._at

    def steady(self) -> float:
        return self._at

    def advance(self, seconds: float) -> None:
        self._at += seconds


class Dice:
    """Draws the lowest number, and remembers between which limits."""

    def __init__(self, share: float = 0.0) -> None:
        self.drawn: list[tuple[float, float]] = []
        self._share = share

    def uniform(self, low: float, high: float) -> float:
        self.drawn.append((low, high))
        return low + self._share * (high - low)


def sign(message: Body, keypair: Keypair = NODE) -> Body:
    bare = {name: value for name, value in message.items() if name != "signature"}
    covered = f"grid.v1.{bare['message_type']}.{sha256(rfc8785.dumps(bare)).hexdigest()}"
    return {**bare, "signature": "0x" + keypair.sign(covered.encode()).hex()}


def base(message_type: str, keypair: Keypair = NODE) -> Body:
    return {
        "message_id": str(uuid.uuid4()),
        "sender_hotkey": keypair.ss58_address,
        "timestamp": rfc3339(time.time()),
        "message_type": message_type,
    }


def refused(code: str, status: int, **data: Any) -> Body:
    return {"success": False, "error": code.replace("_", " "), "code": code, "status": status, **data}


def receipt_of(prediction: Body, seq: int = 1, keypair: Keypair = NODE, **changes: Any) -> Body:
    """An acceptance, signed after `changes`; None takes a member away."""
    message = {
        **base("confirmation", keypair),
        "receiver_hotkey": MINER.ss58_address,
        "prediction_id": prediction["prediction_id"],
        "success": True,
        "message": "Prediction accepted",
        "code": "successful",
        "body_sha256": sha256(rfc8785.dumps(prediction)).hexdigest(),
        "received_at": rfc3339(time.time()),
        "seq": seq,
        "accepted_odds": "2.1000",
        "miner_stats": {"utc_day": "2026-11-20", "wagered": "1.00", "remaining": "999.00", "accepted": 1},
        **changes,
    }
    return sign({name: value for name, value in message.items() if value is not None}, keypair)


def rejection_of(prediction: Body, seq: int = 1) -> Body:
    text = "Game has already started"
    told = {"success": False, "code": "game_started", "message": text, "error": text, "status": 422}
    return receipt_of(prediction, seq, **told, accepted_odds=None)


def game(game_id: str = "g1", **changes: Any) -> Body:
    whole = {
        "game_id": game_id,
        "team_a": "Giants",
        "team_b": "Cowboys",
        "sport": "football",
        "league": "NFL",
        "event_start_date": rfc3339(time.time() + 3600),
        "active": True,
        "outcome": 3,
        "team_a_odds": "1.8000",
        "team_b_odds": "2.1000",
        "tie_odds": None,
        "can_tie": False,
    }
    return {**whole, **changes}


def prediction(prediction_id: str | None = None, **changes: Any) -> Body:
    body = {
        "game_id": "g1",
        "team_a": "Giants",
        "team_b": "Cowboys",
        "wager": "1.00",
        "predicted_outcome": 1,
        "predicted_odds": "2.10",
        "team_a_odds": "1.80",
        "team_b_odds": "2.10",
        "tie_odds": None,
        **changes,
    }
    return body if prediction_id is None else {"prediction_id": prediction_id, **body}


def delta(seq: Any, games: Body, epoch: str = EPOCH, keypair: Keypair = NODE, **changes: Any) -> Body:
    message = {**base("game_update", keypair), "epoch": epoch, "seq": seq, "kind": "delta", "updated_games": games}
    return sign({**message, **changes}, keypair)


def snapshot(seq: int, games: Body, part: int = 1, parts: int = 1, epoch: str = EPOCH) -> Body:
    return delta(seq, games, epoch, kind="snapshot", part=part, parts=parts)


def packed(update: Body) -> Body:
    raw = json.dumps(update).encode()
    return {"message_type": "game_update", "encoding": "zlib", "raw_size": len(raw), "data": zlib.compress(raw)}


class PredictionNode:
    """Takes predictions and gives receipts; keeps a log of game updates. Tests replace what it answers."""

    url: str

    def __init__(self) -> None:
        self.sio = socketio.Server(async_mode="threading", async_handlers=False, max_http_buffer_size=4 << 20)
        self.withheld = self.sio.not_handled
        """Returned by a handler: no acknowledgement."""
        self.arrivals: list[tuple[str, str]] = []
        """(transport, prediction_id) of each message, in order."""
        self.messages: list[Body] = []
        self.payloads: list[int] = []
        """How many messages came in one."""
        self.receipts: dict[str, Body] = {}
        self.games: dict[str, Body] = {"g1": game()}
        self.updates: list[Body] = []
        self.epoch = EPOCH
        self.limits = {"max_in_flight": 64, "max_batch": 64, "max_message_bytes": 16384}
        self.introductions: list[Body] = []
        self.connections: list[str] = []
        self.acked: list[Body] = []
        self.heartbeats: list[Body] = []
        self.resumed: list[Body] = []
        self.polls: list[Body] = []
        self.lookups: list[str] = []
        self.judge: Callable[[Body, str], Any] = lambda message, way: self.accept(message["prediction"])
        self.judge_payload: Callable[[list[Body], str], Any] = lambda messages, way: None
        self.admit: Callable[[Body], Body | None] = lambda introduction: None
        self.on_http: Callable[[Request], Response | None] = lambda request: None
        self.sees_sockets = True
        self.is_mute = False
        self._polled = threading.Condition()
        for event in ("connect", "authenticate", "prediction", "prediction_status", "heartbeat", "resume"):
            self.sio.on(event, getattr(self, f"_{event}"), namespace=NAMESPACE)
        self.sio.on("update_ack", lambda sid, data: self.acked.append(data), namespace=NAMESPACE)

    # --- what a test does

    def accept(self, body: Body) -> Body:
        kept = self.receipts.get(body["prediction_id"])
        return kept or self.receipts.setdefault(body["prediction_id"], receipt_of(body, len(self.receipts) + 1))

    def change(self, **odds: str) -> Body:
        """A delta of the game g1, into the log."""
        update = delta(len(self.updates) + 1, {"g1": odds}, self.epoch)
        self.games["g1"] |= odds
        self.updates.append(update)
        with self._polled:
            self._polled.notify_all()
        return update

    def push(self, message: object, event: str = "game_update") -> None:
        self.sio.emit(event, message, namespace=NAMESPACE)

    def heartbeat(self) -> Body:
        return {**base("heartbeat"), "epoch": self.epoch, "seq": len(self.updates)}

    def drop(self) -> None:
        """Ends every connection without a word."""
        for sid in list(self.connections):
            self.sio.disconnect(sid, NAMESPACE)

    # --- the socket

    def _connect(self, sid: str, environ: object, auth: object) -> None:
        if not self.sees_sockets:
            raise socketio.exceptions.ConnectionRefusedError("off", refused("websocket_disabled", 503))
        self.connections.append(sid)
        challenge = {**base("challenge"), "nonce": "ab" * 32, "expires_in": 10}
        self.sio.emit("challenge", challenge, to=sid, namespace=NAMESPACE)

    def _authenticate(self, sid: str, data: Body) -> Body:
        self.introductions.append(data)
        refusal = self.admit(data)
        if refusal is not None:
            return refusal
        position = data.get("position")
        recovered = None if position is None else self._can_resume(position)
        self.sio.start_background_task(self._catch_up, sid, position, recovered)
        return self.welcome(data, recovered=recovered)

    def welcome(self, introduction: Body, keypair: Keypair = NODE, **changes: Any) -> Body:
        message = {
            **base("authenticated", keypair),
            "receiver_hotkey": introduction["sender_hotkey"],
            "client_nonce": introduction["client_nonce"],
            "success": True,
            "session_id": str(uuid.uuid4()),
            "uid": 7,
            "heartbeat_interval": 60,
            "connection_timeout": 300,
            **self.limits,
            "last_seq": len(self.receipts),
            "epoch": self.epoch,
            "seq": len(self.updates),
            "recovered": None,
        }
        return sign({**message, **changes}, keypair)

    def _can_resume(self, position: Body) -> bool:
        return position["epoch"] == self.epoch and position["seq"] <= len(self.updates)

    def _catch_up(self, sid: str, position: Body | None, recovered: bool | None) -> None:
        time.sleep(0.02)  # the acknowledgement goes first
        missed = self.updates[position["seq"] :] if recovered and position else [self._snapshot()]
        for update in missed:
            self.sio.emit("game_update", update, to=sid, namespace=NAMESPACE)

    def _snapshot(self) -> Body:
        return snapshot(len(self.updates), self.games, epoch=self.epoch)

    def _prediction(self, sid: str, data: Body) -> Any:
        return self.withheld if self.is_mute else self._judged(data, "websocket")

    def _prediction_status(self, sid: str, data: Body) -> Any:
        return self._status(data["prediction_id"])

    def _heartbeat(self, sid: str, data: Body) -> Any:
        self.heartbeats.append(data)
        return self.withheld if self.is_mute else self.heartbeat()

    def _resume(self, sid: str, data: Body) -> Body:
        self.resumed.append(data)
        recovered = self._can_resume(data)
        self.sio.start_background_task(self._catch_up, sid, data, recovered)
        answer = {"success": True, "recovered": recovered, "epoch": self.epoch, "seq": len(self.updates)}
        return answer if recovered else {**answer, "reason": "epoch_changed"}

    # --- both

    def _judged(self, payload: Body, way: str) -> Any:
        messages = payload.get("messages", [payload])
        self.payloads.append(len(messages))
        self.messages += messages
        self.arrivals += [(way, message["prediction"]["prediction_id"]) for message in messages]
        whole = self.judge_payload(messages, way)
        if whole is not None:
            return whole
        results = [self.judge(message, way) for message in messages]
        if any(result is self.withheld for result in results):
            return self.withheld
        return {"success": True, "results": results} if "messages" in payload else results[0]

    def _status(self, prediction_id: str) -> Body:
        self.lookups.append(prediction_id)
        kept = self.receipts.get(prediction_id)
        if kept is None:
            return refused("prediction_not_found", 404)
        return {"success": True, "prediction_id": prediction_id, "state": "accepted", "receipt": kept}

    # --- HTTP

    def wsgi(self, environ: dict[str, Any], start: Any) -> Any:
        request = Request(environ)
        return (self.on_http(request) or self._routed(request))(environ, start)

    def _routed(self, request: Request) -> Response:
        if request.path == "/predictions":
            return _json(self._judged(json.loads(request.get_data()), "http"))
        if request.path == "/games/updates":
            return _json(self._news(request))
        return _json(self._status(request.path.rsplit("/", 1)[-1]))

    def _news(self, request: Request) -> Body:
        self.polls.append(dict(request.args))
        if "after" not in request.args or request.args["epoch"] != self.epoch:
            return {"success": True, "recovered": False, "reason": None, "snapshot": [self._snapshot()]}
        after = int(request.args["after"])
        with self._polled:
            self._polled.wait_for(lambda: len(self.updates) > after, min(float(request.args["wait"]), WAIT))
        found = self.updates[after:]
        return {
            "success": True,
            "recovered": True,
            "epoch": self.epoch,
            "updates": found,
            "last_seq": after + len(found),
        }


def _json(body: Body) -> Response:
    return Response(json.dumps(body), body.get("status", 200), content_type="application/json")


def until(condition: Callable[[], Any], seconds: float = WAIT) -> None:
    """Wait for what other threads do; fails when they never do it."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        pause.wait(0.01)
