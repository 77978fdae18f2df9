"""Run the double as a program: `python -m tests.subtensor --neurons 256 --block-seconds 12` prints its uri."""

import argparse
import signal
import threading
from hashlib import sha256
from typing import Any

from bittensor_wallet import Keypair

from grid_node import ss58
from tests.subtensor.chain import Chain
from tests.subtensor.server import FakeSubtensor
from tests.subtensor.state import U16_MAX

VALIDATORS = 16
RAO = 1_000_000_000
DEVELOPERS = ("//Alice", "//Bob", "//Charlie", "//Dave")
"""The first uids, whose keys everybody knows."""


def key(netuid: int, uid: int) -> bytes:
    """Always the same: a developer's key, or 32 bytes that nobody can sign for."""
    if uid < len(DEVELOPERS):
        return ss58.decode(Keypair.create_from_uri(DEVELOPERS[uid]).ss58_address)
    return sha256(f"neuron {netuid} {uid}".encode()).digest()


def populate(chain: Chain, netuid: int, neurons: int, commitments: int = 0, **subnet: Any) -> None:
    """A subnet whose numbers all differ, the first 16 with a validator permit. It shows from the next block on."""
    chain.add_subnet(netuid, **subnet)
    for uid in range(neurons):
        share = U16_MAX * (uid + 1) // neurons
        chain.add_neuron(
            netuid,
            key(netuid, uid),
            validator_permit=uid < VALIDATORS,
            ip=f"10.{netuid % 256}.{uid // 256}.{uid % 256}",
            port=8000 + uid,
            protocol=4,
            rank=share,
            incentive=share,
            consensus=share // 2,
            trust=share // 3,
            validator_trust=share // 4 if uid < VALIDATORS else 0,
            dividends=share // 5 if uid < VALIDATORS else 0,
            emission=share * 1000,
            last_update=uid,
            alpha_stake=(neurons - uid) * RAO + uid,
            tao_stake=(neurons - uid) * RAO // 2,
            total_stake=(neurons - uid) * RAO * 3 // 2 + uid,
        )
    for uid in range(min(commitments, neurons)):
        chain.set_commitment(netuid, key(netuid, uid), f"commitment of {uid}".encode())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.subtensor", description="A small subtensor for tests.")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--netuid", type=int, default=1)
    parser.add_argument("--tempo", type=int, default=360)
    parser.add_argument("--neurons", type=int, default=256)
    parser.add_argument("--commitments", type=int, default=0)
    parser.add_argument("--blocks", type=int, default=10, help="blocks that are there from the start")
    parser.add_argument("--block-seconds", type=float, default=12.0)
    parser.add_argument("--finality-lag", type=int, default=0)
    parser.add_argument("--instant", action="store_true", help="seal a block as soon as an extrinsic arrives")
    given = parser.parse_args()
    double = FakeSubtensor(given.block_seconds, instant=given.instant, finality_lag=given.finality_lag, port=given.port)
    populate(double.chain, given.netuid, given.neurons, given.commitments, tempo=given.tempo)
    double.chain.advance(given.blocks)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    with double:
        print(double.uri, flush=True)
        asked.wait()


if __name__ == "__main__":
    main()
