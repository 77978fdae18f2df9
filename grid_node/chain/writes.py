"""Commitments and certificates on the web's side: asked of the chain's process, and visible to the reads after."""

from typing import Protocol

from grid_node.chain.certificates import require_algorithm
from grid_node.chain.identities import Identity
from grid_node.chain.weights import Link
from grid_node.errors import ChainInvalid

COMMITTED_TEXT = "Commitment set successfully."
COMMITMENT_MAX = 128
"""Bytes of a commitment at most, which the chain's `Raw128` has."""


class Written(Protocol):
    """Of the chain's reads, what writes tell: a write of ours is in this block."""

    def wrote(self, number: int) -> None: ...


class ChainWrites:
    """Each raises ChainWriteFailed, ChainUnreachable, ChainQueueFull, and ChainTimeout after `timeout` seconds.

    A write that was handed over goes on when its caller has left.
    """

    def __init__(self, link: Link, reads: Written) -> None:
        self._link = link
        self._reads = reads

    def set_commitment(self, identity: Identity, data: bytes, timeout: float) -> dict[str, str]:
        """Pylon's answer, when the commitment is final. The same data of the same identity joins the run that is
        under way. Raises ChainInvalid for data of other than 1 to 128 bytes."""
        _require_length(data)
        answer = self._link.ask("set_commitment", {"identity": identity.name, "data": data.hex()}, timeout)
        self._reads.wrote(answer.meta["block_number"])
        return {"detail": COMMITTED_TEXT}

    def generate_certificate(self, identity: Identity, algorithm: int, timeout: float) -> bytes:
        """JSON of the new certificate, with its private key. Each call makes a pair of its own.
        Raises ChainInvalid for an algorithm that is not Ed25519's."""
        require_algorithm(algorithm)
        asked = {"identity": identity.name, "algorithm": algorithm}
        answer = self._link.ask("generate_certificate", asked, timeout)
        self._reads.wrote(answer.meta["block_number"])
        return bytes(answer.body)


def _require_length(data: bytes) -> None:
    if not data:
        problem = "Data should have at least 1 byte"
    elif len(data) > COMMITMENT_MAX:
        problem = f"Data should have at most {COMMITMENT_MAX} bytes"
    else:
        return
    raise ChainInvalid(extra=[{"message": problem, "key": "commitment"}])
