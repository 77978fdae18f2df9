"""Where the chain meets the other features: who is registered, and what scores the workers earned."""

import math
from collections.abc import Iterator
from functools import partial

from sqlalchemy import bindparam, func, select

from grid_node.chain.metagraph import ChainMetagraph
from grid_node.database import Store, Transaction
from grid_node.errors import ChainUnavailable
from grid_node.generation.tables import Copy
from grid_node.identity.standing import AllowList, Standing
from grid_node.settings import Settings
from grid_node.ss58 import decode
from grid_node.statements import prepared

RETRY_UNKNOWN = 12
"""Seconds after which a hotkey of unknown standing may ask again: a block."""
SLICE = 600.0
"""Seconds of verdicts that are summed up in one read: a long window must not hold up others."""

_copies = Copy.__table__
_EARNED = prepared(
    select(_copies.c.worker, func.count(), func.sum(_copies.c.score))
    .where(_copies.c.verdict_at >= bindparam("since"), _copies.c.verdict_at < bindparam("until"))
    .where(_copies.c.score.is_not(None), func.abs(_copies.c.score) < bindparam("finite"))
    .group_by(_copies.c.worker)
)
_FINITE = 1e300


class NodeMetagraph:
    """identity's Metagraph: a hotkey is registered that is on the operator's list or on the chain's subnet.

    The blacklist is the operator's, and beats both. While nobody knows the metagraph, settings say what holds for a
    hotkey that is not on the list.
    """

    def __init__(self, listed: AllowList, chain: ChainMetagraph, settings: Settings) -> None:
        self.listed = listed
        self._chain = chain
        self._settings = settings
        self.is_used = False
        """Whether there is a chain to ask: a node with neither subtensor nor subnet has the list alone."""

    def standing(self, public_key: bytes) -> Standing:
        """Raises ChainUnavailable."""
        listed = self.listed.standing(public_key)
        everybody = not self._settings.chain_require_registration
        if not (self.is_used or self._chain.is_known):
            return Standing(listed.registered or everybody, listed.blacklisted, None, None)
        known = self._chain.standing(public_key)
        if known.registered:
            return Standing(True, listed.blacklisted, known.strong, known.uid)
        if known.registered is None and not (listed.registered or everybody):
            if self._settings.chain_unknown_standing == "deny":
                raise ChainUnavailable(retry_after=RETRY_UNKNOWN)
            everybody = True
        return Standing(listed.registered or everybody, listed.blacklisted, None, None)


class EarnedScores:
    """The chain's Scores: what results of generation earned, by hotkey; workers with an API key have none."""

    def __init__(self, store: Store, listed: AllowList) -> None:
        self._store = store
        self._listed = listed

    def earned(self, since: float, until: float) -> dict[str, tuple[int, float]]:
        """Number and sum of the scores that verdicts of [since, until) gave, by hotkey."""
        found: dict[str, tuple[int, float]] = {}
        for start, end in _slices(since, until):
            for worker, count, total in self._store.read(partial(_earned, since=start, until=end)):
                had_count, had_total = found.get(worker, (0, 0.0))
                found[worker] = (had_count + count, had_total + total)
        return {worker: earned for worker, earned in found.items() if _is_hotkey(worker)}

    def blacklisted(self, hotkey: str) -> bool:
        return self._listed.standing(decode(hotkey)).blacklisted


def _earned(tx: Transaction, since: float, until: float) -> list[tuple[str, int, float]]:
    return [tuple(row) for row in tx.execute(_EARNED, {"since": since, "until": until, "finite": _FINITE}).all()]


def _slices(since: float, until: float) -> Iterator[tuple[float, float]]:
    for number in range(math.ceil((until - since) / SLICE)):
        start = since + number * SLICE
        yield start, min(start + SLICE, until)


def _is_hotkey(worker: str) -> bool:
    try:
        decode(worker)
    except ValueError:
        return False
    return True
