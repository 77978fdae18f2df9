"""`ModelClient` against a running node: a small network is trained, served, found, fetched and run."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from grid_client.cli.main import main
from grid_client.errors import GridError, HashMismatch
from grid_client.models import ModelClient
from grid_client.progress import ProgressBar
from torch import nn

from tests.digits import ARCHITECTURE, INPUTS, digits, trained
from tests.nodes import LiveNode, running_node

MIB = 1024 * 1024
LINEAR = {"layers": [{"op": "linear", "weight": "weight", "bias": "bias"}]}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with running_node(tmp_path_factory.mktemp("node")) as made:
        yield made


@pytest.fixture(scope="module")
def client(node: LiveNode) -> Iterator[ModelClient]:
    with ModelClient(node.url, node.add_key("models")) as made:
        yield made


@pytest.fixture(scope="module")
def random() -> torch.Generator:
    return torch.Generator().manual_seed(20240607)


@pytest.fixture(scope="module")
def network(random: torch.Generator) -> nn.Sequential:
    return trained(random)


@pytest.fixture(scope="module")
def served(client: ModelClient, network: nn.Sequential) -> str:
    answer = client.serve(
        "digits",
        network.state_dict(),
        allow_download=True,
        allow_remote_inference=True,
        architecture=ARCHITECTURE,
        inputs=INPUTS,
        tags=["vision", "demo"],
        description="reads seven-segment digits",
    )
    return answer.sha256


def test_a_network_trained_here_reads_the_same_digits_there(
    client: ModelClient, network: nn.Sequential, served: str, random: torch.Generator
) -> None:
    pictures, labels = digits(200, random)
    with torch.no_grad():
        here = network(pictures)
    there = client.run("digits", pictures)
    torch.testing.assert_close(there, here, rtol=1e-5, atol=1e-5)
    assert torch.equal(there.argmax(1), here.argmax(1))
    assert (there.argmax(1) == labels).float().mean() > 0.9


def test_lists_and_numpy_arrays_give_what_tensors_give(
    client: ModelClient, network: nn.Sequential, served: str, random: torch.Generator
) -> None:
    pictures, _ = digits(3, random)
    with torch.no_grad():
        here = network(pictures)
    as_lists = client.run("digits", pictures.tolist())
    by_name = client.run("digits", {"pictures": pictures.numpy()}, version=1)
    assert isinstance(as_lists, list)
    assert isinstance(by_name, np.ndarray)
    np.testing.assert_allclose(as_lists, here, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_name, here, rtol=1e-5, atol=1e-5)


def test_a_served_model_is_listed_with_all_that_was_said_of_it(client: ModelClient, served: str) -> None:
    assert "digits" in client.list()
    (found,) = client.detailed("vision")
    assert (found.id, found.version, found.format, found.sha256) == ("digits", 1, "safetensors", served)
    assert (found.tags, found.description) == (["vision", "demo"], "reads seven-segment digits")
    assert found.allow_download
    assert client.is_copy_allowed("digits")
    assert client.signature("digits")["inputs"][0]["name"] == "pictures"


def test_a_state_dict_comes_back_as_a_file_that_the_package_safetensors_reads(
    client: ModelClient, network: nn.Sequential, served: str, tmp_path: Path
) -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    seen: list[tuple[int, int]] = []
    path = tmp_path / "digits.safetensors"
    assert client.fetch("digits", path, progress=lambda done, total: seen.append((done, total))) == served
    assert hashlib.sha256(path.read_bytes()).hexdigest() == served
    assert seen[-1] == (path.stat().st_size,) * 2
    assert client.get("digits") == path.read_bytes()
    state = load_file(path)
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("size", [1, 1000, MIB - 1, 3 * MIB])
def test_any_bytes_of_any_size_come_back_unchanged(client: ModelClient, tmp_path: Path, size: int) -> None:
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    answer = client.serve(f"bytes {size} é", content, allow_download=True)
    assert (answer.size, answer.sha256) == (size, hashlib.sha256(content).hexdigest())
    client.fetch(f"bytes {size} é", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_every_type_of_tensor_is_written_as_the_package_safetensors_writes_it(
    client: ModelClient, tmp_path: Path
) -> None:
    load = pytest.importorskip("safetensors.torch").load
    state = {
        str(dtype): torch.arange(6).reshape(2, 3).to(dtype)
        for dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16)
    }
    state |= {"bf": torch.tensor([1.5, -2.0], dtype=torch.bfloat16), "double": torch.tensor(0.1, dtype=torch.float64)}
    state |= {"empty": torch.empty(0, 3), "turned": torch.arange(6.0).reshape(2, 3).T}
    client.serve("types", state, allow_download=True)
    back = load(client.get("types"))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) and back[name].dtype == state[name].dtype for name in state)


def test_an_upload_that_was_cut_goes_on_where_it_was(client: ModelClient, tmp_path: Path) -> None:
    content, note = tmp_path / "model.bin", tmp_path / "model.upload"
    content.write_bytes(bytes(range(256)) * (80 * 1024))  # 20 MiB: three pieces

    class Cut(Exception):
        pass

    def cut(done: int, total: int) -> None:
        if done:
            raise Cut

    with pytest.raises(Cut):
        client.serve("cut", content, progress=cut, resume=note)
    assert note.exists()
    seen: list[int] = []
    answer = client.serve("cut", content, progress=lambda done, total: seen.append(done), resume=note)
    assert answer.version == 1
    assert seen[0] == 8 * MIB
    assert not note.exists()
    assert client.list().count("cut") == 1


def test_a_fetch_that_was_cut_takes_only_the_rest(client: ModelClient, tmp_path: Path) -> None:
    content = bytes(range(256)) * (12 * 1024)
    digest = client.serve("rest", content, allow_download=True).sha256
    (tmp_path / f".back.{digest[:16]}.part").write_bytes(content[: 2 * MIB])
    seen: list[int] = []
    client.fetch("rest", tmp_path / "back", progress=lambda done, total: seen.append(done))
    assert min(seen) > 2 * MIB
    assert (tmp_path / "back").read_bytes() == content


def test_a_damaged_rest_is_noticed_and_the_next_fetch_is_whole(client: ModelClient, tmp_path: Path) -> None:
    content = b"0123456789" * 1000
    digest = client.serve("damaged", content, allow_download=True).sha256
    (tmp_path / f".back.{digest[:16]}.part").write_bytes(b"x" * 100)
    with pytest.raises(HashMismatch):
        client.fetch("damaged", tmp_path / "back")
    assert list(tmp_path.iterdir()) == []
    client.fetch("damaged", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_versions_live_side_by_side(client: ModelClient, tmp_path: Path) -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    options: dict[str, Any] = {
        "allow_download": True,
        "allow_remote_inference": True,
        "architecture": LINEAR,
        "inputs": [{"datatype": "FP32", "shape": [-1, 3]}],
    }
    client.serve("linear", first.state_dict(), **options)
    client.serve("linear", second.state_dict(), version="new", **options)
    row = torch.ones(1, 3)
    with torch.no_grad():
        torch.testing.assert_close(client.run("linear", row), second(row))
        torch.testing.assert_close(client.run("linear", row, version=1), first(row))
    client.fetch("linear", tmp_path / "one", version=1)
    assert (tmp_path / "one").read_bytes() == client.get("linear", version=1) != client.get("linear")
    client.delete("linear", version=2)
    with torch.no_grad():
        torch.testing.assert_close(client.run("linear", row), first(row))
    client.delete("linear")
    assert "linear" not in client.list()


@pytest.mark.parametrize(
    ("call", "code", "status"),
    [
        (lambda c, at: c.is_copy_allowed("nothing"), "model_not_found", 404),
        (lambda c, at: c.get("nothing"), "model_not_found", 404),
        (lambda c, at: c.fetch("nothing", at), "model_not_found", 404),
        (lambda c, at: c.fetch("closed", at), "download_not_allowed", 403),
        (lambda c, at: c.get("closed"), "download_not_allowed", 403),
        (lambda c, at: c.run("closed", [[1.0]]), "inference_not_allowed", 403),
        (lambda c, at: c.run("nothing", np.ones((1, 1), np.float32)), "model_not_found", 404),
        (lambda c, at: c.run("digits", [[1.0]]), "invalid_payload", 400),
        (lambda c, at: c.run("digits", {"pictures": np.ones((1, 1))}), "invalid_payload", 400),
        (lambda c, at: c.serve("closed", b"other"), "model_exists", 409),
        (lambda c, at: c.serve("closed", bytes(2 * MIB)), "model_exists", 409),
        (lambda c, at: c.serve("a/b", b"x"), "invalid_payload", 400),
        (lambda c, at: c.serve("empty", b""), "invalid_payload", 400),
        (lambda c, at: c.serve("bad", b"no tensors", format="safetensors"), "invalid_model", 422),
        (lambda c, at: c.delete("nothing"), "model_not_found", 404),
        (lambda c, at: c.search_encrypted("closed"), "model_not_found", 404),
        (lambda c, at: c.search(""), "invalid_payload", 400),
        (lambda c, at: c.delete_dataset("nothing"), "dataset_not_found", 404),
    ],
)
def test_a_refusal_carries_the_nodes_code(
    client: ModelClient, served: str, tmp_path: Path, call: Any, code: str, status: int
) -> None:
    if "closed" not in client.list():
        client.serve("closed", b"bytes")
    with pytest.raises(GridError) as refused:
        call(client, tmp_path / "never")
    assert (refused.value.code, refused.value.status) == (code, status)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_may_not_be_copied_says_so(client: ModelClient) -> None:
    client.serve("kept", b"bytes")
    assert client.is_copy_allowed("kept") is False


def test_datasets_are_described_and_found(client: ModelClient) -> None:
    client.register_dataset("sevens", description="digits of seven segments", tags=["digits"], private=True)
    assert client.tag_dataset("sevens", add=["synthetic"]) == ["digits", "synthetic"]
    assert client.tags() == ["digits", "synthetic"]
    assert client.search("sevens", "digits", "segments")
    assert not client.search("sevens", "letters")
    assert [one["id"] for one in client.datasets()] == ["sevens"]
    client.delete_dataset("sevens")
    assert not client.search("sevens")


def test_an_encrypted_model_tells_where_its_shares_are(client: ModelClient) -> None:
    shares = [{"worker": name, "address": f"http://{name}.example"} for name in ("w1", "w2")]
    provider = {"id": "cp", "address": "http://cp.example"}
    client.declare("secret", shares, set="0" * 32, crypto_provider=provider)
    assert client.search_encrypted("secret") == {"workers": ["w1", "w2"], "crypto_provider": ["cp"]}
    assert client.search_encrypted("secret", details=True)["set"] == "0" * 32


def test_without_a_key_one_may_do_what_is_open(node: LiveNode, served: str) -> None:
    with ModelClient(node.url) as anybody:
        assert "digits" in anybody.list()
        with pytest.raises(GridError) as refused:
            anybody.delete("digits")
    assert refused.value.code == "missing_key"


def test_the_command_line_serves_lists_runs_fetches_and_deletes(
    node: LiveNode, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_URL", node.url)
    monkeypatch.setenv("GRID_API_KEY", node.add_key("commands"))
    file = tmp_path / "model.bin"
    file.write_bytes(b"some bytes")
    digest = hashlib.sha256(b"some bytes").hexdigest()
    assert main(["models", "serve", "by command", str(file), "--allow-download", "--tag", "commands"]) == 0
    assert main(["models", "list", "--tag", "commands"]) == 0
    assert main(["models", "fetch", "by command", str(tmp_path / "back")]) == 0
    assert main(["models", "delete", "by command"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"served: by command, 10 bytes, sha256 {digest}",
        "by command\tversion 1\topaque\t10\tcommands",
        f"saved: {tmp_path / 'back'} (10 bytes, sha256 {digest})",
        "deleted: by command",
    ]
    assert (tmp_path / "back").read_bytes() == b"some bytes"
    assert main(["models", "fetch", "by command", str(tmp_path / "again")]) == 1
    assert "model_not_found" in capsys.readouterr().err
    assert main(["models", "run", "digits", "no json"]) == 2


def test_the_progress_bar_ends_with_the_whole() -> None:
    shown = io.StringIO()
    clock = iter([0.0, 1.0, 1.01, 2.0])
    bar = ProgressBar("m", shown, always=True, clock=lambda: next(clock))
    bar(500_000, 2_000_000)
    bar(600_000, 2_000_000)  # too soon
    bar(2_000_000, 2_000_000)
    lines = shown.getvalue().split("\r")
    assert lines[1].startswith("m [#######.......................]  25 % 0.5/2.0 MB")
    assert lines[2].endswith("100 % 2.0/2.0 MB 1.0 MB/s\n")
    assert len(lines) == 3


def test_a_client_goes_on_after_the_node_was_restarted(node: LiveNode, client: ModelClient, served: str) -> None:
    node.restart()
    assert "digits" in client.list()
    assert client.get("digits")
    assert client.run("digits", np.zeros((1, 1, 12, 12), np.float32)).shape == (1, 10)


def test_a_large_model_without_a_description_goes_up_too(client: ModelClient, tmp_path: Path) -> None:
    content = os.urandom(2 * 1024 * 1024)
    served = client.serve("quiet", content, description="", tags=[], resume=str(tmp_path / "note"))
    assert served.sha256 == hashlib.sha256(content).hexdigest()
    assert client.detailed()[-1].description == ""
