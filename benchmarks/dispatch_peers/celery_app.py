"""The peer: the same no-op as a Celery task, acknowledged late, its result kept in Redis."""

import os

from celery import Celery

_URL = os.environ["BENCH_REDIS_URL"]
_PREFIX = os.environ["BENCH_PREFIX"]

app = Celery("noop", broker=_URL, backend=_URL)
app.conf.update(
    task_acks_late=True,
    task_default_queue=f"{_PREFIX}tasks",
    broker_transport_options={"global_keyprefix": _PREFIX},
    result_backend_transport_options={"global_keyprefix": _PREFIX},
    result_expires=300,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@app.task
def answer(prompt: str) -> str:
    return "done"
