"""The tests' double of a subtensor as a program that takes orders. Its first line is its uri.

    subtensor.py NETUID NEURONS BLOCKS HOTKEY

The neuron of HOTKEY is one of NEURONS and may set weights. An order is a line on stdin, its answer a line of JSON:
`seal` makes a block, `every SECONDS` makes one again and again (0 ends that), `calls` counts what was asked so far,
`heads` lists [seconds of CLOCK_MONOTONIC, number] of each block since the last time.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import replace
from typing import Any

from tests.subtensor.__main__ import RAO, populate
from tests.subtensor.chain import Block, Chain
from tests.subtensor.server import FakeSubtensor
from tests.subtensor.state import U16_MAX, Neuron


class Ordered:
    """The double, and the clock that makes its blocks."""

    def __init__(self, double: FakeSubtensor, netuid: int) -> None:
        self._double = double
        self._netuid = netuid
        self._heads: list[tuple[float, int]] = []
        self._ticking: threading.Event | None = None
        double.chain.on_block.append(lambda block: self._heads.append((time.monotonic(), block.number)))

    def obey(self, order: str, *given: str) -> Any:
        if order == "seal":
            return seal(self._double.chain, self._netuid).number
        if order == "every":
            return self._every(float(given[0]))
        if order == "calls":
            return dict(self._double.calls)
        assert order == "heads", order
        told, self._heads = self._heads, []
        return told

    def _every(self, seconds: float) -> None:
        if self._ticking is not None:
            self._ticking.set()
        self._ticking = ended = threading.Event()
        if seconds:
            threading.Thread(target=self._tick, args=(ended, seconds), daemon=True).start()

    def _tick(self, ended: threading.Event, seconds: float) -> None:
        while not ended.wait(seconds):
            seal(self._double.chain, self._netuid)


def seal(chain: Chain, netuid: int) -> Block:
    """The next block, with other figures of every neuron: nobody gains by comparing it with the one before."""
    with chain.lock:
        number = chain.head.number + 1
        changed = [_at(neuron, number) for neuron in chain.subnet(netuid).neurons]
        chain.set_subnet(netuid, neurons=tuple(changed))
        return chain.advance()


def _at(neuron: Neuron, number: int) -> Neuron:
    figure = (neuron.uid * 7919 + number * 104729) % U16_MAX
    shares = {"incentive": figure, "consensus": figure // 2, "trust": figure // 3, "rank": figure}
    stakes = {"alpha_stake": neuron.alpha_stake + number, "total_stake": neuron.total_stake + number}
    return replace(neuron, emission=figure * 1000, last_update=number, **shares, **stakes)


def main(netuid: int, neurons: int, blocks: int, hotkey: str) -> None:
    double = FakeSubtensor()
    double.chain.clock = time.time
    populate(double.chain, netuid, neurons - 1)
    double.chain.add_neuron(netuid, hotkey, validator_permit=True, alpha_stake=1000 * RAO, total_stake=1000 * RAO)
    double.chain.advance()
    while double.chain.head.number < blocks:
        seal(double.chain, netuid)
    ordered = Ordered(double, netuid)
    with double:
        print(double.uri, flush=True)
        for line in sys.stdin:
            print(json.dumps(ordered.obey(*line.split())), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4])
