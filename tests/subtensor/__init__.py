"""A small subtensor for tests: JSON-RPC over WebSocket on loopback, with metadata, signed extrinsics and faults.

    with FakeSubtensor(instant=True) as node:
        node.chain.add_subnet(1, tempo=99)
        node.chain.add_neuron(1, "5Grwva...", validator_permit=True)
        node.chain.advance()
        node.faults.stall("state_call")
        ...  # a client of node.uri

Names and shapes are those of opentensor/subtensor; error codes and texts those of Substrate's RPC. What it has not:
tries and proofs, fees and stakes that move, consensus, the reveal of timelocked weights.
"""

from tests.subtensor.chain import Block, Chain
from tests.subtensor.faults import Faults
from tests.subtensor.server import FakeSubtensor

__all__ = ["Block", "Chain", "FakeSubtensor", "Faults"]
