import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models_store import system_calls
from models_store.landlock import Landlock
from models_store.sandbox import Confinement

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

CONFINED = Path(__file__).with_name("confined.py")
GOES_ON = {
    "take some memory",
    "start a thread",
    "talk over an open socket",
    "wait for an open socket",
    "look at the clock",
    "draw random bytes",
}
BELOW = "read below what was named"
TIGHT = {"no_new_privileges": True, "system_calls": True, "files": "landlock", "unprivileged": True}
TORCH = """
import os, sys
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.append(sys.argv[1])
import io, json, torch
from models_store.sandbox import confine, python_files
model = torch.jit.load(io.BytesIO(sys.stdin.buffer.read()))
plain = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(4))
confinement = confine(python_files(), 2 << 30, 60)
torch.set_num_threads(2)
result = {"shape": list(plain(torch.randn(64, 3, 32, 32)).shape), "is_tight": confinement.is_tight}
torch.mm(torch.randn(600, 600), torch.randn(600, 600))
try:
    model(torch.zeros(1))
    result["model"] = "ran"
except RuntimeError:
    result["model"] = "refused"
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def tried() -> Iterator[dict[str, Any]]:
    """What a confined process could still do, in a folder where every user may do everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "readable").mkdir()
        (folder / "readable" / "file").write_text("public")
        (folder / "secret").write_text("secret")
        (folder / "secret").chmod(0o666)
        done = run([str(CONFINED), name, str(folder / "secret")])
        assert not (folder / "canary").exists()
        assert (folder / "secret").read_text() == "secret"
        yield json.loads(done)


