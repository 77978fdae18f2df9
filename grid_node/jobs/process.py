"""What every process does that the node starts as a program: it says when it is ready, and stops with the node."""

import os
import signal
import sys
import threading

from grid_node.jobs.supervisor import ready_mark
from grid_node.settings import Settings


def stop_with_parent(serving: threading.Event) -> None:
    """When the node is gone its end of our standard input closes: end the job in hand, then stop."""
    sys.stdin.buffer.read()
    if not serving.is_set():
        os._exit(0)  # nothing is in hand, and warming up cannot be interrupted
    os.kill(os.getpid(), signal.SIGINT)


def watch_parent(serving: threading.Event) -> None:
    """`stop_with_parent` in a thread; a process that was started without a pipe runs until it is told to stop."""
    if not sys.stdin.closed:
        threading.Thread(target=stop_with_parent, args=(serving,), daemon=True).start()


def mark_ready(settings: Settings) -> None:
    """Leave a mark that the node looks for: this process can take jobs."""
    mark = ready_mark(settings, os.getpid())
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
