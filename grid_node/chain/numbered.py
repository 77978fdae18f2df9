"""Reads at one block. Once it can no longer be undone, its answers come from memory."""

from collections.abc import Callable
from functools import partial
from typing import Any

from grid_node.chain.cache import ByteCache
from grid_node.chain.flights import Flights
from grid_node.chain.heads import Heads
from grid_node.chain.ports import Block
from grid_node.chain.told import CacheMetrics, Link, Told


class NumberedReads:
    """`patience` is in seconds: how long the chain's process is waited for, whoever still waits for the answer.

    `refuse_if_away` raises ChainUnreachable while the chain node is known to be away.
    """

    def __init__(
        self,
        link: Link,
        heads: Heads,
        metrics: CacheMetrics,
        max_bytes: int,
        patience: float,
        refuse_if_away: Callable[[], None],
    ) -> None:
        self._link = link
        self._heads = heads
        self._metrics = metrics
        self._patience = patience
        self._refuse_if_away = refuse_if_away
        self._cache: ByteCache[Told] = ByteCache(max_bytes)
        self._flights: Flights[Told] = Flights()

    @property
    def bytes(self) -> int:
        return self._cache.bytes

    def read(self, key: tuple[Any, ...], op: str, args: dict[str, Any], timeout: float, number: int) -> Told:
        """The answer to `op` about block `number`; `key` names it among all. Raises ChainError."""
        key = *key, self._heads.chain
        told = self._cache.get(key)
        if told is not None:
            self._metrics.cache_hits.inc()
            return told
        self._metrics.cache_misses.inc()
        self._refuse_if_away()
        return self._flights.join(key, partial(self._fetch, key, op, args, number), timeout)

    def _fetch(self, key: tuple[Any, ...], op: str, args: dict[str, Any], number: int) -> Told:
        finalized = self._heads.finalized
        answer = self._link.ask(op, args, self._patience)
        block = answer.meta.get("block")
        told = Told(answer.body, Block(**block) if block else None)
        if number <= answer.meta.get("finalized", finalized):
            self._cache.put(key, told, len(told.body))
        return told
