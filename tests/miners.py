"""Miners for tests: what they sign, their sockets and requests, and what an operator does for them."""

import contextlib
import itertools
import json
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from functools import cache
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import httpx
import socketio
from bittensor_wallet import Keypair
from socketio.exceptions import BadNamespaceError

from grid_node.canonical import canonical
from grid_node.clock import SystemClock, rfc3339
from grid_node.database import DirectStore, Transaction
from grid_node.identity.hotkeys import format_signature, message_bytes
from grid_node.identity.node_key import NodeKey
from grid_node.identity.standing import AllowList
from grid_node.settings import Settings
from grid_node.wire.frames import CLOSE
from tests.integration.sockets import Socket
from tests.integration.wire.harness import RawClient
from tests.nodes import LiveNode

NAMESPACE = "/predictions"
ANSWER = 30.0
"""Seconds within which whatever was sent is answered."""
DAY = 86400.0
_numbers = itertools.count(1)


def new_keypair() -> Keypair:
    """A hotkey that nobody had before."""
    return Keypair.create_from_seed("0x" + sha256(f"miner {uuid.uuid4()}".encode()).hexdigest())


@cache
def keypair(name: str) -> Keypair:
    """Always the same hotkey for a name."""
    return Keypair.create_from_seed("0x" + sha256(f"miner {name}".encode()).hexdigest())


# --- messages ---------------------------------------------------------------------------------------------------------


def base(keypair: Keypair, message_type: str, at: float | None = None) -> dict[str, Any]:
    return {
        "message_id": str(uuid.uuid4()),
        "sender_hotkey": keypair.ss58_address,
        "timestamp": rfc3339(time.time() if at is None else at),
        "message_type": message_type,
    }


