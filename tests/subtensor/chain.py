"""The chain of the double: blocks, a pool of extrinsics, and everything a test may change about the subnets.

What a test edits shows from the next block on: `advance()`. Blocks that are there never change.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from grid_node import ss58
from tests.subtensor import shapes
from tests.subtensor.dispatch import Event, Failed, dispatch
from tests.subtensor.extrinsics import Extrinsic, blake2_256, inherent
from tests.subtensor.pallets import module_error
from tests.subtensor.pool import Pool, Watcher
from tests.subtensor.scale import compact, listed
from tests.subtensor.state import Commit, Neuron, Registration, State, Subnet, Weights, neuron_fields

BLOCK_SECONDS = 12
GENESIS_TIME = 1_760_000_000
"""Unix seconds of block 0, where no clock is given."""
_INFO: dict[str, Any] = {"weight": {"ref_time": 1, "proof_size": 0}, "class": ("Normal", []), "pays_fee": ("No", [])}

Account = str | bytes
"""SS58, or the 32 bytes of a public key."""


def account(who: Account) -> bytes:
    return ss58.decode(who) if isinstance(who, str) else who


@dataclass(frozen=True)
class Block:
    number: int
    hash: bytes
    header: dict[str, Any]
    """As JSON-RPC has it."""
    extrinsics: tuple[Extrinsic, ...]
    state: State


class Chain:
    """`clock` gives Unix seconds for the blocks to come; None: they are 12 seconds apart, from a fixed time on.

    Two chains with another `salt` differ in every block, the first one too.
    """

    def __init__(self, clock: Callable[[], float] | None = None, finality_lag: int = 0, salt: int = 0) -> None:
        self.lock = threading.RLock()
        self._submitted = threading.Condition(self.lock)
        self.clock = clock
        self.finality_lag = finality_lag
        self.on_block: list[Callable[[Block], None]] = []
        self.pool = Pool(self)
        self._hashes: dict[int, bytes] = {}
        self._blocks: list[Block] = []
        self._by_hash: dict[bytes, Block] = {}
        self._finalized = 0
        self._salt = salt
        self._next = State()
        self._seal([])

    # --- blocks ---------------------------------------------------------------------------------------------

    @property
    def head(self) -> Block:
        return self._blocks[-1]

    @property
    def finalized(self) -> Block:
        return self._blocks[self._finalized]

    def block(self, number: int) -> Block | None:
        return self._blocks[number] if 0 <= number < len(self._blocks) else None

    def by_hash(self, one: bytes) -> Block | None:
        """Also one that a reorganisation has left behind."""
        return self._by_hash.get(one)

    def hash_of(self, number: int) -> bytes | None:
        block = self.block(number)
        return block.hash if block else None

    def advance(self, count: int = 1) -> Block:
        """Seal `count` blocks; the first takes what waits in the pool."""
        with self.lock:
            for _ in range(count):
                self._seal(self.pool.ready())
            return self.head

    def finalize(self) -> None:
        """Everything up to the head less the lag."""
        with self.lock:
            number = max(self._finalized, self.head.number - self.finality_lag)
            fresh = self._blocks[self._finalized + 1 : number + 1]
            self._finalized = number
            for block in fresh:
                self.pool.finalized(block)

    def reorganise(self, depth: int) -> Block:
        """Put as many other, empty blocks in the place of the last `depth`, which must not be finalized.

        Their extrinsics wait in the pool again. Edits that no block shows yet are lost.
        """
        with self.lock:
            cut = len(self._blocks) - depth
            if cut <= self._finalized:
                raise ValueError("a finalized block stays")
            dropped, self._blocks = self._blocks[cut:], self._blocks[:cut]
            self._next, self._salt = self.head.state, self._salt + 1
            for _ in dropped:
                self._seal([])
            for block in dropped:
                self.pool.retracted(block)
            return self.head

    def _seal(self, extrinsics: list[Extrinsic]) -> None:
        number = len(self._blocks)
        now = self._time(number)
        opening = inherent(now)
        digest = (("PreRuntime", [b"aura", (now // 12000).to_bytes(8, "little")]),)
        state = replace(self._next, number=number, now=now, events=(), digest=digest, hashes=self._hashes)
        if number:
            state = _applied(_stepped(state), [opening, *extrinsics])
        inside = (opening, *extrinsics) if number else ()
        block = self._block(number, inside, state)
        self._hashes[number] = block.hash
        self._blocks.append(block)
        self._by_hash[block.hash] = block
        self._next = state
        self.pool.included(block)
        self.finalize()
        for tell in list(self.on_block):
            tell(block)

    def _time(self, number: int) -> int:
        if self.clock:
            return int(self.clock() * 1000)
        return (GENESIS_TIME + BLOCK_SECONDS * number) * 1000

    def _block(self, number: int, extrinsics: tuple[Extrinsic, ...], state: State) -> Block:
        parent = self._blocks[-1].hash if number else bytes(32)
        logs = [shapes.DIGEST_ITEM.encode(item) for item in state.digest]
        inside = blake2_256(listed([one.raw for one in extrinsics]))
        root = blake2_256(parent + inside + self._salt.to_bytes(8, "little"))
        digest = blake2_256(parent + compact(number) + root + inside + listed(logs))
        header = {
            "parentHash": hexed(parent),
            "number": hex(number),
            "stateRoot": hexed(root),
            "extrinsicsRoot": hexed(inside),
            "digest": {"logs": [hexed(log) for log in logs]},
        }
        return Block(number, digest, header, extrinsics, state)

    # --- extrinsics -----------------------------------------------------------------------------------------

    def submit(self, raw: bytes, watcher: Watcher | None = None, *, forget: bool = False) -> bytes:
        """Take it into the pool; its hash. Raises Refused. `forget`: accept it, and never include it."""
        with self.lock:
            digest = self.pool.submit(raw, watcher, forget=forget)
            self._submitted.notify_all()
            return digest

    def wait_for_pool(self, count: int = 1, seconds: float = 20.0) -> bool:
        """Whether `count` extrinsics waited for a block before the seconds were over."""
        with self.lock:
            return self._submitted.wait_for(lambda: len(self.pool) >= count, seconds)

    def landed(self, function: str | None = None, hotkey: Account | None = None) -> list[tuple[Block, Extrinsic]]:
        """Signed extrinsics in the chain, failed ones too, oldest first."""
        signer = None if hotkey is None else account(hotkey)
        return [
            (block, one)
            for block in self._blocks
            for one in block.extrinsics
            if one.signer is not None and function in (None, one.call[1]) and signer in (None, one.signer)
        ]

    def upgrade(self) -> None:
        """The next block brings a new runtime: the same, but for its spec_version."""
        with self.lock:
            self._next = replace(self._next, spec_version=self._next.spec_version + 1)

    # --- what tests look at and change ------------------------------------------------------------------------

    def subnet(self, netuid: int) -> Subnet:
        """At the head."""
        return self.head.state.subnets[netuid]

    def weights(self, netuid: int, hotkey: Account) -> Weights | None:
        return self.subnet(netuid).weights.get(account(hotkey))

    def commits(self, netuid: int, hotkey: Account) -> list[Commit]:
        """Weights that were committed and not shown."""
        return [one for one in self.subnet(netuid).commits if one.hotkey == account(hotkey)]

    def commitment(self, netuid: int, hotkey: Account) -> bytes | None:
        """What a Raw commitment says."""
        one = self.subnet(netuid).commitments.get(account(hotkey))
        return bytes(one.fields[0][1][0]) if one else None

    def certificate(self, netuid: int, hotkey: Account) -> tuple[int, bytes] | None:
        """Algorithm and public key."""
        return self.subnet(netuid).certificates.get(account(hotkey))

    def add_subnet(
        self,
        netuid: int,
        tempo: int = 360,
        commit_reveal: bool = False,
        weights_version: int = 0,
        **fields: Any,
    ) -> None:
        """More fields are those of Subnet."""
        subnet = Subnet(netuid, tempo, commit_reveal, weights_version=weights_version, **fields)
        with self.lock:
            self._next = self._next.with_subnet(subnet)

    def set_subnet(self, netuid: int, **fields: Any) -> None:
        self._change(netuid, lambda subnet: replace(subnet, **fields))

    def remove_subnet(self, netuid: int) -> None:
        with self.lock:
            left = {number: one for number, one in self._next.subnets.items() if number != netuid}
            self._next = replace(self._next, subnets=left)

    def add_neuron(self, netuid: int, hotkey: Account, coldkey: Account | None = None, **fields: Any) -> int:
        """Its uid, the next one. `fields` are those of Neuron; `ip` may be text. The coldkey may be left out."""
        uid = len(self._next.subnets[netuid].neurons)
        self.replace_neuron(netuid, uid, hotkey, coldkey, **fields)
        return uid

    def replace_neuron(
        self, netuid: int, uid: int, hotkey: Account, coldkey: Account | None = None, **fields: Any
    ) -> None:
        """Another hotkey takes the uid, as when the chain prunes its owner."""
        key = account(hotkey)
        owner = blake2_256(b"coldkey" + key) if coldkey is None else account(coldkey)
        here = {"registered_at": self.head.number + 1, **neuron_fields(fields)}
        self._change(netuid, lambda subnet: subnet.with_neuron(Neuron(uid, key, owner, **here)))

    def set_neuron(self, netuid: int, hotkey: Account, **fields: Any) -> None:
        def change(subnet: Subnet) -> Subnet:
            neuron = subnet.by_hotkey(account(hotkey))
            assert neuron is not None
            return subnet.with_neuron(replace(neuron, **neuron_fields(fields)))

        self._change(netuid, change)

    def remove_neuron(self, netuid: int, hotkey: Account) -> None:
        """The uids after it move down by one."""
        self._change(netuid, lambda subnet: subnet.without(account(hotkey)))

    def set_commitment(self, netuid: int, hotkey: Account, data: bytes) -> None:
        one = Registration(self.head.number + 1, [(f"Raw{len(data)}", [data])])
        key = account(hotkey)
        self._change(netuid, lambda subnet: replace(subnet, commitments={**subnet.commitments, key: one}))

    def set_certificate(self, netuid: int, hotkey: Account, public_key: bytes, algorithm: int = 1) -> None:
        key, one = account(hotkey), (algorithm, public_key)
        self._change(netuid, lambda subnet: replace(subnet, certificates={**subnet.certificates, key: one}))

    def _change(self, netuid: int, change: Callable[[Subnet], Subnet]) -> None:
        with self.lock:
            self._next = self._next.with_subnet(change(self._next.subnets[netuid]))


def hexed(data: bytes) -> str:
    return "0x" + data.hex()


def _stepped(state: State) -> State:
    """The epochs that end with this block."""
    number = state.number
    for subnet in state.subnets.values():
        if subnet.is_epoch(number):
            state = state.with_subnet(
                replace(subnet, last_step_block=number, last_epoch_block=number, epoch_index=subnet.epoch_index + 1)
            )
    return state


def _applied(state: State, extrinsics: list[Extrinsic]) -> State:
    for index, one in enumerate(extrinsics):
        events: list[Event] = []
        outcome: Event = ("ExtrinsicSuccess", {"dispatch_info": _INFO})
        if one.signer is not None:
            nonces = {**state.nonces, one.signer: state.nonces.get(one.signer, 0) + 1}
            state = replace(state, nonces=nonces)
            try:
                state, events = dispatch(state, one.signer, one.call)
            except Failed as failure:
                error = module_error(failure.pallet, failure.name)
                outcome = ("ExtrinsicFailed", {"dispatch_error": error, "dispatch_info": _INFO})
        records = [
            {"phase": ("ApplyExtrinsic", [index]), "event": event, "topics": []}
            for event in [*events, ("System", [outcome])]
        ]
        state = replace(state, events=(*state.events, *records))
    return state
