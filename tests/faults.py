"""What other processes and a bad day do to a running node."""

import contextlib
import random
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psutil

from tests.nodes import LiveNode

WAIT = 20.0


class Disk:
    """Commits for a store. It fails once when it is told to, before the rows are on disk or after, or holds back."""

    def __init__(self) -> None:
        self.fails = ""
        self.free = threading.Event()
        self.free.set()
        self.busy = threading.Event()
        """Set while a commit waits for `free`."""

    def commit(self, function: Callable[[], Any]) -> None:
        fails, self.fails = self.fails, ""
        if not self.free.is_set():
            self.busy.set()
            assert self.free.wait(WAIT), "the disk was never freed"
        if fails != "before":
            function()
        if fails:
            raise sqlite3.OperationalError("disk I/O error")


@contextlib.contextmanager
def locked(node: LiveNode) -> Iterator[None]:
    """Another process holds the write lock of the node's database: nothing can be committed."""
    with closing(sqlite3.connect(node.data / "grid.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextlib.contextmanager
def slow_disk(node: LiveNode, seed: int) -> Iterator[None]:
    """Another process takes the write lock again and again, for a few milliseconds each time."""
    over, dice = threading.Event(), random.Random(seed)

    def disturb() -> None:
        with closing(sqlite3.connect(node.data / "grid.db", isolation_level=None, timeout=10)) as other:
            while not over.is_set():
                other.execute("BEGIN IMMEDIATE")
                over.wait(dice.uniform(0.0, 0.01))
                other.execute("ROLLBACK")
                over.wait(dice.uniform(0.0, 0.01))

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        yield
    finally:
        over.set()
        disturber.join()


def server_process(node: LiveNode) -> psutil.Process:
    """The process that serves, below gunicorn's master."""
    (child,) = psutil.Process(node.pid).children()
    return child


@contextlib.contextmanager
def no_file_grows(process: psutil.Process) -> Iterator[None]:
    """Every write that would make a file of this process longer fails, as on a full disk."""
    before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
