"""The errands process: webhooks sent and long reports merged by a program of its own, which may die at any moment."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook, WebhookVerificationError

from grid_node.blobs.factory import make_blobs
from grid_node.blobs.holds import Holds
from grid_node.clock import SystemClock
from grid_node.database import DirectStore, make_engine
from grid_node.jobs.queue import make_errand_queue
from grid_node.jobs.supervisor import ERRANDS, Supervisor, ready_mark
from grid_node.runners.changes import Changes
from grid_node.runners.deliveries import INTERRUPTED, Deliveries
from grid_node.runners.files import RunnerFiles
from grid_node.runners.hook_secrets import HookSecrets, fresh
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.prediction import Prediction, held_of_runner
from grid_node.runners.secrets_box import SecretsBox
from grid_node.runners.tables import RunnerDelivery
from grid_node.runners.webhooks import IN_LINE, Webhooks
from grid_node.secret import node_secret
from grid_node.settings import Settings
from grid_node.streams.bells import make_bells
from grid_node.streams.service import Streams
from tests.hooks import Receiver
from tests.nodes import ROOT, until
from tests.several import empty_redis
from tests.stores import call, sqlite_template

__all__ = ["sqlite_template"]

ALICE, RUNNER = RunnerCaller("key-alice", "alice"), RunnerCaller("key-runner", "runner")
REPLICATE = ROOT / ".venv-replicate" / "bin" / "python"
deliveries = RunnerDelivery.__table__

VALIDATE = """
import json, sys
from replicate.webhook import Webhooks, WebhookSigningSecret
given = json.load(sys.stdin)
secret = WebhookSigningSecret(key=given["key"])
Webhooks.validate(headers=given["headers"], body=given["body"], secret=secret, tolerance=300)
"""


class Office:
    """A node's data folder as the node uses it, and errands processes beside it."""

    def __init__(self, folder, template, **settings):
        self.given = {"data_dir": folder, "webhook_allow_private": True, "webhook_timeout_s": 5, **settings}
        self.settings = Settings.load({}, **self.given)
        shutil.copy(template, folder / "grid.db")
        self.store = DirectStore(make_engine(self.settings.database))
        self.box = SecretsBox("", node_secret(folder))
        self.queue = make_errand_queue(self.settings)
        self.queue.start()
        self.bells = make_bells(folder, self.settings.redis_url)
        self.deliveries = self.node()
        self.changes = Changes(Streams(self.store), SystemClock(), self.deliveries)
        self.receiver = Receiver()
        self._processes = []

    def node(self):
        made = Deliveries(self.store, SystemClock(), self.settings, "http://127.0.0.1:1", self.box)
        made.enqueue = self.queue.deliver
        return made

    def webhooks(self):
        blobs = make_blobs(self.settings.blobs, self.settings.data_dir / "cache", call)
        holds = Holds(self.store, blobs, SystemClock())
        files = RunnerFiles(self.store, SystemClock(), self.settings, blobs, holds, self.settings.data_dir)
        made = Webhooks(self.store, SystemClock(), self.settings, self.changes, files, b"x" * 32)
        made.enqueue = self.queue.merge
        return made

    def start(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")}
        environment |= {f"GRID_{name.upper()}": str(value) for name, value in self.given.items()}
        process = subprocess.Popen(
            [sys.executable, "-m", "grid_node.jobs.errands"], cwd=ROOT, env=environment, stdin=subprocess.PIPE
        )
        self._processes.append(process)
        return process

    def prediction(self, **given):
        members = {
            "id": "p1",
            "owner": ALICE.owner,
            "runner_owner": RUNNER.owner,
            "model_id": None,
            "model": "alice/model",
            "version": "f" * 64,
            "source": "node",
            "state": "processing",
            "input": {},
            "due_at": time.time(),
            "created_at": time.time(),
            **given,
        }
        return self.store.write(lambda tx: self.changes.insert(tx, Prediction(**members)))

    def completed(self):
        """A prediction that has just succeeded, and whose owner wants to hear of it."""
        before = self.prediction(webhook=self.receiver.url, webhook_events="completed")
        self.store.write(lambda tx: self.changes.apply(tx, before, replace(before, state="succeeded", output="done")))

    def report(self):
        """A worker reports more than is merged while it waits."""
        self.prediction(id="p2")
        report = {"id": "p2", "status": "processing", "logs": "x" * IN_LINE}
        self.webhooks().by_key(RUNNER, json.dumps(report).encode())

    def is_merged(self):
        found = self.store.write(lambda tx: held_of_runner(tx, RUNNER.owner, "p2"))
        return found.logs_length == IN_LINE

    def row(self):
        return self.store.read(lambda tx: tx.execute(select(deliveries)).one())

    def is_tried(self, times):
        return self.row().attempts == times and self.row().claimed_until is None

    def time_passes(self):
        """The next try is due for a while, a dead process's claim has run out, and another node sweeps."""
        long_ago = {"due_at": time.time() - 10}
        if self.row().claimed_until is not None:
            long_ago["claimed_until"] = time.time() - 1
        self.store.write(lambda tx: tx.execute(update(deliveries).values(**long_ago)))
        assert self.node().sweep() == 1

    def tries(self):
        (entry,) = self.deliveries.of_prediction(ALICE, "p1")
        return [(one["attempt"], one["status"], one["error"]) for one in entry["tries"]]

    def close(self):
        for process in self._processes:
            process.kill()
            process.wait()
            process.stdin.close()
        self.receiver.close()
        self.queue.stop()
        for queue in (self.queue.deliveries, self.queue.merges):
            queue.storage.close()
        self.bells.close()
        self.store.close()


@pytest.fixture
def make_office(tmp_path, sqlite_template):
    with contextlib.ExitStack() as stack:

        def make(**settings):
            office = Office(tmp_path, sqlite_template, **settings)
            stack.callback(office.close)
            return office

        yield make


@pytest.fixture
def office(make_office):
    return make_office()


def test_the_process_is_light():
    heavy = ("torch", "numba", "numpy", "eventlet", "grid_node.scoring", "models_store")
    program = f"import sys, grid_node.jobs.errands; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_webhook_that_fails_twice_arrives_at_the_third_try_though_its_process_was_killed(office):
    office.receiver.answers = [500, 503]
    first = office.start()
    office.completed()
    until(lambda: office.is_tried(1))
    office.time_passes()
    until(lambda: office.is_tried(2))
    first.kill()
    first.wait()

    office.start()
    office.time_passes()
    until(lambda: office.row().state == "delivered")
    assert office.tries() == [(1, 500, None), (2, 503, None), (3, 200, None)]
    assert office.receiver.ids == [office.row().id] * 3


def test_a_webhook_whose_process_was_killed_in_the_middle_of_it_is_sent_again(office):
    office.receiver.gate = threading.Event()
    first = office.start()
    office.completed()
    until(lambda: len(office.receiver.got) == 1)
    first.kill()
    first.wait()
    office.receiver.gate.set()
    office.receiver.gate = None

    office.start()
    office.time_passes()
    until(lambda: office.row().state == "delivered")
    assert office.tries() == [(1, None, INTERRUPTED), (2, 200, None)]
    assert office.receiver.ids == [office.row().id] * 2


def test_the_second_try_comes_by_itself(office):
    office.receiver.answers = [500]
    office.start()
    office.completed()
    until(lambda: office.row().state == "delivered")
    assert office.tries() == [(1, 500, None), (2, 200, None)]


def delivered_with_two_secrets(office):
    """What the receiver got after a rotation, and the secrets before and after it."""
    secrets = HookSecrets(office.store, SystemClock(), office.box)
    keys = secrets.key(ALICE.owner), secrets.rotate(ALICE.owner)
    office.start()
    office.completed()
    until(lambda: office.row().state == "delivered")
    ((headers, body),) = office.receiver.got
    return headers, body, keys


def test_receivers_can_verify_what_they_get_with_standardwebhooks(office):
    headers, body, keys = delivered_with_two_secrets(office)
    for key in keys:
        assert Webhook(key).verify(body, headers)["output"] == "done"
    with pytest.raises(WebhookVerificationError):
        Webhook(fresh()).verify(body, headers)


@pytest.mark.skipif(not REPLICATE.exists(), reason="replicate is not installed")
def test_receivers_can_verify_what_they_get_with_replicates_client(office):
    headers, body, keys = delivered_with_two_secrets(office)
    told = {key: _validated(headers, body, key) for key in (*keys, fresh())}
    assert [code for code, _text in told.values()] == [0, 0, 1], told
    assert "InvalidSignatureError" in list(told.values())[2][1]


def _validated(headers, body, key):
    given = json.dumps({"headers": headers, "body": body, "key": key})
    told = subprocess.run([REPLICATE, "-c", VALIDATE], input=given, text=True, capture_output=True, check=False)
    return told.returncode, told.stderr


def test_a_long_report_is_merged_by_the_process_and_the_node_hears_of_it(office):
    heard = threading.Event()
    office.bells.listen(heard.set)
    office.report()
    assert not office.is_merged()
    assert not heard.is_set()
    office.start()
    until(heard.is_set)
    until(office.is_merged)


def test_receivers_that_do_not_answer_keep_no_report_from_being_merged(make_office):
    office = make_office(errand_threads=1, webhook_timeout_s=120)
    office.receiver.gate = threading.Event()
    office.start()
    office.completed()
    until(lambda: len(office.receiver.got) == 1)
    office.report()
    until(office.is_merged)
    assert office.row().state == "pending"


def test_it_works_through_redis_too(make_office):
    office = make_office(redis_url=empty_redis())
    office.start()
    office.completed()
    until(lambda: office.row().state == "delivered")
    assert not (office.settings.data_dir / "errands.db").exists()


def test_the_process_ends_with_the_node_that_holds_its_pipe(office):
    process = office.start()
    until(lambda: ready_mark(office.settings, process.pid).exists())
    office.completed()
    until(lambda: office.row().state == "delivered")
    process.stdin.close()
    assert process.wait(30) == 0


def test_the_supervisor_keeps_the_process_alive_and_apart_from_those_that_score(office, monkeypatch):
    for name, value in office.given.items():
        monkeypatch.setenv(f"GRID_{name.upper()}", str(value))
    errands, scoring = Supervisor(office.settings, 1, program=ERRANDS), Supervisor(office.settings, 0)
    try:
        errands.start()
        scoring.start()
        until(lambda: errands.cold() == 0)
        (pid,) = errands.pids
        assert "grid_node.jobs.errands" in psutil.Process(pid).cmdline()
        notes = Path(office.settings.data_dir) / "jobs"
        assert len(list(notes.glob("errands-*"))) == 1, "another program's start takes no notes away"
        psutil.Process(pid).kill()
        until(lambda: errands.restarts == 1 and errands.cold() == 0)
        assert errands.pids != [pid]
    finally:
        errands.stop(30)
        scoring.stop(0)
    assert not [one for one in psutil.Process().children() if "grid_node.jobs.errands" in one.cmdline()]
