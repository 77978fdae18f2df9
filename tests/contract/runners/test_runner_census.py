"""What the metrics say of models that run elsewhere, over each store."""

import pytest
from sqlalchemy import insert

from grid_node.census import LAG, Census
from grid_node.metrics import Metrics
from grid_node.runners import agents
from grid_node.runners.agents import Agent
from grid_node.runners.delivery_rows import DELIVERED, INSERT, INSERT_TRY, PENDING
from grid_node.runners.health import health_of
from grid_node.runners.prediction import CANCELED, FAILED, PROCESSING, SUCCEEDED
from grid_node.runners.tables import RunnerEvent
from tests.contract.runners.yard import AGENT, MODEL, OTHER, Yard
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]


class Scraped(Yard):
    """A yard that is looked at as a scrape does."""

    def __init__(self, store):
        super().__init__(store)
        self.metrics = Metrics()
        self.census = Census(store, self.clock, self.metrics, ())
        self.clock.advance(1)

    def value(self, name, **labels):
        self.census.look()
        return self.metrics.registry.get_sample_value(name, labels)

    def later(self):
        """Past the time that a row is left to be committed."""
        self.clock.advance(LAG + 0.1)

    def connect(self, instance, status):
        agent, now = Agent(MODEL, instance, "node-1", "grid-runner/1"), self.clock.now()
        self.store.write(lambda tx: agents.connect(tx, agent, 8, now))
        self.store.write(lambda tx: agents.heard(tx, agent, health_of({"status": status}), now))
        return agent

    def owe(self, id, state=PENDING):
        now = self.clock.now()
        owed = {"id": id, "prediction": 1, "owner": "bert", "event": "completed", "url": "https://x", "body": "{}"}
        owed |= {"state": state, "attempts": 0, "due_at": now, "claimed_until": None, "created_at": now}
        self.store.write(lambda tx: tx.execute(INSERT, owed))

    def try_once(self, status):
        made = {"delivery": "msg_1", "attempt": 1, "at": self.clock.now(), "status": status, "error": None}
        self.store.write(lambda tx: tx.execute(INSERT_TRY, made | {"ms": 5, "answer": ""}))

    def report_raw(self, seq, merged):
        row = {"prediction": 1, "seq": seq, "received_at": self.clock.now(), "auth": "token", "status": None}
        row |= {"sha256": "0" * 64, "size": 2, "body": b"W{}", "late": False, "merged": merged}
        self.store.write(lambda tx: tx.execute(insert(RunnerEvent.__table__), row))


@pytest.fixture
def scraped(store):
    return Scraped(store)


def test_unfinished_predictions_are_counted_by_state(scraped):
    scraped.queue(), scraped.queue()
    scraped.queue(state=PROCESSING)
    over = scraped.queue()
    scraped.change(over, state=SUCCEEDED)

    assert scraped.value("grid_runner_predictions", state="queued") == 2
    assert scraped.value("grid_runner_predictions", state="processing") == 1
    assert scraped.value("grid_runner_predictions", state="dispatching") == 0


def test_a_prediction_that_ends_is_counted_once(scraped):
    for state in (SUCCEEDED, FAILED, FAILED, CANCELED):
        scraped.change(scraped.queue(), state=state)
    scraped.later()

    assert scraped.value("grid_runner_predictions_ended_total", state="failed") == 2
    assert scraped.value("grid_runner_predictions_ended_total", state="failed") == 2
    assert scraped.value("grid_runner_predictions_ended_total", state="succeeded") == 1
    assert scraped.value("grid_runner_predictions_ended_total", state="canceled") == 1


def test_connected_workers_are_counted_by_what_they_say(scraped):
    scraped.connect(AGENT, "READY")
    lost = scraped.connect(OTHER, "SETUP_FAILED")

    assert scraped.value("grid_runner_agents", status="READY") == 1
    assert scraped.value("grid_runner_agents", status="SETUP_FAILED") == 1

    scraped.store.write(lambda tx: agents.gone(tx, lost, scraped.clock.now()))

    assert scraped.value("grid_runner_agents", status="SETUP_FAILED") == 0
    assert scraped.value("grid_runner_agents", status="READY") == 1


def test_webhooks_that_are_owed_are_counted(scraped):
    scraped.owe("msg_1")
    scraped.owe("msg_2")
    scraped.owe("msg_3", DELIVERED)

    assert scraped.value("grid_runner_deliveries_pending") == 2


def test_a_try_of_a_webhook_is_counted_once_by_what_became_of_it(scraped):
    scraped.try_once(200)
    scraped.later()
    assert scraped.value("grid_runner_delivery_tries_total", outcome="delivered") is None  # before this process

    for status in (204, 500, 302, None):
        scraped.try_once(status)
    scraped.later()

    assert scraped.value("grid_runner_delivery_tries_total", outcome="refused") == 2
    assert scraped.value("grid_runner_delivery_tries_total", outcome="refused") == 2
    assert scraped.value("grid_runner_delivery_tries_total", outcome="delivered") == 1
    assert scraped.value("grid_runner_delivery_tries_total", outcome="unreachable") == 1


def test_reports_that_wait_to_be_merged_are_counted(scraped):
    scraped.report_raw(1, merged=True)
    scraped.report_raw(2, merged=False)

    assert scraped.value("grid_runner_reports_waiting") == 1
