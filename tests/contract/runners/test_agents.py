"""Rows of agents, over every store: who is connected where, and how a model stands."""

import pytest
from sqlalchemy import insert

from grid_node.clock import ManualClock, rfc3339
from grid_node.errors import ModelNotFound, TooManyRunners
from grid_node.runners import agents
from grid_node.runners.agents import ALIVE_EVERY, DEAD_AFTER, Agent
from grid_node.runners.health import health_of
from grid_node.runners.models import model_by_id, models
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

MODEL, OTHER_MODEL = "m-" + "a" * 20, "m-" + "b" * 20
NOWHERE = {"status": "OFFLINE", "connected": False, "last_seen": None}


class Rows:
    def __init__(self, store):
        self.store = store
        self.clock = ManualClock()

    def write(self, action, *arguments):
        return self.store.write(lambda tx: action(tx, *arguments, self.clock.now()))

    def connect(self, agent, most=8):
        return self.store.write(lambda tx: agents.connect(tx, agent, most, self.clock.now()))

    def heard(self, agent, **body):
        self.write(agents.heard, agent, health_of(body))

    def standing(self, model=MODEL):
        return self.store.read(lambda tx: agents.standing(tx, model))

    def register(self, id, state="ready"):
        now = self.clock.now()
        given = {"id": id, "owner": "anna", "account": "anna", "name": id, "visibility": "private", "state": state}
        given |= {"version": "0" * 64, "document": "{}", "revision": 1, "provider": "socketio", "hostname": "x"}
        given |= {"created_at": now, "updated_at": now}
        self.store.write(lambda tx: tx.execute(insert(models), given))


@pytest.fixture
def rows(store):
    return Rows(store)


def agent(number=1, node="node-1", model=MODEL):
    return Agent(model, str(number) * 32, node, "grid-runner/1")


def test_a_model_without_an_agent_is_offline(rows):
    assert rows.standing() == NOWHERE


def test_a_model_stands_as_its_best_agent_does(rows):
    rows.connect(agent(1))
    rows.connect(agent(2))
    assert rows.standing()["status"] == "UNKNOWN"
    rows.heard(agent(1), status="STARTING")
    rows.clock.advance(5)
    rows.heard(agent(2), status="READY")
    assert rows.standing() == {"status": "READY", "connected": True, "last_seen": rfc3339(rows.clock.now())}
    rows.write(agents.gone, agent(2))
    assert rows.standing()["status"] == "STARTING"
    rows.write(agents.gone, agent(1))
    assert rows.standing() == {"status": "OFFLINE", "connected": False, "last_seen": rfc3339(rows.clock.now())}


def test_the_agents_of_another_model_are_not_its_own(rows):
    rows.connect(agent(1, model=OTHER_MODEL))
    assert rows.standing() == NOWHERE


def test_there_are_so_many_agents_of_a_model_and_no_more(rows):
    for number in range(3):
        rows.connect(agent(number), most=3)
    with pytest.raises(TooManyRunners) as caught:
        rows.connect(agent(9), most=3)
    assert caught.value.data == {"limit": 3}
    rows.connect(agent(1, "node-2"), most=3)  # the same agent again is no other one
    rows.write(agents.gone, agent(2))
    rows.connect(agent(9), most=3)


def test_agents_of_a_dead_process_take_no_place(rows):
    rows.connect(agent(1), most=1)
    rows.clock.advance(DEAD_AFTER)
    rows.connect(agent(2), most=1)


def test_the_word_of_a_process_that_lost_the_agent_does_not_count(rows):
    rows.connect(agent(1, "node-1"))
    rows.connect(agent(1, "node-2"))
    rows.heard(agent(1, "node-2"), status="READY")
    rows.heard(agent(1, "node-1"), status="DEFUNCT")
    rows.write(agents.gone, agent(1, "node-1"))
    assert rows.standing()["status"] == "READY"
    assert rows.store.read(lambda tx: agents.of_node(tx, "node-1")) == set()
    assert rows.store.read(lambda tx: agents.of_node(tx, "node-2")) == {(MODEL, "1" * 32)}


def test_rows_that_their_process_refreshes_are_not_buried(rows):
    rows.connect(agent(1, "node-1"))
    rows.connect(agent(2, "dead"))
    for _ in range(4):
        rows.clock.advance(ALIVE_EVERY)
        rows.write(agents.alive, "node-1")
        rows.write(agents.bury)
    assert rows.store.read(lambda tx: agents.is_connected(tx, MODEL, "1" * 32))
    assert not rows.store.read(lambda tx: agents.is_connected(tx, MODEL, "2" * 32))
    assert not rows.store.read(lambda tx: agents.is_connected(tx, MODEL, "3" * 32))


def test_an_agent_that_was_buried_too_soon_is_still_of_its_process_and_comes_back_with_its_next_word(rows):
    rows.connect(agent(1, "slow"))
    rows.clock.advance(DEAD_AFTER)
    rows.write(agents.bury)
    assert not rows.standing()["connected"]
    assert rows.store.read(lambda tx: agents.of_node(tx, "slow")) == {(MODEL, "1" * 32)}
    rows.heard(agent(1, "slow"), status="READY")
    assert rows.standing()["status"] == "READY"


def test_the_model_learns_the_version_of_its_worker_and_keeps_it(rows):
    rows.register(MODEL)
    rows.connect(agent(1))
    rows.heard(agent(1), status="READY", version={"cog": "0.23.1"})
    rows.heard(agent(1), status="BUSY")
    found = rows.store.read(lambda tx: model_by_id(tx, MODEL))
    assert (found.cog_version, found.seen_at) == ("0.23.1", rows.clock.now())


@pytest.mark.parametrize("state", ["pending", "failed", "cleanup", "deleting", None])
def test_agents_connect_for_models_that_are_ready(rows, state):
    if state is not None:
        rows.register(MODEL, state)
    with pytest.raises(ModelNotFound):
        rows.store.write(lambda tx: agents.ready_model(tx, MODEL))


def test_old_agents_are_forgotten_once_they_have_gone(rows):
    rows.connect(agent(1))
    rows.connect(agent(2))
    rows.write(agents.gone, agent(1))
    rows.clock.advance(31 * 86400)
    rows.write(agents.alive, "node-1")
    rows.write(agents.purge)
    assert rows.standing()["connected"]
    assert not rows.store.read(lambda tx: agents.is_connected(tx, MODEL, "1" * 32))


def test_models_that_are_there_are_told_from_those_that_are_not(rows):
    rows.register(MODEL, "deleting")
    assert rows.store.read(lambda tx: agents.existing(tx, {MODEL, OTHER_MODEL})) == {MODEL}
