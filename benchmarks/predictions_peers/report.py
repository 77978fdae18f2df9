"""The tables of `../predictions.py`, and what each peer's answer means."""

from __future__ import annotations

from typing import Any

import measure
from measure import Rounds
from predictions_peers.messages import GAMES

WINDOW, BATCH = 16, 16
"""Messages of one miner on their way, and messages of one batch."""
NAMES = {
    "floor": "raw floor",
    "floor-16": f"raw floor, batches of {BATCH}",
    "node": "grid node",
    "node-16": f"grid node, batches of {BATCH}",
    "node-zlib": "grid node, zlib",
    "node-raw": "grid node, not compressed",
    "nats": "NATS, bare sockets",
    "nats-py": "NATS, nats-py",
    "nats-sync": "NATS with fsync of each message, bare sockets",
}
TITLES = {
    "burst": f"Bursts: {WINDOW} messages of each miner on their way, {{messages}} of each in all",
    "paced": "One message a second of each miner, for {seconds} s: from sending it to its ack",
    "fanout": "One change of odds: from sending it until each miner has it, {changes} changes a round",
    "snapshot": f"All miners ask for {GAMES} games at once: until each has them",
}
MEANINGS = """What an answer means:

- **grid node**: signature verified, the rules judged, receipt signed; prediction, receipt, seq and the day's sum of the
  miner committed to SQLite with fsync (WAL, synchronous=FULL). One miner's verdicts come in the order of arrival. A
  change of odds is an HTTP request of an admin (`PUT /games/<id>`), checked and committed with its entry of the update
  log before it is sent.
- **raw floor**: signature verified, a receipt of the same size signed, one row committed to SQLite with fsync. No
  rules, no caps, no second look at a known id, no limits, no Socket.IO.
- **NATS JetStream**: the bytes are in the file store and a repeated `Nats-Msg-Id` is recognised. Nothing is verified or
  signed, and the file is synced every two minutes by default: what was acknowledged since is lost with the power. A
  change of odds is a core NATS message of the same size, kept nowhere."""


def burst_table(rounds: Rounds) -> list[str]:
    rows = []
    for name, figures in rounds.items():
        rate, load = measure.cell(figures["acks_per_s"]), measure.cell(figures["load_cpu_us"])
        server = measure.cell(figures["server_cpu_us"]) if "server_cpu_us" in figures else "—"
        shares = [_to_floor(rounds, name, figure) for figure in ("acks_per_s", "server_cpu_us")]
        rows.append([NAMES[name], rate, shares[0], server, shares[1], load])
    columns = ["peer", "acks/s", "÷ raw floor", "server CPU, µs an ack", "÷ raw floor", "load CPU, µs an ack"]
    return measure.table(columns, rows)


def _to_floor(rounds: Rounds, name: str, figure: str) -> str:
    """A peer's figure divided by that of the floor, round by round."""
    if name == "floor" or "floor" not in rounds or figure not in rounds[name]:
        return "—"
    return measure.ratio_cell(rounds[name][figure], rounds["floor"][figure])


def times_table(rounds: Rounds) -> list[str]:
    sizes = [name for name in ("bytes", "raw_bytes") if name in next(iter(rounds.values()))]
    rows = []
    for name, figures in rounds.items():
        times = [measure.cell(figures[f"{share}_ms"], 1) for share in ("p50", "p99", "max")]
        rows.append([NAMES[name], *times, *(f"{figures[size][-1]:.0f}" for size in sizes)])
    columns = {"bytes": "bytes sent to each", "raw_bytes": "bytes of the message"}
    return measure.table(["peer", "p50 ms", "p99 ms", "max ms", *(columns[size] for size in sizes)], rows)


def report(results: dict[str, Rounds], about: dict[str, Any]) -> str:
    options = about["options"]
    lines = [
        f"# Predictions of {options['miners']} miners",
        "",
        f"`python benchmarks/predictions.py --rounds {options['rounds']}`. Median (lowest–highest) of"
        f" {options['rounds']} interleaved rounds; the load is a process of its own on the same cores. Every message is"
        " signed and framed before the clock starts and has an id of its own; all answers are judged after it.",
    ]
    for part, title in TITLES.items():
        if results.get(part):
            table = burst_table if part == "burst" else times_table
            lines += ["", f"## {title.format(**options)}", "", *table(results[part])]
    settings = measure.listed(about["settings"])
    lines += ["", MEANINGS, "", f"Settings of the node that are not its defaults: {settings}."]
    lines += [f"Left out: {name} ({why})." for name, why in about["left_out"].items()]
    lines += [
        "",
        f"Machine: {measure.listed(about['machine'])}.",
        "",
        f"Versions: {measure.listed(about['versions'])}.",
    ]
    return "\n".join(lines) + "\n"
