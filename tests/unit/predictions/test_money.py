"""Money and odds are exact: what is read is what was written, and nothing else is read."""

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grid_node.predictions.money import TOLERANCE, cents, money_text, odds, odds_text, payout

CENT = Decimal("0.01")
ODDS_STEP = Decimal("0.0001")

NO_DECIMALS = [
    "",
    " 10",
    "10 ",
    "10\n",
    "+10",
    "--1",
    "1_000",
    "1,5",
    ".5",
    "5.",
    "1.2.3",
    "1e2",
    "1E2",
    "0x10",
    "NaN",
    "nan",
    "Infinity",
    "-inf",
    "²",
    "１０",
    "٣",
    "1\0",
    "1" * 13,
    "9" * 5000,
    "2." + "0" * 21,
    float("nan"),
    float("inf"),
    float("-inf"),
    1e-9,
    1e22,
    1e308,
    10**12,
    10**5000,
    True,
    False,
    None,
    [],
    ["10"],
    {},
    {"amount": 10},
    b"10",
    Decimal("10"),
]


@pytest.mark.parametrize("value", NO_DECIMALS, ids=lambda value: repr(value)[:20] if value != 10**5000 else "huge")
def test_what_is_no_plain_decimal_is_neither_money_nor_odds(value):
    with pytest.raises(ValueError):
        cents(value)
    with pytest.raises(ValueError):
        odds(value)


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        ("10.00", 1000),
        ("10.0", 1000),
        ("10", 1000),
        (10, 1000),
        (10.0, 1000),
        (10.01, 1001),
        (1.1, 110),
        (2.2, 220),
        (0.29, 29),
        (1e2, 10000),
        ("0", 0),
        ("-0.00", 0),
        (-0.0, 0),
        ("-1.05", -105),
        (-0.01, -1),
        ("-0.01", -1),
        ("999999999999.99", 99999999999999),
    ],
)
def test_money_is_read_in_cents(value, amount):
    assert cents(value) == amount


@pytest.mark.parametrize("value", ["1.005", "1.000", "0.001", "-0.001", 1.005, 0.001, 10.999, 1.10000001])
def test_money_with_more_than_two_decimals_is_none(value):
    with pytest.raises(ValueError):
        cents(value)


def test_sums_of_money_are_exact():
    assert cents("1.10") + cents("2.20") == cents("3.30")
    assert cents(0.1) + cents(0.2) == cents(0.3)


@given(st.integers(-(10**14) + 1, 10**14 - 1))
def test_money_survives_its_own_text(amount):
    assert cents(money_text(amount)) == amount
    assert Decimal(money_text(amount)) == amount * CENT


@given(st.integers(-(10**11), 10**11))
def test_a_json_number_is_the_money_that_its_shortest_text_says(amount):
    assert cents(amount / 100) == amount


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers())
def test_a_number_is_exactly_what_its_text_says_or_no_money(number):
    try:
        amount = cents(number)
    except ValueError:
        exact = Decimal(repr(number))
        assert not exact.is_finite() or abs(exact) >= 10**12 or exact != exact.quantize(CENT)
    else:
        assert amount * CENT == Decimal(repr(number))


@pytest.mark.parametrize(
    ("value", "units"),
    [
        ("2.10", 21000),
        (2.1, 21000),
        (3, 30000),
        ("1000", 10_000_000),
        ("1000.00000000000000000000", 10_000_000),
        ("1.0001", 10001),
        ("1.00010000000000000000", 10001),
        ("2.00005", 20000),
        ("2.00015", 20002),
        ("2.00025", 20002),
        (2.00005, 20000),
        (2.00015, 20002),
        ("2.00005000000000000001", 20001),
        ("1.00005000000000000001", 10001),
        ("999.99995", 10_000_000),
    ],
)
def test_odds_are_rounded_half_even_to_four_decimals(value, units):
    assert odds(value) == units


@pytest.mark.parametrize(
    "value",
    [
        "1",
        "1.0000",
        1,
        1.0,
        "0.5",
        "0",
        "-2.10",
        -2.1,
        "1.00005",
        "1.00004999",
        "1000.0001",
        "1000.00000000000000000001",
        "1000.00001",
        1001,
        "100000",
    ],
)
def test_odds_lie_above_one_and_not_above_a_thousand_before_rounding_and_after(value):
    with pytest.raises(ValueError):
        odds(value)


@given(st.decimals("1.0001", "1000", places=12))
@example(Decimal("1.00015"))
@example(Decimal("999.999950000001"))
def test_odds_are_what_decimal_arithmetic_makes_of_them(value):
    rounded = value.quantize(ODDS_STEP, ROUND_HALF_EVEN)
    assert odds(format(value, "f")) * ODDS_STEP == rounded


@given(st.integers(10001, 10_000_000))
def test_odds_survive_their_own_text_and_a_json_number(units):
    assert odds(odds_text(units)) == units
    assert odds(units / 10000) == units
    assert Decimal(odds_text(units)) == units * ODDS_STEP


@given(st.integers(0, 10**14), st.integers(10001, 10_000_000))
@example(1, 15000)
@example(3, 15000)
@example(1, 25000)
def test_a_payout_is_the_exact_product_rounded_half_even_to_cents(wager, units):
    exact = (wager * CENT) * (units * ODDS_STEP)
    assert payout(wager, units) * CENT == exact.quantize(CENT, ROUND_HALF_EVEN)


def test_money_and_odds_are_written_with_all_their_decimals():
    assert money_text(11000) == "110.00"
    assert money_text(5) == "0.05"
    assert money_text(0) == "0.00"
    assert money_text(-5) == "-0.05"
    assert odds_text(21000) == "2.1000"
    assert odds_text(10001) == "1.0001"
    assert odds_text(10_000_000) == "1000.0000"


def test_the_tolerance_is_one_hundredth():
    assert Decimal("0.01") == TOLERANCE * ODDS_STEP
