"""Which files a process may open, by the kernel's Landlock (Documentation/userspace-api/landlock.rst)."""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1
_BENEATH = 1
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights over files the kernel knows, by version; 16 from version 5 on."""
_NET_RIGHTS = 0b11
_SCOPES = 0b11


class Landlock:
    """Rules in the making. `version` is 0 where the kernel has no Landlock."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.version = max(self._libc.syscall(_CREATE, None, 0, _VERSION), 0)
        self._rules = -1

    def prepare(self, read: Iterable[Path]) -> bool:
        """Rules that handle every right there is and give back reading below `read`; missing paths are left out."""
        rights = (1 << _FILE_RIGHTS.get(self.version, 16)) - 1
        fields = [rights, _NET_RIGHTS if self.version >= 4 else 0, _SCOPES if self.version >= 6 else 0]
        used = 1 if self.version < 4 else 2 if self.version < 6 else 3
        packed = struct.pack(f"={used}Q", *fields[:used])
        self._rules = self._libc.syscall(_CREATE, packed, len(packed), 0)
        return self._rules >= 0 and all(self._allow(path) for path in read)

    def enforce(self) -> bool:
        """For the calling thread and those that it starts from now on. Needs no_new_privs."""
        held = self._libc.syscall(_RESTRICT, self._rules, 0) == 0
        os.close(self._rules)
        return held

    def _allow(self, path: Path) -> bool:
        try:
            file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            is_folder = stat.S_ISDIR(os.fstat(file).st_mode)
            rights = _READ_FILE | (_READ_FOLDER if is_folder else 0)
            return self._libc.syscall(_ADD, self._rules, _BENEATH, struct.pack("=Qi", rights, file), 0) == 0
        finally:
            os.close(file)
