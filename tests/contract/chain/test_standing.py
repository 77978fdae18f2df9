"""What the node's standing is made of: the operator's lists, and the metagraph where there is a chain."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from grid_node.adapters.chain import EarnedScores, NodeMetagraph
from grid_node.chain.metagraph import ChainStanding
from grid_node.clock import ManualClock
from grid_node.database import Store
from grid_node.errors import ChainUnavailable
from grid_node.generation.tables import Copy
from grid_node.identity.standing import AllowList
from grid_node.settings import Settings
from grid_node.ss58 import encode

ANN, BOB = b"\x01" * 32, b"\x02" * 32


@dataclass
class Chain:
    """Stands for the snapshot: `known` maps public keys to standings, None says that nobody knows."""

    known: dict[bytes, ChainStanding] | None = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        return self.known is not None

    def standing(self, public_key: bytes) -> ChainStanding:
        if self.known is None:
            return ChainStanding(None, 1)
        return self.known.get(public_key, ChainStanding(False, 1))


def standing_of(store: Store, chain: Any, **settings: Any) -> NodeMetagraph:
    return NodeMetagraph(AllowList(store, ManualClock()), chain, Settings(**settings))


def test_without_a_chain_the_list_decides(store: Store) -> None:
    metagraph = standing_of(store, Chain(None))
    metagraph.listed.allow(ANN)
    assert metagraph.standing(ANN).registered
    assert not metagraph.standing(BOB).registered


def test_whoever_is_on_the_chain_is_in_with_uid_and_strength(store: Store) -> None:
    metagraph = standing_of(store, Chain({ANN: ChainStanding(True, 1, uid=7, strong=True)}))
    found = metagraph.standing(ANN)
    assert (found.registered, found.uid, found.strong, found.blacklisted) == (True, 7, True, False)
    assert not metagraph.standing(BOB).registered


def test_the_blacklist_beats_the_chain(store: Store) -> None:
    metagraph = standing_of(store, Chain({ANN: ChainStanding(True, 1, uid=7, strong=False)}))
    metagraph.listed.blacklist(ANN)
    assert metagraph.standing(ANN).blacklisted


@pytest.mark.parametrize("rule", ["deny", "allow"])
def test_unknown_standing_is_as_the_operator_says(store: Store, rule: str) -> None:
    metagraph = standing_of(store, Chain(None), chain_unknown_standing=rule)
    metagraph.is_used = True
    metagraph.listed.allow(BOB)
    assert metagraph.standing(BOB).registered
    if rule == "allow":
        assert metagraph.standing(ANN).registered
        return
    with pytest.raises(ChainUnavailable) as raised:
        metagraph.standing(ANN)
    assert raised.value.body() == {
        "success": False,
        "error": "Chain data is not available",
        "code": "chain_unavailable",
        "status": 503,
        "retry_after": 12,
    }


def test_registration_may_be_given_up(store: Store) -> None:
    for chain in (Chain(None), Chain()):
        metagraph = standing_of(store, chain, chain_require_registration=False)
        metagraph.is_used = True
        metagraph.listed.blacklist(BOB) if chain.known is None else None
        assert metagraph.standing(ANN).registered
        assert metagraph.standing(BOB).blacklisted


def copy_of(number: int, worker: str, at: float | None, score: float | None) -> dict[str, Any]:
    return {
        "lease_id": f"lease-{number}",
        "task_id": f"task-{number}",
        "worker": worker,
        "strong": False,
        "extra": False,
        "state": "accepted",
        "granted_at": 0.0,
        "lease_expires_at": 0.0,
        "lease_until": 0.0,
        "verdict_at": at,
        "score": score,
    }


def test_scores_are_counted_by_hotkey_within_the_window(store: Store) -> None:
    ann, bob = encode(ANN), encode(BOB)
    rows = [
        copy_of(1, ann, 100.0, 0.5),
        copy_of(2, ann, 1900.0, 1.0),  # the last slice of the window
        copy_of(3, ann, 99.9, 0.9),  # before it
        copy_of(4, ann, 2000.0, 0.9),  # at its end
        copy_of(5, bob, 700.0, 0.0),
        copy_of(6, bob, 800.0, None),  # judged, and no score
        copy_of(7, bob, 900.0, float("inf")),
        copy_of(8, "key:abc/worker", 800.0, 1.0),
        copy_of(9, bob, None, None),
    ]
    store.write(lambda tx: tx.execute(Copy.__table__.insert(), rows))
    listed = AllowList(store, ManualClock())
    listed.blacklist(BOB)
    scores = EarnedScores(store, listed)
    assert scores.earned(100.0, 2000.0) == {ann: (2, 1.5), bob: (1, 0.0)}
    assert scores.blacklisted(bob)
    assert not scores.blacklisted(ann)
