"""P4: verdicts of a miner come in the order in which its predictions arrived, whatever the disk does."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair

from tests.faults import slow_disk
from tests.miners import Miner, SignedHttp, keypair, stored
from tests.nodes import LiveNode
from tests.promises.desk import WAIT, Desk, opened_desk

COUNT = 500
SEED = 20261121


@pytest.fixture
def desk(tmp_path: Path, sqlite_template: Path) -> Iterator[Desk]:
    dice, pause = random.Random(SEED), threading.Event()

    def slow(function: Callable[[], Any]) -> Any:
        pause.wait(dice.uniform(0.0, 0.005))
        return function()

    with opened_desk(tmp_path, sqlite_template, slow, prediction_daily_limit="1000000.00") as made:
        yield made


def test_p4_five_hundred_predictions_over_socket_batch_and_http_get_their_seq_by_arrival(desk: Desk) -> None:
    dice, anna = random.Random(SEED), keypair("anna")
    sent: list[str] = []
    pending = []
    while len(sent) < COUNT:
        size = dice.choice([1, 1, 1, 2, 16])
        messages = [desk.message(anna) for _ in range(min(size, COUNT - len(sent)))]
        payload = {"messages": messages} if len(messages) > 1 else messages[0]
        sent += [message["prediction"]["prediction_id"] for message in messages]
        pending.append(desk.submit(anna, payload, dice.choice(["websocket", "http"])))
    assert all(one.wait(WAIT) is not None for one in pending)

    by_seq = desk.receipts(anna)
    assert [receipt["seq"] for receipt in by_seq] == list(range(1, COUNT + 1))
    assert [receipt["prediction_id"] for receipt in by_seq] == sent


def test_p4_each_who_asked_hears_its_answer_once(desk: Desk) -> None:
    anna, told = keypair("anna"), []
    pending = [desk.submit(anna, desk.message(anna)) for _ in range(200)]
    for one in pending:
        one.then(lambda answer: told.append(json.loads(answer.text)["seq"]))
    assert all(one.wait(WAIT) is not None for one in pending)
    desk.close()
    assert sorted(told) == list(range(1, 201))


def test_p4_of_a_real_node_seq_follows_arrival_over_socket_batch_and_http_at_once(
    node: LiveNode, miner: Miner, http: SignedHttp, hotkey: Keypair
) -> None:
    """While another process holds the write lock again and again, so that commits take their time."""
    by_route: list[str] = []

    def post() -> None:
        for _ in range(60):
            message = miner.message()
            by_route.append(message["prediction"]["prediction_id"])
            assert http.post("/predictions", message).json()["success"]

    by_event: list[str] = []
    with slow_disk(node, SEED):
        poster = threading.Thread(target=post)
        poster.start()
        while len(by_event) < COUNT - 60:
            by_event += send_window(miner, random.Random(SEED + len(by_event)))
        poster.join(WAIT)

    rows = stored(node, hotkey)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) == len(by_event) + len(by_route) >= COUNT
    arrivals = [row.received_at for row in rows]
    assert arrivals == sorted(arrivals)
    for way in (by_event, by_route):
        known = set(way)
        assert [row.prediction_id for row in rows if row.prediction_id in known] == way


def send_window(miner: Miner, dice: random.Random) -> list[str]:
    """Some events in flight at once, alone and in batches; returns the ids in the order of sending."""
    ids: list[str] = []
    sent = []
    for _ in range(8):
        messages = [miner.message() for _ in range(dice.choice([1, 1, 5, 12]))]
        ids += [message["prediction"]["prediction_id"] for message in messages]
        sent.append(miner.send_later({"messages": messages} if len(messages) > 1 else messages[0]))
    for one in sent:
        assert miner.answer_to(one)["success"]
    return ids


def test_p4_another_miner_does_not_wait_for_a_miner_with_much_to_say(
    node: LiveNode, connect: Callable[..., Miner], new_hotkey: Callable[[], Keypair]
) -> None:
    many, few = connect(new_hotkey()), connect(new_hotkey())
    crowd = [many.send_later({"messages": [many.message() for _ in range(32)]}) for _ in range(2)]
    assert few.predict()["seq"] == 1
    assert [len(many.answer_to(one)["results"]) for one in crowd] == [32, 32]
