"""A seccomp filter that lets through what computing on open files needs, and answers everything else with EPERM.

Numbers from the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h);
instructions as in Documentation/networking/filter.rst, data as in include/uapi/linux/seccomp.h.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_PLAIN: dict[str, tuple[int | None, int | None]] = {
    # files that are open
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "preadv": (295, 69), "pwritev": (296, 70), "close": (3, 57), "close_range": (436, 436),
    "fstat": (5, 80), "lseek": (8, 62), "fsync": (74, 82), "fdatasync": (75, 83), "fadvise64": (221, 223),
    "getdents64": (217, 61), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24),
    # looking at files; what may be opened is for other layers to say
    "stat": (4, None), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78),
    "getcwd": (79, 17),
    # memory
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233),
    "msync": (26, 227), "mincore": (27, 232), "brk": (12, 214), "membarrier": (324, 283),
    # signals of its own, waiting
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "rt_sigtimedwait": (128, 137), "restart_syscall": (219, 128), "poll": (7, None), "ppoll": (271, 73),
    "select": (23, None), "pselect6": (270, 72), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_wait": (232, None), "epoll_pwait": (281, 22), "epoll_pwait2": (441, 441), "eventfd2": (290, 19),
    "pipe": (22, None), "pipe2": (293, 59), "nanosleep": (35, 101), "clock_nanosleep": (230, 115),
    # threads
    "futex": (202, 98), "futex_waitv": (449, 449), "set_robust_list": (273, 99), "get_robust_list": (274, 100),
    "rseq": (334, 293), "set_tid_address": (218, 96), "arch_prctl": (158, None), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "getcpu": (309, 168), "exit": (60, 93), "exit_group": (231, 94),
    # sockets that are connected
    "sendto": (44, 206), "recvfrom": (45, 207), "sendmsg": (46, 211), "recvmsg": (47, 212), "shutdown": (48, 210),
    "getsockopt": (55, 209), "getsockname": (51, 204), "getpeername": (52, 205),
    # time, chance, who and where am I
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None),
    "times": (100, 153), "getrusage": (98, 165), "getrandom": (318, 278), "getpid": (39, 172), "gettid": (186, 178),
    "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "uname": (63, 160), "sysinfo": (99, 179), "getrlimit": (97, 163),
}  # fmt: skip

_OPEN, _OPENAT, _CLONE, _CLONE3 = (2, None), (257, 56), (56, 220), (435, 435)
_FCNTL, _IOCTL, _PRCTL, _PRLIMIT, _TGKILL = (72, 25), (16, 29), (157, 167), (302, 261), (234, 131)
_SECCOMP = (317, 277)

_WRITES = 0o1 | 0o2 | 0o100 | 0o1000 | 0o20000000
"""O_WRONLY, O_RDWR, O_CREAT, O_TRUNC and the own bit of O_TMPFILE."""
_CLONE_THREAD = 0x10000
_SIGNAL_OWNERS = (8, 10, 15)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: who else is sent a signal."""
_IOCTLS = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
_PRCTLS = (15, 16, 0x53564D41)
"""PR_SET_NAME, PR_GET_NAME, PR_SET_VMA: names of threads and of memory."""

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_X32 = 0x40000000
_MODE_FILTER, _ALL_THREADS = 1, 1

Instruction = tuple[int, int, int, int]


@dataclass(frozen=True)
class Condition:
    """When a call is allowed: by the low 32 bits of its argument number `argument`."""

    argument: int
    values: tuple[int, ...] = ()
    bits: int = 0
    allowed: bool = True
    """Whether the call is allowed, or refused, if the argument is one of `values` or has one of `bits`."""

    def instructions(self) -> list[Instruction]:
        tests = [(_EQUAL, value) for value in self.values] + ([(_ANY_BIT, self.bits)] if self.bits else [])
        hit, miss = (_ALLOW, _refusal(errno.EPERM)) if self.allowed else (_refusal(errno.EPERM), _ALLOW)
        code = [(_LOAD, 0, 0, 16 + 8 * self.argument)]
        # from each test over those that follow and over the `miss` to the `hit`
        code += [(test, len(tests) - place, 0, value) for place, (test, value) in enumerate(tests)]
        return [*code, (_RETURN, 0, 0, miss), (_RETURN, 0, 0, hit)]


def install(threads_ok: bool) -> bool:
    """Put the filter on every thread of this process; False if the kernel or the architecture has none."""
    column, _ = _ARCHITECTURES.get(platform.machine(), (-1, 0))
    if column < 0:
        return False
    code = b"".join(struct.pack("=HBBI", *one) for one in program(platform.machine(), os.getpid(), threads_ok))
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    number = _SECCOMP[column]
    return ctypes.CDLL(None, use_errno=True).syscall(number, _MODE_FILTER, _ALL_THREADS, header) == 0


def program(machine: str, pid: int, threads_ok: bool) -> list[Instruction]:
    """The filter's instructions: another architecture's calls end the process, unknown calls get EPERM."""
    column, architecture = _ARCHITECTURES[machine]
    code: list[Instruction] = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    code += [(_LOAD, 0, 0, 0), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _refusal(errno.EPERM))]
    for number in _numbers(_PLAIN.values(), column):
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for numbers, condition in _conditions(pid, threads_ok):
        for number in _numbers([numbers], column):
            body = condition.instructions()
            code += [(_EQUAL, 0, len(body), number), *body]
    # glibc falls back on clone, whose flags the filter can read
    code += [(_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _refusal(errno.ENOSYS))]
    return [*code, (_RETURN, 0, 0, _refusal(errno.EPERM))]


def _conditions(pid: int, threads_ok: bool) -> Iterator[tuple[tuple[int | None, int | None], Condition]]:
    yield _OPEN, Condition(1, bits=_WRITES, allowed=False)
    yield _OPENAT, Condition(2, bits=_WRITES, allowed=False)
    if threads_ok:
        yield _CLONE, Condition(0, bits=_CLONE_THREAD)
    yield _FCNTL, Condition(1, values=_SIGNAL_OWNERS, allowed=False)
    yield _IOCTL, Condition(1, values=_IOCTLS)
    yield _PRCTL, Condition(0, values=_PRCTLS)
    yield _PRLIMIT, Condition(0, values=(0, pid))
    yield _TGKILL, Condition(0, values=(pid,))


def _numbers(calls: Iterable[tuple[int | None, int | None]], column: int) -> list[int]:
    return [number for call in calls if (number := call[column]) is not None]


def _refusal(code: int) -> int:
    return _REFUSE | code
