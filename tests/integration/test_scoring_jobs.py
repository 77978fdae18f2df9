"""Real job processes on bad days: out of time, killed in mid-job, left alone by their node."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from grid_client.procedural import build
from grid_client.splats import encode
from sqlalchemy import select

from grid_node.blobs.factory import make_blobs
from grid_node.clock import ManualClock
from grid_node.database import DirectStore, make_engine
from grid_node.generation.leases import Kind
from grid_node.generation.tables import Copy
from grid_node.generation.workers import feedback_stream
from grid_node.jobs.queue import declare_score, make_huey
from grid_node.jobs.scoring import ScoringJobs
from grid_node.settings import Settings
from tests.grids import Grid
from tests.nodes import ROOT, LiveNode, empty_database, until
from tests.stores import call

pytestmark = pytest.mark.timeout(240)

WORKER = "w1"
copies = Copy.__table__


class Workshop:
    """A data folder with one result to score, and job processes that the test starts by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings.load({}, data_dir=folder)
        shutil.copy(empty_database(), folder / "grid.db")
        self.store = DirectStore(make_engine(self.settings.database))
        self.grid = Grid(self.store, ManualClock(time.time()))
        self.grid.kinds["text_to_3d"] = Kind("text_to_3d", ("ply", "spz"), 1 << 27)
        self.jobs = ScoringJobs(self.store, self.grid.clock, self.settings, self.grid.verdicts)
        self.huey = make_huey(self.settings)
        self._score = declare_score(self.huey)
        self._processes: list[subprocess.Popen[bytes]] = []

    def submitted(self) -> dict[str, Any]:
        """A genuine asset of a worker, waiting for its score: the lease."""
        self.grid.ask("a red robot", kind="text_to_3d", copies=1)
        lease = self.grid.lease(WORKER, kinds=("text_to_3d",))
        asset = encode(build("a red robot", None, WORKER), "ply")
        make_blobs(self.settings.blobs, self.folder / "cache", call).put(asset)
        digest = hashlib.sha256(asset).hexdigest()
        self.grid.hand_in(WORKER, lease, "", format="ply", sha256=digest, actual=digest, size=len(asset), inline=None)
        return lease

    def start(self, owner: str, **settings: Any) -> "subprocess.Popen[bytes]":
        given = {"data_dir": self.folder, "job_owner": owner, "scoring_threads": 1, **settings}
        environment = {**os.environ, **{f"GRID_{name.upper()}": str(value) for name, value in given.items()}}
        process = subprocess.Popen(
            [sys.executable, "-m", "grid_node.jobs.worker"], cwd=ROOT, env=environment, stdin=subprocess.PIPE
        )
        self._processes.append(process)
        return process

    def enqueue(self) -> None:
        """As the sweeper does once the pause after a failed attempt is over; the processes' clock is the machine's."""
        due = self.store.read(lambda tx: tx.execute(select(copies.c.job_due_at)).scalar_one())
        until(lambda: time.time() > due)
        self.grid.clock.advance(time.time() - self.grid.clock.now())
        assert self.jobs.sweep(self._score) == 1

    def copy(self, lease: dict[str, Any]) -> Any:
        query = select(copies).where(copies.c.lease_id == lease["lease_id"])
        return self.store.read(lambda tx: tx.execute(query).one())

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self.huey.storage.close()
        self.store.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    with closing(Workshop(tmp_path)) as made:
        yield made


def test_a_job_that_ends_two_processes_is_scored_by_the_third(shop: Workshop) -> None:
    lease = shop.submitted()

    shop.enqueue()
    late = shop.start("late", scoring_timeout=0.05)
    assert late.wait(90) == -signal.SIGALRM, "the watch ends a process that is out of time, whatever it does"
    shop.jobs.process_died("late")
    assert (shop.copy(lease).state, shop.copy(lease).job_attempts) == ("scoring", 1)

    shop.enqueue()
    killed = shop.start("killed")
    until(lambda: shop.copy(lease).job_owner == "killed", 90)
    killed.kill()
    killed.wait()
    shop.jobs.process_died("killed")
    assert (shop.copy(lease).state, shop.copy(lease).job_attempts) == ("scoring", 2)

    shop.enqueue()
    steady = shop.start("steady")
    until(lambda: shop.copy(lease).state != "scoring", 90)
    assert (shop.copy(lease).state, shop.copy(lease).job_attempts) == ("accepted", 3)
    feedback = shop.grid.streams.after(feedback_stream(WORKER), 0)
    assert [entry.body["verdict"] for entry in feedback] == ["accepted"]

    assert steady.stdin is not None
    steady.stdin.close()
    assert steady.wait(30) == 0, "a job process ends with the node that holds its pipe"


def test_job_processes_end_when_their_node_is_killed(tmp_path: Path) -> None:
    node = LiveNode(tmp_path)
    node.start()
    try:
        until(lambda: bool(jobs_of(node)))
        (job,) = jobs_of(node)
        server = psutil.Process(node.pid)
        for process in (*server.children(), server):
            process.kill()
        until(lambda: not job.is_running() or job.status() == psutil.STATUS_ZOMBIE)
    finally:
        node.kill()
        node.stop()


def jobs_of(node: LiveNode) -> list[psutil.Process]:
    below = psutil.Process(node.pid).children(recursive=True)
    return [process for process in below if "grid_node.jobs.worker" in " ".join(process.cmdline())]
