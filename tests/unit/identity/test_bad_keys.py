from grid_node.identity.bad_keys import BadKeys


def tries(counter, address, times, now=1000.0):
    return [counter.count(address, now) for _ in range(times)]


def test_one_more_than_the_limit_is_told_to_wait():
    counter = BadKeys(20)
    assert tries(counter, "192.0.2.1", 21) == [None] * 21
    assert counter.count("192.0.2.1", 1000.0) == 300


def test_the_wait_is_over_when_the_oldest_is_300_seconds_old():
    counter = BadKeys(1)
    assert counter.count("192.0.2.1", 1000.0) is None
    assert counter.count("192.0.2.1", 1100.0) is None
    assert counter.count("192.0.2.1", 1299.5) == 1
    assert counter.count("192.0.2.1", 1300.0) is None
    assert counter.count("192.0.2.1", 1300.0) == 100


def test_waiting_helps_even_one_who_asks_meanwhile():
    counter = BadKeys(1)
    tries(counter, "192.0.2.1", 2)
    for second in range(1001, 1300):
        assert counter.count("192.0.2.1", float(second)) == 1300 - second
    assert counter.count("192.0.2.1", 1300.0) is None


def test_addresses_do_not_share_a_count():
    counter = BadKeys(0)
    tries(counter, "192.0.2.1", 1)
    assert counter.count("192.0.2.2", 1000.0) is None


def test_one_ipv6_network_counts_as_one_address():
    counter = BadKeys(0)
    assert counter.count("2001:db8::1", 1000.0) is None
    assert counter.count("2001:db8::ffff:1", 1000.0) == 300
    assert counter.count("2001:db8:0:1::1", 1000.0) is None


def test_a_mapped_ipv4_address_is_the_ipv4_address():
    counter = BadKeys(0)
    tries(counter, "::ffff:192.0.2.1", 1)
    assert counter.count("192.0.2.1", 1000.0) == 300


def test_an_address_that_is_none_counts_too():
    counter = BadKeys(0)
    assert tries(counter, "?" * 5000, 2) == [None, 300]


def test_memory_is_bounded_and_the_silent_are_forgotten_first():
    counter = BadKeys(0, addresses=3)
    for number in (1, 2, 3):
        tries(counter, f"192.0.2.{number}", 1)
    assert counter.count("192.0.2.1", 1000.0) == 300
    tries(counter, "192.0.2.4", 1)
    assert counter.count("192.0.2.1", 1000.0) == 300
    assert counter.count("192.0.2.2", 1000.0) is None


def test_a_clock_set_back_does_not_lengthen_the_wait():
    counter = BadKeys(0)
    tries(counter, "192.0.2.1", 1, now=9000.0)
    assert counter.count("192.0.2.1", 1000.0) == 300
    assert counter.count("192.0.2.1", 1300.0) is None
