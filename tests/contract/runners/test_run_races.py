"""Clients, workers and two node processes at the same time on the same predictions, over PostgreSQL."""

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from grid_node.clock import ManualClock
from grid_node.database import DirectStore, make_engine
from grid_node.errors import (
    FileNotFound,
    PredictionActive,
    PredictionClosed,
    RunnerPredictionNotFound,
)
from grid_node.runners.file_rows import files
from grid_node.runners.files import NewFile
from grid_node.runners.prediction import Prediction
from grid_node.runners.webhooks import IN_LINE
from tests.booth import ANNA, BERT
from tests.contract.runners.running import HOOK, SIGNATURE, Calls, Node, Receiver
from tests.contract.runners.yard import AGENT, OTHER, Worker
from tests.stores import _empty, postgres_tables

__all__ = ["postgres_tables"]

PREDICTIONS, CLIENTS, TURNS = 20, 8, 30
EXPECTED = (PredictionActive, PredictionClosed, RunnerPredictionNotFound)


@pytest.fixture
def nodes(postgres_tables: str, tmp_path: Path) -> Iterator[list[Node]]:
    """Two processes of a node, with a model and two workers."""
    clock, ways, receiver = ManualClock(), Calls(), Receiver()
    stores = [DirectStore(make_engine(postgres_tables)) for _ in range(2)]
    _empty(stores[0].engine)
    made = [Node(store, clock, tmp_path, ways, receiver) for store in stores]
    model, _version = made[0].model(signature=SIGNATURE)
    for instance in (AGENT, OTHER):
        ways.join(Worker(room=3), model, instance)
    yield made
    for store in stores:
        store.close()


