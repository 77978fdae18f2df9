"""The published sample client of the 404-GEN public API against a running node with real workers."""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from grid_client.splats import PLY_PROPERTIES

SAMPLE = Path(__file__).with_name("sample_client.py")
PATIENCE = 100


@pytest.mark.parametrize(("name", "path"), [("with-slash", "/ws/generate/"), ("without-slash", "/ws/generate")])
def test_the_sample_client_gets_started_first_and_best_results(
    live_node: Any, tmp_path: Path, name: str, path: str
) -> None:
    key = live_node.add_key(f"sample-{name}")
    live_node.start_workers(4)
    socket_url = live_node.url.replace("http", "ws", 1) + path

    done = subprocess.run(
        [sys.executable, str(SAMPLE), socket_url, key],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    started, first, best = done.stdout.splitlines()
    assert started == "Task started"
    assert first.startswith("First results. Score: 0.")
    assert best.startswith("Best results. Score: 0.")
    asset = (tmp_path / "results.ply").read_bytes()
    assert_is_splat_ply(asset)
    assert sha256(asset).hexdigest() == stored_sha256(live_node.url, key)


def assert_is_splat_ply(asset: bytes) -> None:
    header, _, body = asset.partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = int(lines[2].removeprefix("element vertex "))
    properties = [line.removeprefix("property float ") for line in lines[3:]]
    assert set(PLY_PROPERTIES) <= set(properties)
    assert count >= 7_000
    assert len(body) == count * 4 * len(properties)


def stored_sha256(url: str, key: str) -> str:
    """Of the best result of the key's newest task, as PLY."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as http:
        task = http.get("/tasks", params={"limit": 1}).raise_for_status().json()["tasks"][0]
        asset = http.head(f"/tasks/{task['id']}/results/best/asset", params={"format": "ply"})
        return asset.raise_for_status().headers["ETag"].strip('"')
