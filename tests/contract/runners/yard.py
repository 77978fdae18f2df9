"""Dispatch and watching over a store, and workers that behave like Cog's: full hands, lost answers, forgotten ids."""

from collections import Counter, defaultdict
from dataclasses import replace

from sqlalchemy import func, select

from grid_node.clock import ManualClock
from grid_node.errors import RunnerGone, RunnerOffline, RunnerTimeout, RunnerUnreachable
from grid_node.runners.changes import Changes
from grid_node.runners.dispatch import Dispatching
from grid_node.runners.ids import prediction_id
from grid_node.runners.ports import Reply, Runner
from grid_node.runners.prediction import (
    ENDED,
    NODE,
    ORDER,
    PROCESSING,
    QUEUED,
    SUCCEEDED,
    Prediction,
    by_number,
    held,
    held_by_id,
    predictions,
)
from grid_node.runners.watching import Watching
from grid_node.settings import Settings
from grid_node.streams.service import Streams

MODEL, AGENT, OTHER = "m-" + "a" * 20, "1" * 32, "2" * 32
SECRET = b"secret of the node"


def inline(action):
    action()


class Worker:
    """Takes `room` predictions at a time. Once one has ended its id is forgotten, and would run again: so does Cog."""

    def __init__(self, room=1):
        self.room = room
        self.running = {}
        self.runs = Counter()
        self.cancelled = []
        self.asked = []
        self.health = None
        self.answer = None

    @property
    def status(self):
        return "BUSY" if len(self.running) >= self.room else "READY"

    def take(self, method, path, body):
        if path == "/health-check":
            return Reply(200, self.health or {"status": self.status})
        id = path.split("/")[2]
        self.asked.append((method, id))
        if method == "POST":
            self.cancelled.append(id)
            return Reply(200 if id in self.running else 404, {})
        if self.answer is not None:
            return self.answer
        if id not in self.running and len(self.running) >= self.room:
            return Reply(409, {"detail": "Already running a prediction"})
        if id not in self.running:
            self.runs[id] += 1
            self.running[id] = body
        return Reply(202, {"id": id, "status": "processing"})


class Ways:
    """TunnelProvider over workers. `fault(method)` says what happens to a call: None, or a word."""

    name = "fake"

    def __init__(self):
        self.workers = defaultdict(dict)
        self.statuses = {}
        self.fault = lambda _method: None
        self.during = lambda: None

    def join(self, worker, model=MODEL, instance=AGENT):
        self.workers[model][instance] = worker
        return worker

    def leave(self, model=MODEL, instance=AGENT):
        return self.workers[model].pop(instance)

    def runners(self, model):
        found = self.workers[model].items()
        return [Runner(instance, self.statuses.get(instance, worker.status)) for instance, worker in found]

    def call(self, model, method, path, json=None, headers=None, timeout_s=15.0, runner=None):
        worker = self.workers[model].get(runner)
        if worker is None:
            raise RunnerGone()
        fault = self.fault(method)
        if fault == "not sent":
            raise RunnerGone()
        if fault == "request lost":
            raise RunnerTimeout()
        if fault == "refused":
            raise RunnerUnreachable()
        reply = worker.take(method, path, json)
        self.during()
        if fault == "answer lost":
            raise RunnerOffline()
        return reply


class Nobody:
    """No webhooks to clients."""

    def announce(self, tx, prediction, event, now):
        pass


class Yard:
    """A node's part: what it keeps, its clock, its ways to the workers. `restarted` is the node again."""

    def __init__(self, store, clock=None, ways=None, **settings):
        self.store = store
        self.clock = clock or ManualClock()
        self.settings = Settings.load({"GRID_PUBLIC_BASE_URL": "https://grid.example"}, **settings)
        self.ways = ways or Ways()
        self.streams = Streams(store)
        self.changes = Changes(self.streams, self.clock, Nobody())
        self.dispatching = Dispatching(
            store, self.clock, self.settings, self.changes, self.ways, SECRET, "node-1", spawn=inline
        )
        self.watching = Watching(store, self.clock, self.settings, self.changes, self.ways, spawn=inline)

    def restarted(self):
        return Yard(self.store, self.clock, self.ways)

    def queue(self, model=MODEL, **members):
        """A new prediction; returns its number."""
        now = self.clock.now()
        given = {"id": prediction_id(), "owner": "bert", "runner_owner": "anna", "model_id": model}
        given |= {"model": "anna/paint", "version": "0" * 64, "source": NODE, "state": QUEUED}
        given |= {"input": {"prompt": "a cat"}, "due_at": now + 600, "created_at": now}
        made = Prediction(**{**given, **members})
        return self.store.write(lambda tx: self.changes.insert(tx, made)).number

    def get(self, number):
        return self.store.read(lambda tx: by_number(tx, number))

    def open(self):
        """How many have not ended."""
        count = select(func.count()).select_from(predictions).where(predictions.c.finished_at.is_(None))
        return self.store.read(lambda tx: tx.execute(count).scalar())

    def change(self, number, **members):
        def unit(tx):
            before = held(tx, number)
            self.changes.apply(tx, before, replace(before, **members))

        self.store.write(unit)

    def report(self, id, state):
        """What a webhook does to the row."""

        def unit(tx):
            before = held_by_id(tx, id)
            if before.state in ENDED or ORDER[state] < ORDER[before.state]:
                return
            self.changes.apply(tx, before, replace(before, state=state, reported_at=self.clock.now()))

        self.store.write(unit)

    def start(self, number):
        """Let a worker have it, and say so."""
        self.dispatching.round()
        found = self.get(number)
        self.report(found.id, PROCESSING)
        return found.id

    def finish(self, worker, id, state=SUCCEEDED):
        """The worker ends it, forgets it, and says so."""
        del worker.running[id]
        self.report(id, state)

    def ends(self, number):
        """How often its stream says that it has ended."""
        return sum(entry.body["event"] == "done" for entry in self.streams.after(f"run:{number}", 0))

    def pass_time(self, seconds):
        """Let it become that much later, and do what is due then."""
        self.clock.advance(seconds)
        self.look()

    def look(self):
        while self.watching.tick() <= self.clock.now():
            pass
        self.dispatching.round()
