"""Load for NATS JetStream with nats-py, for an environment of its own: what a miner in Python would see.

    nats_load.py PORT MODE OPTIONS MESSAGES    MODE `stream` makes the stream, `burst` and `paced` are as in load.py

MESSAGES is a file of lines `miner<TAB>prediction_id<TAB>message`. Each miner has a connection of its own; a message
counts once its PubAck is in. Prints figures as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StorageType, StreamConfig

STREAM = "PREDICTIONS"
SUBJECT = "predictions"
WAIT_SECONDS = 60.0
Message = tuple[str, bytes]
Figures = dict[str, float]


def read(path: str) -> list[list[Message]]:
    """Each miner's messages."""
    found: dict[str, list[Message]] = {}
    for line in Path(path).read_bytes().splitlines():
        miner, prediction_id, text = line.split(b"\t", 2)
        found.setdefault(miner.decode(), []).append((prediction_id.decode(), text))
    return list(found.values())


async def publish(js: JetStreamContext, miner: int, message: Message) -> None:
    acknowledged = await js.publish(
        f"{SUBJECT}.{miner}", message[1], timeout=WAIT_SECONDS, headers={"Nats-Msg-Id": message[0]}
    )
    if acknowledged.stream != STREAM or acknowledged.duplicate:
        raise RuntimeError(f"not stored: {acknowledged}")


async def burst(streams: list[JetStreamContext], plan: list[list[Message]], options: dict[str, Any]) -> Figures:
    async def one_after_the_other(js: JetStreamContext, miner: int, left: Iterator[Message]) -> None:
        for message in left:
            await publish(js, miner, message)

    gc.collect()
    gc.disable()
    own, began = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for miner, (js, messages) in enumerate(zip(streams, plan, strict=True)):
            left = iter(messages)
            for _ in range(options["window"]):
                tasks.create_task(one_after_the_other(js, miner, left))
    elapsed, own = time.perf_counter() - began, time.process_time() - own
    sent = sum(map(len, plan))
    return {"acks_per_s": sent / elapsed, "load_cpu_us": 1e6 * own / sent}


async def paced(streams: list[JetStreamContext], plan: list[list[Message]], options: dict[str, Any]) -> Figures:
    times: list[float] = []

    async def timed(js: JetStreamContext, miner: int, message: Message) -> None:
        sent = time.perf_counter()
        await publish(js, miner, message)
        times.append(time.perf_counter() - sent)

    began, count = time.perf_counter() + 0.5, len(streams)
    async with asyncio.TaskGroup() as tasks:
        for second in range(options["seconds"]):
            for miner, js in enumerate(streams):
                await asyncio.sleep(max(0.0, began + second + miner / count - time.perf_counter()))
                tasks.create_task(timed(js, miner, plan[miner][second]))
    cuts = statistics.quantiles(times, n=100)
    return {"p50_ms": 1000 * cuts[49], "p99_ms": 1000 * cuts[98], "max_ms": 1000 * max(times)}


async def make_stream(client: Client) -> Figures:
    config = StreamConfig(name=STREAM, subjects=[f"{SUBJECT}.*"], storage=StorageType.FILE, duplicate_window=120)
    await client.jetstream().add_stream(config)
    return {}


async def main(port: str, mode: str, options: str, path: str) -> None:
    given, plan = json.loads(options), read(path) if path else [[]]
    clients = [await nats.connect(f"nats://127.0.0.1:{port}") for _ in plan]
    if mode == "stream":
        figures = await make_stream(clients[0])
    else:
        streams = [client.jetstream() for client in clients]
        figures = await {"burst": burst, "paced": paced}[mode](streams, plan, given)
    print(json.dumps(figures))
    for client in clients:
        await client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
