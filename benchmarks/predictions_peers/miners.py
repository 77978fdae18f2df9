"""One miner's connection to each of the peers: the node, the raw floor, NATS JetStream."""

from __future__ import annotations

import json
import re
import secrets
import time
import zlib
from collections.abc import Callable
from typing import Any

import orjson
from bittensor_wallet import Keypair
from lean_client import TEXT, Closed, Connection, Loop, frame
from predictions_peers import messages
from predictions_peers.messages import Signed

NAMESPACE = "/predictions"
OPENING_SECONDS = 10.0
STREAM = "PREDICTIONS"
SUBJECT = "predictions"
UPDATES = "games"
SEQ = re.compile(rb'"seq":(\d+)')
EPOCH = re.compile(rb'"epoch":"([0-9a-f]{16})"')
Request = tuple[bytes, list[str]]
"""All bytes of a request, and the ids in it."""


def inflated(update: bytes) -> bytes:
    """The JSON of an update as it came."""
    return update if update.startswith(b"{") else zlib.decompress(update)


class Miner(Connection):
    """An open connection. Requests are made beforehand; answers and updates stay as they came, with their times."""

    def __init__(self, port: int, key: Keypair, node_hotkey: str, namespace: str = "/") -> None:
        self.key = key
        self.node_hotkey = node_hotkey
        self.requests: list[Request] = []
        self.sent: list[float] = []
        self.answers: list[tuple[float, bytes]] = []
        self.updates: list[tuple[float, bytes]] = []
        self.on_answer: Callable[[Miner], None] = lambda _miner: None
        super().__init__(port, namespace)

    def prepare(self, run: str, number: int, count: int, batch: int) -> None:
        """Sign and frame `count` messages."""
        signed = messages.predictions(self.key, self.node_hotkey, run, number, count)
        parts = [signed[start : start + batch] for start in range(0, count, batch)]
        self.requests = [(self.framed(part, batch > 1), [one.prediction_id for one in part]) for part in parts]
        self.answers, self.sent = [], []

    def framed(self, part: list[Signed], is_batch: bool) -> bytes:
        texts = b",".join(one.text for one in part)
        return frame(TEXT, self.wrapped(b'{"messages":[' + texts + b"]}" if is_batch else texts))

    def wrapped(self, body: bytes) -> bytes:
        """The text of the frame that carries this JSON."""
        return body

    def acknowledge(self) -> None:
        """Say that the newest update has been taken in, where that is asked for."""

    def write(self, data: bytes) -> None:
        self._send(data)

    def send_next(self) -> None:
        """Send the next request, if there is one."""
        if len(self.sent) < len(self.requests):
            self._send(self.requests[len(self.sent)][0])
            self.sent.append(time.perf_counter())

    def answered(self, body: bytes) -> None:
        self.answers.append((time.perf_counter(), body))
        self.on_answer(self)

    def updated(self, body: bytes) -> None:
        self.updates.append((time.perf_counter(), body))

    @property
    def times(self) -> list[float]:
        """Seconds from each request to its answer; answers come in the order of the requests."""
        return [at - sent for sent, (at, _) in zip(self.sent, self.answers, strict=True)]

    def check(self, sample: int) -> None:
        """Judge all answers, and the signatures of `sample`. Raises RuntimeError."""
        bodies = [orjson.loads(body) for _, body in self.answers]
        receipts = [one for body in bodies for one in body.get("results", [body])]
        expected = [prediction_id for _, ids in self.requests for prediction_id in ids]
        messages.check_receipts(receipts, expected, self.node_hotkey, sample)


