"""Ready answers within a number of bytes."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.chain.cache import OVERHEAD, ByteCache


def test_what_was_longest_unused_goes_first():
    cache = ByteCache(3 * (OVERHEAD + 100))
    for name in "abc":
        cache.put(name, name, 100)
    cache.get("a")
    cache.put("d", "d", 100)
    assert cache.get("b") is None
    assert [cache.get(name) for name in "acd"] == ["a", "c", "d"]


def test_what_is_larger_than_the_whole_is_not_kept_and_nor_is_what_it_should_replace():
    cache = ByteCache(2000)
    cache.put("a", "old", 100)
    cache.put("b", "other", 100)
    cache.put("a", "new", 3000)
    assert cache.get("a") is None
    assert cache.get("b") == "other"


def test_a_limit_of_nothing_keeps_nothing():
    cache = ByteCache(0)
    cache.put("a", "a", 0)
    assert (cache.get("a"), cache.bytes, len(cache)) == (None, 0, 0)


@pytest.mark.parametrize("dropped", ["a", "nobody"])
def test_bytes_are_given_back(dropped):
    cache = ByteCache(10_000)
    cache.put("a", "a", 100)
    cache.drop(dropped)
    assert cache.bytes == (0 if dropped == "a" else 100 + OVERHEAD)


steps = st.lists(st.tuples(st.sampled_from("pgd"), st.integers(0, 9), st.integers(0, 3000)), max_size=60)


@given(steps, st.integers(0, 6000))
def test_it_is_a_map_that_forgets_and_never_lies(steps, limit):
    cache, put = ByteCache(limit), {}
    for step, key, size in steps:
        if step == "p":
            put[key] = (key, size)
            cache.put(key, put[key], size)
        elif step == "d":
            put.pop(key, None)
            cache.drop(key)
        else:
            assert cache.get(key) in (None, put.get(key))
        assert cache.bytes <= limit
        assert cache.bytes == sum(size + OVERHEAD for _key, size in cache.values())


def test_threads_do_not_lose_count():
    cache = ByteCache(50 * OVERHEAD)

    def work(salt):
        for number in range(500):
            cache.put((number * salt) % 97, salt, number % 200)
            cache.get(number % 97)
            cache.drop((number * 7) % 97)

    threads = [threading.Thread(target=work, args=(salt,)) for salt in (1, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for key in range(97):
        cache.drop(key)
    assert (cache.bytes, len(cache)) == (0, 0)
