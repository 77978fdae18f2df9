"""A chain's process of a command's own: it says nothing on the terminal, and ends with the command."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple

from grid_node.adapters.chain import EarnedScores
from grid_node.chain.frames import Beat
from grid_node.chain.link import ChainLink
from grid_node.chain.networks import bare_url
from grid_node.chain.ports import Block
from grid_node.chain.proposals import Proposals
from grid_node.chain.pylon import PylonSettings
from grid_node.chain.reads import ChainReads
from grid_node.chain.weights import Weights
from grid_node.errors import ChainError
from grid_node.identity.standing import AllowList
from grid_node.services import services

GRACE = 2.0
"""Seconds that the process gets to end after a command that may have written."""
GRACE_READ = 0.5
"""The same after one that only read."""
LOOK_SECONDS = 6.0
"""How long a look waits for the chain; with all that is around it a look is over within 10 s."""
STATUS_SECONDS = 1.0
SILENT = f"no answer within {LOOK_SECONDS:.0f} s"


class Proposing(NamedTuple):
    proposals: Proposals
    weights: Weights


class Seen(NamedTuple):
    """What a real chain showed of itself."""

    head: Block | None
    endpoints: list[dict[str, Any]]
    """`uri`, `ok`, and `error`: None where it answered, or was not asked."""


@contextmanager
def proposing() -> Iterator[Proposing]:
    """Proposals and weights over a process of their own, which is there until the end."""
    grid = services()
    pylon, clock, store = grid.chain.pylon, grid.clock, grid.store
    with _own_link(pylon, GRACE) as link:
        reads = ChainReads(link, clock, grid.settings, pylon, grid.chain.metrics)
        link.on_beat = reads.on_beat
        scores = EarnedScores(store, AllowList(store, clock))
        yield Proposing(
            Proposals(scores, reads, link, clock, grid.settings, pylon),
            Weights(store, clock, grid.settings, pylon, reads, link),
        )


def look() -> Seen:
    """Ask the nodes of a real chain for their state. Raises nothing of the chain's."""
    # without identities the process has no weights to work off, and no keys to read
    pylon = replace(services().chain.pylon, identities=())
    word = threading.Event()

    def heard(beat: Beat) -> None:
        if beat.block is not None or beat.error is not None:
            word.set()

    until = time.monotonic() + LOOK_SECONDS
    with _own_link(pylon, GRACE_READ) as link:
        link.on_beat = heard
        link.start()
        word.wait(LOOK_SECONDS)
        head = link.beat.block if link.beat is not None else None
        if head is not None:
            with suppress(ChainError):  # the oldest block is the archive's, if any is
                link.ask("block", {"number": 0}, max(0.0, until - time.monotonic()))
        late = time.monotonic() >= until
        main, archive = bare_url(pylon.main_url), bare_url(pylon.archive_url)
        silent = archive if word.is_set() else main
        return Seen(head, _endpoints(link, [main, archive], silent if late else None))


def _endpoints(link: ChainLink, urls: list[str], silent: str | None) -> list[dict[str, Any]]:
    """`silent`: the one that was asked in vain."""
    try:
        told = link.ask("status", {}, STATUS_SECONDS).meta.get("endpoints", [])
    except ChainError as error:
        return [{"uri": url, "ok": False, "error": error.message} for url in dict.fromkeys(urls)]
    return [{**one, "error": SILENT} if one["uri"] == silent and not one["ok"] else one for one in told]


@contextmanager
def _own_link(pylon: PylonSettings, grace: float) -> Iterator[ChainLink]:
    link = ChainLink(replace(services().settings, log_level="error"), pylon)
    try:
        yield link
    finally:
        link.stop(grace)
