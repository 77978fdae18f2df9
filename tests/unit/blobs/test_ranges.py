"""Which bytes a Range header means (RFC 9110, section 14)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.errors import RangeNotSatisfiable
from grid_node.http.files import Part, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", Part(0, 1)),
        ("bytes=100-199", Part(100, 100)),
        ("bytes=900-", Part(900, 100)),
        ("bytes=900-5000", Part(900, 100)),
        ("bytes=-1", Part(999, 1)),
        ("bytes=-5000", Part(0, 1000)),
        ("Bytes = 1 - 2", Part(1, 2)),
    ],
)
def test_a_single_range_is_cut_to_the_size(header: str, expected: Part) -> None:
    assert parse_range(header, 1000) == expected


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=" + "9" * 900 + "-"])
def test_a_range_that_names_no_byte_is_not_satisfiable(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 1000)


@pytest.mark.parametrize("header", ["bytes=0-1,3-4", "bytes=0-1, 3-4", "bytes=,", "bytes=0-0,"])
def test_several_ranges_are_refused(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 1000)


@pytest.mark.parametrize(
    "header", ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "lines=1-2", "bytes=²-3", "0-1"]
)
def test_nonsense_is_ignored(header: str) -> None:
    assert parse_range(header, 1000) is None


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_nothing_can_be_cut_from_an_empty_blob(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 0)


@given(header=st.text(max_size=40) | st.from_regex(r"bytes=[0-9,\- ]*", fullmatch=True), size=st.integers(0, 100))
def test_a_range_never_leaves_the_blob(header: str, size: int) -> None:
    try:
        part = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    if part is not None:
        assert part.start >= 0
        assert part.length >= 1
        assert part.start + part.length <= size
