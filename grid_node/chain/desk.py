"""What the chain's process does when it is asked: who does it, in which order, and who waits for the same."""

import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from grid_node.chain.bodies import Bodies
from grid_node.chain.calls import OPERATIONS, SINGLE, WRITES, Call, Calls, Done
from grid_node.chain.follow import Follower
from grid_node.chain.frames import Answer
from grid_node.chain.lanes import FIRST, InlineLane, Lane
from grid_node.chain.outcomes import Args, outcome_of
from grid_node.chain.ports import KINDS, Block, BlockUnknown, ChainPort, Landed, Signer
from grid_node.chain.pylon import PylonSettings
from grid_node.chain.samples import Samples
from grid_node.clock import Clock
from grid_node.errors import ChainFault, ChainNotFound, ChainQueueFull
from grid_node.settings import Settings

log = logging.getLogger(__name__)

STUCK = 10.0
"""So many times the longest wait for one answer of the chain node, and a reader is taken for hung."""


class Backend(NamedTuple):
    """The connections, each for one thread of its own."""

    reader: ChainPort
    archive: ChainPort | None
    writer: ChainPort
    cutoff: int | None
    """Blocks further behind the head than this are the archive's."""


class Writing(Protocol):
    """What the writer's thread does."""

    def commit(self, signer: Signer, data: bytes) -> Landed:
        """Raises ChainError, ChainProblem."""

    def generate(self, signer: Signer, algorithm: int) -> tuple[Landed, bytes]:
        """The answer's body with it. Raises ChainError, ChainProblem."""

    def turn(self) -> float | None:
        """Do what is due of the weights; seconds until it wants to be called again, None: nothing waits."""


