"""How long others wait while a model of 1 GiB comes in: `/models` on a kept connection, again and again."""

from __future__ import annotations

import http.client
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from models_peers.servers import Server
from models_peers.transfers import Transfer

PAUSE = 0.005
"""Seconds between two requests."""


def during_upload(server: Server, transfer: Transfer) -> dict[str, float]:
    """Milliseconds that `/models` took while the upload ran."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    waits: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(transfer.tus, server.port)
        while not upload.done():
            began = time.perf_counter()
            connection.request("GET", "/models")
            connection.getresponse().read()
            waits.append((time.perf_counter() - began) * 1000)
            time.sleep(PAUSE)
        upload.result()
    connection.close()
    ranked = statistics.quantiles(waits, n=100, method="inclusive")
    return {"p50_ms": ranked[49], "p99_ms": ranked[98], "worst_ms": max(waits), "requests": float(len(waits))}
