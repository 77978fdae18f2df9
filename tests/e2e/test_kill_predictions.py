"""kill -9 of the node in the middle of thousands of submissions: one stored prediction and one receipt for each id.

`GRID_TEST_KILL_PREDICTIONS` sets how many are submitted, `GRID_TEST_KILL_ROUNDS` how often the node is killed.
"""

import itertools
import json
import os
import random
import sqlite3
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import socketio
from grid_client.predictions import PredictionClient
from grid_client.receipts import verify_receipt

from tests.miners import (
    Miner,
    SignedHttp,
    allow,
    game,
    new_keypair,
    node_hotkey,
    prediction_message,
    public_key,
    put_games,
    resent,
)
from tests.nodes import LiveNode, running_node, until

COUNT = int(os.environ.get("GRID_TEST_KILL_PREDICTIONS", "600"))
ROUNDS = int(os.environ.get("GRID_TEST_KILL_ROUNDS", "2"))
SEED = 20261121
BATCH = 16
OPEN = {
    "worker_api_keys": False,
    "prediction_rate": 1e6,
    "prediction_burst": 10**6,
    "prediction_daily_limit": "1000000.00",
}

pytestmark = [
    pytest.mark.timeout(1800),
    # engineio's client lets go of its socket without closing it where the server dies during the handshake
    pytest.mark.filterwarnings("ignore:.*unclosed <socket:pytest.PytestUnraisableExceptionWarning"),
]


LOST = (ConnectionError, socketio.exceptions.SocketIOError, httpx.HTTPError, EOFError)
"""What a miner sees of a node that is killed."""


class Sender:
    """A miner with a list of predictions, which it sends until it has a receipt for each."""

    def __init__(self, node: LiveNode, count: int) -> None:
        self.node = node
        self.keypair = new_keypair()
        allow(node, self.keypair)
        hotkey = node_hotkey(node)
        self.messages = [prediction_message(self.keypair, hotkey) for _ in range(count)]
        self.receipts: dict[str, dict[str, Any]] = {}
        self.dice = random.Random(SEED)
        self.repeats = 0
        """Receipts for an id that had one already."""

    def missing(self, most: int) -> list[dict[str, Any]]:
        """Messages without a receipt, oldest first, in fresh envelopes; and one of those that have theirs."""
        open_ones = (one for one in self.messages if one["prediction"]["prediction_id"] not in self.receipts)
        again = self.dice.choice(self.messages[: len(self.receipts) or 1])
        return [resent(self.keypair, one) for one in [*itertools.islice(open_ones, most), again]]

    def is_done(self) -> bool:
        return len(self.receipts) == len(self.messages)

    def run(self) -> None:
        pause = threading.Event()
        while not self.is_done():
            try:
                self.work()
            except LOST:
                pause.wait(0.05)

    def work(self) -> None:
        raise NotImplementedError

    def take(self, answer: dict[str, Any]) -> None:
        for result in answer.get("results", [answer]):
            if "seq" not in result:
                assert result["status"] in (429, 503), result
                continue
            self.repeats += result["prediction_id"] in self.receipts
            assert self.receipts.setdefault(result["prediction_id"], result) == result, "another receipt for one id"


class SocketSender(Sender):
    """Two batches in flight on one socket after the other."""

    def work(self) -> None:
        with closing(Miner(self.node, self.keypair)) as miner:
            while not self.is_done():
                messages = self.missing(2 * BATCH)
                batches = [messages[:BATCH], messages[BATCH:]]
                sent = [miner.send_later({"messages": batch}) for batch in batches if batch]
                for one in sent:
                    self.take(miner.answer_to(one))


class HttpSender(Sender):
    """Batches and single messages by turns."""

    def work(self) -> None:
        with closing(SignedHttp(self.node, self.keypair)) as http:
            while not self.is_done():
                messages = self.missing(BATCH)
                self.take(http.post("/predictions", {"messages": messages}).json())
                for message in self.missing(2):
                    self.take(http.post("/predictions", message).json())


class ClientSender(Sender):
    """The client package with its outbox; everything is submitted at once."""

    def __init__(self, node: LiveNode, count: int, outbox: Path) -> None:
        super().__init__(node, count)
        self.client = PredictionClient(
            node.url,
            self.keypair,
            node_hotkey(node),
            outbox,
            reconnect_base_interval=0.1,
            max_reconnect_interval=0.5,
            http_fallback_after=1.0,
        )

    def run(self) -> None:
        with self.client as client:
            for message in self.messages:
                client.submit(message["prediction"])
            for message in self.messages:
                receipt = client.wait(message["prediction"]["prediction_id"], 600)
                self.receipts[receipt.prediction_id] = receipt.document


def test_p1_p2_killing_the_node_leaves_one_prediction_and_one_receipt_for_each_id(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    with running_node(tmp_path, **OPEN) as node:
        put_games(node, game())
        share = COUNT // 6
        senders: list[Sender] = [SocketSender(node, 2 * share), SocketSender(node, share), HttpSender(node, 2 * share)]
        senders.append(ClientSender(node, COUNT - 5 * share, tmp_path / "outbox.db"))
        with ThreadPoolExecutor(len(senders)) as pool:
            running = [pool.submit(sender.run) for sender in senders]
            for number in range(1, ROUNDS + 1):
                wanted = COUNT * number // (ROUNDS + 1)
                until(lambda wanted=wanted: received(senders) >= wanted or any(map(Future.done, running)), 300)  # type: ignore[misc]
                threading.Event().wait(dice.uniform(0.0, 0.05))
                node.kill()
                node.start()
            for one in running:
                one.result(600)
        repeats = sum(sender.repeats for sender in senders)
        print(f"{ROUNDS} kills, {received(senders)} receipts, {repeats} repeats")
        node.terminate()
        for sender in senders:
            check(node, sender)


def received(senders: list[Sender]) -> int:
    return sum(len(sender.receipts) for sender in senders)


def check(node: LiveNode, sender: Sender) -> None:
    """The rows against what the miner was told."""
    miner, hotkey = public_key(sender.keypair).hex(), node_hotkey(node)
    with closing(sqlite3.connect(node.data / "grid.db")) as database:
        database.row_factory = sqlite3.Row
        by_seq = "SELECT * FROM miner_predictions WHERE miner = ? ORDER BY seq"
        rows = database.execute(by_seq, (miner,)).fetchall()
        charged = database.execute(
            "SELECT sum(wagered), sum(accepted) FROM miner_daily_wagers WHERE miner = ?", (miner,)
        )
        assert tuple(charged.fetchone()) == (100 * len(rows), len(rows)), "one charge of 1.00 for each"
        assert [row[0] for row in database.execute("PRAGMA integrity_check")] == ["ok"]
    ids = [message["prediction"]["prediction_id"] for message in sender.messages]
    assert sorted(row["prediction_id"] for row in rows) == sorted(ids), "one row for each id"
    assert [row["seq"] for row in rows] == list(range(1, len(ids) + 1)), "no gap"
    bodies = {message["prediction"]["prediction_id"]: message["prediction"] for message in sender.messages}
    for row in rows:
        receipt = json.loads(row["receipt"])
        assert receipt == sender.receipts[row["prediction_id"]]
        verify_receipt(receipt, hotkey, bodies[row["prediction_id"]])
