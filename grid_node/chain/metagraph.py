"""Who is registered on the node's subnet, from memory: a snapshot that each new block swaps."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from grid_node.chain.ports import Block
from grid_node.chain.pylon import PylonSettings, node_netuid
from grid_node.chain.reads import ChainReads
from grid_node.clock import Clock
from grid_node.settings import Settings
from grid_node.ss58 import decode

TURN = 32
"""Neurons that are looked at before others of the process get their turn: a millisecond or two at the first time."""


@dataclass(frozen=True, slots=True)
class ChainStanding:
    """What the chain says about a hotkey. `registered` None: nobody knows; the rest says nothing then."""

    registered: bool | None
    netuid: int
    uid: int | None = None
    hotkey: str | None = None
    """SS58; None unless registered, as the rest about its neuron."""
    incentive: float | None = None
    """0 to 1."""
    stake_total: float | None = None
    """Whole tokens."""
    validator_permit: bool | None = None
    strong: bool | None = None
    """Among the best by incentive."""
    block: Block | None = None
    age_seconds: float | None = None
    """Since this was known to be the newest state."""


@dataclass(frozen=True, slots=True)
class Change:
    """What another snapshot has changed, in public keys of 32 bytes."""

    added: frozenset[bytes]
    removed: frozenset[bytes]
    """All that are no longer registered."""
    replaced: Mapping[bytes, bytes]
    """Those of the removed whose uid is another's now, and whose."""


@dataclass(frozen=True, slots=True)
class _Member:
    uid: int
    hotkey: str
    incentive: float
    stake_total: float
    validator_permit: bool
    strong: bool = False


@dataclass(frozen=True, slots=True)
class _Snapshot:
    block: Block
    state: str
    read_at: float
    """On the steady clock."""
    members: Mapping[bytes, _Member] = field(default_factory=dict)


class ChainMetagraph:
    """The metagraph of the node's own subnet. It is as new as the reads of the node make it."""

    def __init__(self, reads: ChainReads, clock: Clock, settings: Settings, pylon: PylonSettings) -> None:
        self.netuid = node_netuid(settings, pylon)
        self.on_change: Callable[[Change], None] = lambda change: None
        """Called after each swap that added or removed somebody; the first one adds everybody."""
        self._heads = reads.heads
        self._clock = clock
        self._strong = settings.chain_strong_workers
        self._max_age = settings.chain_standing_max_age_seconds
        self._snapshot: _Snapshot | None = None
        reads.watch_neurons(self.netuid, self._take)

    @property
    def is_known(self) -> bool:
        snapshot = self._snapshot
        return snapshot is not None and self._age(snapshot) <= self._max_age

    def standing(self, public_key: bytes) -> ChainStanding:
        """Of the hotkey with these 32 bytes. Never waits."""
        snapshot = self._snapshot
        if snapshot is None:
            return ChainStanding(None, self.netuid)
        block, age = snapshot.block, self._age(snapshot)
        if age > self._max_age:
            return ChainStanding(None, self.netuid, block=block, age_seconds=age)
        one = snapshot.members.get(public_key)
        if one is None:
            return ChainStanding(False, self.netuid, block=block, age_seconds=age)
        return ChainStanding(
            True,
            self.netuid,
            one.uid,
            one.hotkey,
            one.incentive,
            one.stake_total,
            one.validator_permit,
            one.strong,
            block,
            age,
        )

    def _age(self, snapshot: _Snapshot) -> float:
        """While the newest block stays the same, each answer of the chain node confirms the snapshot."""
        known_at = snapshot.read_at
        if snapshot.block == self._heads.newest:
            known_at = max(known_at, self._heads.heard_at)
        return self._clock.steady() - known_at

    def _take(self, block: Block, state: str, body: bytes) -> None:
        """Swap, in the thread of the read that brought it."""
        before, read_at = self._snapshot, self._clock.steady()
        if before is not None and state and before.state == state:
            self._snapshot = _Snapshot(block, state, read_at, before.members)
            return
        members = _members(orjson.loads(body)["neurons"].values(), self._strong)
        self._snapshot = _Snapshot(block, state, read_at, members)
        change = _change(before.members if before is not None else {}, members)
        if change.added or change.removed:
            self.on_change(change)


def _members(neurons: Iterable[Mapping[str, Any]], strong: int) -> dict[bytes, _Member]:
    """By public key. A hotkey that is none cannot ask for anything and is left out."""
    listed = list(neurons)
    best = sorted(listed, key=lambda neuron: (-neuron["incentive"], neuron["uid"]))[:strong]
    strong_uids = {neuron["uid"] for neuron in best}
    members = {}
    for number, neuron in enumerate(listed, 1):
        if number % TURN == 0:
            time.sleep(0)
        try:
            public_key = decode(neuron["hotkey"])
        except ValueError:
            continue
        members[public_key] = _member(neuron, neuron["uid"] in strong_uids)
    return members


def _member(neuron: Mapping[str, Any], strong: bool) -> _Member:
    return _Member(
        neuron["uid"],
        neuron["hotkey"],
        neuron["incentive"],
        neuron["stakes"]["total"],
        neuron["validator_permit"],
        strong,
    )


def _change(before: Mapping[bytes, _Member], now: Mapping[bytes, _Member]) -> Change:
    removed = before.keys() - now.keys()
    holders = {one.uid: key for key, one in now.items()}
    replaced = {key: holders[before[key].uid] for key in removed if before[key].uid in holders}
    return Change(frozenset(now.keys() - before.keys()), frozenset(removed), replaced)
