"""Values as the types of a signature take them. The texts of refusals are marshmallow's own.

marshmallow's number fields take more than a worker would: 5.7 as 5, "1_000" as 1000, digits of any script.
"""

import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

REQUIRED = "Missing data for required field."
NULL = "Field may not be null."
UNKNOWN = "Unknown field."
NOT_INTEGER = "Not a valid integer."
NOT_NUMBER = "Not a valid number."
NOT_STRING = "Not a valid string."
NOT_BOOLEAN = "Not a valid boolean."
NOT_LIST = "Not a valid list."
NOT_URL = "Not a valid URL."
NOT_MAPPING = "Not a valid mapping type."
SPECIAL = "Special numeric values (nan or infinity) are not permitted."
NO_MATCH = "String does not match expected pattern."

LARGEST_INTEGER = 2**63 - 1
URL_MAX = 8192
"""Characters of an http(s) URL."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,5})?")
_SPECIAL = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_BOOLEANS = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}
_SCHEME = re.compile(r"(?P<scheme>https?|data):", re.IGNORECASE)
_DATA_URL = re.compile(r"data:[^,\s]{0,256},")
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff\\]")
_NOT_IN_DATA = re.compile(r"[\x00-\x1f\x7f-\xff\ud800-\udfff]")


class NotValid(ValueError):
    """A value that its type or its rules do not take."""

    def __init__(self, *texts: str) -> None:
        super().__init__(*texts)
        self.texts = list(texts)


def integer(value: Any) -> int:
    """64 bit. Raises NotValid."""
    number = _whole(value)
    if number is None or not -LARGEST_INTEGER - 1 <= number <= LARGEST_INTEGER:
        raise NotValid(NOT_INTEGER)
    return number


def _whole(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value) if _INTEGER.fullmatch(value) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: Any) -> float:
    """Finite. Raises NotValid."""
    if isinstance(value, str) and _SPECIAL.fullmatch(value):
        raise NotValid(SPECIAL)
    text = isinstance(value, str) and _DECIMAL.fullmatch(value)
    if isinstance(value, bool) or not (text or isinstance(value, int | float)):
        raise NotValid(NOT_NUMBER)
    try:
        result = float(value)
    except OverflowError:
        raise NotValid(NOT_NUMBER) from None
    if not math.isfinite(result):
        raise NotValid(SPECIAL)
    return result


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return value == 1
    if isinstance(value, str) and value in _BOOLEANS:
        return _BOOLEANS[value]
    raise NotValid(NOT_BOOLEAN)


def string(value: Any) -> str:
    """Text that UTF-8 can say."""
    if not isinstance(value, str) or _SURROGATE.search(value):
        raise NotValid(NOT_STRING)
    return value


def address(value: Any) -> str:
    """An http, https or data: URL, its scheme in lower case as workers compare it."""
    scheme = _SCHEME.match(value) if isinstance(value, str) else None
    if scheme is None:
        raise NotValid(NOT_URL)
    url = scheme.group().lower() + value[scheme.end() :]
    if not (_is_data(url) if url.startswith("data:") else _is_web(url)):
        raise NotValid(NOT_URL)
    return url


def _is_data(url: str) -> bool:
    return _DATA_URL.match(url) is not None and _NOT_IN_DATA.search(url) is None


def _is_web(url: str) -> bool:
    if len(url) > URL_MAX or _NOT_IN_URL.search(url):
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


TYPES: dict[str, Callable[[Any], Any]] = {
    "str": string,
    "int": integer,
    "float": number,
    "bool": boolean,
    "Path": address,
    "File": address,
}
