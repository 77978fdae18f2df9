"""A client that asks for a prediction over Socket.IO again and again, and waits for each ack.

    pings.py < {"port", "key", "id", "seconds"}

Says `ready`, waits for a line, prints samples: when asked, and milliseconds until the ack.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lean_client import Connection, Loop

PAUSE = 0.02
LIMIT_SECONDS = 30.0


def main() -> None:
    spec = json.loads(sys.stdin.readline())
    client = Connection(spec["port"], "/v1", {"key": spec["key"]})
    loop = Loop([client])
    print("ready", flush=True)
    sys.stdin.readline()
    samples: list[tuple[float, float]] = []
    acks: list[Any] = []
    ends = time.monotonic() + spec["seconds"]
    while (began := time.monotonic()) < ends:
        client.emit("predictions.get", {"id": spec["id"]}, acks.append)
        loop.run_until(lambda: len(acks) > len(samples), LIMIT_SECONDS)
        samples.append((began, 1000 * (time.monotonic() - began)))
        loop.feed(PAUSE)
    if any(ack.get("id") != spec["id"] for ack in acks):
        raise RuntimeError(acks[-1])
    print(json.dumps({"samples": samples}))


if __name__ == "__main__":
    main()
