"""Made-up neurons to try things out with: the same ones for the same subnet."""

from hashlib import blake2b

from grid_node.chain.ledger.neurons import NewNeuron
from grid_node.chain.ports import RAO
from grid_node.ss58 import encode

VALIDATOR_EVERY = 16
"""One neuron out of so many is a validator."""
SILENT_EVERY = 8
"""One neuron out of so many serves no axon."""
NETWORK = "198.18."
"""Addresses set aside for benchmarks (RFC 2544): nobody is there."""
HTTP = 4


def made_up(netuid: int, count: int) -> list[NewNeuron]:
    """Nobody has the private keys: public keys are hashes of `netuid` and a number."""
    return [_neuron(netuid, number) for number in range(count)]


def _neuron(netuid: int, number: int) -> NewNeuron:
    stakes = _hash(netuid, number, b"stake")
    is_validator = number % VALIDATOR_EVERY == 0
    is_silent = number % SILENT_EVERY == SILENT_EVERY - 1
    scale = 100_000 if is_validator else 100
    return NewNeuron(
        hotkey=encode(_hash(netuid, number, b"hotkey")),
        coldkey=encode(_hash(netuid, number, b"coldkey")),
        alpha=int.from_bytes(stakes[:8], "little") % (scale * RAO),
        tao=int.from_bytes(stakes[8:16], "little") % (scale // 10 * RAO),
        validator_permit=is_validator,
        ip="0.0.0.0" if is_silent else f"{NETWORK}{number // 256}.{number % 256}",
        port=0 if is_silent else 8000 + number,
        protocol=0 if is_silent else HTTP,
    )


def _hash(netuid: int, number: int, what: bytes) -> bytes:
    return blake2b(what + netuid.to_bytes(2, "little") + number.to_bytes(2, "little"), digest_size=32).digest()
