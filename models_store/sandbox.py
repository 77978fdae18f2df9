"""A cage for a process that is about to touch foreign bytes. Only the standard library; Linux on x86-64 and arm64.

    confinement = confine(read=python_files(), memory=2 << 30, cpu_seconds=None)

is called in the child, once, after everything it needs was imported and **before any thread was started** (set
OPENBLAS_NUM_THREADS=1 before numpy or torch is imported: some layers hold only for the calling thread and the
threads it starts later). Afterwards: threads may be started, descriptors that are open go on working (sockets that
are connected too, and descriptors may be received over them), files below `read` may be opened for reading. Nothing
can be opened for writing, no socket made or connected, no process started or signalled, no program executed.
"""

import contextlib
import ctypes
import os
import resource
import struct
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from models_store import system_calls
from models_store.landlock import Landlock

USERS = 600_000_000
"""A confined process of root becomes the user of this number plus its process id: nobody else's."""
NOBODY = 65534
THREADS_MAX = 512
_NO_NEW_PRIVILEGES, _DUMPABLE = 38, 4
_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION = 0x20080522


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
    after that); `cpu_seconds`: processor time from now, then SIGKILL; `file_size`: how far open files may grow
    (0: not at all); None: no such limit. `threads_ok=False` refuses new threads too.
    """
    read = list(read)
    libc = ctypes.CDLL(None, use_errno=True)
    _limit(memory, cpu_seconds, file_size, open_files)
    alone = _is_alone()
    no_new_privileges = libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    network = libc.unshare(_NEW_NETWORK) == 0 or libc.unshare(_NEW_USER | _NEW_NETWORK) == 0
    landlock = Landlock()
    rules = landlock.version > 0 and landlock.prepare(read)
    emptied = not rules and _empty_root()
    own_user = _become_nobody()
    _drop_capabilities(libc)
    libc.prctl(_DUMPABLE, 0, 0, 0, 0)
    landlocked = rules and landlock.enforce() and alone
    return Confinement(
        no_new_privileges=no_new_privileges,
        files="landlock" if landlocked else "chroot" if emptied else "none",
        network=network,
        own_user=own_user,
        # what follows is read while that is still allowed
        unprivileged=_is_unprivileged(libc),
        system_calls=system_calls.install(threads_ok),
    )


def python_files() -> list[Path]:
    """What this interpreter reads when it imports late, and torch when it looks at the machine."""
    paths = sysconfig.get_paths()
    names = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    base = Path(sys.base_prefix) / "lib"
    libraries = {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"}
    machine = {"/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system", "/dev/null", "/dev/urandom"}
    here = {str(Path(__file__).resolve().parent)}
    return [Path(name) for name in sorted(names | libraries | machine | here | {str(base)})]


def _limit(memory: int | None, cpu_seconds: int | None, file_size: int, open_files: int) -> None:
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: file_size, resource.RLIMIT_NOFILE: open_files}
    if memory is not None:
        limits[resource.RLIMIT_DATA] = _data_now() + memory
    if cpu_seconds is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        limits[resource.RLIMIT_CPU] = int(used.ru_utime + used.ru_stime) + 1 + cpu_seconds
    if os.getuid() == 0:
        limits[resource.RLIMIT_NPROC] = THREADS_MAX
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


def _data_now() -> int:
    """Bytes that count for RLIMIT_DATA."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def _is_alone() -> bool:
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def _empty_root() -> bool:
    """Make an empty folder, that no longer has a name, the root of all paths."""
    name = f"grid-empty-{os.urandom(8).hex()}"
    for parent in ("/tmp", "/var/tmp", "/run"):
        with contextlib.suppress(OSError):
            os.mkdir(f"{parent}/{name}", 0o500)
            above = os.open(parent, os.O_PATH | os.O_DIRECTORY)
            try:
                os.chroot(f"{parent}/{name}")
                os.chdir("/")
                return True
            finally:
                os.rmdir(name, dir_fd=above)
                os.close(above)
    return False


def _become_nobody() -> bool:
    """From root to a user of its own, or at least to nobody. True if no other process has this user."""
    if os.getuid() != 0:
        return False
    for user in (USERS + os.getpid(), NOBODY):
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            return user != NOBODY
    return False


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    number = _CAPSET.get(os.uname().machine)
    if number is not None:
        libc.syscall(number, struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24))


def _is_unprivileged(libc: ctypes.CDLL) -> bool:
    """Neither root, nor holding a capability (capget has the number before capset on both architectures)."""
    if 0 in (os.getuid(), os.geteuid()):
        return False
    number = _CAPSET.get(os.uname().machine)
    if number is None:
        return False
    held = ctypes.create_string_buffer(24)
    if libc.syscall(number - 1, struct.pack("=Ii", _CAPABILITY_VERSION, 0), held) != 0:
        return False
    return held.raw == bytes(24)
