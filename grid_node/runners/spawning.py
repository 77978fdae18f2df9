"""How a call to a worker, which may take long, is made beside the loop that decided on it."""

import threading
from collections.abc import Callable

Spawn = Callable[[Callable[[], None]], None]
"""Runs an action that ends by itself, without a wait for it; tests run it at once."""


def in_thread(action: Callable[[], None]) -> None:
    threading.Thread(target=action, name="grid-runner-call", daemon=True).start()
