"""Files that the real syft 0.9.5 wrote: GRID_TEST_SYFT_PYTHON names an interpreter that has it (default: .venv-syft).

Starting syft takes seconds, so one process writes all of them, once for the whole test run.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.nodes import ROOT

PYTHON = os.environ.get("GRID_TEST_SYFT_PYTHON", str(ROOT / ".venv-syft" / "bin" / "python"))
IS_THERE = os.access(PYTHON, os.X_OK)
_MAKE = """
import sys, torch, syft
state = {
    "f32": torch.linspace(-1, 1, 12).reshape(3, 4), "f64": torch.arange(5, dtype=torch.float64) / 3,
    "i64": torch.tensor([-2**63, 0, 2**63 - 1]), "bool": torch.tensor([[True], [False]]),
    "half": torch.ones(2, dtype=torch.float16), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3),
    "weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2),
}
state["turned"] = state["f32"].T
state["part"] = state["f64"][1:3]
layer = {name: state[name] for name in ("weight", "bias")}
models = {
    "state": state, "layer": layer, "bomb": {"zeros": torch.zeros(50_000_000)},
    "huge": {"zeros": torch.zeros(100_000_000)},
}
for name, model in models.items():
    with open(f"{sys.argv[1]}/{name}", "wb") as file:
        file.write(syft.serialize(model, to_bytes=True))

sys.path.append(sys.argv[2])
from models_store.errors import InvalidModel
from models_store.syft_conversion import _libraries, from_safetensors, to_safetensors

libraries = _libraries()
with open(f"{sys.argv[1]}/state.safetensors", "wb") as file:
    file.write(libraries.safetensors.save({name: tensor.clone().contiguous() for name, tensor in state.items()}))
odd = [{"a": 1}, {1: torch.zeros(1)}, {"": torch.zeros(1)}, "model", 7, None, {"a": {"b": torch.zeros(1)}}, b"bytes"]
odd += [[torch.zeros(3)]]
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


def with_syft(code: str, *words: str) -> None:
    done = subprocess.run([PYTHON, "-W", "ignore", "-c", code, *words], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.fixture(scope="session")
def syft_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: `state`, `layer` (weight and bias of a linear layer), `bomb` of 200 MB, `huge` of 400 MB, as syft
    writes them, and `state.safetensors`. On the way, what is no state dict is refused in syft's own environment."""
    if not IS_THERE:
        pytest.skip(f"no syft: there is no {PYTHON}; `make peers` makes it")
    folder = tmp_path_factory.mktemp("syft")
    with_syft(_MAKE, str(folder), str(ROOT))
    return folder
