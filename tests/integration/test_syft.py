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
    "state": state, "bomb": {"zeros": torch.zeros(50_000_000)}, "huge": {"zeros": torch.zeros(100_000_000)},
    "list": [torch.zeros(3)],
}
for name, model in models.items():
    with open(f"{sys.argv[1]}/{name}", "wb") as file:
        file.write(syft.serialize(model, to_bytes=True))

sys.path.append(sys.argv[2])
from models_store.errors import InvalidModel
from models_store.syft_conversion import _libraries, from_safetensors, to_safetensors

libraries = _libraries()
odd = [{"a": 1}, {1: torch.zeros(1)}, {"": torch.zeros(1)}, "model", 7, None, {"a": {"b": torch.zeros(1)}}, b"bytes"]
contents = [syft.serialize(value, to_bytes=True) for value in odd]
bfloat16 = libraries.safetensors.save({"a": torch.zeros(2, dtype=torch.bfloat16)})
cases = [(to_safetensors, content) for content in [*contents, b"", b"noise" * 99, contents[0][:-8]]]
cases += [(from_safetensors, content) for content in (b"", bfloat16)]
for number, (convert, content) in enumerate(cases):
    try:
        convert(libraries, content, 1 << 20)
    except InvalidModel:
        continue
    raise SystemExit(f"case {number} was taken")
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
    """A folder of files that syft wrote. On the way, what is no state dict is refused in syft's own environment."""
    if not os.access(PYTHON, os.X_OK):
        pytest.skip(f"no syft: there is no {PYTHON}; `make peers` makes it")
    folder = tmp_path_factory.mktemp("syft")
    with_syft(MAKE, str(folder), str(ROOT))
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
        ("huge", 1024 * MEBIBYTE, 256 * MEBIBYTE, "memory"),
        ("list", 1024 * MEBIBYTE, 2048 * MEBIBYTE, "not a mapping"),
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


def test_without_the_extra_the_format_is_not_available(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatNotAvailable):
        Checks(Settings(data_dir=tmp_path), call).convert_syft(tmp_path / "model")


def test_the_node_never_imports_syft_or_torch_to_check() -> None:
    code = "import sys; import grid_node.compute.checks; assert not {'syft', 'torch', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)
