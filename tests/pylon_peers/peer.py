"""Clients of the chain service in processes of their own: the published ones, unmodified, and the project's."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.nodes import ROOT

SCRIPT = Path(__file__).with_name("calls.py")
PUBLISHED = ("1.0.0", "1.9.0", "2.0.0", "2.3.1")
OURS = "ours"
MODES = ("sync", "async")


class Refused(Exception):
    """What the client raised: its name and its text."""

    def __init__(self, said: Mapping[str, str]) -> None:
        super().__init__(f"{said['error']}: {said['text']}")
        self.name = said["error"]


class Peer:
    """A client that does one call after the other."""

    def __init__(self, process: "subprocess.Popen[str]", version: str) -> None:
        self._process = process
        self.version = version

    @property
    def logs_in(self) -> bool:
        """It shows a cookie, and no open access token."""
        return self.version.startswith("1.")

    def call(self, face: str, method: str, **arguments: Any) -> dict[str, Any]:
        """The answer with its type as `type`; empty where this client has no such method. Raises Refused."""
        said = self._said({"face": face, "method": method, "arguments": arguments})
        if "error" in said:
            raise Refused(said)
        return {} if "absent" in said else {"type": said["type"], **said["answer"]}

    def open_access(self, method: str, **arguments: Any) -> dict[str, Any]:
        return self.call("open_access", method, **arguments)

    def identity(self, method: str, **arguments: Any) -> dict[str, Any]:
        return self.call("identity", method, **arguments)

    def _said(self, call: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"client {self.version} ended"
        said: dict[str, Any] = json.loads(line)
        return said


@contextmanager
def peer(version: str, mode: str, **config: Any) -> Iterator[Peer]:
    """Skips the test where this version is not installed."""
    python, module = _program(version)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYLON_")}
    process = subprocess.Popen(
        [python, "-W", "ignore", str(SCRIPT), module, mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(config) + "\n")
    try:
        yield Peer(process, version)
    finally:
        with process:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _program(version: str) -> tuple[str, str]:
    if version == OURS:
        return sys.executable, "grid_client.chain"
    python = ROOT / f".venv-pylon-{version}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no environment with Pylon client {version} (make peers)")
    return str(python), "pylon_client.v1"
