"""Money in whole cents and odds in whole ten-thousandths, so that every sum and every comparison is exact.

Both come as a JSON string or number. A number is read through its shortest decimal text, so 0.1 means 0.1.
Text is ASCII digits with a point between them: no exponent, no sign but `-`, no underscore, no space.
"""

import re
from functools import lru_cache

TOLERANCE = 100
"""How far sent odds may be off the offer, inclusive: 0.01 in ten-thousandths."""
CENTS_DECIMALS = 2
ODDS_DECIMALS = 4
ODDS_UNIT = 10**ODDS_DECIMALS
HIGHEST_ODDS = 1000 * ODDS_UNIT

_DECIMAL = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,20}))?")
_LONGEST = 34
"""Characters of the longest text that `_DECIMAL` matches; what is longer never becomes a key of a cache."""


def cents(value: object) -> int:
    """Whole cents, negative for a minus sign. Raises ValueError for what is no money with two decimals at most."""
    return _cents(_text(value))


def odds(value: object) -> int:
    """Ten-thousandths, rounded half-even. Raises ValueError unless 1 < odds <= 1000, before rounding and after."""
    return _odds(_text(value))


def money_text(amount: int) -> str:
    """`110.00` from 11000 cents."""
    sign, amount = ("-", -amount) if amount < 0 else ("", amount)
    return f"{sign}{amount // 100}.{amount % 100:02d}"


def odds_text(units: int) -> str:
    """`2.1000` from 21000 ten-thousandths."""
    return f"{units // ODDS_UNIT}.{units % ODDS_UNIT:04d}"


def payout(wager_cents: int, odds_units: int) -> int:
    """Cents of wager x odds, rounded half-even."""
    return _half_even(wager_cents * odds_units, ODDS_UNIT)


def _text(value: object) -> str:
    """A JSON string as it is, a JSON number in its shortest decimal text."""
    kind = type(value)
    text = value if isinstance(value, str) else repr(value) if kind is int or kind is float else ""
    if not 0 < len(text) <= _LONGEST:
        raise ValueError("no decimal number")
    return text


@lru_cache(maxsize=4096)
def _cents(text: str) -> int:
    sign, whole, fraction = _parts(text)
    if len(fraction) > CENTS_DECIMALS:
        raise ValueError("more than two decimals")
    amount = int(whole + fraction.ljust(CENTS_DECIMALS, "0"))
    return -amount if sign else amount


@lru_cache(maxsize=4096)
def _odds(text: str) -> int:
    sign, whole, fraction = _parts(text)
    places = max(len(fraction), ODDS_DECIMALS)
    exact, unit = int(whole + fraction.ljust(places, "0")), 10 ** (places - ODDS_DECIMALS)
    units = _half_even(exact, unit)
    if sign or units <= ODDS_UNIT or exact > HIGHEST_ODDS * unit:
        raise ValueError("odds lie above 1 and not above 1000")
    return units


def _parts(text: str) -> tuple[str, str, str]:
    """Sign, whole digits and decimals."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError("no decimal number")
    sign, whole, fraction = match.groups("")
    return sign, whole, fraction


def _half_even(dividend: int, divisor: int) -> int:
    """The quotient, rounded to the nearest whole number, and to the even one from the middle."""
    quotient, rest = divmod(dividend, divisor)
    return quotient + (2 * rest > divisor or (2 * rest == divisor and quotient % 2))
