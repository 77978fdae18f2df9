"""What the node does with a file that it checks or converts in another process."""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from grid_node.compute import checks as checks_module
from grid_node.compute.checks import INLINE_MAX, Checks
from grid_node.errors import ComputeUnavailable, InvalidModel
from grid_node.settings import Settings
from tests.crafted import framed
from tests.stores import call


def checks_in(folder: Path, **settings: Any) -> Checks:
    return Checks(Settings(data_dir=folder / "data", **settings), call)


def model(folder: Path, tensors: int, note: str = "") -> Path:
    header: dict[str, Any] = {"__metadata__": {"note": note}}
    for number in range(tensors):
        header[f"t{number}"] = {"dtype": "U8", "shape": [1], "data_offsets": [number, number + 1]}
    path = folder / "model"
    path.write_bytes(framed(json.dumps(header).encode(), bytes(tensors)))
    return path


def program(folder: Path, code: str) -> str:
    """A file that is started in place of the interpreter of syft."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable} -I\nimport json, os, sys, time\nrequest = json.load(sys.stdin)\n{code}\n")
    path.chmod(0o755)
    return str(path)


def test_a_long_header_is_read_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model(tmp_path, 5000)
    assert path.stat().st_size > INLINE_MAX
    for declared in (None, "safetensors"):
        assert checks_in(tmp_path).check(path, path.stat().st_size, declared).format == "safetensors"
    few = checks_in(tmp_path, safetensors_tensors_max=4999)
    assert few.check(path, path.stat().st_size, None).format == "opaque"
    with pytest.raises(InvalidModel) as refused:
        few.check(path, path.stat().st_size, "safetensors")
    assert refused.value.data == {"reason": "more than 4999 tensors"}


def test_a_header_above_the_limit_is_not_read_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_module.oneshot, "run", None)
    path = model(tmp_path, 1, "x" * 200_000)
    short = checks_in(tmp_path, safetensors_header_max=100_000)
    assert short.check(path, path.stat().st_size, None).format == "opaque"
    with pytest.raises(InvalidModel):
        short.check(path, path.stat().st_size, "safetensors")


def test_a_header_that_takes_too_much_memory_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_module, "MEMORY", 32 * 1024 * 1024)
    path = tmp_path / "model"
    path.write_bytes(framed(b'{"a":[' + b"[]," * 2_000_000 + b"[]]}"))
    assert checks_in(tmp_path).check(path, path.stat().st_size, None).format == "opaque"
    with pytest.raises(InvalidModel):
        checks_in(tmp_path).check(path, path.stat().st_size, "safetensors")


def test_a_check_that_takes_too_long_is_asked_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_module, "DEADLINE", 0.001)
    path = model(tmp_path, 5000)
    with pytest.raises(ComputeUnavailable) as busy:
        checks_in(tmp_path).check(path, path.stat().st_size, "safetensors")
    assert busy.value.retry_after == 5


def test_the_node_checks_a_few_files_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = [], []
    lock, full = threading.Lock(), threading.Event()

    def counted(*_: Any) -> dict[str, Any]:
        with lock:
            running.append(1)
            most.append(len(running))
            if len(running) == checks_module.CHECKS_TOGETHER:
                full.set()
        full.wait(10)
        with lock:
            running.pop()
        return {"done": {"format": "safetensors", "share": {}}}

    monkeypatch.setattr(checks_module.oneshot, "run", counted)
    path, checks = model(tmp_path, 5000), checks_in(tmp_path)
    threads = [threading.Thread(target=checks.check, args=(path, path.stat().st_size, None)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert max(most) == checks_module.CHECKS_TOGETHER
    assert len(most) == 6


def test_a_conversion_gives_a_file_to_keep(tmp_path: Path) -> None:
    code = "os.write(request['output'], os.read(request['input'], 99) + b'!'); print(json.dumps({'done': {}}))"
    (tmp_path / "model").write_bytes(b"syft")
    checked = checks_in(tmp_path, syft_python=program(tmp_path, code)).check(tmp_path / "model", 4, "syft-0.9.5")
    assert checked.derived is not None
    assert checked.derived.read_bytes() == b"syft!"
    assert checked.derived.parent == tmp_path / "data" / "tmp"
    assert checked.derived.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "code",
    ["time.sleep(60)", "while True: pass", "os.abort()", "pass", "print('[]')", "print('{}')", "print('x' * 2**21)"],
)
def test_a_conversion_that_fails_leaves_nothing(code: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"syft")
    checks = checks_in(tmp_path, syft_python=program(tmp_path, code), syft_timeout=1.0)
    started = time.monotonic()
    with pytest.raises(InvalidModel) as refused:
        checks.convert_syft(tmp_path / "model")
    assert refused.value.data["reason"]
    assert time.monotonic() - started < 10
    assert not list((tmp_path / "data" / "tmp").iterdir())


def test_what_a_crash_left_is_swept(tmp_path: Path) -> None:
    checks = checks_in(tmp_path)
    checks.sweep(0)
    folder = tmp_path / "data" / "tmp"
    folder.mkdir(parents=True)
    for name, age in (("converted-old", 100), ("converted-new", 10), ("other", 100)):
        (folder / name).touch()
        os.utime(folder / name, (1000 - age, 1000 - age))
    checks.sweep(950)
    assert {path.name for path in folder.iterdir()} == {"converted-new", "other"}
