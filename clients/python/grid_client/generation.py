"""The client's side of generation tasks: submit a prompt, follow its updates, fetch the best result."""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from grid_client.backoff import Backoff, retry
from grid_client.errors import ConnectionLost, DeadlineExceeded, GridError, TaskFailed
from grid_client.messages import TERMINAL, Task, Update
from grid_client.session import Session
from grid_client.transfer import Http

log = logging.getLogger(__name__)

CALL_TIMEOUT = 15.0
SILENCE = 30.0
"""Seconds without an update after which the client asks whether it missed one."""
GRACE = 60.0
"""How much longer than the task's own deadline a client waits, in seconds."""
LONGEST_TASK = 3600.0

Inbox = queue.SimpleQueue[Update | None]
"""Updates of one task as they are pushed; None says that the connection broke."""


class GenerationClient:
    """One API key at one node. Threads may share it; `close` it, or use it as a context manager."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        backoff: Callable[[], Backoff] = Backoff,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url.rstrip("/")
        self._api_key = api_key
        self._backoff = backoff
        self._sleep = sleep
        self._clock = clock
        self._http = Http(url, self._bearer, sleep=sleep, clock=clock)
        self._session: Session | None = None
        self._connecting = threading.Lock()
        self._inboxes: dict[str, list[Inbox]] = {}
        self._inboxes_lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._connecting:
            if self._session:
                self._session.close()
            self._session = None
        self._http.close()

    def submit(self, prompt: str, *, timeout: float = 60.0, **fields: Any) -> Task:
        """The accepted task. A lost answer makes no second task: every submission has an idempotency key."""
        wanted = {"prompt": prompt, "idempotency_key": str(uuid.uuid4()), **fields}
        body = self._call("generate", wanted, self._clock() + timeout)
        return Task.read(body.get("task"))

    def updates(self, task_id: str, *, after_seq: int = 0, timeout: float | None = None) -> Iterator[Update]:
        """Every update with seq above `after_seq`, once and in order, up to the terminal one.

        Survives broken connections and restarts of the node. Raises DeadlineExceeded after `timeout` seconds;
        without one it waits until a minute after the task's deadline.
        """
        inbox: Inbox = queue.SimpleQueue()
        with self._inboxes_lock:
            self._inboxes.setdefault(task_id, []).append(inbox)
        try:
            yield from self._follow(task_id, inbox, after_seq, timeout)
        finally:
            with self._inboxes_lock:
                self._inboxes[task_id].remove(inbox)
                if not self._inboxes[task_id]:
                    del self._inboxes[task_id]

    def wait(self, task_id: str, *, timeout: float | None = None) -> Update:
        """The `best_results` update. Raises TaskFailed if the task ended otherwise."""
        last: Update | None = None
        for update in self.updates(task_id, timeout=timeout):
            last = update
        if last is None or last.status != "best_results":
            raise task_failed(last)
        return last

    def status(self, task_id: str) -> dict[str, Any]:
        task: dict[str, Any] = self._http.json("GET", f"tasks/{task_id}")["task"]
        return task

    def cancel(self, task_id: str) -> Task:
        """The task after the call; one that had already ended is returned unchanged."""
        return Task.read(self._http.json("DELETE", f"tasks/{task_id}").get("task"))

    def download(
        self,
        task_id: str,
        which: int | str = "best",
        path: Path | str = "best.ply",
        *,
        format: str | None = None,
        timeout: float = 600.0,
    ) -> Path:
        """Result `which` (number, "first" or "best") as a file, its sha256 checked before it appears."""
        query = f"?format={format}" if format else ""
        target = Path(path)
        self._http.download(f"tasks/{task_id}/results/{which}/asset{query}", target, timeout=timeout)
        return target

    def preview(self, task_id: str, which: int | str, k: int | str) -> bytes:
        """Preview `k` (0 to 7, or "grid") as PNG bytes."""
        return self._http.request("GET", f"tasks/{task_id}/results/{which}/previews/{k}.png").content

    def report(self, task_id: str, which: int | str = "best") -> dict[str, Any]:
        return self._http.json("GET", f"tasks/{task_id}/results/{which}/report")

    def _follow(self, task_id: str, inbox: Inbox, seq: int, timeout: float | None) -> Iterator[Update]:
        deadline = self._clock() + (timeout or LONGEST_TASK + GRACE)
        limited = timeout is not None
        while True:
            task, missed = self._resume(task_id, seq, deadline)
            if task.status in TERMINAL and task.seq <= seq:
                return
            if not limited:
                deadline, limited = self._clock() + _longest_wait(task), True
            for update in self._in_order(missed, inbox, seq, deadline):
                seq = update.seq
                yield update
                if update.is_terminal:
                    return

    def _in_order(self, missed: list[Update], inbox: Inbox, seq: int, deadline: float) -> Iterator[Update]:
        """Yields updates as long as none is missing; ends when the node has to be asked again."""
        for update in missed:
            if update.seq == seq + 1:
                seq += 1
                yield update
        while True:
            left = deadline - self._clock()
            if left <= 0:
                raise DeadlineExceeded("the task did not end in time")
            try:
                pushed = inbox.get(timeout=min(left, SILENCE))
            except queue.Empty:
                return
            if pushed is None or pushed.seq > seq + 1:
                return
            if pushed.seq == seq + 1:
                seq += 1
                yield pushed

    def _resume(self, task_id: str, seq: int, deadline: float) -> tuple[Task, list[Update]]:
        body = self._call("resume", {"task_id": task_id, "after_seq": seq}, deadline)
        updates = body.get("updates")
        if not isinstance(updates, list):
            raise GridError("bad_answer", "the node resumed without updates")
        return Task.read(body.get("task")), [Update.read(update) for update in updates]

    def _call(self, event: str, data: dict[str, Any], deadline: float) -> dict[str, Any]:
        """The ack, after as many tries as the deadline allows; only for calls that may be repeated."""

        def attempt() -> dict[str, Any]:
            left = deadline - self._clock()
            if left <= 0:
                raise DeadlineExceeded(f"{event} got no answer in time")
            try:
                return self._connected().call(event, data, min(left, CALL_TIMEOUT))
            except DeadlineExceeded as error:  # a mute connection is as good as a broken one
                self._drop_session()
                raise ConnectionLost(error.message) from None

        return retry(attempt, deadline, backoff=self._backoff(), sleep=self._sleep, clock=self._clock)

    def _connected(self) -> Session:
        with self._connecting:
            if self._session is None or self._session.ended.is_set():
                session = Session(self._url, pushes={"task_update": self._pushed}, on_end=self._broken)
                session.connect({"api_key": self._api_key})
                self._session = session
            return self._session

    def _drop_session(self) -> None:
        with self._connecting:
            if self._session:
                self._session.close()
            self._session = None

    def _pushed(self, data: object = None) -> None:
        try:
            update = Update.read(data)
        except GridError:
            log.warning("the node pushed something that is no update")
            return
        with self._inboxes_lock:
            for inbox in self._inboxes.get(update.task_id, ()):
                inbox.put(update)

    def _broken(self) -> None:
        with self._inboxes_lock:
            for inboxes in self._inboxes.values():
                for inbox in inboxes:
                    inbox.put(None)

    def _bearer(self, method: str, target: str, body: bytes | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._api_key}"}


def task_failed(update: Update | None) -> TaskFailed:
    """The error that a task's end stands for."""
    if update is None:
        return TaskFailed("failed", "the task ended without an update")
    error = update.error or {}
    code = str(error.get("code") or update.status)
    return TaskFailed(code, str(error.get("error") or ""), body=update.model_dump())


def _longest_wait(task: Task) -> float:
    """Seconds from now that a task can still take, from the node's own times (clocks may differ)."""
    if task.deadline is None or task.created_at is None:
        return LONGEST_TASK + GRACE
    return max(0.0, (task.deadline - task.created_at).total_seconds()) + GRACE
