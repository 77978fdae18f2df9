import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.identity import keys
from grid_node.identity.refusal import Refused

SEED_KEY = "EWJzrqUL94r5BEz0ZLPUbEwD8qdQX18dCUF9B7C2e0"


def counting_bytes():
    numbers = itertools.count(1)
    return lambda size: (next(numbers) * 0x1234567).to_bytes(size, "big")


def test_a_generated_key_has_the_documented_form():
    key = keys.generate(counting_bytes())
    prefix, rest = key.split("_")
    assert len(prefix) == 10
    assert prefix.startswith("gk")
    assert len(rest) == 43 + 6
    assert set(prefix + rest) <= set(string.ascii_letters + string.digits)
    assert keys.own_id(key) == prefix[2:]


def test_generated_keys_differ():
    random = counting_bytes()
    assert len({keys.generate(random) for _ in range(100)}) == 100


def test_256_bits_fit_into_43_digits():
    assert 62**43 > 2**256
    key = keys.generate(lambda size: b"\xff" * size)
    assert keys.own_id(key) is not None


@pytest.mark.parametrize("position", [2, 9, 11, 40, 59])
def test_a_typing_error_in_a_generated_key_is_noticed(position):
    key = keys.generate(counting_bytes())
    other = "a" if key[position] != "a" else "b"
    assert keys.own_id(key[:position] + other + key[position + 1 :]) is None


def test_an_operators_own_key_carries_no_id():
    assert keys.own_id(SEED_KEY) is None
    assert keys.random_id(counting_bytes()).startswith("x")
    assert len(keys.random_id(counting_bytes())) == 8


@pytest.mark.parametrize("key", [SEED_KEY, "x" * 16, "~" * 200, "-" * 16, "quote'and\"quote;--"])
def test_keys_of_16_to_200_printable_characters_are_taken(key):
    assert keys.check_key(key) == key


@pytest.mark.parametrize(
    "key", ["", "x" * 15, "x" * 201, "x" * 15 + " ", "x" * 16 + "\n", "ü" * 16, "x\x00" * 8, "x\x7f" * 8]
)
def test_other_text_is_no_key(key):
    with pytest.raises(Refused, match=r"^API key must be 16 to 200 printable ASCII characters without space$"):
        keys.check_key(key)


@pytest.mark.parametrize("value", [None, 5, b"x" * 16, ["x" * 16], {}])
def test_a_value_that_is_no_text_is_no_key(value):
    assert not keys.is_key(value)


def test_the_digest_is_sha256_in_lower_hex():
    assert keys.digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("1000000", 1_000_000), ("007", 7), (5, 5)])
def test_whole_numbers_within_bounds_are_read(text, number):
    assert keys.check_max_requests(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1.0", "1e3", "1_000", " 1", "1\n", "٣", "²", "1000001", "9" * 5000, "nan", "x' OR '1'='1", True],
)
def test_other_numbers_are_refused_with_the_bounds(text):
    with pytest.raises(Refused, match=r"^max_requests must be a whole number from 0 to 1000000$"):
        keys.check_max_requests(text)


@pytest.mark.parametrize("text", ["0", "-60", "2678401", "a minute"])
def test_a_period_has_at_least_one_second_and_at_most_31_days(text):
    with pytest.raises(Refused, match=r"^period must be a whole number from 1 to 2678400$"):
        keys.check_period(text)


@pytest.mark.parametrize("name", ["a", "client-name", "O'Reilly & Söhne", "é" * 64, 'x" OR 1=1 --'])
def test_names_are_free_text(name):
    assert keys.check_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "a|b", "a\nb", "a\x1bb", "a\x85b", "a\u2028b", " ", "a\udcffb"])
def test_names_that_would_break_a_list_are_refused(name):
    with pytest.raises(Refused, match=r"^name must be 1 to 64 characters"):
        keys.check_name(name)


def test_scopes_come_in_a_fixed_order_and_default_to_client():
    assert keys.check_scopes(()) == ("client",)
    assert keys.check_scopes(["admin", "worker", "admin"]) == ("worker", "admin")
    with pytest.raises(Refused, match="scope must be one of client, worker"):
        keys.check_scopes(["root"])


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2027-01-31", "2027-01-31T12:00:00", "2027-13-01T00:00:00Z", "20270131T120000Z"]
)
def test_an_expiry_without_an_offset_or_sense_is_refused(text):
    with pytest.raises(Refused, match=r"^expires must be a time like 2027-01-31T12:00:00Z$"):
        keys.check_time(text, "expires")


def test_offsets_are_converted():
    assert keys.check_time("2027-01-31T12:00:00+05:00", "t") == keys.check_time("2027-01-31T07:00:00Z", "t")
    assert keys.check_time("2027-01-31t07:00:00.250z", "t") % 1 == 0.25


def refusal_of(check, text):
    try:
        check(text)
    except Refused as refusal:
        return str(refusal)
    return ""


@given(st.text())
def test_no_text_does_worse_than_be_refused_in_one_line(text):
    for check in (keys.check_key, keys.check_name, keys.check_period, lambda t: keys.check_time(t, "t")):
        assert "\n" not in refusal_of(check, text)
