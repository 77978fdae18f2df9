"""Reading RFC 3339 times."""

import re
from datetime import datetime

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def parse_rfc3339(text: str) -> float:
    """Seconds since 1970. An offset or Z is demanded; a naive time raises ValueError like any other nonsense."""
    if not _RFC3339.fullmatch(text):
        raise ValueError("not an RFC 3339 time with an offset")
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except OverflowError as error:
        raise ValueError("year out of range") from error
