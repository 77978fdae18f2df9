"""Speed and memory of hosted models: transfers, event-borne models, inference, long lists; peers in the same run.

    python benchmarks/models.py [--parts transfers,fairness,events,inference,lists] [--rounds 3] [--seconds 3]

`transfers` needs nginx, `inference` LitServe in an environment of its own (`--litserve-python`, made when it is not
there). Peers take turns within each round, on all cores, together with the load. Writes `results/models.{json,md}`;
a run of some parts keeps the others' figures.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import measure
from measure import RESULTS, ROOT, Rounds, cell, ratio_cell, table
from models_peers import servers

MIB = 1024 * 1024
PARTS = ("transfers", "fairness", "events", "inference", "lists")
LITSERVE_PYTHON = os.environ.get("GRID_BENCH_LITSERVE_PYTHON", str(ROOT / ".venv-litserve" / "bin" / "python"))
UNBOUNDED = {"models_anonymous_quota_count": 100_000, "models_anonymous_quota_bytes": 100 * 1024 * MIB}
Options = argparse.Namespace
Lines = list[str]


# --- transfers ----------------------------------------------------------------------------------------------------


def transfers(options: Options, folder: Path) -> Rounds:
    from models_peers.transfers import MB, Transfer  # noqa: PLC0415 - each part loads what it needs

    transfer = Transfer(folder, options.size * MB)
    with ExitStack() as stack:
        ours = stack.enter_context(servers.node(**UNBOUNDED))
        transfer.warm(ours, folder / "warm")
        runs: dict[str, Callable[[], measure.Figures]] = {"node": lambda: transfer.node(ours)}
        program = servers.nginx_program(options.nginx)
        if program is not None:
            plain = stack.enter_context(servers.nginx(program))
            runs["nginx"] = lambda: transfer.nginx(plain)
        return measure.interleaved(options.rounds, runs)


def transfers_text(rounds: Rounds) -> Lines:
    ours, plain = rounds["node"], rounds.get("nginx")
    rows = []
    for name, shown, way in (
        ("tus", "upload by tus", "up"),
        ("multipart", "upload by multipart", "up"),
        ("down", "download", "down"),
    ):
        theirs = plain[f"{way}_mb_s"] if plain else None
        rows.append(
            [
                shown,
                cell(ours[f"{name}_mb_s"]),
                cell(theirs) if theirs else "–",
                ratio_cell(ours[f"{name}_mb_s"], theirs) if theirs else "–",
                cell(ours[f"{name}_rss_mb"], 1),
            ]
        )
    return [
        "## 200 MB in and out",
        "",
        "MB/s (10^6 bytes) of one file over one connection. nginx takes a PUT and answers GET with sendfile; it "
        "neither computes a digest nor waits for the disk. The node answers an upload after sha256, check of the "
        "format, fsync and commit, and compares the sha256 while it sends. Aim: at least 0.5 of nginx, and at most "
        "32 MB of growth.",
        "",
        *table(["", "node", "nginx", "node ÷ nginx", "growth of the node, MB"], rows),
        "",
    ]


# --- others meanwhile ---------------------------------------------------------------------------------------------


def fairness(options: Options, folder: Path) -> Rounds:
    from models_peers.fairness import during_upload  # noqa: PLC0415
    from models_peers.transfers import Transfer  # noqa: PLC0415

    with servers.node(**UNBOUNDED) as node:
        transfer = Transfer(folder, 1024 * MIB)
        transfer.warm(node, folder / "warm")
        return measure.interleaved(options.rounds, {"node": lambda: during_upload(node, transfer)})


def fairness_text(rounds: Rounds) -> Lines:
    ours = rounds["node"]
    row = [cell(ours[name], 1) for name in ("p50_ms", "p99_ms", "worst_ms")]
    return [
        "## Others while 1 GiB comes in",
        "",
        "Milliseconds of `GET /models` on a kept connection during an upload by tus. Aim: p99 below 100.",
        "",
        *table(["p50", "p99", "worst"], [row]),
        "",
    ]


# --- a model inside an event --------------------------------------------------------------------------------------


def events(options: Options, folder: Path) -> Rounds:
    from models_peers.events import EventBorne  # noqa: PLC0415

    large = {"models_message_max": 80 * MIB, "message_max": 80 * MIB, **UNBOUNDED}
    borne = EventBorne(os.urandom(options.event_size * MIB))
    with ExitStack() as stack:
        modes = ("eventlet", "threading")
        nodes = {mode: stack.enter_context(servers.node(async_mode=mode, **large)) for mode in modes}
        runs = {mode: functools.partial(borne.run, one.port) for mode, one in nodes.items()}
        return measure.interleaved(options.rounds, runs)


def events_text(rounds: Rounds) -> Lines:
    names = {"serve_s": "`/serve_model`", "get_s": "`/get_model`"}
    rows = [
        [
            shown,
            cell(rounds["eventlet"][name], 2),
            cell(rounds["threading"][name], 2),
            ratio_cell(rounds["eventlet"][name], rounds["threading"][name]),
        ]
        for name, shown in names.items()
    ]
    return [
        "## 64 MiB inside one event",
        "",
        "Seconds from the first byte to the ack, over a WebSocket, with the limits raised. Aim: at most twice what "
        "the threading driver takes.",
        "",
        *table(["event", "eventlet", "threading", "eventlet ÷ threading"], rows),
        "",
    ]


# --- inference ----------------------------------------------------------------------------------------------------


def inference(options: Options, folder: Path) -> Rounds:
    from models_peers import inference as part  # noqa: PLC0415

    part.torch.set_num_threads(1)
    model, rows = part.Mlp(1), part.rows_of(1)
    expected = model(rows)
    python = servers.litserve_python(Path(options.litserve_python))
    weights = folder / "weights.pt"
    model.save_for_litserve(weights)
    with ExitStack() as stack:
        node = stack.enter_context(servers.node(compute_processes=1, compute_threads=1, **UNBOUNDED))
        servers.ask(node.port, "/serve_model", model.serve_body("mlp"))
        peers = {
            "node JSON": part.Peer(node, part.node_json("mlp", rows), part.from_node_json),
            "node binary": part.Peer(node, part.node_binary("mlp", rows), part.from_node_binary),
        }
        runs = {name: functools.partial(part.measured, peer, expected, options.seconds) for name, peer in peers.items()}
        for name, batch in (("LitServe", 1), ("LitServe batched", 32)):
            server = stack.enter_context(servers.litserve(python, weights, batch))
            server.rest()
            peer = part.Peer(server, part.litserve_json(rows), part.from_litserve)
            runs[name] = functools.partial(part.awake, peer, expected, options.seconds)
        rounds = measure.interleaved(options.rounds, runs)
        rounds |= measure.interleaved(1, {"hot swap": lambda: part.hot_swap(node, 2 * options.seconds)})
    return rounds


def inference_text(rounds: Rounds) -> Lines:
    swap, ours = rounds["hot swap"], rounds["node JSON"]
    peers = [name for name in rounds if name != "hot swap"]
    text = [
        "## Inference: MLP 256-1024-256, float32, one worker process with one thread",
        "",
        "256 numbers in, 256 out, HTTP with kept connections, the same load client; each answer was compared with the "
        "local module. Batches of LitServe as of the node: 32 rows, 5 ms. Aim: node JSON at least 1.25 of the better "
        "LitServe at 16 and 64 connections.",
        "",
    ]
    for connections in (1, 16, 64):
        best = max(
            (name for name in peers if name.startswith("LitServe")),
            key=lambda name: sum(rounds[name][f"per_s_{connections}"]),
        )
        rows = [
            [
                name,
                cell(rounds[name][f"per_s_{connections}"]),
                cell(rounds[name][f"p50_ms_{connections}"], 1),
                cell(rounds[name][f"p99_ms_{connections}"], 1),
                cell(rounds[name][f"cpu_us_{connections}"]),
            ]
            for name in peers
        ]
        columns = [f"{connections} connections", "requests/s", "p50 ms", "p99 ms", "server CPU µs a request"]
        ratio = ratio_cell(ours[f"per_s_{connections}"], rounds[best][f"per_s_{connections}"])
        text += [*table(columns, rows), "", f"node JSON ÷ {best}: {ratio} in requests/s.", ""]
    return [
        *text,
        f"Versions swapped under load: {swap['requests'][0]:.0f} requests over 16 connections while "
        f"{swap['versions_seen'][0]:.0f} versions followed each other; {swap['failed'][0]:.0f} failed, the longest "
        f"took {swap['longest_ms'][0]:.0f} ms; each answer fits the version that it names.",
        "",
    ]


# --- 10,000 models ------------------------------------------------------------------------------------------------


def lists(options: Options, folder: Path) -> Rounds:
    from models_peers import lists as part  # noqa: PLC0415

    with servers.node(**UNBOUNDED) as node:
        filled = part.fill(node.port, options.models)
        print(f"{options.models} models served in {filled:.1f} s", flush=True)
        return measure.interleaved(options.rounds, {"node": lambda: part.asked(node.port, options.models, 200)})


def lists_text(rounds: Rounds) -> Lines:
    ours = rounds["node"]
    rows = [
        [shown, *(cell(ours[f"{name}_{face}_{which}_ms"], 1) for face in ("http", "event") for which in ("p50", "p99"))]
        for name, shown in (("models", "`/models`, all ids"), ("tag", "`/detailed_models_list`, one tag of 100"))
    ]
    return [
        "## 10,000 models",
        "",
        "One client, 200 requests a round, ms. Aim: p99 at most 20.",
        "",
        *table(["", "HTTP p50", "HTTP p99", "event p50", "event p99"], rows),
        "",
    ]


# --- all of it ----------------------------------------------------------------------------------------------------

MEASURE: dict[str, Callable[[Options, Path], Rounds]] = {
    "transfers": transfers,
    "fairness": fairness,
    "events": events,
    "inference": inference,
    "lists": lists,
}
TELL: dict[str, Callable[[Rounds], Lines]] = {
    "transfers": transfers_text,
    "fairness": fairness_text,
    "events": events_text,
    "inference": inference_text,
    "lists": lists_text,
}


def parsed() -> Options:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="comma separated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load for each figure of inference")
    parser.add_argument("--size", type=int, default=200, help="MB of the transferred file")
    parser.add_argument("--event-size", type=int, default=64, help="MiB of the model in an event")
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--nginx", default="nginx", help="program; without one the node stands alone")
    parser.add_argument("--litserve-python", default=LITSERVE_PYTHON)
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


def kept() -> dict[str, Any]:
    """The parts of the last run."""
    file = RESULTS / "models.json"
    found: dict[str, Any] = json.loads(file.read_text())["parts"] if file.exists() else {}
    return found


def measured(options: Options, part: str) -> dict[str, Any]:
    before = measure.machine()
    folder = Path(tempfile.mkdtemp(prefix="grid-bench-"))
    try:
        rounds = MEASURE[part](options, folder)
    finally:
        shutil.rmtree(folder)
    return {"machine": before, "load_after": round(os.getloadavg()[0], 2), "rounds": rounds}


def main() -> None:
    options = parsed()
    found = kept() | {part: measured(options, part) for part in options.parts}
    text = [
        "# Hosted models: speed and memory",
        "",
        "`python benchmarks/models.py`. Median (lowest–highest) of the rounds; servers and load share the machine.",
        "",
    ]
    for part in (part for part in PARTS if part in found):
        about = {**found[part]["machine"], "load_after": found[part]["load_after"]}
        text += [*TELL[part](found[part]["rounds"]), f"Machine: {measure.listed(about)}.", ""]
    measure.write("models", {"parts": found}, "\n".join(text))


if __name__ == "__main__":
    main()
