"""`flask models` and `flask datasets` as an operator meets them."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid_node.hosting import rows
from grid_node.hosting.rights import ModelCaller
from grid_node.hosting.schemas import load_serve
from grid_node.identity.service import NewKey
from tests.command_line import CommandLine
from tests.syft_files import PYTHON

CONTENT = b"some bytes"


class Operator(CommandLine):
    """Types commands on a node's machine, where owners have served models."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **{"scoring_processes": 0, "compute_processes": 0, **settings})

    def key(self, name: str = "owner") -> str:
        """Id of a new key."""
        return self.grid.keys.add(NewKey(self.grid.keys.generate(), name, 100, 60, ["client"], 0)).id

    def serve(self, model_id: str = "m1", owner: str = "", model: bytes = CONTENT, **fields: Any) -> None:
        request = load_serve({"model_id": model_id, "model": model, **fields})
        self.grid.hosting.serving.serve(ModelCaller(owner), request)

    def blob(self, model_id: str = "m1") -> Path:
        row = self.grid.store.read(lambda tx: rows.find(tx, model_id))
        return self.grid.blobs.path(str(row.sha256))


@contextlib.contextmanager
def operating(folder: Path, **settings: Any) -> Iterator[Operator]:
    made = Operator(folder, **settings)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with operating(tmp_path) as made:
        yield made


# --- models


def test_models_of_all_owners_are_listed_oldest_first(operator: Operator) -> None:
    key = operator.key()
    operator.serve("open", allow_download=True)
    operator.serve("owned", owner=key, model=b"x" * 2000)
    operator.serve("owned", owner=key, version="new")
    lines = [line.split("|") for line in operator.done("models", "list").splitlines()]
    assert [line[:6] for line in lines] == [
        ["open", "1", "opaque", "10", "everybody", "allow_download"],
        ["owned", "2", "opaque", "10", key, "-"],
    ]
    assert operator.done("models", "list", "--owner", key).startswith("owned|")
    assert operator.done("models", "list", "--limit", "1").startswith("open|")
    (first, second) = json.loads(operator.done("models", "list", "--json"))
    assert (first["id"], second["version"]) == ("open", 2)


def test_a_model_is_shown_with_all_its_versions(operator: Operator) -> None:
    operator.serve(tags=["a"], description="first")
    operator.serve(version="new")
    one, two = json.loads(operator.done("models", "show", "m1"))
    assert (one["version"], one["tags"], one["description"]) == (1, ["a"], "first")
    assert (two["version"], two["tags"], two["kills"]) == (2, [], 0)
    assert operator.refused("models", "show", "nothing") == "Model not found."


def test_the_operator_deletes_the_model_of_any_owner(operator: Operator) -> None:
    key = operator.key()
    operator.serve(owner=key)
    operator.serve(owner=key, version="new")
    assert operator.done("models", "delete", "m1", "--version", "2") == "Deleted model: m1 version 2\n"
    assert operator.done("models", "list").startswith("m1|1|")
    assert operator.done("models", "delete", "m1") == "Deleted model: m1\n"
    assert operator.done("models", "list") == ""
    assert operator.refused("models", "delete", "m1") == "Model not found."


def test_a_model_that_ended_too_many_processes_is_cleared(operator: Operator) -> None:
    operator.serve()
    row = operator.grid.store.read(lambda tx: rows.find(tx, "m1"))
    for _ in range(3):
        operator.grid.store.write(lambda tx: rows.note_kill(tx, row.key))
    assert operator.done("models", "clear", "m1") == "Cleared model: m1 version 1\n"
    assert json.loads(operator.done("models", "show", "m1"))[0]["kills"] == 0
    assert operator.refused("models", "clear", "m1") == "It has ended no process"


def test_damaged_and_missing_bytes_are_found(operator: Operator) -> None:
    operator.serve("whole", model=b"whole")
    operator.serve("damaged", model=b"damaged")
    operator.serve("missing", model=b"missing")
    damaged, missing = operator.blob("damaged"), operator.blob("missing")
    assert operator.done("models", "verify") == ""
    damaged.chmod(0o644)
    damaged.write_bytes(b"dAmaged")
    missing.unlink()
    result = operator.flask("models", "verify")
    assert result.exit_code == 1
    found = {line.split("|")[0]: line.split("|")[3] for line in result.stdout.splitlines()}
    assert found == {"damaged": "damaged", "missing": "missing"}
    assert operator.done("models", "verify", "whole") == ""


