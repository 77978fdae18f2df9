"""The inside of a program that the node starts for one piece of work: request in, answer out, JSON both ways."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from models_store.errors import ModelError

REQUEST_MAX = 16 * 1024 * 1024
OUT_OF_MEMORY = "OutOfMemory"


def answer(work: Callable[[dict[str, Any]], Any]) -> None:
    """Read the request, do the work, write `{"done": result}`.

    A ModelError becomes `{"refused": <its class>, "reason": <its text>}`, running out of memory becomes
    `{"refused": "OutOfMemory", ...}`. Anything else ends the process without an answer: nothing of it is for others.
    What the work prints goes where errors go.
    """
    channel = os.dup(1)
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.read(REQUEST_MAX))
    try:
        said: dict[str, Any] = {"done": work(request)}
    except ModelError as error:
        said = {"refused": type(error).__name__, "reason": str(error)}
    except MemoryError:
        said = {"refused": OUT_OF_MEMORY, "reason": "checking it takes more memory than is allowed"}
    with os.fdopen(channel, "wb") as out:
        out.write(json.dumps(said).encode())
