"""A job process: `python -m grid_node.jobs.worker`. Imports torch and numba, which the node never does."""

import logging
import os
import resource
import signal
import sys
import threading
import uuid
from functools import partial

from huey.consumer import Consumer

from grid_node.blobs.factory import make_blobs
from grid_node.clock import SystemClock
from grid_node.database import DirectStore, make_engine, plain_call
from grid_node.generation.lifecycle import Lifecycle
from grid_node.generation.verdicts import Verdicts
from grid_node.jobs.process import mark_ready, watch_parent
from grid_node.jobs.queue import declare_score, make_huey, schedule
from grid_node.jobs.scoring import JobRunner, ScoringJobs
from grid_node.jobs.worker_settings import scoring_settings
from grid_node.logs import configure_logging
from grid_node.scoring.kinds import KINDS
from grid_node.scoring.port import Scorer
from grid_node.scoring.settings import ScoringSettings
from grid_node.secret import node_secret
from grid_node.settings import BadSetting, Settings
from grid_node.streams.bells import make_bells
from grid_node.streams.service import Streams

log = logging.getLogger(__name__)


NICENESS = 10
"""Job processes give way: where cores are short, the node's connections come before its scores."""


class WarmScorers:
    """One warm scorer for each kind, made when it is first asked for."""

    def __init__(self, settings: ScoringSettings) -> None:
        self._settings = settings
        self._scorers: dict[str, Scorer] = {}

    def __call__(self, kind: str) -> Scorer:
        if kind not in self._scorers:
            scorer = KINDS[kind].load(self._settings)
            scorer.warm()
            self._scorers[kind] = scorer
        return self._scorers[kind]

    def warm(self) -> None:
        for spec in KINDS.values():
            if not spec.inline:
                self(spec.kind)


def watch(timeout: float) -> None:
    """SIGALRM ends this process after `timeout` seconds, whatever it does then; 0 calls the watch off."""
    signal.setitimer(signal.ITIMER_REAL, timeout)


def make_jobs(settings: Settings) -> ScoringJobs:
    store = DirectStore(make_engine(settings.database))
    streams = Streams(store)
    streams.ring = make_bells(settings.data_dir, settings.redis_url).ring
    lifecycle = Lifecycle(streams, settings)
    verdicts = Verdicts(streams, lifecycle, settings)
    return ScoringJobs(store, SystemClock(), settings, verdicts)


def make_runner(settings: Settings, jobs: ScoringJobs, scorers: WarmScorers, owner: str) -> JobRunner:
    blobs = make_blobs(settings.blobs, settings.data_dir.resolve() / "blob-cache", plain_call)
    return JobRunner(jobs, blobs, scorers, node_secret(settings.data_dir), owner, watch, settings.scoring_threshold)


def main() -> int:
    try:
        settings = Settings.load()
    except BadSetting as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(settings.log_level)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_DATA, (settings.scoring_memory, settings.scoring_memory))
    serving = threading.Event()
    watch_parent(serving)
    scorers = WarmScorers(scoring_settings(settings))
    jobs = make_jobs(settings)
    runner = make_runner(settings, jobs, scorers, os.environ.get("GRID_JOB_OWNER", str(uuid.uuid4())))
    huey = make_huey(settings)
    score = declare_score(huey, lambda lease_id: runner.run(lease_id, settings.scoring_timeout))
    jobs.schedule = partial(schedule, score)
    scorers.warm()
    mark_ready(settings)
    log.info("job process is ready")
    serving.set()
    Consumer(
        huey, workers=1, periodic=False, initial_delay=0.02, backoff=1.2, max_delay=0.1, worker_type="thread"
    ).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
