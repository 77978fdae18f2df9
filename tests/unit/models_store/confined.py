"""A program that is confined and then tries what it must no longer be able to do; test_sandbox.py starts it.

Arguments: a folder, and a file outside what may be read. Prints one JSON object.
"""

import ctypes
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[3]))

from models_store.sandbox import confine

FOLDER, SECRET = sys.argv[1:]
LIBC = ctypes.CDLL(None, use_errno=True)
MEBIBYTE = 1024 * 1024


def attempt(call: Callable[[], Any]) -> str:
    try:
        result = call()
    except MemoryError:
        return "memory"
    except OSError as error:
        return f"refused {error.errno}"
    return "done" if result != -1 else f"refused {ctypes.get_errno()}"


def thread() -> None:
    started = threading.Thread(target=int)
    started.start()
    started.join()


def write_open_file() -> None:
    """In a file of the node's that was left open."""
    os.write(LEFT_OPEN, b"x")


LEFT_OPEN = os.open(f"{FOLDER}/open", os.O_RDWR | os.O_CREAT)
CONNECTED, OTHER = socket.socketpair()
TRIES: dict[str, Callable[[], Any]] = {
    "create a file": Path(FOLDER, "canary").touch,
    "write an existing file": lambda: os.open(SECRET, os.O_WRONLY),
    "read a file": Path(SECRET).read_text,
    "list a folder": lambda: os.listdir("/"),
    "remove a file": lambda: os.unlink(SECRET),
    "make a folder": lambda: os.mkdir(f"{FOLDER}/canary"),
    "rename": lambda: os.rename(SECRET, f"{FOLDER}/canary"),
    "open an internet socket": socket.socket,
    "open a local socket": lambda: socket.socket(socket.AF_UNIX),
    "make a pair of sockets": socket.socketpair,
    "fork": os.fork,
    "execute": lambda: os.execv("/bin/true", ["true"]),
    "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    "signal the parent": lambda: os.kill(os.getppid(), 0),
    "trace": lambda: LIBC.ptrace(16, os.getppid(), 0, 0),
    "become root": lambda: os.setuid(0),
    "read another's memory": lambda: LIBC.process_vm_readv(os.getppid(), None, 0, None, 0, 0),
    "own a pipe's signals": lambda: fcntl.fcntl(LEFT_OPEN, 8, os.getppid()),
    "write an open file": write_open_file,
    "take too much memory": lambda: bytearray(512 * MEBIBYTE),
    # and what must go on
    "take some memory": lambda: bytearray(64 * MEBIBYTE),
    "start a thread": thread,
    "talk over an open socket": lambda: CONNECTED.send(b"x"),
    "wait for an open socket": lambda: OTHER.settimeout(1) or OTHER.recv(1),
    "read below what was named": Path(FOLDER, "readable", "file").read_text,
    "look at the clock": time.time,
    "draw random bytes": lambda: os.urandom(16),
}

confinement = confine([Path(FOLDER) / "readable"], memory=256 * MEBIBYTE, cpu_seconds=30)
print(json.dumps({**asdict(confinement), "is_tight": confinement.is_tight} | {k: attempt(v) for k, v in TRIES.items()}))
