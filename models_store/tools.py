"""Programs that the node runs on one file: `python -m models_store.tools check`."""

import os
import sys
from dataclasses import asdict
from typing import Any

from models_store import program
from models_store.formats import Limits, check
from models_store.sandbox import confine

CPU_SECONDS = 30


def check_file(request: dict[str, Any]) -> dict[str, Any]:
    """`{"file": descriptor, "size", "format", "header_max", "tensors_max", "memory"}` -> `formats.Found` as JSON."""
    limits = Limits(request["header_max"], request["tensors_max"])
    confine(read=(), memory=request["memory"], cpu_seconds=CPU_SECONDS, threads_ok=False)
    with os.fdopen(request["file"], "rb") as file:
        return asdict(check(file, request["size"], request["format"], limits))


PROGRAMS = {"check": check_file}

if __name__ == "__main__":
    program.answer(PROGRAMS[sys.argv[1]])
