"""Certificates: an Ed25519 pair of which the chain gets the public half, and the client alone the private one.

For the writer thread of the chain's process. The private half is in the answer and nowhere else.
"""

import json
import logging
import time
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grid_node.chain.ports import Certificate, ChainPort, ChainProblem, Landed, Signer
from grid_node.chain.sending import Sender, Sleep
from grid_node.clock import Clock
from grid_node.errors import ChainInvalid, ChainWriteFailed
from grid_node.settings import Settings

log = logging.getLogger(__name__)

ED25519 = 1
"""The only algorithm there is: EdDSA on Curve25519."""
ALGORITHM_TEXT = "Value error, Currently, only algorithm equals 1 is supported which is EdDSA using Ed25519 curve"
FAILED_TEXT = "Could not generate certificate pair."
LOOK_SECONDS = 1.0


class Issued(NamedTuple):
    """`body` is the JSON of the answer, with the private half: it must not be logged or kept."""

    landed: Landed
    body: bytes


class CertificateWriter:
    def __init__(self, clock: Clock, settings: Settings, port: ChainPort, sleep: Sleep = time.sleep) -> None:
        self._port = port
        self._sender = Sender(port, clock, settings.chain_submit_timeout_seconds, LOOK_SECONDS, sleep)

    def generate(self, signer: Signer, algorithm: int) -> Issued:
        """A fresh pair, its public half on the chain. Raises ChainInvalid and ChainWriteFailed."""
        require_algorithm(algorithm)
        private = Ed25519PrivateKey.generate()
        certificate = Certificate(ED25519, private.public_key().public_bytes_raw())
        try:
            landed = self._sender.send(self._port.prepare_certificate(signer, certificate))
        except ChainProblem as error:
            log.warning("certificate of %s: %s", signer.identity, error)
            raise ChainWriteFailed(FAILED_TEXT) from error
        body = certificate.body() | {"private_key": private.private_bytes_raw().hex()}
        return Issued(landed, json.dumps(body, separators=(",", ":")).encode())


def require_algorithm(algorithm: int) -> None:
    """Raises ChainInvalid."""
    if algorithm != ED25519:
        raise ChainInvalid(extra=[{"message": ALGORITHM_TEXT, "key": "algorithm"}])
