"""What the command `flask` puts into its environment, where Pylon's settings must not find it.

`flask` copies `.env`, of the working directory or of one above it, into its own environment, and there it would beat
the file that `PYLON_ENV_FILE` names. The node has no such copy, and its commands must act on the chain that it acts on.
"""

import os
from collections.abc import Collection, MutableMapping
from pathlib import Path

import click
from dotenv import dotenv_values, find_dotenv
from flask.cli import ScriptInfo

from grid_node.chain.pylon_env import PREFIX

COPIED = (".flaskenv", ".env")
"""What `flask` copies; the second beats the first."""


def drop_copies(environ: MutableMapping[str, str], given: Collection[str] | None = None) -> None:
    """In a command of `flask`: take Pylon's variables that it copied out of `environ` again.

    What the process was `given` stays, and so does whatever has another value than the copy would have.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.find_object(ScriptInfo) is None:
        return
    copies: dict[str, str | None] = {}
    for name in COPIED:
        if path := find_dotenv(name, usecwd=True):
            copies |= dotenv_values(path, encoding="utf-8")
    given = _given() if given is None else given
    for name, value in copies.items():
        if name.upper().startswith(PREFIX) and name not in given and environ.get(name) == value:
            environ.pop(name, None)


def _given() -> frozenset[str]:
    """Names of the variables that this process was started with; none where the system does not tell."""
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return frozenset()
    return frozenset(os.fsdecode(entry.partition(b"=")[0]) for entry in entries)
