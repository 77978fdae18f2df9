"""kill -9 while models are served: what was acknowledged is whole, what was not is whole or not there."""

import hashlib
import os
import random
import threading

import socketio

from tests.integration.sockets import Socket
from tests.nodes import LiveNode

ROUNDS = max(2, int(os.environ.get("GRID_TEST_KILL_ROUNDS", "3")) // 2)
SENDERS = 4


def content(model_id: str) -> bytes:
    """Bytes that tell which model they belong to; of sizes on both sides of a piece of the disk."""
    seed = hashlib.sha256(model_id.encode()).digest()
    return seed * (1 + seed[0] * 40)


class Sender(threading.Thread):
    """Serves models one after the other until its connection is gone."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__()
        self._socket = Socket(url)
        self._name = name
        self.sent: list[str] = []
        self.acknowledged: list[str] = []

    def run(self) -> None:
        for number in range(10_000):
            model_id = f"{self._name}-{number}"
            self.sent.append(model_id)
            try:
                payload = {"model_id": model_id, "model": content(model_id), "allow_download": True}
                answer = self._socket.call("/serve_model", payload, timeout=4)
            except (socketio.exceptions.SocketIOError, ValueError):
                return
            assert answer["success"] is True
            self.acknowledged.append(model_id)

    def close(self) -> None:
        self._socket.close()


def test_models_are_whole_after_every_kill(tmp_path):
    # a fast machine serves thousands in the rounds: the quota is not what is looked at here
    node = LiveNode(tmp_path, scoring_processes=0, compute_processes=0, models_anonymous_quota_count=100_000)
    node.start()
    sent: set[str] = set()
    acknowledged: set[str] = set()
    chance = random.Random(7)
    try:
        for number in range(ROUNDS):
            senders = [Sender(node.url, f"r{number}s{index}") for index in range(SENDERS)]
            for sender in senders:
                sender.start()
            killer = threading.Timer(chance.uniform(0.2, 1.2), node.kill)
            killer.start()
            killer.join()
            node.start()
            for sender in senders:
                sender.join(60)
                sender.close()
                sent |= set(sender.sent)
                acknowledged |= set(sender.acknowledged)
            there = listed_whole(node)
            assert acknowledged <= there
            assert there <= sent
        assert len(acknowledged) > 20 * ROUNDS
    finally:
        node.discard()


def listed_whole(node: LiveNode) -> set[str]:
    """Ids in the list, each of them fetched and compared."""
    socket = Socket(node.url)
    try:
        names = socket.call("/models")["models"]
        for name in names:
            assert socket.call("/get_model", {"model_id": name})["serialized_model"] == content(name)
        return set(names)
    finally:
        socket.close()
