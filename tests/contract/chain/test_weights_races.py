"""Two processes of a node on one database, at the same time."""

import shutil
import threading

import pytest
from sqlalchemy import select

from grid_node.chain.epochs import Epoch
from grid_node.chain.weights import EpochTaken
from grid_node.chain.weights_tables import AUTO, UNFINISHED, jobs
from grid_node.database import DirectStore, make_engine
from tests.contract.chain.weighing import HOTKEYS, World, identity
from tests.stores import _empty, postgres_tables, sqlite_template

__all__ = ["postgres_tables", "sqlite_template"]

CLIENTS, PUTS = 4, 12


@pytest.fixture(params=["sqlite", "postgresql"])
def stores(request, tmp_path):
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "grid.db")
        url = f"sqlite:///{tmp_path / 'grid.db'}"
    else:
        url = request.getfixturevalue("postgres_tables")
    made = [DirectStore(make_engine(url)) for _ in range(2)]
    if request.param == "postgresql":
        _empty(made[0].engine)
    yield made
    for store in made:
        store.close()


def together(actions):
    failures, barrier = [], threading.Barrier(len(actions))

    def run(action):
        barrier.wait()
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]


def rows(store):
    query = select(jobs.c.id, jobs.c.status, jobs.c.source).order_by(jobs.c.number)
    return store.read(lambda tx: [tuple(row) for row in tx.execute(query).all()])


def test_puts_never_race_and_one_job_is_left(stores):
    world = World(stores[0])
    sides = [world.new_weights(store) for store in stores]

    def client(number):
        def run():
            for turn in range(PUTS):
                sides[number % 2].put(identity(), {HOTKEYS[number]: 1.0 + turn}, 10.0)

        return run

    together([client(number) for number in range(CLIENTS)])

    found = rows(stores[0])
    assert [status for _id, status, _source in found] == ["superseded"] * (CLIENTS * PUTS - 1) + ["scheduled"]
    assert world.run()["job_id"] == found[-1][0]
    assert len(world.chain.weights) == 1


def test_the_same_weights_put_at_the_same_time_are_one_job(stores):
    world = World(stores[0])
    sides = [world.new_weights(store) for store in stores]
    answers = []
    together(
        [lambda n=n: answers.append(sides[n % 2].put(identity(), {HOTKEYS[0]: 1.0}, 10.0)) for n in range(CLIENTS)]
    )

    assert len({answer["job_id"] for answer in answers}) == 1
    assert len(rows(stores[0])) == 1


def test_automatic_weights_are_put_once_in_an_epoch(stores):
    world = World(stores[0])
    sides = [world.new_weights(store) for store in stores]
    taken = []

    def put(number):
        try:
            sides[number % 2].put(identity(), {HOTKEYS[number]: 1.0}, 10.0, source=AUTO, epoch=Epoch(719, 1080))
        except EpochTaken:
            taken.append(number)

    together([lambda n=n: put(n) for n in range(CLIENTS)])

    assert len(taken) == CLIENTS - 1
    assert [source for _id, _status, source in rows(stores[0])] == [AUTO]


def test_two_processes_that_send_send_each_job_once(stores):
    world = World(stores[0])
    runners = [world.new_runner(store, process=f"elsewhere {n}") for n, store in enumerate(stores)]
    side, done = world.new_weights(stores[0]), threading.Event()

    def client():
        try:
            for turn in range(PUTS):
                side.put(identity(), {HOTKEYS[turn % 8]: 1.0, HOTKEYS[(turn + 1) % 8]: 0.5}, 10.0)
        finally:
            done.set()

    def work(runner):
        def run():
            while not done.is_set():
                runner.step()

        return run

    together([client, *[work(runner) for runner in runners]])

    for runner in runners:
        runner.step()
    found = rows(stores[0])
    assert found[-1][1] == "completed"
    assert not [status for _id, status, _source in found[:-1] if status in UNFINISHED]
    assert landed(stores[0]) == [prepared.extrinsic_hash for prepared, _landed in world.chain.landed]


def landed(store):
    """Hashes of what landed, in the order of the jobs."""
    query = select(jobs.c.extrinsic_hash).where(jobs.c.landed.is_(True)).order_by(jobs.c.number)
    return store.read(lambda tx: list(tx.execute(query).scalars()))
