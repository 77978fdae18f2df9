"""Reads of the chain in the web process: answers from memory where they are fresh enough, one call for many else.

A `latest` answer is about a block that is within `chain_latest_max_lag_blocks` of the newest known one, and at or past
the last write of this node. When the chain node falls silent it is told for `chain_latest_stale_seconds` more, but
for no less than it takes to notice the silence.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from grid_node.chain.bodies import NO_CERTIFICATE, NO_COMMITMENT, no_extrinsic
from grid_node.chain.cache import ByteCache
from grid_node.chain.flights import Flights
from grid_node.chain.frames import Beat
from grid_node.chain.heads import BEAT_SECONDS, Heads
from grid_node.chain.numbered import NumberedReads
from grid_node.chain.ports import BLOCK_MAX, KINDS, NETUID_MAX, NEURONS, Block
from grid_node.chain.pylon import Identity, PylonSettings, block_seconds, choose_backend, node_netuid
from grid_node.chain.recent import Key, Limits, Refresher
from grid_node.chain.told import CacheMetrics, Link, Told
from grid_node.clock import Clock
from grid_node.errors import ChainError, ChainNotFound, ChainNotRecent, ChainTimeout, ChainUnreachable
from grid_node.settings import Settings
from grid_node.ss58 import decode

log = logging.getLogger(__name__)

INDEX_MAX = 2**32 - 1
"""No block has more extrinsics than a u32 counts."""
AGAIN_SECONDS = 0.1
"""Pause before the chain is asked again, when its answer was older than it must be."""
STATUS_SECONDS = 2.0
HOTKEYS_KEPT = 64
"""Subnets whose hotkeys are kept ready."""


@dataclass(slots=True, eq=False)
class _Latest:
    """The last answer of one kind."""

    told: Told
    block: Block
    state: str
    lag: int
    """Blocks that it may be behind the newest one."""
    outrun_at: float | None = None
    """When the newest block went too far ahead of it, on the steady clock."""


NeuronsSeen = Callable[[Block, str, bytes], None]
"""Called with the block, the word for its state and the body of `neurons`; it must not wait."""


class ChainReads:
    """Many threads may ask at once. Every read raises the ChainError that its caller is to be told; with a `timeout`
    in seconds it waits no longer than that, and raises ChainTimeout then."""

    def __init__(
        self, link: Link, clock: Clock, settings: Settings, pylon: PylonSettings, metrics: CacheMetrics
    ) -> None:
        self._link = link
        self._clock = clock
        self._metrics = metrics
        self.backend = choose_backend(settings, pylon)[0]
        self.heads = Heads(clock, block_seconds(settings, pylon))
        self._lag = settings.chain_latest_max_lag_blocks
        self._stale = max(settings.chain_latest_stale_seconds, BEAT_SECONDS)
        self._patience = 2 * settings.chain_call_timeout_seconds
        self._limits = Limits.of(pylon)
        half = settings.chain_cache_max_bytes // 2
        self._latest: ByteCache[_Latest] = ByteCache(half)
        self._numbered = NumberedReads(link, self.heads, metrics, half, self._patience, self._refuse_if_away)
        self._hotkeys: dict[int, tuple[str, frozenset[str]]] = {}
        self._flights: Flights[Any] = Flights()
        self._watchers: dict[int, list[NeuronsSeen]] = {}
        self._head_watchers: list[Callable[[Block], None]] = []
        netuids = [node_netuid(settings, pylon), *(one.netuid for one in pylon.identities)]
        always = [(NEURONS, netuid) for netuid in (*netuids, *pylon.recent_objects_netuids)]
        self._refresher = Refresher(clock, always, self._bring_up)

    # --- what is known without asking -----------------------------------------------------------------------------

    @property
    def head(self) -> Block | None:
        return self.heads.newest

    @property
    def genesis(self) -> str | None:
        """Hash of the chain's block 0; None: not heard since the start."""
        return self.heads.genesis

    @property
    def cache_bytes(self) -> int:
        return self._latest.bytes + self._numbered.bytes

    def age(self, block: Block) -> int:
        """Whole seconds since the block was made."""
        return max(0, int(self._clock.now()) - block.timestamp)

    def ready(self, kind: str, netuid: int) -> Told | None:
        """The `latest` answer if it is in memory and fresh enough. Never waits."""
        found = self._latest.get((kind, netuid))
        if found is None or not self._is_current(found):
            return None
        self._refresher.read((kind, netuid))
        self._metrics.cache_hits.inc()
        return found.told

    def wrote(self, number: int) -> None:
        """A write of ours was included in this block: from now on `latest` is no older."""
        self.heads.wrote(number)

    def watch_neurons(self, netuid: int, seen: NeuronsSeen) -> None:
        """`seen` gets each newer answer of `neurons` of this subnet."""
        self._watchers.setdefault(netuid, []).append(seen)

    def watch_heads(self, seen: Callable[[Block], None]) -> None:
        """`seen` gets each new head; it must not wait."""
        self._head_watchers.append(seen)

    def on_beat(self, beat: Beat) -> None:
        """For the link: what the chain's process says once a second."""
        if self.heads.beat(beat):
            self._head_moved()
        if beat.block is not None and beat.error is None:
            self._refresher.wake()

    def stop(self) -> None:
        self._refresher.stop()

    # --- reads that may wait --------------------------------------------------------------------------------------

    def latest(self, kind: str, netuid: int, timeout: float) -> Told:
        _check_subnet(netuid)
        told = self.ready(kind, netuid)
        if told is None:
            told = self._newest((kind, netuid), kind, {"netuid": netuid, "number": None}, timeout)
            self._refresher.read((kind, netuid))
        return told

    def at(self, kind: str, netuid: int, number: int, timeout: float) -> Told:
        """At one block. Blocks that can no longer be undone are answered from memory a second time."""
        _check_subnet(netuid)
        _check_block(number)
        return self._numbered.read((kind, netuid, number), kind, {"netuid": netuid, "number": number}, timeout, number)

    def recent(self, netuid: int, timeout: float) -> Told:
        """`neurons`, not older than the hard limit; those in memory even while the chain node is away."""
        _check_subnet(netuid)
        key = NEURONS, netuid
        found = self._latest.get(key)
        if found is None or not self._is_recent(found):
            return self._recent_again(netuid, timeout)
        self._metrics.cache_hits.inc()
        self._refresher.read(key)
        if self.heads.behind(found.block) >= self._limits.refresh:
            self._refresher.wake()
        return found.told

    def commitment(self, netuid: int, hotkey: str, timeout: float) -> Told:
        _check_hotkey(hotkey, NO_COMMITMENT)
        _check_subnet(netuid)
        return self._single("commitment", {"netuid": netuid, "hotkey": hotkey}, timeout)

    def certificate(self, netuid: int, hotkey: str, timeout: float) -> Told:
        _check_hotkey(hotkey, NO_CERTIFICATE)
        _check_subnet(netuid)
        return self._single("certificate", {"netuid": netuid, "hotkey": hotkey}, timeout)

    def own_commitment(self, identity: Identity, timeout: float) -> Told:
        return self._single("commitment", {"netuid": identity.netuid, "identity": identity.name}, timeout)

    def own_certificate(self, identity: Identity, timeout: float) -> Told:
        return self._single("certificate", {"netuid": identity.netuid, "identity": identity.name}, timeout)

    def latest_block(self, timeout: float) -> Told:
        """`{"number", "hash", "timestamp"}`."""
        newest = self.heads.newest
        if newest is not None and newest.number >= self.heads.floor and self.heads.silence() <= self._stale:
            self._metrics.cache_hits.inc()
            return _block_told(newest)
        return self._newest(("block",), "block", {"number": None}, timeout)

    def extrinsic(self, number: int, index: int, timeout: float) -> Told:
        _check_block(number)
        if index > INDEX_MAX:
            raise ChainNotFound(no_extrinsic(number, index))
        key = "extrinsic", number, index
        return self._numbered.read(key, "extrinsic", {"number": number, "index": index}, timeout, number)

    def hotkeys(self, netuid: int, timeout: float) -> frozenset[str]:
        """SS58 of all neurons of the subnet, as of the latest block."""
        told = self.latest(NEURONS, netuid, timeout)
        assert told.block is not None
        known = self._hotkeys.get(netuid)
        if known is None or known[0] != told.block.hash:
            known = told.block.hash, frozenset(orjson.loads(told.body)["neurons"])
            while len(self._hotkeys) >= HOTKEYS_KEPT:
                self._hotkeys.pop(next(iter(self._hotkeys)), None)
            self._hotkeys[netuid] = known
        return known[1]

    def status(self) -> dict[str, Any]:
        """The answer of `/chain/status`. Does not wait for a chain that is away, nor start its process."""
        head = self.heads.newest
        endpoints: list[Any] = []
        if self._link.is_up:
            try:
                endpoints = self._link.ask("status", {}, STATUS_SECONDS).meta.get("endpoints", [])
            except ChainError:
                pass
        return {
            "backend": self.backend,
            "worker": "up" if self._link.is_up else "down",
            "head": head.ref() if head else None,
            "age_seconds": self.age(head) if head else None,
            "endpoints": endpoints,
            "queue": self._link.queue,
            "cache_bytes": self.cache_bytes,
        }

    # --- the latest state -----------------------------------------------------------------------------------------

    def _is_current(self, latest: _Latest) -> bool:
        heads = self.heads
        if latest.outrun_at is not None or latest.block.number < heads.floor:
            return False
        return heads.silence() <= self._stale

    def _outrun(self, latest: _Latest) -> None:
        """Note when an answer falls too far behind, or its block turns out to be none of this chain's."""
        newest, block = self.heads.newest, latest.block
        if latest.outrun_at is not None or newest is None:
            return
        undone = newest.number < block.number or (newest.number == block.number and newest.hash != block.hash)
        if undone or newest.number - block.number > latest.lag:
            latest.outrun_at = self._clock.steady()

    def _head_moved(self) -> None:
        for latest in self._latest.values():
            self._outrun(latest)
        if self.heads.newest is not None:
            _tell(self._head_watchers, self.heads.newest)

    def _single(self, op: str, args: dict[str, Any], timeout: float) -> Told:
        """What is not kept ready for each block is told from memory for one block only."""
        key = op, *args.items()
        found = self._latest.get(key)
        if found is not None and self._is_current(found):
            self._metrics.cache_hits.inc()
            return found.told
        return self._newest(key, op, args, timeout)

    def _newest(self, key: tuple[Any, ...], op: str, args: dict[str, Any], timeout: float) -> Told:
        deadline = self._clock.steady() + timeout
        floor, newest = self.heads.floor, self.heads.newest
        self._metrics.cache_misses.inc()
        while True:
            try:
                self._refuse_if_away()
                fetched = self._flights.join(key, partial(self._fetch, key, op, args), self._left(deadline))
            except ChainUnreachable:
                stale = self._stale_told(key, floor)
                if stale is None:
                    raise
                return stale
            if self._is_new_enough(fetched.block, floor, newest, self._lag_of(key)):
                told: Told = fetched.told
                return told
            time.sleep(min(AGAIN_SECONDS, self._left(deadline)))

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock.steady()
        if left <= 0:
            raise ChainTimeout()
        return left

    def _is_new_enough(self, block: Block, floor: int, newest: Block | None, lag: int) -> bool:
        """Whether an answer is as new as its caller may expect: it may have been under way before the call."""
        if block.number < floor:
            return False
        now = self.heads.newest
        if newest is None or now is None:
            return True
        return block.number >= min(newest.number, now.number) - lag

    def _lag_of(self, key: tuple[Any, ...]) -> int:
        return self._lag if key[0] in KINDS else 0

    def _refuse_if_away(self) -> None:
        """Nobody waits for a chain node that is known to be away for longer than stale answers are told."""
        trouble = self.heads.trouble()
        if trouble is not None and self._stale < self.heads.silence() < float("inf"):
            raise ChainUnreachable(f"Chain node is unreachable: {trouble}")

    def _stale_told(self, key: tuple[Any, ...], floor: int) -> Told | None:
        """What was current a short while ago."""
        found = self._latest.get(key)
        if found is None or found.block.number < floor:
            return None
        current_at = self.heads.heard_at if found.outrun_at is None else min(found.outrun_at, self.heads.heard_at)
        return found.told if self._clock.steady() - current_at <= self._stale else None

    def _fetch(self, key: tuple[Any, ...], op: str, args: dict[str, Any]) -> _Latest:
        try:
            answer = self._link.ask(op, args, self._patience)
        except ChainNotFound:
            self._latest.drop(key)
            raise
        block = Block(**answer.meta["block"])
        if self.heads.saw(block):
            self._head_moved()
        told = _block_told(block) if op == "block" else Told(answer.body, block)
        latest = _Latest(told, block, answer.meta.get("state", ""), self._lag_of(key))
        self._latest.put(key, latest, len(told.body))
        self._outrun(latest)
        if op == NEURONS:
            _tell(self._watchers.get(args["netuid"], ()), block, latest.state, told.body)
        return latest

    def _bring_up(self, key: Key) -> None:
        """For the refresher: nothing, where the newest block's answer is there."""
        found, newest = self._latest.get(key), self.heads.newest
        if found is not None and found.block == newest:
            return
        kind, netuid = key
        fetch = partial(self._fetch, key, kind, {"netuid": netuid, "number": None})
        self._flights.join(key, fetch, self._patience)

    # --- older states ---------------------------------------------------------------------------------------------

    def _is_recent(self, latest: _Latest) -> bool:
        return self.heads.behind(latest.block) <= self._limits.hard

    def _recent_again(self, netuid: int, timeout: float) -> Told:
        """Nothing fresh enough is there: ask once."""
        key = NEURONS, netuid
        try:
            told = self._newest(key, NEURONS, {"netuid": netuid, "number": None}, timeout)
        except (ChainUnreachable, ChainTimeout) as error:
            raise ChainNotRecent(retry_after=RECENT_RETRY) from error
        self._refresher.read(key)
        return told


RECENT_RETRY = 12
"""Seconds after which `recent` may be asked again: a block."""


def _tell(watchers: Iterable[Callable[..., None]], *news: Any) -> None:
    """A watcher that fails takes neither the read nor the other watchers along."""
    for seen in watchers:
        try:
            seen(*news)
        except Exception:
            log.exception("news of the chain were not taken")


def _block_told(block: Block) -> Told:
    return Told(orjson.dumps(block.body()), block)


def _check_subnet(netuid: int) -> None:
    if not 0 <= netuid <= NETUID_MAX:
        raise ChainNotFound(f"Subnet {netuid} not found.")


def _check_block(number: int) -> None:
    if not 0 <= number <= BLOCK_MAX:
        raise ChainNotFound(f"Block {number} not found.")


def _check_hotkey(hotkey: str, text: str) -> None:
    try:
        decode(hotkey)
    except ValueError:
        raise ChainNotFound(text) from None
