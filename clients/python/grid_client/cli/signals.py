"""How a command that goes on until it is told to stop is told."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def until_signalled(work: Callable[[], object], stop: Callable[[], object]) -> None:
    """Run `work`; SIGTERM and SIGINT call `stop`, which makes it return. Raises what `work` raises.

    It works in a thread, so that a signal's handler never meets a lock that its own thread holds.
    """
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stop()) for number in signals]
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="command") as pool:
            pool.submit(work).result()
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
