"""The seed's example, `workflow_test/python/predict_signature.py`, against a running node."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.nodes import ROOT, LiveNode

PROGRAM = ROOT / "workflow_test" / "python" / "predict_signature.py"


def run(node: LiveNode, key: str, folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")}
    return subprocess.run(
        [sys.executable, str(PROGRAM), "--url", node.url, *options],
        cwd=folder,
        env={**kept, **({"GRID_API_KEY": key} if key else {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def get(node: LiveNode, key: str, path: str, **query: str) -> Any:
    return httpx.get(f"{node.url}{path}", params=query, headers={"X-API-KEY": key}).raise_for_status().json()


def test_the_example_registers_changes_uploads_and_reports(live_node: LiveNode, tmp_path: Path) -> None:
    key = live_node.add_key("owner", ("runner", "client"))

    done = run(live_node, key, tmp_path)

    assert done.returncode == 0, done.stderr
    registered, changed, model, reported = done.stdout.splitlines()
    model_id = registered.split()[1].rstrip(",")
    assert registered == f"registered: {model_id}, reached as {model_id}.runners.localhost"
    assert changed == "changed twice: the version is the first one again"
    assert model == f"model: {model_id} {model_id} ready"
    assert reported.startswith("reported: 7 succeeded with http")
    assert httpx.get(reported.split()[-1]).content == b"bytes of an image"


def test_the_model_may_have_a_name_and_keeps_it(live_node: LiveNode, tmp_path: Path) -> None:
    key = live_node.add_key("owner", ("runner", "client"))

    done = run(live_node, key, tmp_path, "--name", "painter")

    assert done.returncode == 0, done.stderr
    model = done.stdout.splitlines()[2]
    assert model.split()[0::2] == ["model:", "painter"]
    (found,) = get(live_node, key, "/v1/models")["results"]
    assert found["name"] == "painter"


def test_the_files_of_the_tunnel_are_whole_and_for_the_owner_alone(live_node: LiveNode, tmp_path: Path) -> None:
    key = live_node.add_key("owner", ("runner",))

    assert run(live_node, key, tmp_path).returncode == 0

    files = [tmp_path / "tunnel_credential.json", tmp_path / "tunnel_config.json"]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    credential, config = (json.loads(file.read_text()) for file in files)
    assert set(credential) == {"AccountTag", "TunnelID", "TunnelName", "TunnelSecret", "token"}
    assert config == {
        "tunnel": credential["TunnelID"],
        "credentials-file": "tunnel_credential.json",
        "ingress": [
            {"hostname": f"{credential['TunnelName']}.runners.localhost", "service": "http://localhost:3009"},
            {"service": "http_status:404"},
        ],
    }


def test_what_the_example_reports_is_all_there(live_node: LiveNode, tmp_path: Path) -> None:
    key = live_node.add_key("owner", ("runner", "client"))

    assert run(live_node, key, tmp_path, "--prediction-id", "of the seed").returncode == 0

    (found,) = get(live_node, key, "/v1/predictions")["results"]
    assert (found["id"], found["source"], found["status"]) == ("of the seed", "external", "succeeded")
    assert found["input"] == {"prompt": "a photo of sprite", "seed": 76551, "steps": 50, "guidance_scale": 5.0}
    assert found["metrics"] == {"predict_time": 7.354538}
    assert found["created_at"].startswith("2024-12-06T00:20:04.185")
    assert found["started_at"].startswith("2024-12-23T22:52:01.460")
    assert found["completed_at"].startswith("2024-12-23T22:52:08.814")
    assert [httpx.get(url).content for url in found["output"]] == [b"bytes of an image"]


def test_the_example_takes_its_model_away_again(live_node: LiveNode, tmp_path: Path) -> None:
    key = live_node.add_key("owner", ("runner",))

    done = run(live_node, key, tmp_path, "--delete")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("deleted: m-")
    assert get(live_node, key, "/pc/client-api/models")["models"] == []


def test_the_example_says_what_the_node_refuses(live_node: LiveNode, tmp_path: Path) -> None:
    refused = run(live_node, "no-key-of-this-node", tmp_path)

    assert refused.returncode == 1
    assert "401" in refused.stderr
    assert "API key is not valid." in refused.stderr
    assert run(live_node, "", tmp_path).returncode == 1
