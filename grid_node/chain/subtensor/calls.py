"""The calls of the runtime that the node signs, as opentensor/subtensor declares them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bittensor_wallet import Keypair

from grid_node.chain.ports import Certificate, Hyperparams
from grid_node.chain.subtensor.reading import PALLET

AXON = ("version", "ip", "port", "ip_type", "protocol", "placeholder1", "placeholder2")
"""What `serve_axon_tls` says about an axon, all numbers."""
IPV4 = 4


class Call(NamedTuple):
    """A call, and the name of the operation that it is measured as."""

    operation: str
    module: str
    function: str
    params: dict[str, Any]
    reveal_round: int | None = None


def set_weights(netuid: int, uids: Sequence[int], values: Sequence[int], at: Hyperparams) -> Call:
    params = {"netuid": netuid, "dests": list(uids), "weights": list(values), "version_key": at.weights_version}
    return Call("set_weights", PALLET, "set_weights", params)


def commit_weights(netuid: int, commit: bytes, reveal_round: int, at: Hyperparams) -> Call:
    params = {
        "netuid": netuid,
        "commit": "0x" + commit.hex(),
        "reveal_round": reveal_round,
        "commit_reveal_version": at.commit_reveal_version,
    }
    return Call("commit_weights", PALLET, "commit_timelocked_weights", params, reveal_round)


def set_commitment(netuid: int, data: bytes) -> Call:
    """The library takes plain `bytes` only, no subclass: anything else it reads as text."""
    info = {"fields": [[{f"Raw{len(data)}": bytes(data)}]]}
    return Call("set_commitment", "Commitments", "set_commitment", {"netuid": netuid, "info": info})


def serve_axon_tls(netuid: int, axon: Mapping[str, Any] | None, certificate: Certificate) -> Call:
    """`axon` as the chain has it now; None: it serves nothing, and goes on doing so."""
    params = {name: int((axon or {}).get(name, 0)) for name in AXON}
    params["ip_type"] = params["ip_type"] or IPV4
    told = "0x" + bytes([certificate.algorithm]).hex() + certificate.public_key.hex()
    return Call(
        "generate_certificate_keypair", PALLET, "serve_axon_tls", {"netuid": netuid, **params, "certificate": told}
    )


def public_key(keypair: Keypair) -> bytes:
    """32 bytes."""
    return bytes(keypair.public_key or b"")
