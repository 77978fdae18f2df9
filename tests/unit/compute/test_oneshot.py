import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid_node.compute import oneshot
from grid_node.compute.oneshot import ProgramFailed

SECONDS = 20.0


def python(code: str) -> list[str]:
    """A program that reads its request, and then..."""
    return [sys.executable, "-I", "-c", f"import json, sys; request = json.load(sys.stdin)\n{code}"]


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def test_a_program_answers_its_request() -> None:
    code = "print(json.dumps({'got': request}))"
    assert oneshot.run(python(code), {"a": [1, "ü"]}, SECONDS) == {"got": {"a": [1, "ü"]}}


def test_a_request_larger_than_any_pipe_arrives_whole() -> None:
    code = "print(len(request['text']))"
    assert oneshot.run(python(code), {"text": "x" * 5_000_000}, SECONDS) == 5_000_000


def test_named_descriptors_are_open_and_no_others_are(tmp_path: Path) -> None:
    (tmp_path / "named").write_text("1")
    with (tmp_path / "named").open("rb") as named, (tmp_path / "named").open("rb"):
        code = "import os; print(len(os.listdir('/proc/self/fd')) * 10 + int(os.read(request['f'], 9)))"
        # 0, 1, 2, the file, and the folder that is being listed
        assert oneshot.run(python(code), {"f": named.fileno()}, SECONDS, [named.fileno()]) == 51


def test_nothing_of_the_environment_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SECRET", "secret")
    code = "import os; print(json.dumps(sorted(os.environ.keys() - {'LC_CTYPE'})))"
    assert oneshot.run(python(code), {}, SECONDS) == ["OPENBLAS_NUM_THREADS"]


@pytest.mark.parametrize(
    "code",
    ["while True: pass", "import time; time.sleep(60)", "import signal, time; signal.signal(15, 1); time.sleep(60)"],
)
def test_a_program_that_takes_too_long_is_killed(code: str) -> None:
    started = time.monotonic()
    with pytest.raises(ProgramFailed) as failed:
        oneshot.run(python(code), {}, 0.5)
    assert failed.value.late
    assert time.monotonic() - started < 5


def test_a_program_that_answers_and_goes_on_does_not_go_on() -> None:
    code = "import os, time; os.write(1, b'7'); os.close(1); os.close(0); time.sleep(60)"
    assert oneshot.run(python(code), {}, SECONDS) == 7


@pytest.mark.parametrize(
    "code",
    ["pass", "raise SystemExit(1)", "import os; os.abort()", "print('{')", "while True: print('x' * 65536)"],
)
def test_a_program_without_an_answer_has_failed(code: str) -> None:
    with pytest.raises(ProgramFailed) as failed:
        oneshot.run(python(code), {}, SECONDS)
    assert not failed.value.late


def test_a_program_that_dies_over_its_request_has_failed() -> None:
    with pytest.raises(ProgramFailed) as failed:
        oneshot.run([sys.executable, "-I", "-c", "pass"], {"text": "x" * 5_000_000}, SECONDS)
    assert not failed.value.late


def test_a_program_that_does_not_exist_has_failed() -> None:
    with pytest.raises(ProgramFailed):
        oneshot.run(["/nonexistent/python"], {}, SECONDS)


def test_modules_of_the_store_start_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").write_bytes((2).to_bytes(8, "little") + b"{}")
    file = os.open(tmp_path / "model", os.O_RDONLY)
    try:
        request = {"file": file, "size": 10, "format": None, "header_max": 9, "tensors_max": 9, "memory": 2**28}
        said = oneshot.run(oneshot.module("tools", "check"), request, SECONDS, [file])
    finally:
        os.close(file)
    assert said == {"done": {"format": "safetensors", "share": {}}}


def test_programs_wait_without_stopping_the_hub() -> None:
    """Under eventlet two programs that sleep take as long as one, and the hub goes on meanwhile."""
    code = (
        "import eventlet; eventlet.monkey_patch()\n"
        "import sys, time; sys.path.append(sys.argv[1])\n"
        "from grid_node.compute import oneshot\n"
        "slow = [sys.executable, '-I', '-c', 'import sys, time; sys.stdin.read(); time.sleep(1); print(1)']\n"
        "ticks = []\n"
        "def tick():\n"
        "    while True: ticks.append(1); eventlet.sleep(0.05)\n"
        "eventlet.spawn(tick)\n"
        "both = [eventlet.spawn(oneshot.run, slow, {}, 20) for _ in range(2)]\n"
        "print([len(ticks) > 10, *[one.wait() for one in both], len(ticks) > 10].__repr__().lower())\n"
    )
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", code, root], capture_output=True, timeout=60, check=True
    )
    said = json.loads(done.stdout)
    assert said == [False, 1, 1, True]
