"""Load for Celery: one thread for each client, which waits for its results. Prints figures as JSON.

    celery_load.py WINDOW SECONDS [CLIENTS]

Each thread keeps WINDOW tasks on their way and waits for the oldest of them.
"""

import json
import sys
import threading
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from dispatch_peers.celery_app import answer
from dispatch_peers.figures import figures

WARM_UP_SECONDS = 1.0
Finished = list[tuple[float, float]]


def client(window: int, until: float, finished: Finished) -> None:
    waiting = deque((time.perf_counter(), answer.delay("say that it is done")) for _ in range(window))
    while waiting:
        sent, result = waiting.popleft()
        result.get(timeout=30)
        ended = time.perf_counter()
        finished.append((ended, ended - sent))
        if ended < until:
            waiting.append((time.perf_counter(), answer.delay("say that it is done")))


def main(arguments: list[str]) -> None:
    window, seconds = int(arguments[0]), float(arguments[1])
    answer.delay("the first connection").get(timeout=60)
    since = time.perf_counter() + WARM_UP_SECONDS
    until = since + seconds
    finished: list[Finished] = [[] for _ in range(int(arguments[2]) if len(arguments) > 2 else 8)]
    threads = [threading.Thread(target=client, args=(window, until, mine)) for mine in finished]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(figures([task for mine in finished for task in mine], since, until)))


if __name__ == "__main__":
    main(sys.argv[1:])
