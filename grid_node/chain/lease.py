"""The lease of the one process that sends extrinsics, where several work on one database.

It is no lock: who loses it in the middle of a submission does no harm. An extrinsic is on record before it is sent,
the record is made only under the lease, and the next holder sends nothing while that extrinsic may still land.
"""

import contextlib
import os
import socket
from pathlib import Path

from sqlalchemy import bindparam, delete, insert, select, update

from grid_node.chain.weights_tables import leases
from grid_node.clock import Clock
from grid_node.database import Transaction
from grid_node.statements import prepared

NAME = "submitter"
SECONDS = 30.0
"""How long a lease holds without being renewed."""

BOOT = "/proc/sys/kernel/random/boot_id"
"""Linux's name for this start of this machine: two machines may have the same host name."""

_OF_NAME = leases.c.name == bindparam("of")
_FIND = prepared(select(leases.c.holder, leases.c.until).where(_OF_NAME).with_for_update())
_TAKE = prepared(update(leases).where(_OF_NAME).values(holder=bindparam("who"), until=bindparam("end")))
_DROP = prepared(delete(leases).where(_OF_NAME, leases.c.holder == bindparam("who")))


class Lease:
    """One holder's side. To be used inside of units of work, so that what is written is written by the holder.

    `process` says where the holder lives: a machine and a process id. Of one process only one holder counts, the
    newest: a restarted process may have the id of the one before it.
    """

    def __init__(self, clock: Clock, process: str | None = None) -> None:
        self._clock = clock
        self.holder = f"{process or f'{_place()} {os.getpid()}'} {clock.new_id()}"

    def take(self, tx: Transaction) -> bool:
        """Take or renew it; False: somebody else has it."""
        now = self._clock.now()
        row = tx.execute(_FIND, {"of": NAME}).one_or_none()
        if row is None:
            tx.execute(insert(leases), {"name": NAME, "holder": self.holder, "until": now + SECONDS})
            return True
        counts = now < row.until <= now + SECONDS  # later than that: somebody set the clock back
        if counts and row.holder != self.holder and not self._may_succeed(row.holder):
            return False
        tx.execute(_TAKE, {"of": NAME, "who": self.holder, "end": now + SECONDS})
        return True

    def release(self, tx: Transaction) -> None:
        tx.execute(_DROP, {"of": NAME, "who": self.holder})

    def _may_succeed(self, holder: str) -> bool:
        """Whether the holder was on this machine and is gone: a restart need not wait for its lease to end."""
        process, own = holder.rsplit(" ", 1)[0], self.holder.rsplit(" ", 1)[0]
        if process == own:
            return True
        place, pid = process.rsplit(" ", 1)
        return place == own.rsplit(" ", 1)[0] and not _is_alive(int(pid))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _place() -> str:
    """This machine, and where process ids are counted apart, this container."""
    names = boot = ""
    with contextlib.suppress(OSError):
        names = os.readlink("/proc/self/ns/pid")
    with contextlib.suppress(OSError):
        boot = Path(BOOT).read_text().strip()
    return f"{socket.gethostname()} {boot} {names}"
