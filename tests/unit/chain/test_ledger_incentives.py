"""What an epoch brings, from weights and stakes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.chain.ledger.incentives import Row, incentives, pack, unpack

UIDS = st.integers(0, 255)
WEIGHTS = st.dictionaries(UIDS, st.integers(0, 65535), max_size=20).map(lambda found: tuple(found.items()))
ROWS = st.lists(st.builds(Row, stake=st.integers(0, 2**62), block=st.just(10), weights=WEIGHTS), max_size=8)
ALL = dict.fromkeys(range(256), 0)


def test_one_validators_weights_are_the_incentives():
    assert incentives([Row(5, 10, [(1, 1), (2, 3)])], ALL) == {1: 16384, 2: 49151}


def test_rows_are_normalised_before_they_are_weighed_by_stake():
    rows = [Row(3, 10, [(2, 7), (3, 7)]), Row(1, 10, [(3, 65535)])]

    assert incentives(rows, ALL) == {2: round(1.5 / 4 * 65535), 3: round(2.5 / 4 * 65535)}


def test_without_stake_or_weights_nobody_earns():
    assert incentives([], ALL) == {}
    assert incentives([Row(0, 10, [(1, 1)])], ALL) == {}
    assert incentives([Row(5, 10, [(1, 0)])], ALL) == {}


def test_weights_older_than_a_hotkeys_registration_were_meant_for_another():
    rows = [Row(1, 10, [(1, 1), (2, 1), (3, 1)])]

    assert incentives(rows, {1: 10, 2: 11}) == {1: 65535}


@given(ROWS)
def test_incentives_sum_up_to_one(rows):
    found = incentives(rows, ALL)

    assert all(0 < value <= 65535 for value in found.values())
    if any(row.stake and any(value for _, value in row.weights) for row in rows):
        # each of at most 160 uids is rounded by half a step
        assert sum(found.values()) == pytest.approx(65535, abs=80)
    else:
        assert found == {}


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_validators_does_not_matter(rows, random):
    shuffled = random.sample(rows, len(rows))

    assert incentives(shuffled, ALL) == incentives(rows, ALL)


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)), max_size=256))
def test_packed_weights_unpack(pairs):
    assert unpack(pack([uid for uid, _ in pairs], [value for _, value in pairs])) == pairs
