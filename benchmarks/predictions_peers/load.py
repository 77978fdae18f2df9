"""Load of many miners for the node, the raw floor or NATS: all is signed and framed before the clock starts.

    load.py PEER PORT PID MODE OPTIONS       PEER is node, floor or nats, PID serves, OPTIONS is a JSON object

MODE `burst`: each miner keeps `window` messages on their way, in events of `batch`, until it has sent `count`.
MODE `paced`: each miner sends one message a second for `seconds`, whether or not the last one was answered.
MODE `fanout`: `changes` changes of one game's odds, each once all miners have the one before.
MODE `snapshot`: all miners ask for all games at once, `changes` times, `zlib` or not.
Prints figures as JSON. Answers are judged after the clock: every one of them, and the signatures of a sample.
"""

from __future__ import annotations

import gc
import json
import secrets
import socket
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from lean_client import TEXT, Loop, frame
from measure import cpu_seconds
from predictions_peers import messages
from predictions_peers.miners import KINDS, UPDATES, FloorMiner, Miner, NodeMiner, inflated

LIMIT_SECONDS = 120.0
SAMPLE = 256
WARM_UPS = 3
ELSEWHERE = orjson.dumps({"epoch": "0" * 16, "seq": 0})
"""A position of another log: who resumes there gets a snapshot."""
GAME = f"bench-{messages.CHANGING}"


