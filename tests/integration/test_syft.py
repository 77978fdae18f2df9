"""With the real syft 0.9.5: GRID_TEST_SYFT_PYTHON names an interpreter that has it (default: .venv-syft)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from grid_node.compute.checks import Checks
from grid_node.errors import InvalidModel, ModelFormatNotAvailable
from grid_node.settings import Settings
from tests.stores import call

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("GRID_TEST_SYFT_PYTHON", str(ROOT / ".venv-syft" / "bin" / "python"))
MEBIBYTE = 1024 * 1024
MAKE = """
import sys, torch, syft
state = {
    "f32": torch.linspace(-1, 1, 12).reshape(3, 4), "f64": torch.arange(5, dtype=torch.float64) / 3,
    "i64": torch.tensor([-2**63, 0, 2**63 - 1]), "bool": torch.tensor([[True], [False]]),
    "half": torch.ones(2, dtype=torch.float16), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3),
}
state["turned"] = state["f32"].T
state["part"] = state["f64"][1:3]
models = {
    "state": state, "bomb": {"zeros": torch.zeros(50_000_000)}, "huge": {"zeros": torch.zeros(700_000_000)},
    "list": [torch.zeros(3)], "numbers": {"a": 1}, "by-number": {1: torch.zeros(1)}, "text": "model",
}
for name, model in models.items():
    with open(f"{sys.argv[1]}/{name}", "wb") as file:
        file.write(syft.serialize(model, to_bytes=True))
"""
COMPARE = """
import sys, torch, syft, safetensors.torch
was, converted, back = (open(path, "rb").read() for path in sys.argv[1:])
was, back = (syft.deserialize(content, from_bytes=True) for content in (was, back))
converted = safetensors.torch.load(converted)
assert was.keys() == converted.keys() == back.keys()
for name, tensor in was.items():
    for other in (converted[name], back[name]):
        assert tensor.dtype == other.dtype and torch.equal(tensor, other), name
"""


def with_syft(code: str, *words: str) -> None:
    done = subprocess.run([PYTHON, "-W", "ignore", "-c", code, *words], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that syft wrote."""
    if not os.access(PYTHON, os.X_OK):
        pytest.skip(f"no syft: there is no {PYTHON}; `make setup-syft` makes it")
    folder = tmp_path_factory.mktemp("syft")
    with_syft(MAKE, str(folder))
    return folder


def checks_in(folder: Path, expanded_max: int = 1024 * MEBIBYTE, memory: int = 2048 * MEBIBYTE) -> Checks:
    settings = Settings(data_dir=folder, syft_python=PYTHON, syft_expanded_max=expanded_max, syft_memory=memory)
    return Checks(settings, call)


@pytest.mark.timeout(300)
def test_a_state_dict_goes_to_safetensors_and_back_unchanged(models: Path, tmp_path: Path) -> None:
    checks = checks_in(tmp_path)
    checked = checks.check(models / "state", (models / "state").stat().st_size, "syft-0.9.5")
    assert checked.derived is not None
    assert checks.check(checked.derived, checked.derived.stat().st_size, None).format == "safetensors"
    with_syft(COMPARE, str(models / "state"), str(checked.derived), str(checks.to_syft(checked.derived)))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "expanded_max", "memory", "reason"),
    [
        ("bomb", 100 * MEBIBYTE, 2048 * MEBIBYTE, "larger than"),
        ("huge", 1024 * MEBIBYTE, 1024 * MEBIBYTE, "memory"),
        ("list", 1024 * MEBIBYTE, 2048 * MEBIBYTE, "not a mapping"),
        ("numbers", 1024 * MEBIBYTE, 2048 * MEBIBYTE, "not a mapping"),
        ("by-number", 1024 * MEBIBYTE, 2048 * MEBIBYTE, "not a mapping"),
        ("text", 1024 * MEBIBYTE, 2048 * MEBIBYTE, "not a mapping"),
    ],
)
def test_what_is_no_state_dict_within_the_limits_is_refused(
    name: str, expanded_max: int, memory: int, reason: str, models: Path, tmp_path: Path
) -> None:
    assert (models / name).stat().st_size < MEBIBYTE
    with pytest.raises(InvalidModel) as refused:
        checks_in(tmp_path, expanded_max, memory).convert_syft(models / name)
    assert reason in refused.value.data["reason"]
    assert not list((tmp_path / "tmp").iterdir())


def test_bytes_that_syft_cannot_read_are_refused(models: Path, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(os.urandom(5000))
    with pytest.raises(InvalidModel):
        checks_in(tmp_path).convert_syft(tmp_path / "noise")


def test_without_the_extra_the_format_is_not_available(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatNotAvailable):
        Checks(Settings(data_dir=tmp_path), call).convert_syft(tmp_path / "model")


def test_the_node_never_imports_syft_or_torch_to_check() -> None:
    code = "import sys; import grid_node.compute.checks; assert not {'syft', 'torch', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)
