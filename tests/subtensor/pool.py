"""Extrinsics that wait for a block, and those who watch what becomes of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.subtensor.extrinsics import STALE, Extrinsic, Refused, check, invalid, parse
from tests.subtensor.scale import BadScale

if TYPE_CHECKING:
    from tests.subtensor.chain import Block, Chain

Status = str | dict[str, Any]
"""As `author_extrinsicUpdate` tells it: "ready", {"inBlock": hash} and so on."""
Watcher = Callable[[Status], None]


@dataclass
class _Waiting:
    extrinsic: Extrinsic
    watchers: list[Watcher] = field(default_factory=list)

    def tell(self, status: Status) -> None:
        for watcher in self.watchers:
            watcher(status)


class Pool:
    """Its callers hold the chain's lock."""

    def __init__(self, chain: "Chain") -> None:
        self._chain = chain
        self._waiting: dict[bytes, _Waiting] = {}
        self._included: dict[bytes, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, raw: bytes, watcher: Watcher | None = None, *, forget: bool = False) -> bytes:
        """Raises Refused, with the codes of a node."""
        try:
            one = parse(raw)
        except BadScale as problem:
            raise Refused(1002, f"Verification Error: Runtime error: Execution failed: {problem}") from None
        if one.hash in self._waiting:
            raise Refused(1013, "Transaction Already Imported", one.hash.hex())
        check(one, self._chain.head.state, self._chain.hash_of)
        nonce = self._nonce(one)
        if one.nonce < nonce:
            raise invalid(STALE)
        entry = _Waiting(one, [watcher] if watcher else [])
        self._replace_same(one)
        if not forget:
            self._waiting[one.hash] = entry
        entry.tell("ready" if one.nonce == self.next_nonce(one.signer or b"", but=one.hash) else "future")
        return one.hash

    def _nonce(self, one: Extrinsic) -> int:
        """The chain's own, of one who is a neuron somewhere or has signed before. Raises Refused."""
        state, signer = self._chain.head.state, one.signer or b""
        if signer not in state.nonces and not any(net.by_hotkey(signer) for net in state.subnets.values()):
            raise invalid("Inability to pay some fees (e.g. account balance too low)")
        return state.nonces.get(signer, 0)

    def _replace_same(self, one: Extrinsic) -> None:
        """The higher tip wins. Raises Refused."""
        for key, other in list(self._waiting.items()):
            if (other.extrinsic.signer, other.extrinsic.nonce) == (one.signer, one.nonce):
                if one.tip <= other.extrinsic.tip:
                    told = "The transaction has too low priority to replace another transaction already in the pool."
                    raise Refused(1014, f"Priority is too low: ({other.extrinsic.tip} vs {one.tip})", told)
                other.tell({"usurped": "0x" + one.hash.hex()})
                del self._waiting[key]

    def next_nonce(self, signer: bytes, but: bytes | None = None) -> int:
        """Where those that wait are counted, as `system_accountNextIndex` does."""
        nonce = self._chain.head.state.nonces.get(signer, 0)
        waiting = {
            entry.extrinsic.nonce
            for key, entry in self._waiting.items()
            if entry.extrinsic.signer == signer and key != but
        }
        while nonce in waiting:
            nonce += 1
        return nonce

    def ready(self) -> list[Extrinsic]:
        """Those that the next block takes, in the order of their nonces. Those that have died are told so."""
        taken: list[Extrinsic] = []
        nonces = dict(self._chain.head.state.nonces)
        for key, entry in sorted(self._waiting.items(), key=lambda item: item[1].extrinsic.nonce):
            one = entry.extrinsic
            if not self._is_alive(one):
                entry.tell("invalid")
                del self._waiting[key]
            elif one.nonce == nonces.get(one.signer or b"", 0):
                nonces[one.signer or b""] = one.nonce + 1
                taken.append(one)
        return taken

    def _is_alive(self, one: Extrinsic) -> bool:
        try:
            check(one, self._chain.head.state, self._chain.hash_of)
        except Refused:
            return False
        return one.nonce >= self._chain.head.state.nonces.get(one.signer or b"", 0)

    def pending(self) -> list[Extrinsic]:
        return [entry.extrinsic for entry in self._waiting.values()]

    def included(self, block: "Block") -> None:
        for one in block.extrinsics:
            if entry := self._waiting.pop(one.hash, None):
                self._included[one.hash] = entry
                entry.tell({"inBlock": "0x" + block.hash.hex()})

    def finalized(self, block: "Block") -> None:
        for one in block.extrinsics:
            if entry := self._included.pop(one.hash, None):
                entry.tell({"finalized": "0x" + block.hash.hex()})

    def retracted(self, block: "Block") -> None:
        for one in block.extrinsics:
            if entry := self._included.pop(one.hash, None):
                self._waiting[one.hash] = entry
                entry.tell({"retracted": "0x" + block.hash.hex()})
