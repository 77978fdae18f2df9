"""A small subtensor as the yard in which the chain's port is put to the test."""

from collections.abc import Mapping
from typing import Any

from bittensor_wallet import Keypair

from grid_node.chain.ports import RAO, Signer, WriteRefused
from grid_node.chain.samples import Samples
from grid_node.chain.subtensor import SubtensorChain
from grid_node.settings import Settings
from tests.subtensor import FakeSubtensor

ELSEWHERE = 60_000
"""A subnet where every signer is registered: a node takes no extrinsic of an account that it has never seen."""
SIGNERS = ("alice", "bob")


class NamedKeys:
    """Development keys by the identity's name."""

    def keypair(self, signer: Signer) -> Keypair:
        if signer.wallet == "missing":
            raise WriteRefused(f"Hotkey of identity '{signer.identity}' cannot be read")
        return Keypair.create_from_uri(f"//{signer.identity}")

    def hotkey(self, signer: Signer) -> str:
        return str(self.keypair(signer).ss58_address)


class SubtensorYard:
    """Includes what is sent at once. Blocks come with it, and with every change."""

    has_commit_reveal = True

    def __init__(self, fake: FakeSubtensor) -> None:
        self.fake = fake
        fake.chain.add_subnet(ELSEWHERE)
        for name in SIGNERS:
            fake.chain.add_neuron(ELSEWHERE, self.hotkey(name))
        fake.chain.advance()
        self.port = self.another_port(fake.uri)

    def another_port(self, uri: str, archive: SubtensorChain | None = None) -> SubtensorChain:
        return SubtensorChain(uri, Settings(), NamedKeys(), Samples(), archive)  # type: ignore[arg-type]

    def signer(self, netuid: int, name: str = "alice") -> Signer:
        return Signer(name, netuid, "missing" if name == "missing" else "wallet", "hot")

    def hotkey(self, name: str = "alice") -> str:
        return str(Keypair.create_from_uri(f"//{name}").ss58_address)

    def add_subnet(self, netuid: int, *, tempo: int = 360, commit_reveal: bool = False) -> None:
        self.fake.chain.add_subnet(netuid, tempo=tempo, commit_reveal=commit_reveal)
        self.fake.chain.advance()

    def add_neuron(
        self,
        netuid: int,
        hotkey: str,
        *,
        coldkey: str | None = None,
        stake_alpha: float = 0.0,
        stake_tao: float = 0.0,
        validator_permit: bool = False,
        axon: tuple[str, int] | None = None,
    ) -> int:
        fields: dict[str, Any] = {
            "alpha_stake": round(stake_alpha * RAO),
            "tao_stake": round(stake_tao * RAO),
            "total_stake": round((stake_alpha + stake_tao) * RAO),
            "validator_permit": validator_permit,
        }
        if axon is not None:
            fields |= {"ip": axon[0], "port": axon[1]}
        uid = self.fake.chain.add_neuron(netuid, hotkey, coldkey, **fields)
        self.fake.chain.advance()
        return uid

    def remove_last_neuron(self, netuid: int, hotkey: str) -> None:
        self.fake.chain.remove_neuron(netuid, hotkey)
        self.fake.chain.advance()

    def advance(self, count: int) -> None:
        self.fake.chain.advance(count)

    def weights(self, netuid: int, hotkey: str) -> Mapping[int, int] | None:
        row = self.fake.chain.weights(netuid, hotkey)
        return None if row is None else dict(row.values)
