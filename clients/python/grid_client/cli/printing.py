"""What a command prints may hold other people's text: no control character of it reaches a terminal."""

from __future__ import annotations


def say(text: str) -> None:
    """Print it now; tabs and line breaks are the command's own."""
    print("".join(one if one.isprintable() or one in "\t\n" else " " for one in text), flush=True)


def cell(value: object) -> str:
    """One value of a tab-separated line; `-` for None."""
    return "-" if value is None else "".join(one if one.isprintable() else " " for one in str(value))
