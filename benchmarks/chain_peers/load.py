"""Load of one route, in a process of its own: `load.py PORT PATH TOKEN CONNECTIONS SECONDS` prints figures as JSON.

A closed loop over kept connections. Answers are not kept: each must be a 200 as long as the first one.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from models_peers.http_load import BadAnswer, Load, _Connection, request_bytes, run


class Sizes(Load):
    """Seconds of each answer, and what was wrong with one."""

    size = 0

    def take(self, peer: _Connection, data: bytes, now: float) -> None:
        self.seconds.append(now - peer.sent_at)
        self.size = self.size or len(data)
        if not data.startswith(b"HTTP/1.1 200") or abs(len(data) - self.size) > SLACK:
            raise BadAnswer(data[:200])


SLACK = 64
"""Bytes by which answers differ: a block's number, an age and a date are not always as long."""


def main(arguments: list[str]) -> None:
    port, path, token, connections, seconds = arguments
    asked = request_bytes("GET", path, authorization=f"Bearer {token}")
    before = time.process_time()
    load = run(int(port), [asked], int(connections), float(seconds), Sizes())
    used = time.process_time() - before
    ordered = sorted(load.seconds)
    figures = {
        "requests": len(ordered),
        "per_s": len(ordered) / load.wall,
        "p50_ms": 1000 * statistics.median(ordered),
        "p99_ms": 1000 * ordered[int(0.99 * (len(ordered) - 1))],
        "bytes": load.size,
        "load_cpu_percent": 100 * used / load.wall,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
