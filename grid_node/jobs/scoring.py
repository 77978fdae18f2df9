"""The life of a scoring job: claimed by compare-and-set, retried, given up, never charged to the worker.

The row of the copy is the truth; the queue only says where to look and may lose everything. A job may run twice:
the first verdict is final.
"""

import logging
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, insert, or_, select, update

from grid_node import logs
from grid_node.blobs.store import Blobs
from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.generation.holds import held_copy
from grid_node.generation.tables import Copy, Task
from grid_node.generation.verdicts import Verdicts
from grid_node.jobs.tables import ScoringDeath
from grid_node.scoring.port import InvalidAsset, Report, Scorer, ScoreTask, view_seed
from grid_node.settings import Settings
from grid_node.statements import prepared

log = logging.getLogger(__name__)

copies = Copy.__table__
tasks = Task.__table__
deaths = ScoringDeath.__table__

RETRY_AFTER = (1.0, 5.0, 25.0)
"""Seconds before the second, third and every later attempt."""
DEATHS_MAX = 3
MARGIN = 10.0
"""Seconds beyond its timeout after which a claim no longer counts."""

_FREE = or_(copies.c.job_until.is_(None), copies.c.job_until < bindparam("now"))
_CLAIM = prepared(
    update(copies)
    .where(
        copies.c.lease_id == bindparam("lease"), copies.c.state == "scoring", copies.c.job_due_at <= bindparam("now")
    )
    .where(_FREE)
    .values(job_until=bindparam("until"), job_owner=bindparam("owner"), job_attempts=copies.c.job_attempts + 1)
)
_JOB = prepared(
    select(copies, tasks.c.kind, tasks.c.prompt)
    .join(tasks, tasks.c.id == copies.c.task_id)
    .where(copies.c.lease_id == bindparam("lease"))
)
_RELEASE = prepared(
    update(copies)
    .where(copies.c.lease_id == bindparam("lease"), copies.c.state == "scoring")
    .values(job_until=None, job_owner=None, job_due_at=bindparam("due"))
)
_INTERRUPT = prepared(
    update(copies)
    .where(copies.c.state == "scoring", copies.c.job_owner == bindparam("owner"))
    .values(job_until=None, job_owner=None, job_due_at=bindparam("now"), job_attempts=copies.c.job_attempts - 1)
)
_OF_OWNER = prepared(select(copies).where(copies.c.state == "scoring", copies.c.job_owner == bindparam("owner")))
_WAITING = prepared(
    select(copies).where(copies.c.state == "scoring", copies.c.job_due_at <= bindparam("now")).where(_FREE).limit(256)
)
_DEATHS = prepared(select(deaths.c.deaths).where(deaths.c.sha256 == bindparam("digest")))
_DIE_AGAIN = prepared(update(deaths).where(deaths.c.sha256 == bindparam("digest")).values(deaths=deaths.c.deaths + 1))


class ScoringJobs:
    """Claims, ends and gives up jobs. `owner` names the job process."""

    def __init__(self, store: Store, clock: Clock, settings: Settings, verdicts: Verdicts) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._verdicts = verdicts
        self.schedule: Callable[[str, float], None] = lambda _lease_id, _seconds: None
        """Called after the commit of a failed attempt: the job is due again in so many seconds. Without it the sweeper
        finds the job."""

    def claim(self, lease_id: str, owner: str) -> Any:
        """The job's row, if it is this process's to run now; otherwise None."""
        return self._store.write(partial(self._claim, lease_id=lease_id, owner=owner))

    def _claim(self, tx: Transaction, lease_id: str, owner: str) -> Any:
        now = self._clock.now()
        until = now + self._settings.scoring_timeout + MARGIN
        values = {"lease": lease_id, "now": now, "until": until, "owner": owner}
        if not tx.execute(_CLAIM, values).rowcount:
            return None
        return tx.execute(_JOB, {"lease": lease_id}).one()

    def finish(self, lease_id: str, report: dict[str, Any], artifacts: dict[str, Any]) -> None:
        now = self._clock.now()
        self._store.write(lambda tx: self._verdicts.record(tx, lease_id, report, artifacts, now))

    def fail(self, lease_id: str, attempts: int, owner: str | None = None) -> None:
        """A fault of ours: try again later, or say that scoring is unavailable. An `owner` whose claim somebody else
        has taken over by now has no say any more."""
        self._store.write(lambda tx: self._fail(tx, lease_id, attempts, owner))

    def _fail(self, tx: Transaction, lease_id: str, attempts: int, owner: str | None) -> None:
        now = self._clock.now()
        copy = held_copy(tx, lease_id)
        if copy is None or owner not in (None, copy.job_owner):
            return
        if attempts >= self._settings.scoring_attempts:
            self._verdicts.unavailable(tx, lease_id, now)
            return
        pause = RETRY_AFTER[min(attempts, len(RETRY_AFTER)) - 1]
        tx.execute(_RELEASE, {"lease": lease_id, "due": now + pause})
        tx.on_commit(partial(self.schedule, lease_id, pause))

    def process_died(self, owner: str) -> None:
        """The job process `owner` is gone: its jobs count an attempt, and their bytes are suspected."""
        self._store.write(partial(self._process_died, owner=owner))

    def _process_died(self, tx: Transaction, owner: str) -> None:
        for copy in tx.execute(_OF_OWNER, {"owner": owner}).all():
            if not tx.execute(_DIE_AGAIN, {"digest": copy.sha256}).rowcount:
                tx.execute(insert(deaths), {"sha256": copy.sha256, "deaths": 1})
            self._fail(tx, copy.lease_id, copy.job_attempts, owner)

    def interrupted(self, owner: str) -> None:
        """The job process `owner` ended with its node: its jobs start again, and nobody is to blame."""
        now = self._clock.now()
        self._store.write(lambda tx: tx.execute(_INTERRUPT, {"owner": owner, "now": now}))

    def quarantined(self, sha256: str) -> bool:
        found = self._store.read(lambda tx: tx.execute(_DEATHS, {"digest": sha256}).scalar())
        return (found or 0) >= DEATHS_MAX

    def sweep(self, enqueue: Callable[[str], None]) -> int:
        """Enqueue every row that waits without a live job; give up those whose attempts are used up."""
        now = self._clock.now()
        rows = self._store.read(lambda tx: tx.execute(_WAITING, {"now": now}).all())
        for copy in rows:
            if copy.job_attempts >= self._settings.scoring_attempts:
                self.fail(copy.lease_id, copy.job_attempts)
            else:
                enqueue(copy.lease_id)
        return len(rows)


