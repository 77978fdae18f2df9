"""Epochs of a subnet, pauses between attempts, weights as u16."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.chain.epochs import Epoch, automatic_window, epoch_of, retry_delay, to_u16

BLOCKS, NETUIDS, TEMPOS = st.integers(0, 2**32 - 1), st.integers(0, 65535), st.integers(1, 20_000)


@given(BLOCKS, NETUIDS, TEMPOS)
def test_an_epoch_holds_its_block_and_is_tempo_and_one_blocks_long(block, netuid, tempo):
    epoch = epoch_of(block, netuid, tempo)

    assert epoch.start <= block < epoch.end
    assert epoch.end - epoch.start == tempo + 1


@given(BLOCKS, NETUIDS, TEMPOS)
def test_epochs_follow_each_other_without_a_gap(block, netuid, tempo):
    epoch = epoch_of(block, netuid, tempo)

    assert epoch_of(epoch.end - 1, netuid, tempo) == epoch
    assert epoch_of(epoch.end, netuid, tempo).start == epoch.end


@given(BLOCKS, NETUIDS, TEMPOS)
def test_an_epoch_starts_where_subtensor_runs_one(block, netuid, tempo):
    start = epoch_of(block, netuid, tempo).start

    assert (start + netuid + 1) % (tempo + 1) == tempo


@pytest.mark.parametrize(
    ("block", "netuid", "tempo", "epoch"),
    [
        (1000, 1, 360, Epoch(719, 1080)),
        (1080, 1, 360, Epoch(1080, 1441)),
        (1079, 1, 360, Epoch(719, 1080)),
        (0, 0, 360, Epoch(-2, 359)),
        (7, 12, 99, Epoch(-14, 86)),
    ],
)
def test_known_epochs(block, netuid, tempo, epoch):
    assert epoch_of(block, netuid, tempo) == epoch


def test_the_automatic_window_of_the_default_tempo():
    assert automatic_window(Epoch(719, 1080), 180, 10) == range(719 + 180, 1070)


def test_a_short_epoch_has_a_short_window():
    assert automatic_window(Epoch(0, 21), 180, 10) == range(10, 19)


@given(BLOCKS, NETUIDS, TEMPOS, st.integers(0, 1000), st.integers(0, 1000))
def test_the_automatic_window_lies_in_its_epoch_and_is_never_empty(block, netuid, tempo, offset, buffer):
    epoch = epoch_of(block, netuid, tempo)
    window = automatic_window(epoch, offset, buffer)

    assert len(window) > 0
    assert epoch.start <= window.start < window.stop <= epoch.end


def test_pauses_double_up_to_ten():
    assert [retry_delay(attempt, 1.0) for attempt in range(1, 8)] == [1, 2, 4, 8, 10, 10, 10]
    assert retry_delay(3, 0.5) == 2.0
    assert retry_delay(100_000, 2.0) == 20.0


@pytest.mark.parametrize(
    ("weights", "values"),
    [
        ([0.5, 0.25, 0.0], [65535, 32768, 0]),
        ([0.0, 0.0], [0, 0]),
        ([], []),
        ([1e308, 1e-308], [65535, 0]),
        ([5e-324], [65535]),
    ],
)
def test_weights_as_u16(weights, values):
    assert to_u16(weights) == values


@given(st.lists(st.floats(0, allow_nan=False, allow_infinity=False), min_size=1))
def test_u16_keeps_the_order_and_uses_the_whole_range(weights):
    values = to_u16(weights)

    assert all(0 <= value <= 65535 for value in values)
    assert max(values) == (65535 if max(weights) > 0 else 0)
    ordered = [value for _weight, value in sorted(zip(weights, values, strict=True))]
    assert ordered == sorted(ordered)