def run(words: list[str], said: bytes = b"") -> bytes:
    done = subprocess.run([sys.executable, "-I", *words], input=said, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_a_confined_process_can_do_no_more_than_compute(tried: dict[str, Any]) -> None:
    reads = {"landlock": {BELOW}, "chroot": set(), "none": {BELOW, "read a file", "list a folder"}}
    assert {name for name, answer in tried.items() if answer == "done"} == GOES_ON | reads[tried["files"]]


def test_memory_beyond_the_limit_is_a_memory_error(tried: dict[str, Any]) -> None:
    assert tried["take too much memory"] == "memory"


def test_open_files_do_not_grow(tried: dict[str, Any]) -> None:
    assert tried["write an open file"].startswith("refused")


@pytest.mark.skipif(not Landlock().version, reason="the kernel has no Landlock")
def test_every_layer_holds_where_the_kernel_has_it(tried: dict[str, Any]) -> None:
    assert {name: tried[name] for name in TIGHT} == TIGHT
    assert tried["is_tight"]
    assert tried["own_user"] == (os.getuid() == 0)


@pytest.mark.parametrize("missing", ["no_new_privileges", "system_calls", "unprivileged"])
def test_one_missing_layer_is_not_tight(missing: str) -> None:
    whole = Confinement(True, True, "landlock", True, True, True)
    assert whole.is_tight
    assert not Confinement(**{**vars(whole), missing: False}).is_tight
    assert not Confinement(**{**vars(whole), "files": "none"}).is_tight


def test_a_process_with_threads_is_not_held_by_the_rules_for_files() -> None:
    program = (
        "import sys, threading; sys.path.append(sys.argv[1])\n"
        "from models_store.sandbox import confine\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "print(confine([], None, None).is_tight, flush=True)\n"
        "import os; os._exit(0)"
    )
    assert run(["-c", program, root()]) == b"False\n"


def test_torch_computes_in_the_cage_and_a_model_creates_no_file() -> None:
    from tests import torch_models

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        model = torch_models.scripted(writer(Path(folder, "canary")))
        said = json.loads(run(["-W", "ignore", "-c", TORCH, root()], model))
        assert said["shape"] == [64, 4]
        assert said["model"] == "refused"
        assert not Path(folder, "canary").exists()


def test_the_same_model_creates_a_file_outside_the_cage(tmp_path: Path) -> None:
    import torch

    torch.jit.script(writer(tmp_path / "canary"))(torch.zeros(1))
    assert (tmp_path / "canary").exists()


def writer(path: Path) -> Any:
    """A module of TorchScript that makes the file."""
    import torch

    class Writer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.path = str(path)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.from_file(self.path, True, 16).sum()

    return Writer()


def root() -> str:
    return str(Path(__file__).resolve().parents[3])


class Machine:
    """Runs a filter of seccomp as the kernel does, over the instructions that are used here."""

    def __init__(self, machine: str, pid: int = 1000, threads_ok: bool = True) -> None:
        self._program = system_calls.program(machine, pid, threads_ok)

    def judge(self, architecture: int, number: int, *arguments: int) -> int:
        words = [number, architecture, 0, 0]
        for argument in [*arguments, *[0] * (6 - len(arguments))]:
            words += struct.unpack("=II", struct.pack("=Q", argument))
        place = value = 0
        while True:
            code, hit, miss, constant = self._program[place]
            place += 1
            match code:
                case 0x20:
                    value = words[constant // 4]
                case 0x06:
                    return constant
                case 0x15:
                    place += hit if value == constant else miss
                case 0x35:
                    place += hit if value >= constant else miss
                case 0x45:
                    place += hit if value & constant else miss


ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
X86, ARM = 0xC000003E, 0xC00000B7


@pytest.mark.parametrize(
    ("machine", "architecture", "numbers"),
    [("x86_64", X86, (0, 41, 257, 56, 435, 59, 234)), ("aarch64", ARM, (63, 198, 56, 220, 435, 221, 131))],
)
def test_the_filter_knows_both_architectures(machine: str, architecture: int, numbers: tuple[int, ...]) -> None:
    filtered = Machine(machine)
    read, socket, openat, clone, clone3, execve, tgkill = numbers
    assert filtered.judge(architecture, read) == ALLOW
    assert filtered.judge(architecture, socket) == EPERM
    assert filtered.judge(architecture, execve) == EPERM
    assert filtered.judge(architecture, clone3) == ENOSYS
    assert filtered.judge(architecture, openat, 0, 0, os.O_RDONLY | os.O_CLOEXEC) == ALLOW
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_TMPFILE):
        assert filtered.judge(architecture, openat, 0, 0, flags) == EPERM
    assert filtered.judge(architecture, clone, 0x3D0F00) == ALLOW
    assert filtered.judge(architecture, clone, 17) == EPERM
    assert Machine(machine, threads_ok=False).judge(architecture, clone, 0x3D0F00) == EPERM
    assert filtered.judge(architecture, tgkill, 1000) == ALLOW
    assert filtered.judge(architecture, tgkill, 1001) == EPERM


def test_calls_in_another_dialect_end_the_process_or_are_refused() -> None:
    assert Machine("x86_64").judge(0x40000003, 1) == KILL
    assert Machine("x86_64").judge(X86, 0x40000000 | 1) == EPERM


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_call_of_the_filter_ends_in_a_verdict(machine: str) -> None:
    architecture = X86 if machine == "x86_64" else ARM
    filtered = Machine(machine)
    assert {filtered.judge(architecture, number) for number in range(512)} == {ALLOW, EPERM, ENOSYS}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")
def test_no_call_that_changes_the_machine_is_plain() -> None:
    filtered = Machine("x86_64")
    dangerous = [41, 42, 53, 57, 58, 59, 62, 82, 83, 85, 87, 101, 105, 161, 165, 272, 310, 311, 319, 321, 322, 425, 437]
    assert {filtered.judge(X86, number) for number in dangerous} == {EPERM}


@pytest.mark.skipif(os.getuid() != 0, reason="only root may exchange the root folder")
def test_without_landlock_an_empty_root_takes_its_place() -> None:
    program = (
        "import os, sys; sys.path.append(sys.argv[1])\n"
        "from models_store import sandbox\n"
        "sandbox.Landlock = lambda: type('Missing', (), {'version': 0})\n"
        "confinement = sandbox.confine([], None, None)\n"
        "print(confinement.files, confinement.is_tight, os.path.exists('/etc/passwd'), os.path.exists('/tmp'))\n"
    )
    assert run(["-c", program, root()]) == b"chroot True False False\n"
