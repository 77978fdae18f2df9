"""Where Pylon's variables come from: the process environment, then files of Pylon's form, names in any case.

Nothing here is logged. A problem or a note names variables and files, never the value of a token.
"""

import io
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dotenv import dotenv_values

PREFIX = "PYLON_"
ENV_FILE = "PYLON_ENV_FILE"
ID_ENV_FILE = "PYLON_ID_ENV_FILE"
FILE_MAX = 1024 * 1024
"""Bytes of a file of variables at most."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"0", "false", "f", "no", "n", "off"})
_SHOWN = 40
"""Characters of a wrong value that are shown."""


@dataclass
class Variables:
    """Pylon's variables by upper-case name, and what is wrong with them so far."""

    general: dict[str, str]
    """The environment over the file `PYLON_ENV_FILE`."""
    identities: dict[str, str]
    """The same with the file `PYLON_ID_ENV_FILE` between the two."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> "Variables":
        """Of `environ` and the files that it names; without one of the process, where `.env` is read by default."""
        default = ".env" if environ is None else ""
        given = _pylons(os.environ if environ is None else environ)
        found = cls({}, {})
        main = found._file(ENV_FILE, given.get(ENV_FILE, default), given.get(ENV_FILE) is not None)
        found.general = {**main, **given}
        own = found._file(ID_ENV_FILE, found.general.get(ID_ENV_FILE, ""), True)
        found.identities = {**main, **own, **given}
        return found

    def _file(self, variable: str, name: str, named: bool) -> dict[str, str]:
        if not name:
            return {}
        try:
            with open(os.path.expanduser(name), "rb") as file:
                content = file.read(FILE_MAX + 1)
            if len(content) > FILE_MAX:
                raise ValueError(f"is larger than {FILE_MAX} bytes")
            text = content.decode("utf-8-sig")
        except FileNotFoundError:
            if named:
                told = self.problems if variable == ENV_FILE else self.notes
                told.append(f"{variable} names a file that is not there: {name}")
            return {}
        except UnicodeDecodeError:
            self.problems.append(f"{variable}: {name} is not UTF-8 text")
            return {}
        except (OSError, ValueError) as error:
            self.problems.append(f"{variable}: {name} cannot be read: {getattr(error, 'strerror', None) or error}")
            return {}
        return _pylons({key: value or "" for key, value in dotenv_values(stream=io.StringIO(text)).items()})

    def value(self, name: str, kind: str, check: Callable[[Any], bool] | None, expects: str) -> Any:
        """The value of a general variable; None where there is none, or it is a problem."""
        text = self.general.get(name)
        if text is None:
            return None
        try:
            value = _READERS[kind](text)
        except ValueError as error:
            self.problems.append(f"{name} must be {expects or error}{_said(kind, text)}")
            return None
        if check is not None and value is not None and not check(value):
            self.problems.append(f"{name} must be {expects}{_said(kind, text)}")
            return None
        return value


def _pylons(values: Mapping[str, str]) -> dict[str, str]:
    """Those that are Pylon's, upper-cased; of two that differ in case the one in upper case counts."""
    found = {name.upper(): value for name, value in values.items() if name.upper().startswith(PREFIX)}
    return found | {name: value for name, value in values.items() if name in found}


def whole(text: str) -> int:
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError("a whole number")
    return int(text)


def number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number")
    return value


def word(text: str) -> bool:
    lower = text.strip().lower()
    if lower not in _TRUE | _FALSE:
        raise ValueError("true or false")
    return lower in _TRUE


def json_list(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("a JSON list") from None
    if not isinstance(found, list):
        raise ValueError("a JSON list")
    return found


_READERS: dict[str, Callable[[str], Any]] = {
    "int": whole,
    "float": number,
    "bool": word,
    "str": str,
    "list": json_list,
}


def _said(kind: str, text: str) -> str:
    """Numbers are shown. Whatever else was put there may be a secret in the wrong place."""
    return f", not {text[:_SHOWN]!r}" if kind in {"int", "float", "bool"} else ""
