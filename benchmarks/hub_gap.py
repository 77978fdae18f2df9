"""What clients feel while the node scores: longest hub gap and ack times, idle and under scoring.

    python benchmarks/hub_gap.py [--assets 10] [--splats 268000] [--rounds 5]

A node with one job process on this machine; a worker hands in large assets one after the other while another client
asks `tasks` fifty times a second. The hub's gaps are the node's own measurement (`grid_hub_gap_max_seconds`, the
longest of the last minute). Writes `results/hub_gap.{json,md}`.
"""

from __future__ import annotations

import argparse
import re
import statistics
import threading
import time
import urllib.request

import measure
import socketio
from dispatch import METRICS_TOKEN, Node, node_running
from grid_client.delivery import Output
from grid_client.generation import GenerationClient
from grid_client.procedural import build
from grid_client.splats import encode_ply
from grid_client.worker import WorkerClient

GAP = re.compile(r"^grid_hub_gap_max_seconds (\S+)$", re.MULTILINE)
PROMPTS = ("a red donut", "a wooden table", "a green tree", "a snowman", "a blue robot")


def hub_gap(node: Node) -> float:
    """Seconds."""
    asked = urllib.request.Request(f"http://127.0.0.1:{node.port}/metrics")
    asked.add_header("Authorization", f"Bearer {METRICS_TOKEN}")
    with urllib.request.urlopen(asked, timeout=30) as answer:
        found = GAP.search(answer.read().decode())
    assert found is not None
    return float(found[1])


class Pinger:
    """Asks for the key's tasks every 20 ms and keeps how long each answer took, in seconds."""

    def __init__(self, url: str, key: str) -> None:
        self._client = socketio.Client()
        self._client.connect(url, auth={"api_key": key}, transports=["websocket"])
        self._stopping = threading.Event()
        self.times: list[float] = []

    def run(self, seconds: float | None = None) -> None:
        ends = time.monotonic() + seconds if seconds is not None else None
        while not self._stopping.wait(0.02) and (ends is None or time.monotonic() < ends):
            began = time.perf_counter()
            self._client.call("tasks", {"limit": 1}, timeout=30)
            self.times.append(time.perf_counter() - began)

    def stop(self) -> None:
        self._stopping.set()
        self._client.disconnect()


def figures(node: Node, times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "ack_p50_ms": 1000 * statistics.median(ordered),
        "ack_p99_ms": 1000 * ordered[int(0.99 * (len(ordered) - 1))],
        "longest_gap_ms": 1000 * hub_gap(node),
    }


def idle(node: Node, url: str, key: str) -> dict[str, float]:
    time.sleep(61)  # the node remembers gaps for a minute
    pinger = Pinger(url, key)
    pinger.run(5.0)
    pinger.stop()
    return figures(node, pinger.times)


def scoring(node: Node, url: str, keys: tuple[str, str], assets: list[bytes]) -> dict[str, float]:
    pinger = Pinger(url, keys[0])
    asking = threading.Thread(target=pinger.run, daemon=True)
    began = time.monotonic()
    asking.start()
    supply = iter(assets)
    worker = WorkerClient(url, api_key=keys[1], name="bench", handler=lambda _job: Output(next(supply), "ply"))
    threading.Thread(target=worker.run, daemon=True).start()
    with GenerationClient(url, keys[0]) as client:
        for number in range(len(assets)):
            task = client.submit(PROMPTS[number % len(PROMPTS)], copies=1)
            client.wait(task.id, timeout=300)
    took = time.monotonic() - began
    worker.stop()
    found = figures(node, pinger.times)
    pinger.stop()
    asking.join(5)
    return {**found, "assets_per_min": 60 * len(assets) / took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=int, default=10)
    parser.add_argument("--splats", type=int, default=268_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(options.assets)]
    assets = [
        encode_ply(build(prompt, number, "bench", splats=options.splats)) for number, prompt in enumerate(prompts)
    ]
    before = measure.machine()
    with node_running() as node:
        url = f"http://127.0.0.1:{node.port}"
        client, worker = node.keys
        rounds = {"idle": {name: [value] for name, value in idle(node, url, client).items()}}
        runs = {"scoring": lambda: scoring(node, url, (client, worker), assets)}
        rounds |= measure.interleaved(options.rounds, runs)
    columns = ["", "ack p50 ms", "ack p99 ms", "longest hub gap ms", "assets a minute"]
    names = ("ack_p50_ms", "ack_p99_ms", "longest_gap_ms", "assets_per_min")
    rows = [
        [name, *(measure.cell(found[key], 1) if key in found else "–" for key in names)]
        for name, found in rounds.items()
    ]
    text = [
        "# What clients feel while the node scores",
        "",
        f"`python benchmarks/hub_gap.py --assets {options.assets} --splats {options.splats} "
        f"--rounds {options.rounds}`. "
        "Median (lowest–highest) of the rounds; node, job process, worker and clients share the machine.",
        "",
        *measure.table(columns, rows),
        "",
        f"Machine: {measure.listed(before)}.",
        "",
    ]
    measure.write("hub_gap", {"machine": before, "rounds": rounds}, "\n".join(text))


if __name__ == "__main__":
    main()
