"""Calls inside the chain's process: which there are, and who waits for the same one."""

import threading
from collections.abc import Callable

import orjson

from grid_node.chain.outcomes import Args, Outcome
from grid_node.clock import Clock

Done = Callable[[Outcome], None]
"""Hears the outcome of a call, once; quick, and never raises."""
SINGLE = ("commitment", "certificate")
OPERATIONS = {
    "block": "get_block",
    "neurons": "get_neurons",
    "validators": "get_neurons",
    "commitments": "get_commitments",
    "certificates": "get_certificates",
    "commitment": "get_commitment",
    "certificate": "get_certificate",
    "hyperparams": "get_hyperparams",
    "extrinsic": "get_extrinsic",
}
"""Reads, and what the metrics call them."""
WRITES = ("set_commitment", "generate_certificate")


class Call:
    """One thing that is to be done, and everybody who waits for it, each with a deadline."""

    def __init__(self, op: str, args: Args, key: bytes) -> None:
        self.op = op
        self.args = args
        self.key = key
        self.number: int | None = args.get("number")
        self.has_begun = False
        self.waiters: list[tuple[float, Done]] = []

    def may_be_joined(self, args: Args) -> bool:
        """Whether its outcome serves one who asks only now.

        A read of the newest block that has begun may have begun before something that the new caller knows of. A
        commitment is joined while it is the identity's last one. Of two pairs of keys each belongs to one caller.
        """
        if self.op == "generate_certificate":
            return False
        if self.op == "set_commitment":
            return self.args == args
        return self.number is not None or not self.has_begun


class Calls:
    """The calls that wait or are being done. Any thread may use it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[bytes, Call] = {}
        self._lock = threading.Lock()

    def join(self, op: str, args: Args, timeout: float, done: Done) -> Call | None:
        """A new call that somebody has to do; None: an equal one is under way, and `done` hears of it."""
        now = self._clock.steady()
        waiter = now + timeout, done
        key = _key(op, args)
        with self._lock:
            known = self._open.get(key)
            if known is not None and known.may_be_joined(args):
                known.waiters = [*(one for one in known.waiters if one[0] > now), waiter]
                return None
            call = self._open[key] = Call(op, args, key)
            call.waiters.append(waiter)
            return call

    def begin(self, call: Call) -> bool:
        """False when nobody waits any more: those who did have heard of it from their own clocks."""
        now = self._clock.steady()
        with self._lock:
            call.has_begun = any(deadline > now for deadline, _done in call.waiters)
            if not call.has_begun:
                self._close(call)
            return call.has_begun

    def end(self, call: Call, outcome: Outcome) -> None:
        """Tell everybody."""
        with self._lock:
            self._close(call)
            waiters, call.waiters = call.waiters, []
        for _deadline, done in waiters:
            done(outcome)

    def _close(self, call: Call) -> None:
        if self._open.get(call.key) is call:
            del self._open[call.key]


def _key(op: str, args: Args) -> bytes:
    """Equal for calls of which the later may join the earlier."""
    told = {"identity": args.get("identity")} if op == "set_commitment" else args
    return orjson.dumps([op, told], option=orjson.OPT_SORT_KEYS)