def signed(keypair: Keypair, message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its signature, made anew."""
    bare = {name: value for name, value in message.items() if name != "signature"}
    return {**bare, "signature": format_signature(keypair.sign(message_bytes(bare)))}


def prediction_body(**members: Any) -> dict[str, Any]:
    """A wager of 1.00 on team B of `game()`, under an id of its own; `members` replace, None included."""
    body = {
        "prediction_id": f"p-{next(_numbers)}-{uuid.uuid4().hex[:8]}",
        "game_id": "nfl-17",
        "team_a": "Giants",
        "team_b": "Cowboys",
        "wager": "1.00",
        "predicted_outcome": 1,
        "predicted_odds": "2.10",
        "team_a_odds": "1.80",
        "team_b_odds": "2.10",
        "tie_odds": None,
    }
    return {**body, **members}


def prediction_message(
    keypair: Keypair, node_hotkey: str, envelope: Mapping[str, Any] | None = None, **members: Any
) -> dict[str, Any]:
    """A signed PredictionMessage of `prediction_body(**members)`; `envelope` replaces members outside `prediction`."""
    message = {
        **base(keypair, "prediction"),
        "receiver_hotkey": node_hotkey,
        "prediction": prediction_body(**members),
        **(envelope or {}),
    }
    return signed(keypair, message)


def resent(keypair: Keypair, message: Mapping[str, Any], at: float | None = None) -> dict[str, Any]:
    """The same prediction in a fresh envelope."""
    return signed(keypair, {**message, **base(keypair, "prediction", at)})


def authenticate(keypair: Keypair, challenge: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The answer of a hotkey to a challenge, signed after `changes`."""
    message = {
        **base(keypair, "authenticate"),
        "receiver_hotkey": challenge["sender_hotkey"],
        "nonce": challenge["nonce"],
        "client_nonce": uuid.uuid4().hex * 2,
        **changes,
    }
    return signed(keypair, message)


# --- what an operator does -----------------------------------------------------------------------------------------


def node_hotkey(node: LiveNode) -> str:
    """The hotkey of a node that has been started."""
    return str(json.loads((node.data / "node_hotkey").read_text())["ss58Address"])


def allow_list(node: LiveNode) -> AllowList:
    """The list as the command line has it: in another process than the node's."""
    return AllowList(DirectStore(node._engine), SystemClock())


def allow(node: LiveNode, *keypairs: Keypair) -> None:
    for one in keypairs:
        allow_list(node).allow(public_key(one))


def public_key(keypair: Keypair) -> bytes:
    return bytes(keypair.public_key)


def game(game_id: str = "nfl-17", **members: Any) -> dict[str, Any]:
    """A game without ties that begins in a day."""
    now = time.time()
    whole = {
        "game_id": game_id,
        "team_a": "Giants",
        "team_b": "Cowboys",
        "sport": "football",
        "league": "NFL",
        "create_date": rfc3339(now),
        "last_update_date": rfc3339(now),
        "event_start_date": rfc3339(now + DAY),
        "active": True,
        "outcome": 3,
        "team_a_odds": "1.80",
        "team_b_odds": "2.10",
        "tie_odds": None,
        "can_tie": False,
    }
    return {**whole, **members}


class Bookmaker:
    """Who keeps the games of a node: in another process than the node's, as the command line does."""

    def __init__(self, node: LiveNode, **settings: Any) -> None:
        from grid_node.predictions.games import Games
        from grid_node.predictions.update_log import UpdateLog

        self.store, clock = DirectStore(node._engine), SystemClock()
        known = Settings.load({}, data_dir=node.data, **settings)
        self.log = UpdateLog(self.store, clock, known, KeySigner(NodeKey.load(known)))
        self.log.open()
        self.games = Games(self.store, clock, known, self.log)

    def put(self, *games: Mapping[str, Any]) -> Any:
        """All of them in one transaction."""
        return self.games.import_games([dict(one) for one in games], assume_utc=False, dry_run=False)

    def seen(self, http: "SignedHttp") -> dict[str, Any]:
        """The end of the log, once the node has noticed it."""
        epoch, seq = self.store.read(self.log.position)
        wait = 20 if seq else 0
        newest = http.get("/games/updates", epoch=epoch, after=max(0, seq - 1), wait=wait).json()
        assert newest["last_seq"] == seq, newest
        return {"epoch": epoch, "seq": seq}

    def append(self, count: int, game_id: str = "nfl-17") -> list[str]:
        """So many entries of the update log that change nothing but this game's odds; returns the odds."""
        odds = [f"2.{number:04d}" for number in range(1, count + 1)]

        def unit(tx: Transaction) -> None:
            for text in odds:
                self.log.append(tx, {game_id: {"team_b_odds": text}})

        self.store.write(unit)
        return odds


def put_games(node: LiveNode, *games: Mapping[str, Any]) -> None:
    """Import these games, or `game()`."""
    Bookmaker(node).put(*(games or (game(),)))


class KeySigner:
    """Signs as a node, for services that a test makes itself."""

    def __init__(self, key: Any) -> None:
        self._key = key
        self.hotkey = key.hotkey

    def base_fields(self, message_type: str) -> dict[str, Any]:
        fields: dict[str, Any] = self._key.base_fields(message_type, SystemClock())
        return fields

    def signed(self, message: Mapping[str, Any]) -> dict[str, Any]:
        whole: dict[str, Any] = self._key.sign_message(message)
        return whole


# --- the two ways in --------------------------------------------------------------------------------------------------


class Miner:
    """A hotkey at a node's sockets: connected, and authenticated unless told otherwise.

    It acknowledges every update that it gets while `acknowledges` is true.
    """

    def __init__(
        self,
        node: LiveNode,
        keypair: Keypair,
        *,
        url: str | None = None,
        enter: bool = True,
        acknowledges: bool = True,
        **introduction: Any,
    ) -> None:
        self.keypair = keypair
        self.node_hotkey = node_hotkey(node)
        self.url = url or node.url
        self.acknowledges = acknowledges
        self.socket = Socket(self.url, NAMESPACE)
        self.welcome: dict[str, Any] = {}
        try:
            self.socket._client.on("game_update", self._updated, namespace=NAMESPACE)
            self.challenge: dict[str, Any] = self.socket.wait_for("challenge")[0]
            if enter:
                self.enter(**introduction)
        except BaseException:
            self.close()
            raise

    def enter(self, **introduction: Any) -> dict[str, Any]:
        """Authenticate; fails unless the node lets it in."""
        introduced = self.send_later(authenticate(self.keypair, self.challenge, **introduction), "authenticate")
        self.welcome = self.answer_to(introduced)
        assert self.welcome["success"], self.welcome
        return self.welcome

    # --- predictions

    def message(self, envelope: Mapping[str, Any] | None = None, **members: Any) -> dict[str, Any]:
        return prediction_message(self.keypair, self.node_hotkey, envelope, **members)

    def predict(self, **members: Any) -> dict[str, Any]:
        """Submit one prediction and return the answer."""
        return self.send(self.message(**members))

    def send(self, message: object, timeout: float = 30.0) -> dict[str, Any]:
        answer: dict[str, Any] = self.socket.call("prediction", message, timeout=timeout)
        return answer

    def send_later(self, message: object, event: str = "prediction") -> "Future[dict[str, Any]]":
        """Send without waiting; the future gets the ack. Raises ConnectionError once the connection has ended."""
        future: Future[dict[str, Any]] = Future()
        try:
            self.socket._client.emit(event, message, namespace=NAMESPACE, callback=future.set_result)
        except socketio.exceptions.SocketIOError as error:
            raise ConnectionError(str(error)) from None
        return future

    def batch(self, messages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        return self.send({"messages": list(messages)})

    def answer_to(self, sent: "Future[dict[str, Any]]") -> dict[str, Any]:
        """The answer to what `send_later` sent. Raises ConnectionError once it cannot come any more."""
        deadline = time.monotonic() + ANSWER
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                return sent.result(0.05)
            if not self.is_open and not sent.done():
                break
        raise ConnectionError("no answer")

    def status(self, prediction_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.socket.call("prediction_status", {"prediction_id": prediction_id})
        return answer

    # --- what the node sends

    @property
    def updates(self) -> list[dict[str, Any]]:
        return self.socket.all("game_update")

    def closing(self) -> dict[str, Any]:
        """The `closing` of the node, once it has come."""
        body: dict[str, Any] = self.socket.wait_for("closing")[0]
        return body

    def gone(self) -> None:
        """Returns once the node has ended the connection."""
        self.socket.wait_for("disconnect")

    @property
    def is_open(self) -> bool:
        return bool(self.socket._client.connected) and not self.socket.all("disconnect")

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Miner":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _updated(self, update: dict[str, Any]) -> None:
        self.socket._heard("game_update", update)
        if self.acknowledges and "epoch" in update:
            position = {"epoch": update["epoch"], "seq": update["seq"]}
            with contextlib.suppress(BadNamespaceError):  # it ended meanwhile
                self.socket._client.emit("update_ack", position, namespace=NAMESPACE)


class RawMiner:
    """A hotkey behind a bare WebSocket: it reads what it is told to read, and sends what it is told to send."""

    def __init__(self, node: LiveNode, keypair: Keypair, port: int | None = None) -> None:
        self.keypair = keypair
        self.node_hotkey = node_hotkey(node)
        self.wire = RawClient(_At(port or node.port))  # type: ignore[arg-type]
        self.pushed: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[int, Any] = {}
        """Acks by the number of their event, which nobody has asked for yet."""
        self._numbers = itertools.count(1)
        try:
            assert self.wire.frame()[1].startswith(b"0{")
            self.wire.send(f"40{NAMESPACE},")
            self.challenge = self.wait_for("challenge")
        except BaseException:
            self.close()
            raise

    def enter(self, **changes: Any) -> dict[str, Any]:
        """The answer to `authenticate`, whatever it is."""
        return self.call("authenticate", authenticate(self.keypair, self.challenge, **changes))

    def predict(self, **members: Any) -> dict[str, Any]:
        return self.call("prediction", prediction_message(self.keypair, self.node_hotkey, **members))

    def call(self, event: str, payload: Any) -> dict[str, Any]:
        return self.answer_to(self.send(event, payload))

    def send(self, event: str, payload: Any) -> int:
        """The number under which the ack will come."""
        number = next(self._numbers)
        self.wire.send(f"42{NAMESPACE},{number}{json.dumps([event, payload])}")
        return number

    def answer_to(self, number: int) -> dict[str, Any]:
        while number not in self.answers:
            self.read()
        answer: dict[str, Any] = self.answers.pop(number)
        return answer

    def wait_for_answer(self) -> None:
        """Returns once any ack is there that nobody asked for yet."""
        while not self.answers:
            self.read()

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """The push of this name that came as number `count`, read now or before."""
        while len(found := [body for name, body in self.pushed if name == event]) < count:
            self.read()
        return found[count - 1]

    def read(self) -> None:
        """One frame. Raises EOFError when the node has ended the connection, ConnectionRefusedError when it refuses."""
        try:
            opcode, data = self.wire.frame()
        except EOFError:
            raise EOFError(f"the end, after {self.pushed[-1:]}") from None
        text = data.decode("utf-8", "replace")
        if opcode == CLOSE:
            raise EOFError(f"closed, after {self.pushed[-1:]}")
        if text.startswith(f"44{NAMESPACE},"):
            raise ConnectionRefusedError(text)
        if text == "2":
            self.wire.send("3")
        elif match := re.match(rf"42{NAMESPACE},\d*(\[.*)", text, re.DOTALL):
            name, *arguments = json.loads(match[1])
            self.pushed.append((name, *arguments))
        elif match := re.match(rf"43{NAMESPACE},(\d+)(\[.*)", text, re.DOTALL):
            (self.answers[int(match[1])],) = json.loads(match[2])

    def read_to_the_end(self) -> None:
        """Returns once the node has ended the connection."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                self.read()

    def close(self) -> None:
        self.wire.sock.close()


class _At:
    """Where a RawClient connects."""

    def __init__(self, port: int) -> None:
        self.port = port


class SignedHttp:
    """A hotkey at a node's routes: every request is signed in the style of Epistula 2."""

    def __init__(self, node: LiveNode, keypair: Keypair, url: str | None = None) -> None:
        self.keypair = keypair
        self.node_hotkey = node_hotkey(node)
        self._client = httpx.Client(base_url=url or node.url, timeout=70.0)

    def get(self, path: str, **query: Any) -> httpx.Response:
        given = {name: value for name, value in query.items() if value is not None}
        return self.request("GET", f"{path}?{urlencode(given)}" if given else path)

    def post(self, path: str, value: object, **signing: Any) -> httpx.Response:
        return self.request("POST", path, canonical(value), **signing)

    def predict(self, **members: Any) -> httpx.Response:
        return self.post("/predictions", prediction_message(self.keypair, self.node_hotkey, **members))

    def request(self, method: str, target: str, body: bytes = b"", **signing: Any) -> httpx.Response:
        headers = self.headers(method, target, body, **signing)
        return self.send(method, target, body, headers)

    def send(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """The request as it is, with these headers: to send one twice."""
        whole = {**headers, "Content-Type": "application/json"} if body else dict(headers)
        return self._client.request(method, target, content=body or None, headers=whole)

    def headers(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        shift: float = 0.0,
        request_id: str | None = None,
        signed_for: str | None = None,
    ) -> dict[str, str]:
        """`shift`: seconds by which the sender's clock is ahead."""
        digest = sha256(body or f"{method} {target}".encode()).hexdigest()
        stamp = str(round((time.time() + shift) * 1000))
        request_id = request_id or str(uuid.uuid4())
        signed_for = signed_for or self.node_hotkey
        covered = f"{digest}.{request_id}.{stamp}.{signed_for}".encode("ascii")
        return {
            "Epistula-Version": "2",
            "Epistula-Timestamp": stamp,
            "Epistula-Uuid": request_id,
            "Epistula-Signed-By": self.keypair.ss58_address,
            "Epistula-Signed-For": signed_for,
            "Epistula-Request-Signature": format_signature(self.keypair.sign(covered)),
        }

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> "SignedHttp":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


# --- rows -----------------------------------------------------------------------------------------------------------


def rows(node: LiveNode, statement: str, **values: Any) -> list[Any]:
    """What stands in the node's database."""
    from sqlalchemy import text

    with node._engine.connect() as connection:
        return list(connection.execute(text(statement), values).all())


def stored(node: LiveNode, keypair: Keypair) -> list[Any]:
    """The rows of a miner's predictions, by seq."""
    by_seq = "SELECT * FROM miner_predictions WHERE miner = :miner ORDER BY seq"
    return rows(node, by_seq, miner=public_key(keypair).hex())