class JobRunner:
    """Runs one job after the other in a job process, each under the watch of `deadline`."""

    def __init__(
        self,
        jobs: ScoringJobs,
        blobs: Blobs,
        scorers: Callable[[str], Scorer],
        secret: bytes,
        owner: str,
        watch: Callable[[float], None],
        threshold: float,
    ) -> None:
        self._jobs = jobs
        self._blobs = blobs
        self._scorers = scorers
        self._secret = secret
        self._owner = owner
        self._watch = watch
        self._threshold = threshold

    def run(self, lease_id: str, timeout: float) -> bool:
        """Score one result; false if there was nothing to do. Nothing that a scorer raises leaves this function."""
        job = self._jobs.claim(lease_id, self._owner)
        if job is None:
            return False
        with logs.bound(task_id=job.task_id, lease_id=lease_id):
            self._run(job, lease_id, timeout)
        return True

    def _run(self, job: Any, lease_id: str, timeout: float) -> None:
        if self._jobs.quarantined(job.sha256):
            log.error("result %s is quarantined: it ended %d job processes", job.sha256, DEATHS_MAX)
            self._jobs.fail(lease_id, 1_000_000, self._owner)
            return
        try:
            with self._watched(timeout):
                report, artifacts = self._score(job)
        except Exception:
            log.exception("scoring of lease %s failed, attempt %d", lease_id, job.job_attempts)
            self._jobs.fail(lease_id, job.job_attempts, self._owner)
        else:
            self._jobs.finish(lease_id, report, artifacts)
            log.info("scored %s in %.2f s", report["score"], report["seconds"])

    @contextmanager
    def _watched(self, timeout: float) -> Any:
        self._watch(timeout)
        try:
            yield
        finally:
            self._watch(0)

    def _score(self, job: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        scorer = self._scorers(job.kind)
        seed = view_seed(self._secret, job.task_id)
        task = ScoreTask(job.task_id, job.prompt, seed, job.kind, job.format)
        with tempfile.TemporaryDirectory(prefix="grid-score-") as folder:
            path = self._asset(job, Path(folder))
            made_in = Path(folder) / "made"
            made_in.mkdir()
            try:
                report = scorer.score(path, task, made_in)
            except InvalidAsset as error:
                log.info("result of lease %s is invalid: %s", job.lease_id, error)
                return invalid_report(error, task, scorer, job.size, self._threshold), {}
            made = {name: self._keep(file) for name, file in report.artifacts.items()}
        return report.with_attempts(job.job_attempts).to_dict(), made

    def _asset(self, job: Any, folder: Path) -> Path:
        if job.inline is None:
            return self._blobs.path(job.sha256)
        path = folder / "asset"
        path.write_bytes(job.inline)
        return path

    def _keep(self, file: Path) -> dict[str, Any]:
        blob = self._blobs.put(file.read_bytes())
        return {"sha256": blob.sha256, "size": blob.size}


def invalid_report(error: InvalidAsset, task: ScoreTask, scorer: Scorer, size: int, threshold: float) -> dict[str, Any]:
    """The report of bytes that cannot be judged; `invalid` tells it from a low score."""
    report = Report.rejected(
        error.reason,
        task=task,
        scorer=scorer.version,
        score_kind=scorer.score_kind,
        threshold=threshold,
        size=size,
    )
    return {**report.to_dict(), "invalid": True}
