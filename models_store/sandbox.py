"""A cage for a process that is about to touch foreign bytes. Only the standard library; Linux on x86-64 and arm64.

    confinement = confine(read=python_files(), memory=2 << 30, cpu_seconds=None)

is called in the child, once, after everything it needs was imported and **before any thread was started** (set
OPENBLAS_NUM_THREADS=1 before numpy or torch is imported: some layers hold only for the calling thread and the
threads it starts later). Afterwards: threads may be started, descriptors that are open go on working (sockets that
are connected too, and descriptors may be received over them), files below `read` may be opened for reading. Nothing
can be opened for writing, no socket made or connected, no process started or signalled, no program executed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Confinement:
    """What was achieved. Each member is a layer; the process goes on without those that the kernel does not give."""

    no_new_privileges: bool
    system_calls: bool
    """A seccomp filter lets through only what inference needs."""
    files: str
    """`landlock`, `chroot` (an empty folder; nothing below `read` can be opened) or `none`."""
    network: bool
    """A network namespace of its own. Sockets are refused by `system_calls` in any case."""
    unprivileged: bool
    """Neither root nor any capability."""
    own_user: bool
    """A user id that no other process has."""

    @property
    def is_tight(self) -> bool:
        """Whether models with code of their own may run here."""
        return self.no_new_privileges and self.system_calls and self.files != "none" and self.unprivileged


def confine(
    read: Iterable[Path],
    memory: int | None,
    cpu_seconds: int | None,
    threads_ok: bool = True,
    file_size: int = 0,
    open_files: int = 256,
) -> Confinement:
    """Give up whatever inference does not need, for good.

    `memory`: bytes that may be allocated beyond what the process holds now (MemoryError or a RuntimeError of torch
    after that); `cpu_seconds`: processor time from the start of the process, then SIGKILL; `file_size`: how far open
    files may grow (0: not at all); None: no such limit. `threads_ok=False` refuses new threads too.
    """
    raise NotImplementedError


def python_files() -> list[Path]:
    """Folders from which this interpreter imports, for modules that are imported late."""
    raise NotImplementedError
