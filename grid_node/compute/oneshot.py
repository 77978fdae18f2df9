"""Programs that do one thing to foreign bytes and end: how the node starts them, bounds them and hears from them.

A program is started with exec (never forked), in an environment of its own. It reads its whole request, one JSON text,
from stdin, has the files it works on as open descriptors, and answers with one JSON text on stdout
(`models_store.program` is its side). What it writes to stderr is dropped. It confines itself (`models_store.sandbox`)
before it looks at a byte of its input; here it is only bounded in time and in what it may say.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import models_store

ANSWER_MAX = 1024 * 1024
"""Bytes of an answer; a program that says more has failed."""
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
"""All of it. numpy must start no thread when it is imported: the cage holds a process that has but one."""
_PIECE = 64 * 1024
_PACKAGES = Path(models_store.__file__).resolve().parents[1]
_START = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); name = sys.argv.pop(1); "
    "runpy.run_module(name, run_name='__main__', alter_sys=True)"
)


class ProgramFailed(Exception):
    """No answer. `late`: the deadline passed and it was killed; otherwise it died or spoke nonsense."""

    def __init__(self, reason: str, late: bool = False) -> None:
        super().__init__(reason)
        self.late = late


def module(name: str, *words: str) -> list[str]:
    """The command that runs a module of `models_store` in an isolated interpreter: `module("tools", "check")`."""
    return [sys.executable, "-I", "-c", _START, str(_PACKAGES), f"{models_store.__name__}.{name}", *words]


def run(
    command: Sequence[str],
    request: Mapping[str, Any],
    deadline: float,
    descriptors: Sequence[int] = (),
    answer_max: int = ANSWER_MAX,
) -> Any:
    """The program's JSON answer, at the latest `deadline` seconds from now.

    `descriptors` stay open in the program under the same numbers, which the request therefore may name
    (`{"file": 7}`). Raises ProgramFailed, and leaves no process behind either way. To be called on the hub or in a
    thread of its own, not through `offload`: under eventlet the waiting is green.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = _start(command, theirs.fileno(), descriptors)
        try:
            answer = _converse(ours, json.dumps(request).encode(), time.monotonic() + deadline, answer_max)
        finally:
            process.kill()
            process.wait()
    try:
        return json.loads(answer)
    except ValueError:
        raise ProgramFailed("the program died or gave no answer") from None


def _start(command: Sequence[str], channel: int, descriptors: Sequence[int]) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            command,
            stdin=channel,
            stdout=channel,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            pass_fds=tuple(descriptors),
        )
    except OSError:
        raise ProgramFailed("the program cannot be started") from None


def _converse(channel: socket.socket, request: bytes, until: float, answer_max: int) -> bytes:
    """Say everything, hear everything. A socket, unlike a pipe, has a deadline without select and its 1,024 files."""
    answer = bytearray()
    try:
        channel.settimeout(_left(until))
        channel.sendall(request)
        channel.shutdown(socket.SHUT_WR)
        while piece := channel.recv(_PIECE):
            answer += piece
            if len(answer) > answer_max:
                raise ProgramFailed("the program says too much")
            channel.settimeout(_left(until))
    except TimeoutError:
        raise ProgramFailed("the program took too long", late=True) from None
    except OSError:
        raise ProgramFailed("the program died") from None
    return bytes(answer)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
