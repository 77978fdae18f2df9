"""What a read tells, and what it is read with."""

from typing import Any, NamedTuple, Protocol

from grid_node.chain.frames import Answer
from grid_node.chain.ports import Block


class Told(NamedTuple):
    """An answer, ready to go out."""

    body: bytes
    """JSON of an object."""
    block: Block | None
    """The block that it is about."""


class Link(Protocol):
    """What reads take of the link to the chain's process."""

    @property
    def is_up(self) -> bool: ...

    @property
    def queue(self) -> int: ...

    def ask(self, op: str, args: dict[str, Any], timeout: float) -> Answer: ...


class Count(Protocol):
    def inc(self) -> None: ...


class CacheMetrics(Protocol):
    @property
    def cache_hits(self) -> Count: ...

    @property
    def cache_misses(self) -> Count: ...
