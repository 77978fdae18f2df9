"""The JavaScript example on Node against a running node with real workers."""

import os
import re
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "clients" / "js"
INSTALLED_BY = ("package.json", "package-lock.json", ".npmrc")
OFFLINE = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH")
PATIENCE = 100


@pytest.fixture(scope="module")
def example() -> list[str]:
    """The command that runs the example, its packages installed once for each state of the lock file."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("Node.js with npm is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < 20:
        pytest.skip(f"the example needs Node 20 or later, this is {version}")
    digest = sha256(b"".join((SOURCE / name).read_bytes() for name in INSTALLED_BY)).hexdigest()[:16]
    folder = ROOT / ".cache" / "js" / digest
    if not (folder / "node_modules" / ".package-lock.json").exists():
        install(npm, folder)
    shutil.copytree(SOURCE / "examples", folder / "examples", dirs_exist_ok=True)
    return [node, str(folder / "examples" / "generate.mjs")]


def install(npm: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in INSTALLED_BY:
        shutil.copy(SOURCE / name, folder)
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode and OFFLINE.search(done.stderr):
        pytest.skip("npm cannot reach its registry")
    assert done.returncode == 0, done.stderr


def run(example: list[str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")}
    return subprocess.run(
        [*example, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_example_prints_every_update_and_saves_the_best(example: list[str], live_node: Any, tmp_path: Path) -> None:
    key = live_node.add_key("javascript")
    live_node.start_workers(4)
    done = run(example, live_node.url, key, "a red donut", "best.ply", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = [line.split()[0] for line in done.stdout.splitlines()]
    assert words == ["QUEUED", "STARTED", "FIRST_RESULTS", "BEST_RESULTS", "SAVED"]
    assert (tmp_path / "best.ply").read_bytes().startswith(b"ply\n")


def test_a_wrong_key_ends_the_example_with_the_nodes_words(example: list[str], live_node: Any, tmp_path: Path) -> None:
    done = run(example, live_node.url, "no-such-key-000000", "a donut", cwd=tmp_path)
    assert done.returncode == 1
    assert "invalid_key" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_arguments_are_a_usage_error(example: list[str], tmp_path: Path) -> None:
    done = run(example, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")