def together(actions: list[Callable[[], None]]) -> None:
    """All at the same time, until each has ended; what one raises is raised."""
    failures: list[BaseException] = []

    def run(action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


class Crowd:
    """Somebody who does one thing after the other, to any of the same predictions."""

    def __init__(self, node: Node, numbers: list[Prediction], seed: int) -> None:
        self.node, self.all, self.chance = node, numbers, random.Random(seed)
        self.deeds = [
            self.report,
            self.report,
            self.finish,
            self.cancel,
            self.delete,
            self.upload,
            self.data,
            self.look,
        ]

    def __call__(self) -> None:
        for _ in range(TURNS):
            one = self.chance.choice(self.all)
            try:
                self.chance.choice(self.deeds)(one)
            except EXPECTED:
                pass

    def report(self, one: Prediction) -> None:
        length = self.chance.randrange(4)
        said: dict[str, Any] = {"status": "processing", "logs": "line\n" * length, "output": ["a", "b", "c"][:length]}
        if self.chance.random() < 0.2:
            said["more"] = "x" * IN_LINE
        self.node.report(one, **said)

    def finish(self, one: Prediction) -> None:
        if self.chance.random() < 0.2:
            self.node.report(one, status=self.chance.choice(["succeeded", "failed", "canceled"]), output=["data:,end"])

    def cancel(self, one: Prediction) -> None:
        if self.chance.random() < 0.2:
            self.node.predictions.cancel(BERT, one.id)

    def delete(self, one: Prediction) -> None:
        self.node.predictions.delete(BERT, one.id)

    def upload(self, one: Prediction) -> None:
        self.node.upload(one, self.chance.choice(["0_a.png", "1_b.png"]), self.chance.choice([b"1", b"22"]))

    def data(self, one: Prediction) -> None:
        self.node.kept.keep_data(ANNA.owner, "data:,slow", one)

    def look(self, one: Prediction) -> None:
        view = self.node.predictions.view(self.node.predictions.get(BERT, one.id))
        assert view["id"] == one.id


def housekeeping(node: Node, over: threading.Event) -> Callable[[], None]:
    """What a process does by itself."""

    def work() -> None:
        for turn in itertools.count():
            if over.is_set() and turn:
                return
            node.dispatching.round()
            node.watching.tick()
            node.merge()
            node.deliver()
            node.kept.expire()

    return work


def made(nodes: list[Node], count: int = PREDICTIONS) -> list[Prediction]:
    return [nodes[0].run(BERT, webhook=HOOK, webhook_events_filter=["completed"]) for _ in range(count)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_everybody_at_once_on_the_same_predictions(nodes: list[Node], seed: int) -> None:
    found, over = made(nodes), threading.Event()
    left = threading.Semaphore(0)

    def crowd(place: int) -> Callable[[], None]:
        def work() -> None:
            try:
                Crowd(nodes[place % 2], found, seed * 100 + place)()
            finally:
                left.release()

        return work

    def end() -> None:
        for _ in range(CLIENTS):
            left.acquire()
        over.set()

    together([*map(crowd, range(CLIENTS)), *(housekeeping(node, over) for node in nodes), end])
    check(nodes, found)


def check(nodes: list[Node], hooked: list[Prediction]) -> None:
    for node in nodes:
        node.merge()
    nodes[0].clock.advance(700)
    nodes[0].webhooks.sweep()
    nodes[0].watch()
    nodes[0].check_streams()
    nodes[0].check_hooks({one.number for one in hooked})
    nodes[0].check_counts()


@pytest.mark.timeout(300)
def test_a_file_that_many_remove_at_once_is_counted_off_once(nodes: list[Node]) -> None:
    kept = nodes[0].kept
    new = NewFile(owner=BERT.owner, kind="input", filename="a.png")
    keys = [kept.receive(new, [b"12345"]).file.key for _ in range(20)]
    nodes[0].clock.advance(nodes[0].settings.file_ttl_s - 1)
    start = threading.Barrier(4)

    def remover(node: Node) -> Callable[[], None]:
        def work() -> None:
            for key in keys:
                start.wait()
                try:
                    node.kept.delete_input(BERT.owner, key)
                except FileNotFound:
                    pass

        return work

    together([remover(nodes[place % 2]) for place in range(4)])
    assert nodes[0].rows(select(files.c.key)) == []
    nodes[0].check_counts()


@pytest.mark.timeout(300)
def test_removing_data_while_old_files_expire_counts_each_file_once(nodes: list[Node]) -> None:
    found = made(nodes)
    for one in found:
        for name in ("0_a.png", "1_b.png"):
            nodes[0].upload(one, name, b"12345" + one.id.encode())
        nodes[0].report(one, status="succeeded", output=["x"])
    nodes[0].clock.advance(nodes[0].settings.file_ttl_s + 1)

    def delete() -> None:
        for one in found:
            nodes[0].predictions.delete(BERT, one.id)

    together([delete, nodes[0].kept.expire, nodes[1].kept.expire])
    nodes[0].check_counts()


@pytest.mark.timeout(300)
def test_two_processes_that_purge_at_once_remove_each_prediction_once(nodes: list[Node]) -> None:
    found = made(nodes)
    for one in found:
        nodes[0].upload(one, "0_a.png", one.id.encode())
        nodes[0].report(one, status="succeeded", output=["x"])
    nodes[0].clock.advance(nodes[0].settings.prediction_ttl_s + 1)
    together([node.predictions.purge for node in nodes] + [node.kept.expire for node in nodes])
    assert nodes[0].all() == []
    nodes[0].check_counts()


@pytest.mark.timeout(300)
def test_a_file_that_comes_with_the_first_word_of_a_prediction_is_its_own(nodes: list[Node]) -> None:
    ids = [f"run-{place}" for place in range(30)]
    start = threading.Barrier(3)

    def sender(node: Node, name: str) -> Callable[[], None]:
        def work() -> None:
            for id in ids:
                start.wait()
                node.kept.receive(node.kept.named(ANNA.owner, name, id, None), [b"12345"])

        return work

    def reporter() -> None:
        for id in ids:
            start.wait()
            nodes[0].webhooks.by_key(ANNA, orjson.dumps({"id": id, "status": "processing"}))

    together([sender(nodes[0], "0_a.png"), sender(nodes[1], "1_b.png"), reporter])
    assert {one.files for one in nodes[0].all()} == {2}
    nodes[0].check_counts()