def test_without_the_extra_a_syft_file_is_refused(operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "model.syft").write_bytes(b"bytes")
    said = operator.refused("models", "import-syft", str(tmp_path / "model.syft"), "--id", "m1")
    assert said == "This node does not take models of this format"
    assert operator.done("models", "list") == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--id", "a/b"), "model_id: must be 1 to 64 printable characters"),
        (("--id", "m1", "--owner", "nobody00"), "No API key has this id"),
        (("--id", "m1", "--inputs", "{"), "--inputs: not JSON"),
        (("--id", "m1", "--version", "newest"), "version: must be"),
    ],
)
def test_a_wrong_option_of_an_import_is_named(
    operator: Operator, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    (tmp_path / "model.syft").write_bytes(b"bytes")
    assert said in operator.refused("models", "import-syft", str(tmp_path / "model.syft"), *options)


def test_a_state_dict_of_syft_is_imported(syft_files: Path, tmp_path: Path) -> None:
    file, data = syft_files / "layer", tmp_path / "data"
    layers = {"layers": [{"op": "linear", "weight": "weight", "bias": "bias"}]}
    (tmp_path / "architecture.json").write_text(json.dumps(layers))
    inputs = '[{"datatype": "FP32", "shape": [-1, 3]}]'
    runnable = ("--architecture", str(tmp_path / "architecture.json"), "--inputs", inputs, "--allow-inference")
    data.mkdir()
    with operating(data, syft_python=PYTHON, compute_processes=1) as operator:
        said = operator.done("models", "import-syft", str(file), "--id", "imported", "--tag", "old", *runnable)
        assert said.startswith("Model saved with id: imported, version 1, sha256 ")
        (row,) = json.loads(operator.done("models", "show", "imported"))
        assert operator.done("models", "verify") == ""
    assert (row["format"], row["tags"], row["size"]) == ("syft-0.9.5", ["old"], file.stat().st_size)
    assert row["signature"]["outputs"][0]["shape"] == [-1, 2]
    assert row["derived_sha256"]


# --- datasets


def test_datasets_of_all_owners_are_listed_private_ones_too(operator: Operator) -> None:
    key = operator.key()
    assert operator.done("datasets", "add", "open", "--tag", "b", "--tag", "a", "--uri", "s3://x") == (
        "Dataset saved with id: open\n"
    )
    operator.done("datasets", "add", "secret", "--private", "--owner", key)
    assert operator.done("datasets", "list").splitlines() == [
        "open|everybody|public|a,b|s3://x",
        f"secret|{key}|private||-",
    ]
    listed = json.loads(operator.done("datasets", "list", "--json"))
    assert [(one["id"], one["private"]) for one in listed] == [("open", False), ("secret", True)]


def test_a_dataset_is_tagged_found_and_deleted(operator: Operator) -> None:
    operator.done("datasets", "add", "mnist", "--description", "hand-written digits", "--tag", "b")
    assert operator.done("datasets", "tag", "mnist", "--add", "a", "--remove", "b", "--add", "c") == "a\nc\n"
    assert operator.done("datasets", "search", "a", "digits") == "A dataset matches\n"
    assert operator.refused("datasets", "search", "a", "letters") == "No dataset matches"
    assert operator.done("datasets", "delete", "mnist") == "Deleted dataset: mnist\n"
    assert operator.refused("datasets", "delete", "mnist") == "Dataset not found."


def test_a_private_dataset_is_reached_for_its_owner(operator: Operator) -> None:
    key = operator.key()
    operator.done("datasets", "add", "secret", "--private", "--owner", key, "--tag", "t")
    assert operator.refused("datasets", "delete", "secret") == "Dataset not found."
    assert operator.refused("datasets", "search", "t") == "No dataset matches"
    assert operator.done("datasets", "search", "t", "--owner", key) == "A dataset matches\n"
    assert operator.done("datasets", "delete", "secret", "--owner", key) == "Deleted dataset: secret\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "a/b"), "Invalid payload format; dataset_id: must be 1 to 64 printable characters"),
        (("add", "d", "--private"), "API key is missing."),
        (("add", "d", "--owner", "nobody00"), "No API key has this id"),
        (("add", "taken"), "Dataset id already exists."),
        (("tag", "nothing", "--add", "t"), "Dataset not found."),
        (("tag", "taken", "--add", "t", "--remove", "t"), "remove: has tags that are in add too"),
    ],
)
def test_what_changes_nothing_says_why(operator: Operator, arguments: tuple[str, ...], said: str) -> None:
    operator.done("datasets", "add", "taken")
    assert said in operator.refused("datasets", *arguments)
    assert operator.done("datasets", "list") == "taken|everybody|public||-\n"
