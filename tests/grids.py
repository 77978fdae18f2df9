"""The generation core without transport and without waiting: a clock that is set, rounds that are called."""

import hashlib
from types import SimpleNamespace
from typing import Any

from grid_node.clock import ManualClock
from grid_node.database import Store
from grid_node.generation.dispatch import Dispatcher
from grid_node.generation.leases import Kind, Leases, Submission
from grid_node.generation.lifecycle import Lifecycle, task_stream
from grid_node.generation.pulls import Pull
from grid_node.generation.rounds import Rounds
from grid_node.generation.tasks import NewTask, Tasks
from grid_node.generation.tending import Tending
from grid_node.generation.verdicts import Verdicts
from grid_node.settings import Settings
from grid_node.streams.service import Streams

KEY = "gktest01"


def graded(data: bytes, _task: Any, _format: str) -> dict[str, Any]:
    """A judge for tests: the result is its own score, `0.9`; anything else is no valid asset."""
    try:
        score = float(data)
    except ValueError:
        return report(0.0, reasons=["unknown_format"], invalid=True)
    return report(score)


def report(score: float, reasons: list[str] | None = None, invalid: bool = False) -> dict[str, Any]:
    body = {
        "score": score,
        "accepted": score >= 0.6,
        "threshold": 0.6,
        "components": {},
        "reasons": reasons if reasons is not None else ([] if score >= 0.6 else ["below_threshold"]),
        "scorer": "test-1",
        "view_seed": "00",
    }
    return {**body, "invalid": True} if invalid else body


class OpenGate:
    """Every key is in force and has no limit."""

    def admit(self, _tx: Any, key_id: str, _now: float) -> Any:
        return SimpleNamespace(key_id=key_id, max_concurrent=0)

    def window(self, *_args: Any) -> Any:
        return SimpleNamespace(check=lambda: None)

    def charge(self, *_args: Any) -> Any:
        return None


class Grid:
    """One process's generation services over a store; several may share it."""

    def __init__(self, store: Store, clock: ManualClock | None = None, gate: Any = None, **overrides: Any) -> None:
        self.store = store
        self.clock = clock or ManualClock()
        self.settings = Settings.load({}, **overrides)
        self.streams = Streams(store)
        self.lifecycle = Lifecycle(self.streams, self.settings)
        self.verdicts = Verdicts(self.streams, self.lifecycle, self.settings)
        self.kinds = {
            "graded": Kind("graded", ("text",), 65536, graded),
            "slow": Kind("slow", ("text",), 65536),
        }
        self.leases = Leases(
            store, self.clock, self.settings, self.streams, self.lifecycle, self.verdicts, self.kinds, "5Node"
        )
        self.tasks = Tasks(store, self.clock, self.settings, self.streams, self.lifecycle, gate or OpenGate())
        self.dispatcher = Dispatcher(
            store, self.clock, self.settings, Rounds(self.settings, self.leases, self.lifecycle)
        )
        self.tending = Tending(store, self.clock, self.settings, self.leases, self.lifecycle)
        self.tending.recover()

    # --- client

    def ask(self, prompt: str = "a chair", key: str = KEY, kind: str = "graded", **fields: Any) -> str:
        """Submit a task and return its id."""
        given = {"send_first_results": False, "copies": 4, "deadline_s": 600.0, **fields}
        return self.tasks.submit(key, NewTask(prompt=prompt, kind=kind, **given)).task["id"]

    def task(self, task_id: str, key: str = KEY) -> dict[str, Any]:
        return self.tasks.status(key, task_id)

    def updates(self, task_id: str) -> list[dict[str, Any]]:
        return [entry.body for entry in self.streams.after(task_stream(task_id), 0)]

    def statuses(self, task_id: str) -> list[str]:
        return [update["status"] for update in self.updates(task_id)]

    # --- worker

    def wait_for_work(self, worker: str, kinds: tuple[str, ...] = ("graded", "slow"), **fields: Any) -> Pull:
        """A pull that waits; the next round may answer it."""
        given = {"max_parallel": 8, "holding": frozenset(), "strong": False, **fields}
        pull = Pull(worker, kinds, ("text",), **given)
        self.dispatcher.enter(pull)
        return pull

    def pull(self, worker: str, **fields: Any) -> dict[str, Any]:
        """One pull without waiting: the whole answer."""
        held = self.held(worker)
        pull = self.wait_for_work(worker, **{"holding": held, **fields})
        self.dispatcher.round()
        self.dispatcher.withdraw(pull)
        return pull.answer or {"task": None, "retry_after": 0, "cooldown": None}

    def held(self, worker: str) -> frozenset[str]:
        return frozenset(copy.lease_id for copy in self.store.read(lambda tx: self.leases.live(tx, worker)))

    def lease(self, worker: str, **fields: Any) -> dict[str, Any]:
        """A pull that must succeed: the lease."""
        answer = self.pull(worker, **fields)
        assert answer["task"] is not None, answer
        return answer["task"]

    def hand_in(self, worker: str, lease: dict[str, Any], result: str, **fields: Any) -> dict[str, Any]:
        data = result.encode()
        digest = hashlib.sha256(data).hexdigest()
        given = {
            "worker": worker,
            "lease_id": lease["lease_id"],
            "task_id": lease["task_id"],
            "format": "text",
            "sha256": digest,
            "actual": digest,
            "size": len(data),
            "inline": data,
            **fields,
        }
        return self.leases.submit(Submission(**given))

    def judge(self, lease: dict[str, Any], score: float) -> Any:
        """What a job process does when it has scored a result of kind `slow`."""
        now = self.clock.now()
        return self.store.write(lambda tx: self.verdicts.record(tx, lease["lease_id"], report(score), None, now))

    def pass_time(self, seconds: float) -> None:
        """Let time pass and do what falls due on the way, at every moment at which something does."""
        end = self.clock.now() + seconds
        while (due := self.tending.tend()) < end:
            self.clock.advance(max(due - self.clock.now(), 0.001))
        self.clock.advance(end - self.clock.now())
        self.tending.tend()
