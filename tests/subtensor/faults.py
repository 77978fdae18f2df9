"""What may go wrong with a node, switched on and off while it runs."""

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

ANY = "*"
CONNECT = "connect"
SUBMISSION = "submission"
GARBAGE = {
    "text": "}{ this is not JSON",
    "cut": '{"jsonrpc":"2.0","id":',
    "list": "[1,2,3]",
    "number": "7",
    "empty": "",
    "deep": "[" * 100_000,
}
"""Whole frames with nonsense in them."""


@dataclass
class Fault:
    """`kind` is stall, delay, drop, garbage, half_frame, wrong_id, answer, error, forget or hush; `value` says how."""

    method: str
    kind: str
    value: Any = None
    times: int | None = None


class Faults:
    """Methods are named as in JSON-RPC, a `state_call` also by what it calls: `NeuronInfoRuntimeApi_get_neurons_lite`.

    Without a method a fault is for all of them; without `times` it stays until `clear`. The first that fits is taken.
    The method CONNECT is the handshake of a new connection: it can be stalled, delayed, dropped, or answered with an
    error, whose code is then the status of HTTP.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._used: Counter[str] = Counter()
        self._faults: list[Fault] = []
        self.pruned_before = 0

    def stall(self, method: str = ANY, times: int | None = None) -> None:
        """Never answer."""
        self._add(Fault(method, "stall", None, times))

    def delay(self, seconds: float, method: str = ANY, times: int | None = None) -> None:
        self._add(Fault(method, "delay", seconds, times))

    def drop(self, method: str = ANY, times: int | None = None) -> None:
        """Close the connection instead of an answer."""
        self._add(Fault(method, "drop", None, times))

    def garbage(self, kind: str = "text", method: str = ANY, times: int | None = None) -> None:
        """A frame of nonsense instead of an answer: `kind` is a name in GARBAGE, or the text itself."""
        self._add(Fault(method, "garbage", GARBAGE.get(kind, kind), times))

    def half_frame(self, method: str = ANY, times: int | None = None) -> None:
        """A WebSocket frame that breaks off, and the end of the connection."""
        self._add(Fault(method, "half_frame", None, times))

    def wrong_id(self, method: str = ANY, times: int | None = None) -> None:
        """A good answer to somebody else's question."""
        self._add(Fault(method, "wrong_id", None, times))

    def answer(self, result: Any, method: str = ANY, times: int | None = None) -> None:
        """This result instead of the true one."""
        self._add(Fault(method, "answer", result, times))

    def error(self, code: int, message: str, method: str = ANY, times: int | None = None, data: Any = None) -> None:
        """A JSON-RPC error."""
        body = {"code": code, "message": message}
        self._add(Fault(method, "error", body if data is None else body | {"data": data}, times))

    def refuse(self, times: int | None = 1, data: str = "Custom error: 6") -> None:
        """The next submissions are invalid transactions."""
        for method in ("author_submitAndWatchExtrinsic", "author_submitExtrinsic"):
            self._add(Fault(method, "error", {"code": 1010, "message": "Invalid Transaction", "data": data}, times))

    def forget(self, times: int | None = 1) -> None:
        """The next submissions are accepted and never included."""
        self._add(Fault(SUBMISSION, "forget", None, times))

    def hush(self, times: int | None = 1) -> None:
        """The next submissions that are watched are included, and nobody is told."""
        self._add(Fault(SUBMISSION, "hush", None, times))

    def prune(self, before: int) -> None:
        """The state of earlier blocks is discarded; their headers and bodies stay."""
        self.pruned_before = before

    def clear(self) -> None:
        """Everything works again; what is stalled stays without an answer."""
        with self._lock:
            self._faults.clear()
            self.pruned_before = 0

    def take(self, *methods: str) -> Fault | None:
        """The fault for a call that has these names, counted as used."""
        with self._lock:
            for fault in self._faults:
                if fault.method in methods or (fault.method == ANY and methods[0] not in (CONNECT, SUBMISSION)):
                    if fault.times is not None:
                        fault.times -= 1
                        if fault.times <= 0:
                            self._faults.remove(fault)
                    self._used[fault.method] += 1
                    self._lock.notify_all()
                    return fault
        return None

    def wait_for_use(self, method: str = ANY, seconds: float = 20.0, times: int = 1) -> bool:
        """Whether the faults for this method were met `times` times, all told, before the seconds were over."""
        with self._lock:
            return self._lock.wait_for(lambda: self._used[method] >= times, seconds)

    def _add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)
