"""An MLP 256-1024-256 in float32: the node by JSON and by binary tensors beside LitServe; a hot swap.

Every answer is compared with the same model in this process. Weights and inputs come from fixed seeds.
"""

from __future__ import annotations

import base64
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from models_peers.http_load import Load, request_bytes, run, run_while
from models_peers.servers import Server, ask
from safetensors.torch import save

WIDTH, HIDDEN = 256, 1024
INPUTS = 64
"""Different rows that the load sends in turn."""
RTOL, ATOL = 1e-4, 1e-5
CONNECTIONS = (1, 16, 64)
SWAPS = 5
BINARY_HEADER = "Inference-Header-Content-Length"
ARCHITECTURE = {
    "layers": [
        {"op": "linear", "weight": "0.weight", "bias": "0.bias"},
        {"op": "relu"},
        {"op": "linear", "weight": "2.weight", "bias": "2.bias"},
    ]
}
Figures = dict[str, float]


class Mlp:
    """One set of weights, run here."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.module = torch.nn.Sequential(
            torch.nn.Linear(WIDTH, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, WIDTH)
        )

    def __call__(self, rows: torch.Tensor) -> Any:
        with torch.inference_mode():
            return self.module(rows).numpy()

    def serve_body(self, model_id: str, **more: Any) -> dict[str, Any]:
        return {
            "model_id": model_id,
            "model": base64.b64encode(save(self.module.state_dict())).decode(),
            "encoding": "base64",
            "format": "safetensors",
            "architecture": ARCHITECTURE,
            "allow_remote_inference": True,
            **more,
        }

    def save_for_litserve(self, file: Path) -> None:
        torch.save([tensor.detach() for tensor in self.module.state_dict().values()], file)


def rows_of(seed: int) -> torch.Tensor:
    return torch.randn(INPUTS, WIDTH, generator=torch.Generator().manual_seed(seed))


# --- requests and what they should bring --------------------------------------------------------------------------


def node_json(model_id: str, rows: torch.Tensor) -> list[bytes]:
    path, one = f"/v2/models/{model_id}/infer", {"name": "INPUT__0", "shape": [1, WIDTH], "datatype": "FP32"}
    bodies = [orjson.dumps({"inputs": [{**one, "data": row.tolist()}]}) for row in rows]
    return [request_bytes("POST", path, body, content_type="application/json") for body in bodies]


def node_binary(model_id: str, rows: torch.Tensor) -> list[bytes]:
    one = {"name": "INPUT__0", "shape": [1, WIDTH], "datatype": "FP32", "parameters": {"binary_data_size": 4 * WIDTH}}
    head = orjson.dumps({"inputs": [one], "parameters": {"binary_data_output": True}})
    path = f"/v2/models/{model_id}/infer"
    headers = {BINARY_HEADER: str(len(head)), "content_type": "application/octet-stream"}
    return [request_bytes("POST", path, head + row.numpy().tobytes(), **headers) for row in rows]


def litserve_json(rows: torch.Tensor) -> list[bytes]:
    bodies = [orjson.dumps({"input": row.tolist()}) for row in rows]
    return [request_bytes("POST", "/predict", body, content_type="application/json") for body in bodies]


def from_node_json(head: bytes, body: bytes) -> Any:
    return orjson.loads(body)["outputs"][0]["data"]


def from_node_binary(head: bytes, body: bytes) -> Any:
    at = head.lower().index(BINARY_HEADER.lower().encode()) + len(BINARY_HEADER) + 1
    return np.frombuffer(body[int(head[at:].split(b"\r\n", 1)[0]) :], "<f4")


def from_litserve(head: bytes, body: bytes) -> Any:
    return orjson.loads(body)["output"]


@dataclass(frozen=True)
class Peer:
    """Requests to a server, and how its answers are read."""

    server: Server
    requests: list[bytes]
    read: Any


def check(load: Load, peer: Peer, expected: Any) -> None:
    """Every answer is a 200 with the values of the local module."""
    for number, status, head, body in zip(load.numbers, load.statuses, load.heads, load.bodies, strict=True):
        assert status == 200, (head, body[:500])
        assert np.allclose(peer.read(head, body), expected[number], RTOL, ATOL), f"row {number} came back wrong"


def measured(peer: Peer, expected: Any, seconds: float) -> Figures:
    """Requests a second, p50 and p99 in ms, and CPU of the server, for each number of connections."""
    figures: Figures = {}
    for connections in CONNECTIONS:
        check(run(peer.server.port, peer.requests, connections, min(0.5, seconds)), peer, expected)
        before = peer.server.cpu_seconds()
        load = run(peer.server.port, peer.requests, connections, seconds)
        used = peer.server.cpu_seconds() - before
        check(load, peer, expected)
        times = sorted(load.seconds)
        figures |= {
            f"per_s_{connections}": load.per_second,
            f"p50_ms_{connections}": 1000 * times[len(times) // 2],
            f"p99_ms_{connections}": 1000 * times[int(len(times) * 0.99)],
            f"cpu_us_{connections}": 1e6 * used / len(times),
        }
    return figures


def awake(peer: Peer, expected: Any, seconds: float) -> Figures:
    """The other peers rest while this one is measured."""
    peer.server.wake()
    try:
        return measured(peer, expected, seconds)
    finally:
        peer.server.rest()


# --- versions swapped under load ----------------------------------------------------------------------------------


def hot_swap(server: Server, seconds: float) -> Figures:
    """Serve SWAPS new versions while 16 connections ask for the newest.

    Each answer is compared with the weights of the version that it names.
    """
    models = [Mlp(100 + number) for number in range(SWAPS + 1)]
    ask(server.port, "/serve_model", models[0].serve_body("swapped"))
    rows = rows_of(2)
    requests = node_json("swapped", rows)
    run(server.port, requests, 16, 0.5)
    swapping = threading.Thread(target=_swap, args=(server.port, models[1:], seconds / (SWAPS + 1)))
    swapping.start()
    load = run_while(server.port, requests, 16, swapping.is_alive)
    expected = [model(rows) for model in models]
    failed, versions = 0, set()
    for number, status, body in zip(load.numbers, load.statuses, load.bodies, strict=True):
        answer = orjson.loads(body)
        if status != 200:
            failed += 1
            continue
        version = int(answer["model_version"])
        versions.add(version)
        wanted = expected[version - 1][number]
        assert np.allclose(answer["outputs"][0]["data"], wanted, RTOL, ATOL), f"version {version} came back wrong"
    return {
        "requests": len(load.bodies),
        "failed": failed,
        "versions_seen": len(versions),
        "longest_ms": 1000 * max(load.seconds),
        "per_s": load.per_second,
    }


def _swap(port: int, models: list[Mlp], pause: float) -> None:
    rested = threading.Event()
    for model in models:
        rested.wait(pause)
        ask(port, "/serve_model", model.serve_body("swapped", version="new"))
    rested.wait(pause)
