"""What a signature asks of a value beside its type. For a list each item must obey."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import regex

from grid_node.runners.coercion import NO_MATCH

PATTERN_MAX = 512
"""Characters of a pattern. Before its first search `regex` prepares what is literal in it, in a time that grows with
the cube of the length and heeds no timeout: 0.05 s of CPU time for 512 characters, 0.4 s for 1000."""
MATCHED_MAX = 65536
"""Characters of a text that a pattern is tried on; a longer one does not match."""
MATCH_S = 0.05
"""Longest search of one text, as asked; it overshoots by some tenths of a second."""
PATIENCE_S = 0.25
"""Longest search of all texts of one input together: a list can have half a million items."""
_BAD_PATTERN = (regex.error, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class Patience:
    """The CPU time that is left for patterns. Who has made us wait once is not waited for again.

    CPU time, because a machine that is busy with others must not make a good text a bad one.
    """

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self._left = seconds

    def finds(self, pattern: "regex.Pattern[str]", text: str) -> bool:
        """Whether the pattern occurs in the text. False as well where that cannot be known in time."""
        if len(text) > MATCHED_MAX or self._left <= 0:
            return False
        started = time.thread_time()
        try:
            return pattern.search(text, timeout=MATCH_S) is not None
        except (TimeoutError, MemoryError):
            self._left = 0.0
            return False
        finally:
            self._left -= time.thread_time() - started


@dataclass(frozen=True, slots=True)
class Rules:
    """`ge` and `le` have the type of the values, lengths are characters, `choices` are in order; None is no rule."""

    ge: int | float | None = None
    le: int | float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: "regex.Pattern[str] | None" = None
    choices: dict[Any, None] | None = field(default=None, repr=False)

    def broken(self, value: Any, patience: Patience) -> list[str]:
        """Texts of the rules that the value breaks, in marshmallow's words."""
        return list(self._broken(value, patience))

    def _broken(self, value: Any, patience: Patience) -> Iterator[str]:
        if self._outside(value):
            yield _range_text(self.ge, self.le)
        if self.min_length is not None or self.max_length is not None:
            yield from self._wrong_length(len(value))
        if self.pattern is not None and not patience.finds(self.pattern, value):
            yield NO_MATCH
        if self.choices is not None and value not in self.choices:
            yield f"Must be one of: {', '.join(map(str, self.choices))}."

    def _outside(self, value: Any) -> bool:
        return (self.ge is not None and value < self.ge) or (self.le is not None and value > self.le)

    def _wrong_length(self, length: int) -> Iterator[str]:
        short = self.min_length is not None and length < self.min_length
        long = self.max_length is not None and length > self.max_length
        if (short or long) and self.min_length is not None and self.max_length is not None:
            yield f"Length must be between {self.min_length} and {self.max_length}."
        elif short:
            yield f"Shorter than minimum length {self.min_length}."
        elif long:
            yield f"Longer than maximum length {self.max_length}."


def _range_text(ge: int | float | None, le: int | float | None) -> str:
    bounds = ((ge, "greater"), (le, "less"))
    asked = (f"{word} than or equal to {bound}" for bound, word in bounds if bound is not None)
    return f"Must be {' and '.join(asked)}."


def compiled(pattern: str) -> "regex.Pattern[str] | None":
    """The pattern, to be searched for; None for what is none."""
    if len(pattern) > PATTERN_MAX:
        return None
    try:
        found = regex.compile(pattern)
    except _BAD_PATTERN:
        return None
    return found
