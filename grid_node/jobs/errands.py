"""The errands process: `python -m grid_node.jobs.errands`. Sends webhooks to clients, merges long reports of workers.

It is light (no torch, no numba) and its threads may wait, for minutes if they must; the node's may not.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from huey import Huey
from huey.consumer import Consumer

from grid_node.blobs.factory import make_blobs
from grid_node.blobs.holds import Holds
from grid_node.clock import SystemClock
from grid_node.database import DirectStore, make_engine, plain_call
from grid_node.jobs.process import mark_ready, watch_parent
from grid_node.jobs.queue import ErrandQueue, make_errand_queue
from grid_node.logs import configure_logging
from grid_node.runners.changes import Changes
from grid_node.runners.deliveries import Deliveries
from grid_node.runners.files import RunnerFiles
from grid_node.runners.secrets_box import SecretsBox
from grid_node.runners.webhooks import Webhooks
from grid_node.secret import node_secret
from grid_node.settings import BadSetting, Settings
from grid_node.streams.bells import make_bells
from grid_node.streams.service import Streams

log = logging.getLogger(__name__)

NICENESS = 5
"""Errands give way to the node, and go before scores."""


def join(settings: Settings, errands: ErrandQueue) -> None:
    """Tell the queue's tasks what to do: the parts of the node that errands need, joined."""
    store, clock, secret = DirectStore(make_engine(settings.database)), SystemClock(), node_secret(settings.data_dir)
    data = settings.data_dir.resolve()
    bells = make_bells(settings.data_dir, settings.redis_url)
    streams = Streams(store)
    streams.ring = bells.ring
    deliveries = Deliveries(store, clock, settings, settings.public_url, SecretsBox(settings.secrets_key, secret))
    deliveries.enqueue = errands.deliver
    changes = Changes(streams, clock, deliveries)
    changes.queued = changes.ended = changes.watched = bells.ring
    blobs = make_blobs(settings.blobs, data / "blob-cache", plain_call)
    files = RunnerFiles(store, clock, settings, blobs, Holds(store, blobs, clock), data)
    webhooks = Webhooks(store, clock, settings, changes, files, secret)
    webhooks.enqueue = errands.merge
    errands.run_deliver, errands.run_merge = guarded(deliveries.deliver), guarded(webhooks.merge_stored)


def guarded(run: Callable[[Any], object]) -> Callable[[Any], None]:
    """An errand that fails is logged, and found again by a sweep."""

    def errand(id: Any) -> None:
        try:
            run(id)
        except Exception:
            log.exception("an errand failed; it is tried again")

    return errand


def consumer(huey: Huey, workers: int) -> Consumer:
    return Consumer(
        huey, workers=workers, periodic=False, initial_delay=0.02, backoff=1.2, max_delay=0.2, worker_type="thread"
    )


def main() -> int:
    try:
        settings = Settings.load()
    except BadSetting as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(settings.log_level)
    os.nice(NICENESS)
    serving = threading.Event()
    watch_parent(serving)
    errands = make_errand_queue(settings)
    join(settings, errands)
    errands.start()
    mark_ready(settings)
    log.info("errands process is ready")
    serving.set()
    merging = consumer(errands.merges, 1)
    merging.start()
    consumer(errands.deliveries, max(1, round(settings.errand_threads))).run()  # until it is told to stop
    merging.stop(graceful=True)
    errands.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
