"""10,000 models: how long `/models` and a search by tag take, by HTTP and by event."""

from __future__ import annotations

import base64
import json
import time

import orjson
from lean_client import Connection, Loop
from models_peers.http_load import request_bytes, run_once

TAGS = 100
LOADERS = 32
DETAILED = "/detailed_models_list?tag=tag-7"


def fill(port: int, count: int) -> float:
    """Serve `count` small models, each with one tag; seconds that it took."""
    requests = [_serve(number) for number in range(count)]
    load = run_once(port, requests, LOADERS)
    refused = [body for status, body in zip(load.statuses, load.bodies, strict=True) if status != 200]
    assert not refused, refused[0]
    return load.wall


def _serve(number: int) -> bytes:
    body = {
        "model_id": f"model-{number:05}",
        "model": base64.b64encode(f"bytes of {number}".encode()).decode(),
        "encoding": "base64",
        "format": "opaque",
        "tags": [f"tag-{number % TAGS}"],
    }
    return request_bytes("POST", "/serve_model", orjson.dumps(body), content_type="application/json")


def asked(port: int, count: int, times: int) -> dict[str, float]:
    """p50 and p99 in ms of one client that asks again and again."""
    figures: dict[str, float] = {}
    for name, path, wanted in (("models", "/models", count), ("tag", DETAILED, count // TAGS)):
        load = run_once(port, [request_bytes("GET", path)] * times, 1)
        assert all(status == 200 for status in load.statuses)
        assert len(json.loads(load.bodies[0])["models"]) == wanted
        figures |= _percentiles(f"{name}_http", load.seconds)
    connection = Connection(port)
    loop = Loop([connection])
    for name, event, payload in (("models", "/models", {}), ("tag", "/detailed_models_list", {"tag": "tag-7"})):
        seconds = [_ack_seconds(connection, loop, event, payload) for _ in range(times)]
        figures |= _percentiles(f"{name}_event", seconds)
    connection.close()
    return figures


def _ack_seconds(connection: Connection, loop: Loop, event: str, payload: dict[str, str]) -> float:
    acked: list[float] = []
    began = time.perf_counter()
    connection.emit(event, payload, lambda _answer: acked.append(time.perf_counter()))
    loop.run_until(lambda: bool(acked), 30)
    return acked[0] - began


def _percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    times = sorted(seconds)
    return {f"{name}_p50_ms": 1000 * times[len(times) // 2], f"{name}_p99_ms": 1000 * times[int(len(times) * 0.99)]}