class Desk:
    """Takes calls from any thread and never waits. `lane` makes the threads."""

    def __init__(
        self,
        backend: Backend,
        bodies: Bodies,
        clock: Clock,
        settings: Settings,
        pylon: PylonSettings,
        samples: Samples,
        writing: Writing,
        lane: Callable[..., Lane | InlineLane] = Lane,
    ) -> None:
        self.samples = samples
        self.follower = Follower(backend.reader, clock, [identity.signer() for identity in pylon.identities])
        self.on_change: Callable[[], None] = lambda: None
        """Called in the reader's thread when a look found something new."""
        self._backend = backend
        self._bodies = bodies
        self._pylon = pylon
        self._writing = writing
        self._stuck_after = STUCK * settings.chain_call_timeout_seconds
        self._queue_max = settings.chain_queue_max
        self._reader = lane("reader")
        self._archive = lane("archive") if backend.archive is not None else None
        self._writer = lane("writer", writing.turn)
        self._calls = Calls(clock)
        self._lock = threading.Lock()
        self._is_looking = False

    def ask(self, op: str, args: Args, timeout: float, done: Done) -> None:
        """Do it, and tell `done`. A read that nobody waits for any more when its turn comes is dropped."""
        if op in OPERATIONS or op in WRITES:
            call = self._calls.join(op, args, timeout, done)
            if call is not None:
                self._depart(call)
        elif op == "weights":
            self.wake()
            done(Answer({}, b""))
        elif op == "status":
            done(Answer(self._status(), b""))
        else:
            log.error("the chain's process was asked for an unknown operation %.40r", op)
            done(ChainFault())

    def look(self) -> None:
        """Have the reader look for the head, before everything that waits there. Between two looks there is room for
        one of the others, however slow the chain node is."""
        with self._lock:
            if self._is_looking:
                return
            self._is_looking = True
        self._reader.post(self._look, FIRST)

    def wake(self) -> None:
        """Weights may be due."""
        self._writer.wake()

    def is_stuck(self) -> bool:
        lanes = [lane for lane in (self._reader, self._archive) if lane is not None]
        return any(lane.busy_for > self._stuck_after for lane in lanes)

    def close(self, grace: float) -> None:
        """End the threads after the jobs in hand; connections are closed by their owners."""
        lanes = [(self._reader, self._backend.reader), (self._writer, self._backend.writer)]
        if self._archive is not None and self._backend.archive is not None:
            lanes.append((self._archive, self._backend.archive))
        for lane, port in lanes:
            lane.close(port.close)
        for lane, _port in lanes:
            lane.join(grace / len(lanes))

    # --- reads ----------------------------------------------------------------------------------------------------

    def _depart(self, call: Call) -> None:
        head = self.follower.head
        if call.op in WRITES:
            self._queue_up(self._writer, call, lambda: self._write(call))
        elif head is not None and self._is_stale(call, head):
            self._to_archive(call, "stale_block")
        else:
            self._queue_up(self._reader, call, lambda: self._read(call))

    def _queue_up(self, lane: Lane | InlineLane, call: Call, job: Callable[[], None]) -> None:
        """Callers that have left no longer count on the link's side; what they left behind does here."""
        if lane.waiting >= self._queue_max:
            self._calls.end(call, ChainQueueFull())
        else:
            lane.post(job)

    def _is_stale(self, call: Call, head: Block) -> bool:
        if call.number is None or self._archive is None or self._backend.cutoff is None:
            return False
        return head.number - call.number > self._backend.cutoff

    def _to_archive(self, call: Call, reason: str) -> None:
        assert self._archive is not None
        self.samples.fallback(reason, OPERATIONS[call.op])
        self._queue_up(self._archive, call, lambda: self._read_archive(call))

    def _read(self, call: Call) -> None:
        if self._calls.begin(call):
            outcome = outcome_of(lambda: self._from_main(call), call.args)
            if outcome is not None:
                self._calls.end(call, outcome)

    def _from_main(self, call: Call) -> Answer | None:
        """None: the archive was asked."""
        reader, number = self._backend.reader, call.number
        if number is None:
            return self._newest(call, reader)
        if self._archive is None:
            return self._answer(call, reader)
        head = self.follower.head or reader.head()
        if self._is_stale(call, head):
            self._to_archive(call, "stale_block")
            return None
        try:
            return self._answer(call, reader)
        except BlockUnknown:
            if number > head.number:
                raise
        self._to_archive(call, "unknown_block")
        return None

    def _newest(self, call: Call, reader: ChainPort) -> Answer:
        """The newest block may be undone while it is read: then there is another one."""
        try:
            return self._answer(call, reader)
        except BlockUnknown:
            return self._answer(call, reader)

    def _read_archive(self, call: Call) -> None:
        archive = self._backend.archive
        if archive is not None and self._calls.begin(call):
            self._calls.end(call, outcome_of(lambda: self._answer(call, archive), call.args))

    def _answer(self, call: Call, port: ChainPort) -> Answer:
        if call.number is None:
            block = port.head()
            self.follower.heard(block)
        else:
            block = port.block(call.number)
        op, args, meta = call.op, call.args, {"block": block.body()}
        if op in KINDS:
            state, body = getattr(self._bodies, op)(port, args["netuid"], block)
            return Answer({**meta, "finalized": self.follower.finalized, "state": state}, body)
        if op in SINGLE:
            netuid, hotkey = self._whose(args, port)
            return Answer(meta, getattr(self._bodies, op)(port, netuid, hotkey, block))
        if op == "extrinsic":
            return Answer(meta, self._bodies.extrinsic(port, block, args["index"]))
        if op == "hyperparams":
            return Answer({**meta, "tempo": port.hyperparams(args["netuid"], block).tempo}, b"")
        return Answer(meta, b"")

    def _whose(self, args: Args, port: ChainPort) -> tuple[int, str]:
        if "identity" not in args:
            return args["netuid"], args["hotkey"]
        signer = self._signer(args)
        return signer.netuid, port.hotkey(signer)

    def _look(self) -> None:
        try:
            has_news = self.follower.look()
        finally:
            with self._lock:
                self._is_looking = False
        if has_news:
            self.on_change()

    # --- writes ---------------------------------------------------------------------------------------------------

    def _write(self, call: Call) -> None:
        """A write that was handed over is done, whoever still waits for it."""
        call.has_begun = True
        self._calls.end(call, outcome_of(lambda: self._written(call), call.args))
        self.look()

    def _written(self, call: Call) -> Answer:
        signer, args, body = self._signer(call.args), call.args, b""
        if call.op == "set_commitment":
            landed = self._writing.commit(signer, bytes.fromhex(args["data"]))
        else:
            landed, body = self._writing.generate(signer, args["algorithm"])
        return Answer({"block_number": landed.block.number}, body)

    def _signer(self, args: Args) -> Signer:
        identity = self._pylon.identity(args["identity"])
        if identity is None:
            raise ChainNotFound(f"Identity '{args['identity']}' not found")
        return identity.signer()

    def _status(self) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {}
        for port in (self._backend.reader, self._backend.archive, self._backend.writer):
            for endpoint in port.endpoints() if port is not None else ():
                known = found.setdefault(endpoint["uri"], dict(endpoint))
                known["error"] = known["error"] or endpoint["error"]
                known["ok"] = known["error"] is None and (known["ok"] or endpoint["ok"])
        lanes = [lane for lane in (self._reader, self._archive, self._writer) if lane is not None]
        return {"endpoints": list(found.values()), "queue": sum(lane.waiting for lane in lanes)}
