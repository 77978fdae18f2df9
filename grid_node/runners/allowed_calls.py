"""What may be asked of a worker. A Cog server has no authentication and can be shut down by a request, so that only
what predictions need comes through; an agent holds the same list on its side."""

import re
from collections.abc import Mapping

from grid_node.errors import CallNotAllowed
from grid_node.runners.ids import CALLABLE_ID

HEADERS = ("Prefer", "Content-Type", "traceparent", "tracestate")
"""Headers that a call may carry."""
REPLY_MAX = 512 * 1024
"""Bytes of the largest answer of a worker."""

_ONE = rf"/predictions/{CALLABLE_ID.pattern}"
_CALLS = {
    "GET": re.compile(r"/health-check"),
    "PUT": re.compile(_ONE),
    "POST": re.compile(rf"/predictions|{_ONE}/cancel"),
}
_HEADER_NAMES = {name.lower(): name for name in HEADERS}
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,1024}")


def check_call(method: str, path: str) -> None:
    """Method and path, exactly as they are sent, without a query. Raises CallNotAllowed."""
    rule = _CALLS.get(method)
    if rule is None or rule.fullmatch(path) is None:
        raise CallNotAllowed()


def allowed_headers(given: Mapping[str, str] | None) -> dict[str, str]:
    """Those that a call may carry, under their usual names; what cannot stand in a header is left out."""
    named = ((_HEADER_NAMES.get(name.lower()), value) for name, value in (given or {}).items())
    return {name: value for name, value in named if name is not None and _HEADER_VALUE.fullmatch(value)}
