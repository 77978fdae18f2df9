"""Loaded models stay inside a limit of bytes; who was used last stays longest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_store.cache import Loaded, TooLarge


def test_the_least_recently_used_leaves_first() -> None:
    loaded: Loaded[str] = Loaded(100, 99)
    assert [loaded.admit(1, 40, "a"), loaded.admit(2, 40, "b")] == [[], []]
    assert loaded.use(1) == "a"
    assert loaded.admit(3, 40, "c") == ["b"]
    assert loaded.use(2) is None
    assert loaded.bytes == 80


def test_looking_is_not_using() -> None:
    loaded: Loaded[str] = Loaded(100, 99)
    loaded.admit(1, 50, "a")
    loaded.admit(2, 50, "b")
    assert loaded.peek(1) == "a"
    assert loaded.admit(3, 50, "c") == ["a"]


def test_a_model_above_the_limit_drives_nobody_out() -> None:
    loaded: Loaded[str] = Loaded(100, 99)
    loaded.admit(1, 100, "a")
    with pytest.raises(TooLarge):
        loaded.admit(2, 101, "b")
    assert loaded.use(1) == "a"


def test_there_is_a_limit_in_number_too() -> None:
    loaded: Loaded[int] = Loaded(100, count_max=2)
    assert [loaded.admit(number, 0, number) for number in range(4)] == [[], [], [0], [1]]


@given(st.lists(st.tuples(st.sampled_from(["admit", "use", "remove"]), st.integers(0, 9), st.integers(0, 60))))
def test_the_bytes_are_those_of_the_models_and_never_above_the_limit(steps: list[tuple[str, int, int]]) -> None:
    loaded: Loaded[int] = Loaded(100, 99)
    sizes: dict[int, int] = {}
    for word, number, size in steps:
        if word == "admit" and number not in sizes:
            for gone in loaded.admit(number, size, number):
                del sizes[gone]
            sizes[number] = size
        elif word == "use":
            assert (loaded.use(number) is not None) == (number in sizes)
        elif word == "remove":
            assert (loaded.remove(number) is not None) == (sizes.pop(number, None) is not None)
        assert loaded.bytes == sum(sizes.values()) <= 100
        assert len(loaded) == len(sizes)
