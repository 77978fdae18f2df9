"""The JavaScript example and the curl script go through the seven operations of hosted models on a running node."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from grid_client.model_bytes import write_state_dict

from tests.digits import ARCHITECTURE, INPUTS, digits, trained
from tests.e2e.test_js_client import example, run
from tests.nodes import LiveNode, running_node

__all__ = ["example"]

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "clients" / "curl" / "models.sh"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with running_node(tmp_path_factory.mktemp("node")) as made:
        yield made


@pytest.fixture(scope="module")
def models_example(example: list[str]) -> list[str]:
    return [example[0], str(Path(example[1]).with_name("models.mjs"))]


@pytest.fixture(scope="module")
def network() -> Any:
    return trained(torch.Generator().manual_seed(5))


def saved(network: Any, folder: Path, **more: torch.Tensor) -> Path:
    file = folder / "digits.safetensors"
    with file.open("wb") as opened:
        write_state_dict({**network.state_dict(), **more}, opened)
    return file


def lines_of(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What was printed, by its first word."""
    assert done.returncode == 0, done.stderr
    return {word: rest for word, _, rest in (line.partition(" ") for line in done.stdout.splitlines())}


@pytest.mark.parametrize("large", [False, True])
def test_javascript_goes_through_all_operations_and_gets_the_same_digits(
    models_example: list[str], node: LiveNode, network: Any, tmp_path: Path, large: bool
) -> None:
    more = {"unused": torch.zeros(2_500_000)} if large else {}  # 10 MB: three pieces of an upload
    file = saved(network, tmp_path, **more)
    pictures, _ = digits(4, torch.Generator().manual_seed(6))
    spec = {"architecture": ARCHITECTURE, "inputs": INPUTS, "data": pictures.tolist()}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    name = f"digits {'large' if large else 'small'} é"
    done = run(models_example, node.url, name, str(file), "spec.json", node.add_key("js"), cwd=tmp_path)
    printed = lines_of(done)
    assert printed["SERVED"] == f"Model saved with id: {name}"
    assert printed["LISTED"] == printed["SEARCH"] == "true"
    assert printed["COPY"] == "allowed"
    assert printed["FETCHED"] == f"{file.stat().st_size} bytes, true"
    assert printed.get("GOT") == (None if large else f"{file.stat().st_size} bytes, true")
    assert name in json.loads(printed["TAGS"])
    assert printed["ENCRYPTED"] == "alice, bob"
    assert (tmp_path / f"{name}.fetched").read_bytes() == file.read_bytes()
    with torch.no_grad():
        here = network(pictures)
    torch.testing.assert_close(torch.tensor(json.loads(printed["PREDICTION"])), here, rtol=1e-5, atol=1e-5)


def test_the_nodes_refusal_ends_the_example_with_its_words(
    models_example: list[str], node: LiveNode, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(b"no tensors")
    (tmp_path / "spec.json").write_text("{}")
    done = run(models_example, node.url, "refused", "model.bin", "spec.json", cwd=tmp_path)
    assert done.returncode == 1
    assert "invalid_model" in done.stderr
    done = run(models_example, node.url, "refused", "model.bin", "spec.json", "no-such-key-000000", cwd=tmp_path)
    assert done.returncode == 1
    assert "invalid_key" in done.stderr


def test_missing_arguments_are_a_usage_error(models_example: list[str], tmp_path: Path) -> None:
    done = run(models_example, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")}
    command = ["bash", str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", ["plain", 'with space, é and "quotes"'])
@pytest.mark.parametrize("keyed", [False, True])
def test_curl_goes_through_all_operations(node: LiveNode, tmp_path: Path, name: str, keyed: bool) -> None:
    name = f"{name} {keyed}"
    content = bytes(range(256)) * 100
    (tmp_path / "model.bin").write_bytes(content)
    key = [node.add_key("curl")] if keyed else []
    done = curl(node.url, name, str(tmp_path / "model.bin"), *key)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", "["))]
    served, listed, allowed, got, registered, tags, found, encrypted, placed = answers
    assert served["message"] == f"Model saved with id: {name}"
    assert name in listed["models"]
    assert allowed == {"success": True}
    assert "the same bytes" in done.stdout
    assert hashlib.sha256(base64_bytes(got["serialized_model"])).digest() == hashlib.sha256(content).digest()
    assert registered["success"]
    assert {"curl", "example"} <= set(tags)
    assert found == {"content": True}
    assert encrypted["success"]
    assert placed == {"workers": ["alice", "bob"], "crypto_provider": []}


def base64_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def test_a_refusal_ends_the_script_and_is_printed(node: LiveNode, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"bytes")
    done = curl(node.url, "a/b", str(tmp_path / "model.bin"))
    assert done.returncode == 22
    assert "invalid_payload" in done.stdout
    assert curl(node.url).returncode == 2