def quantiles_ms(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_ms": 1000 * cuts[49], "p99_ms": 1000 * cuts[98], "max_ms": 1000 * max(seconds)}


class Load:
    """All miners of a run, connected one after the other."""

    def __init__(self, peer: str, port: int, process_id: int, options: dict[str, Any]) -> None:
        self.options = options
        self._port = port
        self._process_id = process_id
        hotkey = messages.keypair(messages.NODE_SEED).ss58_address
        compression = ["zlib"] if options.get("zlib", True) else []
        keys = messages.miners(options["miners"])
        self.miners: list[Miner] = [
            KINDS[peer](port, key, options.get("node_hotkey", hotkey), compression) for key in keys
        ]
        self._loop = Loop(self.miners)

    def _prepare(self, count: int, batch: int) -> None:
        run = secrets.token_hex(6)
        for number, miner in enumerate(self.miners):
            miner.prepare(run, number, count, batch)
        gc.collect()
        gc.disable()

    def _until(self, done: Callable[[], bool]) -> None:
        self._loop.run_until(done, LIMIT_SECONDS)

    def _check(self) -> None:
        gc.enable()
        for miner in self.miners:
            miner.check(1 + SAMPLE // len(self.miners))

    # --- bursts -------------------------------------------------------------------------------------------------

    def burst(self) -> dict[str, float]:
        """Acknowledged predictions a second, and processor time of each in microseconds."""
        self._burst(2 * self.options["window"])
        return self._burst(self.options["count"])

    def _burst(self, count: int) -> dict[str, float]:
        batch = self.options["batch"]
        self._prepare(count, batch)
        done = 0

        def next_one(miner: Miner) -> None:
            nonlocal done
            done += 1
            miner.send_next()

        for miner in self.miners:
            miner.on_answer = next_one
        answers = len(self.miners) * self._answers_of(count, batch)
        cpu, own, began = cpu_seconds(self._process_id), time.process_time(), time.perf_counter()
        for miner in self.miners:
            for _ in range(self.options["window"] // batch):
                miner.send_next()
        self._until(lambda: done == answers)
        elapsed, own = time.perf_counter() - began, time.process_time() - own
        cpu = cpu_seconds(self._process_id) - cpu
        self._check()
        sent = count * len(self.miners)
        return {"acks_per_s": sent / elapsed, "server_cpu_us": 1e6 * cpu / sent, "load_cpu_us": 1e6 * own / sent}

    def _answers_of(self, count: int, batch: int) -> int:
        return -(-count // batch)

    # --- one message a second -----------------------------------------------------------------------------------

    def paced(self) -> dict[str, float]:
        """Milliseconds from sending to the ack; the miners' seconds begin at different times."""
        seconds, count = self.options["seconds"], len(self.miners)
        self._prepare(seconds, 1)
        due = [second + number / count for second in range(seconds) for number in range(count)]
        began = time.perf_counter() + 0.5
        for number, wait in enumerate(due):
            while (left := began + wait - time.perf_counter()) > 0:
                self._loop.feed(left)
            self.miners[number % count].send_next()
        self._until(lambda: all(len(miner.answers) == seconds for miner in self.miners))
        self._check()
        return quantiles_ms([took for miner in self.miners for took in miner.times])

    # --- updates of games ---------------------------------------------------------------------------------------

    def fanout(self) -> dict[str, float]:
        """Milliseconds from sending the change until each miner has it, and bytes of the message."""
        times: list[float] = []
        for number in range(self.options["changes"] + WARM_UPS):
            send, finish = self._change(f"{1.81 + (number % 50) / 100:.2f}")
            began = self._forget_updates()
            send()
            self._until_updated()
            finish()
            if number >= WARM_UPS:
                times += [miner.updates[0][0] - began for miner in self.miners]
            self._acknowledge()
        return {**quantiles_ms(times), "bytes": len(self.miners[0].updates[0][1])}

    def _change(self, odds: str) -> tuple[Callable[[], None], Callable[[], None]]:
        """What sends a change of odds, and what reads the answer to it."""
        first = self.miners[0]
        if isinstance(first, NodeMiner):
            return self._put(odds)
        if isinstance(first, FloorMiner):
            delta = frame(TEXT, orjson.dumps({"delta": {GAME: {"team_a_odds": odds}}}))
        else:
            body = orjson.dumps({"updated_games": {GAME: {"team_a_odds": odds}}, "about": "x" * 370})
            delta = f"PUB {UPDATES} {len(body)}\r\n".encode() + body + b"\r\n"
        return partial(first.write, delta), lambda: None

    def _put(self, odds: str) -> tuple[Callable[[], None], Callable[[], None]]:
        body = orjson.dumps({**messages.games(self.options["now"])[messages.CHANGING], "team_a_odds": odds})
        head = (
            f"PUT /games/{GAME} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.options['admin_key']}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        door = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        return partial(door.sendall, head.encode() + body), partial(_check_changed, door)

    def _forget_updates(self) -> float:
        """Returns the time."""
        for miner in self.miners:
            miner.updates = []
        return time.perf_counter()

    def _until_updated(self) -> None:
        self._until(lambda: all(miner.updates for miner in self.miners))

    def _acknowledge(self) -> None:
        for miner in self.miners:
            miner.acknowledge()

    def snapshot(self) -> dict[str, float]:
        """Milliseconds from asking until each miner has all games, and bytes as sent and as they are."""
        times: list[float] = []
        nodes = [miner for miner in self.miners if isinstance(miner, NodeMiner)]
        for number in range(self.options["changes"] + 1):
            requests = [frame(TEXT, miner.event("resume", ELSEWHERE)) for miner in nodes]
            began = self._forget_updates()
            for miner, request in zip(nodes, requests, strict=True):
                miner.write(request)
            self._until_updated()
            if number:
                times += [miner.updates[0][0] - began for miner in nodes]
            self._acknowledge()
        sent = nodes[0].updates[0][1]
        whole = inflated(sent)
        if len(orjson.loads(whole)["updated_games"]) != messages.GAMES:
            raise RuntimeError("the snapshot is not whole")
        return {**quantiles_ms(times), "bytes": len(sent), "raw_bytes": len(whole)}

    def close(self) -> None:
        for miner in self.miners:
            miner.close()


def _check_changed(door: socket.socket) -> None:
    answer = b""
    while chunk := door.recv(65536):
        answer += chunk
    door.close()
    if b" 200 " not in answer.split(b"\r\n", 1)[0] or b'"changed":true' not in answer.replace(b" ", b""):
        raise RuntimeError(answer[:2000].decode())


def main(arguments: list[str]) -> None:
    peer, port, process_id, mode, options = arguments
    load = Load(peer, int(port), int(process_id), json.loads(options))
    print(json.dumps(getattr(load, mode)()))
    load.close()


if __name__ == "__main__":
    main(sys.argv[1:])
