"""With the real syft 0.9.5."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from grid_node.compute.checks import Checks
from grid_node.errors import InvalidModel, ModelFormatNotAvailable
from grid_node.settings import Settings
from tests.nodes import ROOT
from tests.stores import call
from tests.syft_files import PYTHON, with_syft

MEBIBYTE = 1024 * 1024
COMPARE = """
import sys, torch, syft
was, back = (syft.deserialize(open(path, "rb").read(), from_bytes=True) for path in sys.argv[1:])
assert was.keys() == back.keys()
for name, tensor in was.items():
    assert tensor.dtype == back[name].dtype and torch.equal(tensor, back[name]), name
"""


def checks_in(folder: Path, expanded_max: int = 1024 * MEBIBYTE, memory: int = 2048 * MEBIBYTE) -> Checks:
    settings = Settings(data_dir=folder, syft_python=PYTHON, syft_expanded_max=expanded_max, syft_memory=memory)
    return Checks(settings, call)


@pytest.mark.timeout(200)
def test_a_state_dict_goes_to_syft_unchanged(syft_files: Path, tmp_path: Path) -> None:
    back = checks_in(tmp_path).to_syft(syft_files / "state.safetensors")
    with_syft(COMPARE, str(syft_files / "state"), str(back))


@pytest.mark.timeout(200)
def test_what_is_no_state_dict_within_the_limits_is_refused(syft_files: Path, tmp_path: Path) -> None:
    """Small files of large zeros: one is above the limit of a state dict, one takes more memory than there is."""

    def reason(name: str, expanded_max: int, memory: int) -> str:
        assert (syft_files / name).stat().st_size < MEBIBYTE
        with pytest.raises(InvalidModel) as refused:
            checks_in(tmp_path, expanded_max, memory).convert_syft(syft_files / name)
        return str(refused.value.data["reason"])

    with ThreadPoolExecutor(2) as pool:
        bomb = pool.submit(reason, "bomb", 100 * MEBIBYTE, 2048 * MEBIBYTE)
        huge = pool.submit(reason, "huge", 1024 * MEBIBYTE, 256 * MEBIBYTE)
    assert "larger than" in bomb.result()
    assert "memory" in huge.result()
    assert not list((tmp_path / "tmp").iterdir())


def test_without_the_extra_the_format_is_not_available(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatNotAvailable):
        Checks(Settings(data_dir=tmp_path), call).convert_syft(tmp_path / "model")


def test_the_node_never_imports_syft_or_torch_to_check() -> None:
    code = "import sys; import grid_node.compute.checks; assert not {'syft', 'torch', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)
