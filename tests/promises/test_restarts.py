"""Restarts, by kill -9 and by SIGTERM: what a miner was told still holds, and what was used stays used."""

import contextlib
import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from bittensor_wallet import Keypair

from grid_node.canonical import canonical
from tests.miners import Miner, RawMiner, SignedHttp, allow, new_keypair, prediction_message, stored
from tests.nodes import LiveNode, until
from tests.promises.conftest import started

GRACE = 10
CROWD = 6
SEED = 20261121
WINDOW_MS = 120_000
"""So long that no slow machine makes a request stale before it is replayed."""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with started(tmp_path_factory.mktemp("restarts"), shutdown_grace=GRACE, epistula_window_ms=WINDOW_MS) as live:
        yield live


def test_p1_after_kill_9_every_receipt_that_was_seen_is_in_the_database(node: LiveNode) -> None:
    """At a random moment; many of them in `tests/e2e/test_kill_predictions.py`."""
    hotkeys = [new_keypair() for _ in range(3)]
    allow(node, *hotkeys)
    seen: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(len(hotkeys)) as pool:
        senders = [pool.submit(predict_until_cut, node, one, seen) for one in hotkeys]
        until(lambda: len(seen) > 50)
        threading.Event().wait(random.Random(SEED).uniform(0.0, 0.1))
        node.kill()
        for sender in senders:
            sender.result(60)
    rows = {row.prediction_id: row for one in hotkeys for row in stored(node, one)}
    for prediction_id, receipt in seen.items():
        assert json.loads(rows[prediction_id].receipt) == receipt
    node.start()


def predict_until_cut(node: LiveNode, keypair: Keypair, seen: dict[str, dict[str, Any]]) -> None:
    with Miner(node, keypair) as miner, contextlib.suppress(ConnectionError):
        while True:
            window = [miner.send_later(miner.message()) for _ in range(10)]
            for sent in window:
                answer = miner.answer_to(sent)
                seen[answer["prediction_id"]] = answer


def test_p8_a_request_is_taken_once_and_a_rejection_stays_also_after_a_restart(node: LiveNode) -> None:
    hotkey = new_keypair()
    allow(node, hotkey)
    with closing(SignedHttp(node, hotkey)) as http:
        message = prediction_message(hotkey, http.node_hotkey)
        request = ("POST", "/predictions", canonical(message))
        headers = http.headers(*request)
        reading = http.headers("GET", "/predictions")
        assert http.send(*request, headers).json()["success"]
        assert http.send("GET", "/predictions", b"", reading).json()["success"]
        too_much = prediction_message(hotkey, http.node_hotkey, wager="1000000.01")
        rejection = http.post("/predictions", too_much)
        assert (rejection.status_code, rejection.json()["code"]) == (422, "daily_limit_exceeded")
        for attempt in range(2):
            if attempt:
                node.kill()
                node.start()
            for answer in (http.send(*request, headers), http.send("GET", "/predictions", b"", reading)):
                assert (answer.status_code, answer.json()["code"]) == (401, "replayed_request")
        assert http.post("/predictions", message).headers["Grid-Replayed"] == "1"
        again = http.post("/predictions", too_much)
        assert (again.status_code, again.content) == (422, rejection.content)
    assert [row.code for row in stored(node, hotkey)] == ["successful", "daily_limit_exceeded"]


class Sender:
    """A miner that keeps some predictions in flight until it is told to stop, and then listens to the end."""

    def __init__(self, node: LiveNode) -> None:
        self.keypair = new_keypair()
        allow(node, self.keypair)
        self.raw = RawMiner(node, self.keypair)
        assert self.raw.enter()["success"]
        self.sent: dict[int, str] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.is_over = threading.Event()

    def run(self) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while not self.is_over.is_set():
                self.send()
                self.collect()
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                self.raw.read()
        self.collect()

    def send(self) -> None:
        message = prediction_message(self.keypair, self.raw.node_hotkey)
        self.sent[self.raw.send("prediction", message)] = message["prediction"]["prediction_id"]
        if len(self.sent) - len(self.answers) > 20:
            self.raw.wait_for_answer()

    def collect(self) -> None:
        for number in list(self.raw.answers):
            self.answers[self.sent[number]] = self.raw.answers.pop(number)

    @property
    def closing(self) -> dict[str, Any]:
        return next(body for name, body in self.raw.pushed if name == "closing")


def test_sigterm_under_load_answers_what_was_accepted_and_says_goodbye(node: LiveNode) -> None:
    senders = [Sender(node) for _ in range(CROWD)]
    with ThreadPoolExecutor(CROWD) as pool:
        running = [pool.submit(sender.run) for sender in senders]
        until(lambda: all(len(sender.answers) > 20 for sender in senders))
        process = node._process
        assert process is not None
        process.terminate()
        assert process.wait(GRACE + 5) == 0, "it did not end by itself within its grace"
        node._process = None
        for sender in senders:
            sender.is_over.set()
        for one in running:
            one.result(60)
    for sender in senders:
        assert (sender.closing["code"], sender.closing["reason"]) == (4503, "shutdown")
        assert sender.closing["error"] == "Server shutting down"
        assert sender.closing["retry_after"] > 0
        sender.raw.close()
    check_stored(node, senders)

    node.start()
    for sender in senders:
        with closing(SignedHttp(node, sender.keypair)) as http:
            for row in stored(node, sender.keypair)[-3:]:
                answer = http.get(f"/predictions/{row.prediction_id}")
                assert answer.json()["receipt"] == json.loads(row.receipt)


def check_stored(node: LiveNode, senders: list[Sender]) -> None:
    """Every receipt that was seen is stored, and who was refused left no row."""
    for sender in senders:
        rows = {row.prediction_id: json.loads(row.receipt) for row in stored(node, sender.keypair)}
        for prediction_id, answer in sender.answers.items():
            if answer["success"]:
                assert rows[prediction_id] == answer
            else:
                assert answer["status"] == 503, answer
                assert prediction_id not in rows
