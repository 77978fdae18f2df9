"""The published tus client, tuspy 1.1.0, in a Python of its own (GRID_TEST_TUS_PYTHON, or .venv-tus)."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

_PROGRAM = """
import json, sys
from tusclient.client import TusClient

url, file, stop_at, checksum, upload, metadata, headers = sys.argv[1:]
client = TusClient(url, headers=json.loads(headers))
uploader = client.uploader(
    file,
    chunk_size=1 << 20,
    url=upload or None,
    upload_checksum=checksum == "yes",
    metadata=json.loads(metadata) or None,
)
print(uploader.offset)
uploader.upload(stop_at=int(stop_at) or None)
print(uploader.url)
"""


class Tuspy:
    """`upload` sends a file in pieces of 1 MiB and tells where it began and the address of the upload."""

    def __init__(self, python: Path) -> None:
        self._python = python

    def upload(
        self, endpoint: str, file: Path, *, stop_at: int = 0, url: str = "", checksum: bool = False, **json_texts: str
    ) -> tuple[int, str]:
        """`stop_at`: leave off at that byte; `url`: go on with that upload. `metadata`, `headers`: JSON objects."""
        options = [str(stop_at), "yes" if checksum else "no", url]
        options += [json_texts.get("metadata", "{}"), json_texts.get("headers", "{}")]
        command = [str(self._python), "-c", _PROGRAM, endpoint, str(file), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        began, where = done.stdout.split()
        return int(began), where


@pytest.fixture(scope="session")
def tuspy() -> Tuspy:
    python = Path(os.environ.get("GRID_TEST_TUS_PYTHON") or ROOT / ".venv-tus" / "bin" / "python")
    if not python.exists():
        pytest.skip("no Python with tuspy 1.1.0 at .venv-tus; name one in GRID_TEST_TUS_PYTHON")
    return Tuspy(python)
