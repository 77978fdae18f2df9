"""One of several processes that use one key at the same time; run as a program, prints what became of its tries.

Arguments: database URL, `database` or a prefix in Redis, id of the key, the moment of every try, threads, tries.
"""

import json
import sys
import threading

from grid_node.clock import ManualClock
from grid_node.database import DirectStore, GroupCommitStore, Store, make_engine
from grid_node.errors import RateLimited
from grid_node.identity.limits import DatabaseLimiter, Limiter
from grid_node.identity.redis_limits import RedisLimiter
from grid_node.identity.service import KeyService
from grid_node.settings import Settings
from tests.stores import call

REDIS = "redis://127.0.0.1:6379/9"


def open_store(url: str) -> Store:
    engine = make_engine(url)
    return DirectStore(engine) if url.startswith("postgresql") else GroupCommitStore(engine, call, lock_timeout=60)


def main(url: str, backend: str, key_id: str, now: float, threads: int, tries: int) -> None:
    store = open_store(url)
    service = KeyService(store, ManualClock(now), Settings())
    limiter: Limiter = DatabaseLimiter() if backend == "database" else RedisLimiter(REDIS, backend)
    waits: list[int] = []

    def accept(tx):
        caller = service.require(tx, key_id, "client", now)
        limiter.charge(tx, caller, now)

    def client():
        for _ in range(tries):
            try:
                store.write(accept)
                waits.append(0)
            except RateLimited as refusal:
                waits.append(refusal.retry_after)

    running = [threading.Thread(target=client) for _ in range(threads)]
    print("ready", flush=True)
    sys.stdin.readline()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    store.close()
    print(json.dumps(waits))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))
