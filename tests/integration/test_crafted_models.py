"""Files with a canary, in every disguise and under every declaration: none runs, each is what it is."""

import contextlib
import pickle
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from grid_node.compute.checks import Checks
from grid_node.errors import InvalidModel, ModelFormatNotAvailable
from grid_node.settings import Settings
from tests import crafted
from tests.crafted import EVERY_FORMAT, Crafted
from tests.stores import call

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def archives() -> tuple[bytes, bytes]:
    """An exported program and a TorchScript archive, both honest."""
    from tests import torch_models

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch_models.exported(), torch_models.scripted()


@pytest.fixture
def checks(tmp_path: Path) -> Checks:
    return Checks(Settings(data_dir=tmp_path / "data", executable_formats="torchscript,torch_export"), call)


def answer(checks: Checks, path: Path, declared: str | None) -> str:
    try:
        return checks.check(path, path.stat().st_size, declared).format
    except InvalidModel as error:
        return "refused" if error.data["reason"] else "refused without a reason"


def wrong_answers(checks: Checks, folder: Path, one: Crafted) -> list[str]:
    path = folder / one.name
    path.write_bytes(one.content)
    answers = {declared: answer(checks, path, declared) for declared in EVERY_FORMAT}
    path.unlink()
    return [f"{one.name} as {said}: {got}" for said, got in answers.items() if got != one.expected(said)]


def test_no_crafted_file_runs_whatever_it_is_declared_as(
    archives: tuple[bytes, bytes], checks: Checks, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    cases = list(crafted.files(canary, *archives))
    assert len(cases) >= 200
    with ThreadPoolExecutor(2) as pool:
        wrong = [text for texts in pool.map(lambda one: wrong_answers(checks, tmp_path, one), cases) for text in texts]
    assert not wrong
    assert not canary.exists()


@pytest.mark.parametrize("payload", sorted(crafted.PAYLOADS))
def test_the_canary_sings_when_a_crafted_pickle_is_opened(payload: str, tmp_path: Path) -> None:
    pickle.loads(crafted.pickled(tmp_path / "canary", payload))
    assert (tmp_path / "canary").is_symlink() or (tmp_path / "canary").exists()


@pytest.mark.parametrize("way", ["weight", "opaque", "size", "guard"])
def test_torch_itself_runs_what_the_filter_refuses(way: str, archives: tuple[bytes, bytes], tmp_path: Path) -> None:
    import torch

    canary, path = tmp_path / "canary", tmp_path / "model.pt2"
    path.write_bytes(crafted.changed(archives[0], crafted.attacks(canary, archives[0])[way]))
    with contextlib.suppress(Exception):
        torch.export.load(path).module()(torch.randn(4, 3), torch.randn(4, 3))
    assert canary.exists()


def test_sample_inputs_are_never_unpickled(archives: tuple[bytes, bytes], tmp_path: Path) -> None:
    import torch

    from models_store import exported

    canary, path = tmp_path / "canary", tmp_path / "model.pt2"
    path.write_bytes(crafted.changed(archives[0], {"data/sample_inputs/model.pt": crafted.pickled(canary)}))
    with path.open("rb") as file:
        program = torch.export.load(exported.working_copy(file, path.stat().st_size))  # type: ignore[arg-type]
    assert program.module()(torch.randn(4, 3), torch.randn(6, 3))["both"].shape == (40,)
    assert not canary.exists()
    with contextlib.suppress(Exception):
        torch.export.load(path)
    assert canary.exists()


def test_honest_archives_are_taken(archives: tuple[bytes, bytes], checks: Checks, tmp_path: Path) -> None:
    path = tmp_path / "model"
    for declared, content in zip(("torch_export", "torchscript"), archives, strict=True):
        path.write_bytes(content)
        assert answer(checks, path, declared) == declared


def test_code_is_not_even_looked_at_unless_the_operator_lets_it_run(tmp_path: Path) -> None:
    checks = Checks(Settings(data_dir=tmp_path, executable_formats="torch_export"), call)
    with pytest.raises(ModelFormatNotAvailable):
        checks.check(tmp_path / "is not there", 0, "torchscript")
    with pytest.raises(ModelFormatNotAvailable):
        checks.check(tmp_path / "is not there", 0, "syft-0.9.5")


@pytest.fixture(autouse=True)
def _no_leftovers(tmp_path: Path) -> Iterator[None]:
    yield
    assert not list((tmp_path / "data" / "tmp").glob("*"))