class NodeMiner(Miner):
    """A miner of the node: Socket.IO, namespace `/predictions`."""

    def __init__(self, port: int, key: Keypair, node_hotkey: str, compression: list[str]) -> None:
        self.opened: dict[str, Any] = {}
        self._challenge: dict[str, Any] = {}
        self._awaits_attachment = False
        super().__init__(port, key, node_hotkey, NAMESPACE)
        self.on_push = self._pushed
        self._text_update = f'42{NAMESPACE},["game_update",'.encode()
        self._zlib_update = f'451-{NAMESPACE},["game_update",'.encode()
        self._open(compression)

    def _open(self, compression: list[str]) -> None:
        """Prove the hotkey and take the snapshot that follows. Raises RuntimeError."""
        held, self._held = self._held, []
        for payload in held:  # what came together with the word that we are in
            self._take(payload)
        loop = Loop([self])
        loop.run_until(lambda: bool(self._challenge), OPENING_SECONDS)
        members = {"nonce": self._challenge["nonce"], "client_nonce": secrets.token_hex(32), "compression": compression}
        message = messages.base(self.key.ss58_address, self.node_hotkey, "authenticate", **members)
        self.emit("authenticate", messages.sign(self.key, message), self.opened.update)
        loop.run_until(lambda: bool(self.opened), OPENING_SECONDS)
        if not self.opened["success"]:
            raise RuntimeError(f"the node refused: {self.opened}")
        loop.run_until(lambda: bool(self.updates), OPENING_SECONDS)
        self.acknowledge()

    def _pushed(self, event: str, body: Any) -> None:
        if event == "challenge":
            self._challenge = body
        elif event == "closing":
            raise RuntimeError(f"the node closed: {body}")

    def event(self, name: str, body: bytes) -> bytes:
        """The text of an event that wants an ack."""
        self._next_ack += 1
        return f'42{NAMESPACE},{self._next_ack}["{name}",'.encode() + body + b"]"

    def wrapped(self, body: bytes) -> bytes:
        return self.event("prediction", body)

    def acknowledge(self) -> None:
        """Say that the newest update has been taken in."""
        text = inflated(self.updates[-1][1])
        epoch, seq = EPOCH.search(text), SEQ.search(text)
        if epoch is None or seq is None:
            raise RuntimeError(f"no update: {text[:200]!r}")
        body = orjson.dumps(["update_ack", {"epoch": epoch[1].decode(), "seq": int(seq[1])}])
        self._send(frame(TEXT, f"42{NAMESPACE},".encode() + body))

    def _take(self, payload: bytes) -> None:
        if self._awaits_attachment:
            self._awaits_attachment = False
            self.updated(payload)
        elif payload[:2] == b"43" and self.opened:
            self.answered(payload[payload.index(b"[") + 1 : -1])
        elif payload.startswith(self._text_update):
            self.updated(payload[len(self._text_update) : -1])
        elif payload.startswith(self._zlib_update):
            self._awaits_attachment = True
        else:
            super()._take(payload)


class FloorMiner(Miner):
    """A connection to the floor: bare JSON texts."""

    def __init__(self, port: int, key: Keypair, node_hotkey: str, _compression: list[str]) -> None:
        super().__init__(port, key, node_hotkey)

    def _join(self, _auth: Any) -> None:
        """There is nothing to join."""

    def _take(self, payload: bytes) -> None:
        self.updated(payload) if payload.startswith(b'{"message_type":"game_update"') else self.answered(payload)


class NatsMiner(Miner):
    """NATS over a bare socket, so that the server sets the pace. Publishes to a stream and waits for its PubAck."""

    def __init__(self, port: int, key: Keypair, node_hotkey: str, _compression: list[str]) -> None:
        self._inbox = f"_INBOX.{secrets.token_hex(8)}"
        super().__init__(port, key, node_hotkey)

    def _upgrade(self, _port: int) -> bytes:
        """Subscribe, and wait until the server has taken that in."""
        options = json.dumps({"verbose": False, "pedantic": False, "headers": True, "no_responders": True})
        self.sock.sendall(f"CONNECT {options}\r\nSUB {self._inbox}.* 1\r\nSUB {UPDATES} 2\r\nPING\r\n".encode())
        greeting = b""
        while b"PONG\r\n" not in greeting:
            greeting += self._receive()
        return b""

    def _join(self, _auth: Any) -> None:
        """There is nothing to join."""

    def framed(self, part: list[Signed], is_batch: bool) -> bytes:
        """One message each, which the stream takes once: its id is the one of the prediction."""
        return b"".join(self._published(one) for one in part)

    def _published(self, one: Signed) -> bytes:
        head = f"NATS/1.0\r\nNats-Msg-Id: {one.prediction_id}\r\n\r\n".encode()
        sizes = f"{len(head)} {len(head) + len(one.text)}"
        subject = f"{SUBJECT}.{self.key.ss58_address}"
        return f"HPUB {subject} {self._inbox}.1 {sizes}\r\n".encode() + head + one.text + b"\r\n"

    def feed(self) -> None:
        data, start = self._rest + self._receive(), 0
        while (end := data.find(b"\r\n", start)) >= 0:
            words = data[start:end].split()
            begin = end + 2
            if words[0] == b"MSG":
                size = int(words[-1])
                if len(data) < begin + size + 2:
                    break
                body, begin = data[begin : begin + size], begin + size + 2
                self.answered(body) if words[2] == b"1" else self.updated(body)
            elif words[0] == b"PING":
                self._send(b"PONG\r\n")
            elif words[0] != b"PONG":
                raise Closed(data[start:end])
            start = begin
        self._rest = data[start:]

    def check(self, _sample: int) -> None:
        """Every message was stored, none for the second time."""
        for _, body in self.answers:
            acknowledged = orjson.loads(body)
            if acknowledged.get("stream") != STREAM or "duplicate" in acknowledged:
                raise RuntimeError(f"not stored: {acknowledged}")


KINDS: dict[str, type[NodeMiner] | type[FloorMiner] | type[NatsMiner]] = {
    "node": NodeMiner,
    "floor": FloorMiner,
    "nats": NatsMiner,
}
