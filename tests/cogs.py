"""Real Cog workers on loopback, each version from an environment of its own (`make peers`)."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.nodes import ROOT, free_port, until

VERSIONS = ("0.23.1", "0.20.0", "0.16.12", "0.13.7")
"""The first two are coglet, which reports little, in any order; the others are Python, and report as the seed shows."""
KNOWS_ITS_PREDICTION = ("0.23.1", "0.20.0", "0.16.12")
"""Versions whose models can name their files after the prediction, and so give them an order."""
IDLE_LOST = "Received Idle for slot with no pending idle confirmation"
"""What coglet 0.20.0 says, now and then on a busy machine, before it forgets for good that it is free."""
START = 60.0
"""Seconds within which a worker must be ready on a busy machine; alone it takes one or two."""

SIGNATURE: dict[str, Any] = {
    "inputs": [
        {"name": "prompt", "type": "str", "validation": {"description": "what the files say"}},
        {"name": "kind", "type": "str", "validation": {"default": "files", "description": "what comes of it"}},
        {"name": "count", "type": "int", "validation": {"default": "2", "ge": "0", "le": "50"}},
        {"name": "scale", "type": "float", "validation": {"default": "1.5"}},
        {"name": "seconds", "type": "float", "validation": {"default": "0.0", "ge": "0", "le": "120"}},
    ],
    "outputs": "list[Path]",
}
"""Of the predictor below. `kind`: files, same (all of one name), empty, plain (no extension), fail."""

PREDICTOR = """
import os
import tempfile
import time
import warnings
from typing import List

from cog import BasePredictor, Input, Path

NAMES = {"same": "image.png", "empty": "empty.bin", "plain": "plain"}


def prediction_id():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from cog import current_scope

            return (current_scope().context or {}).get("prediction_id")
    except (AttributeError, ImportError):
        return None


class Predictor(BasePredictor):
    def predict(
        self,
        prompt: str = Input(description="what the files say"),
        kind: str = Input(default="files"),
        count: int = Input(default=2, ge=0, le=50),
        scale: float = Input(default=1.5),
        seconds: float = Input(default=0.0, ge=0, le=120),
    ) -> List[Path]:
        print(f"prompt: {prompt}", flush=True)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.02)
        if kind == "fail":
            raise ValueError("told to fail")
        made = [self.file(kind, prompt, scale, number) for number in range(count)]
        print(f"made {count}", flush=True)
        return made

    def file(self, kind, prompt, scale, number):
        name = NAMES.get(kind, f"out-{number}.png")
        known = prediction_id()
        if known is not None:
            name = f"{known}_{number}_{name}"
        path = os.path.join(tempfile.mkdtemp(), name)
        with open(path, "wb") as file:
            file.write(b"" if kind == "empty" else f"{prompt}|{scale}|{number}|".encode() + bytes(range(256)) * 40)
        return Path(path)
"""


def content(prompt: str, number: int, kind: str = "files", scale: float = 1.5) -> bytes:
    """What the predictor writes into file `number`."""
    return b"" if kind == "empty" else f"{prompt}|{scale}|{number}|".encode() + bytes(range(256)) * 40


class Cog:
    """A worker in a process group of its own."""

    def __init__(self, version: str, folder: Path, upload_url: str, report_key: str = "", port: int = 0) -> None:
        """`upload_url` may hold a key as its password; `report_key` goes with reports. `port` 0: any."""
        self.version = version
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._venv = environment_of(version)
        self._folder = folder
        self._upload_url = upload_url
        self._report_key = report_key
        self._process: subprocess.Popen[bytes] | None = None
        self._log_before = 0
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "predict.py").write_text(PREDICTOR)
        (folder / "cog.yaml").write_text('build:\n  python_version: "3.11"\npredict: "predict.py:Predictor"\n')

    def start(self) -> None:
        """Returns once it is READY. After `kill` it starts anew on the same port."""
        command = [str(self._venv / "bin" / "python"), "-m", "cog.server.http", "--host", "127.0.0.1"]
        with (self._folder / "cog.log").open("ab") as output:
            self._log_before = output.tell()
            self._process = subprocess.Popen(
                [*command, "--upload-url", self._upload_url],
                cwd=self._folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        until(lambda: self.status() == "READY", START)

    def status(self) -> str:
        """OFFLINE while it does not answer."""
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        with contextlib.suppress(httpx.HTTPError):
            return str(httpx.get(f"{self.url}/health-check", timeout=5.0, trust_env=False).json()["status"])
        return "OFFLINE"

    def kill(self) -> None:
        """kill -9 of all its processes, as a container ends that ran out of memory."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def free(self) -> None:
        """Start anew if it says that it is busy and has lost what it waits for."""
        if self.status() == "BUSY" and IDLE_LOST in self.log()[self._log_before :]:
            self.kill()
            self.start()

    def log(self) -> str:
        return (self._folder / "cog.log").read_text(errors="replace")

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GRID_", "COG_", "PYTHON"))}
        told = {
            "PORT": str(self.port),
            "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
            "PATH": f"{self._venv / 'bin'}{os.pathsep}{os.environ['PATH']}",  # coglet starts a bare `python`
            "TMPDIR": str(self._folder),
            "NO_PROXY": "127.0.0.1",
        }
        return {**kept, **told, **({"WEBHOOK_AUTH_TOKEN": self._report_key} if self._report_key else {})}


def environment_of(version: str) -> Path:
    """Skips the test where this version is not installed, its server too: an older cog takes a newer coglet."""
    venv = ROOT / f".venv-cog-{version}"
    if not (venv / "bin" / "python").exists():
        pytest.skip(f"Cog {version} is not there: make peers")
    servers = [file.name for file in venv.glob("lib/python*/site-packages/coglet-*.dist-info")]
    if servers and servers != [f"coglet-{version}.dist-info"]:
        pytest.skip(f"Cog {version} has another server, {servers[0]}: make peers")
    return venv


@contextlib.contextmanager
def cog(version: str, folder: Path, upload_url: str, report_key: str = "", port: int = 0) -> Iterator[Cog]:
    """A worker that is READY inside the block, and of which nothing runs after it."""
    worker = Cog(version, folder, upload_url, report_key, port)
    try:
        worker.start()
        yield worker
    finally:
        worker.kill()
