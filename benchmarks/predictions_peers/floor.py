"""The raw floor: what a signed, durable acknowledgement costs one process without Socket.IO, Flask or rules.

    floor.py PORT DATABASE

An asyncio protocol speaks just enough WebSocket (RFC 6455: whole, masked text frames). A message is parsed, its sr25519
signature is verified, and its row waits at most 2 ms or for 256 rows; one transaction (SQLite, WAL, synchronous=FULL)
in a thread of its own commits them all, then the signed confirmations go out. No rule is judged, no cap is kept, and
the order of different messages is whatever it is. `{"messages": [...]}` is a batch, `{"delta": {...}}` is committed
and sent on to every connection, as an odds update.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import sqlite3
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
from bittensor_wallet import Keypair
from websockets.speedups import apply_mask

sys.path.insert(0, str(Path(__file__).parents[1]))

from predictions_peers.messages import NODE_SEED, keypair, sign, timestamp

GROUP_SECONDS = 0.002
GROUP_ROWS = 256
TABLE = """CREATE TABLE predictions (
    miner TEXT, prediction_id TEXT, seq INTEGER, body TEXT, body_sha256 TEXT, receipt TEXT,
    PRIMARY KEY (miner, prediction_id)
)"""
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
INSERT = "INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?)"


@functools.cache
def key_of(hotkey: str) -> Keypair:
    return Keypair(ss58_address=hotkey)


def checked(message: dict[str, Any]) -> dict[str, Any]:
    """The message without its signature, which is good. Raises ValueError."""
    signature = bytes.fromhex(message.pop("signature")[2:])
    canonical = orjson.dumps(message, option=orjson.OPT_SORT_KEYS)
    signed = f"grid.v1.{message['message_type']}.{sha256(canonical).hexdigest()}".encode()
    if not key_of(message["sender_hotkey"]).verify(signed, signature):
        raise ValueError("bad signature")
    return message


class Journal:
    """Rows that wait for the next commit, and who hears of it."""

    def __init__(self, path: str, node: Keypair) -> None:
        self._node = node
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("PRAGMA wal_autocheckpoint=16384")
        self._database.execute(TABLE)
        self._writer = ThreadPoolExecutor(1)
        self._seqs: dict[str, int] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._after: list[Any] = []
        self._enough = asyncio.Event()

    def take(self, message: dict[str, Any]) -> bytes:
        """Add a row; returns the signed confirmation, which may leave once the row is committed."""
        body = message["prediction"]
        miner = message["sender_hotkey"]
        seq = self._seqs[miner] = self._seqs.get(miner, 0) + 1
        stored = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        digest = sha256(stored).hexdigest()
        receipt = orjson.dumps(self._receipt(miner, body["prediction_id"], digest, seq))
        self._rows.append((miner, body["prediction_id"], seq, stored, digest, receipt))
        return receipt

    def _receipt(self, miner: str, prediction_id: str, digest: str, seq: int) -> dict[str, Any]:
        now = timestamp(time.time())
        return sign(
            self._node,
            {
                "message_id": str(uuid.uuid4()),
                "sender_hotkey": self._node.ss58_address,
                "receiver_hotkey": miner,
                "timestamp": now,
                "message_type": "confirmation",
                "prediction_id": prediction_id,
                "success": True,
                "message": "Prediction accepted",
                "code": "successful",
                "body_sha256": digest,
                "received_at": now,
                "seq": seq,
                "accepted_odds": "2.1000",
                "miner_stats": {"utc_day": now[:10], "wagered": "110.00", "remaining": "890.00", "accepted": seq},
            },
        )

    def take_delta(self, games: dict[str, Any]) -> bytes:
        """Add a row; returns the signed update."""
        seq = self._seqs[""] = self._seqs.get("", 0) + 1
        message = {
            "message_type": "game_update",
            "message_id": str(uuid.uuid4()),
            "sender_hotkey": self._node.ss58_address,
            "timestamp": timestamp(time.time()),
            "epoch": "0123456789abcdef",
            "seq": seq,
            "kind": "delta",
            "updated_games": games,
        }
        text = orjson.dumps(sign(self._node, message))
        self._rows.append(("", str(seq), seq, text, "", ""))
        return text

    def after_commit(self, action: Any) -> None:
        self._after.append(action)
        self._enough.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._enough.wait()
            if len(self._rows) < GROUP_ROWS:
                await asyncio.sleep(GROUP_SECONDS)
            self._enough.clear()
            rows, self._rows = self._rows, []
            after, self._after = self._after, []
            await loop.run_in_executor(self._writer, self._commit, rows)
            for action in after:
                action()

    def _commit(self, rows: list[tuple[Any, ...]]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany(INSERT, rows)
        self._database.execute("COMMIT")


class Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, journal: Journal, peers: set[Peer]) -> None:
        self._journal = journal
        self._peers = peers
        self._data = b""
        self._open = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._peers.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._peers.discard(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._open:
            head, found, self._data = self._data.partition(b"\r\n\r\n")
            if not found:
                self._data = head
                return
            self._open = True
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            )
        for text in self._frames():
            self._take(orjson.loads(text))

    def _frames(self) -> list[bytes]:
        """The texts of the whole frames that are there."""
        data, start, found = self._data, 0, []
        while len(data) >= start + 2:
            size, begin = data[start + 1] & 0x7F, start + 2
            if size > 125:
                width = 2 if size == 126 else 8
                size, begin = int.from_bytes(data[begin : begin + width], "big"), begin + width
            begin += 4
            if len(data) < begin + size:
                break
            found.append(apply_mask(data[begin : begin + size], data[begin - 4 : begin]))
            start = begin + size
        self._data = data[start:]
        return found

    def _take(self, message: dict[str, Any]) -> None:
        if "messages" in message:
            receipts = [self._journal.take(checked(one)) for one in message["messages"]]
            answer = b'{"success":true,"results":[' + b",".join(receipts) + b"]}"
            self._journal.after_commit(functools.partial(self.send, answer))
        elif "delta" in message:
            self._journal.after_commit(functools.partial(self._send_on, self._journal.take_delta(message["delta"])))
        else:
            self._journal.after_commit(functools.partial(self.send, self._journal.take(checked(message))))

    def _send_on(self, text: bytes) -> None:
        for peer in self._peers:
            peer.send(text)

    def send(self, text: bytes) -> None:
        size = len(text)
        head = bytes((0x81, size)) if size < 126 else bytes((0x81, 126)) + size.to_bytes(2, "big")
        self._transport.write((head if size < 65536 else bytes((0x81, 127)) + size.to_bytes(8, "big")) + text)


async def main(port: int, path: str) -> None:
    journal, peers = Journal(path, keypair(NODE_SEED)), set[Peer]()
    gc.freeze()
    server = await asyncio.get_running_loop().create_server(lambda: Peer(journal, peers), "127.0.0.1", port)
    async with server:
        await journal.run()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
