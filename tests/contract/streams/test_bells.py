"""A bell rung by one process is heard by the others, and no dead one is in the way."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid_node.streams.bells import Bells

WAIT = 20.0
RING = """
import sys
from pathlib import Path
from grid_node.streams.bells import Bells
Bells(Path(sys.argv[1])).ring()
"""


class Ear:
    """Counts what it hears."""

    def __init__(self) -> None:
        self._heard = threading.Semaphore(0)
        self.faults = 0

    def __call__(self) -> None:
        self._heard.release()
        if self.faults:
            self.faults -= 1
            raise RuntimeError("looking at the database failed")

    def hears(self) -> bool:
        return self._heard.acquire(timeout=WAIT)


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def bells(tmp_path: Path, ear: Ear) -> Iterator[Bells]:
    made = Bells(tmp_path)
    made.listen(ear)
    yield made
    made.close()


def ring_elsewhere(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", RING, str(folder)], check=True, timeout=WAIT)


def test_a_ring_of_another_process_is_heard(tmp_path: Path, bells: Bells, ear: Ear) -> None:
    ring_elsewhere(tmp_path)
    assert ear.hears()


def test_nobody_hears_its_own_ring_but_a_later_one_of_others(tmp_path: Path, bells: Bells, ear: Ear) -> None:
    bells.ring()
    ring_elsewhere(tmp_path)
    assert ear.hears()
    assert not ear._heard.acquire(blocking=False)


def test_an_ear_that_fails_goes_on_listening(
    tmp_path: Path, bells: Bells, ear: Ear, caplog: pytest.LogCaptureFixture
) -> None:
    ear.faults = 1
    ring_elsewhere(tmp_path)
    assert ear.hears()
    ring_elsewhere(tmp_path)
    assert ear.hears()
    assert "answering a bell failed" in caplog.text


def test_the_bell_of_a_process_that_was_killed_is_taken_down(tmp_path: Path, bells: Bells) -> None:
    code = RING.replace(
        "Bells(Path(sys.argv[1])).ring()",
        "bells = Bells(Path(sys.argv[1])); bells.listen(print); import os; os.kill(os.getpid(), 9)",
    )
    dead = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=WAIT)
    assert dead.returncode == -9
    folder = tmp_path / "bells"
    assert len(list(folder.iterdir())) == 2
    bells.ring()
    assert [path.name for path in folder.iterdir()] == [str(os.getpid())]


def test_a_listener_that_never_looks_makes_nobody_wait(tmp_path: Path) -> None:
    busy = threading.Event()
    deaf = Bells(tmp_path)
    deaf.listen(lambda: busy.wait(WAIT) and None)
    os.rename(tmp_path / "bells" / str(os.getpid()), tmp_path / "bells" / "other")
    ringer = Bells(tmp_path)
    for _ in range(5000):
        ringer.ring()
    busy.set()
    (tmp_path / "bells" / "other").unlink()
    deaf.close()
    ringer.close()
