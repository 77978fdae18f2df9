"""What a worker may ask for, whichever face it came by."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

from sqlalchemy import func, select

from grid_node.blobs.store import Blob, Blobs
from grid_node.clock import Clock, rfc3339
from grid_node.database import Store, Transaction
from grid_node.errors import AssetTooLarge, InvalidPayload
from grid_node.generation import workers
from grid_node.generation.dispatch import Dispatcher
from grid_node.generation.leases import INLINE_MAX, Kind, Leases, Submission, digest
from grid_node.generation.pulls import Pull
from grid_node.generation.tables import QUEUED, Task
from grid_node.settings import Settings
from grid_node.streams.service import Streams

tasks = Task.__table__


@dataclass(frozen=True)
class WorkerIdentity:
    """Who a worker is and what it offers. `public_key` is None in a private grid."""

    identity: str
    public_key: bytes | None
    key_id: str | None
    kinds: tuple[str, ...]
    formats: tuple[str, ...]
    max_parallel: int


class Registry(Protocol):
    """Whether a hotkey may work now, and how well it is thought of."""

    def strong(self, worker: WorkerIdentity) -> bool | None:
        """Raises NotRegistered, Blacklisted or ChainUnavailable; None: judged by its scores."""


class Signatures(Protocol):
    """Checks a worker's signature over a result."""

    def valid(self, worker: WorkerIdentity, sha256: str, task_id: str, signature: str | None) -> bool: ...


class UploadedResults(Protocol):
    """Complete uploads of a worker."""

    def take(self, owner: str, upload_id: str) -> Blob:
        """Raises UploadNotFound."""


class Work:
    """Pull, renew, submit, skip, feedback."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        streams: Streams,
        leases: Leases,
        dispatcher: Dispatcher,
        blobs: Blobs,
        uploads: UploadedResults,
        registry: Registry,
        signatures: Signatures,
        kinds: Mapping[str, Kind],
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._streams = streams
        self._leases = leases
        self._dispatcher = dispatcher
        self._blobs = blobs
        self._uploads = uploads
        self._registry = registry
        self._signatures = signatures
        self._kinds = kinds

    # --- pull -------------------------------------------------------------------------------------------------

    def pull(self, worker: WorkerIdentity, given: Mapping[str, Any]) -> dict[str, Any]:
        """A lease, or none within `wait_s`. `given` is a loaded PullSchema."""
        pull = Pull(
            worker=worker.identity,
            kinds=self._known_kinds(given["kinds"] or worker.kinds),
            formats=tuple(given["formats"] or worker.formats),
            max_parallel=worker.max_parallel,
            holding=frozenset(given["holding"]),
            strong=self._registry.strong(worker),
        )
        return self._dispatcher.pull(pull, min(given["wait_s"], self._settings.worker_pull_wait_max))

    def _known_kinds(self, kinds: Any) -> tuple[str, ...]:
        unknown = set(kinds) - self._kinds.keys()
        if unknown:
            raise InvalidPayload(fields={"kinds": [f"unknown: {', '.join(sorted(unknown))}"]})
        return tuple(kinds)

    def leave(self, worker: WorkerIdentity) -> None:
        """The worker's connection is gone: a waiting pull gets no lease any more."""
        self._dispatcher.withdraw_worker(worker.identity)

    # --- submit -----------------------------------------------------------------------------------------------

    def submit(self, worker: WorkerIdentity, given: Mapping[str, Any], asset: bytes | Blob) -> dict[str, Any]:
        """Take a result in; with `wait_s` answer with its verdict if there is one by then.

        `given` is a loaded SubmitSchema. Raises what Leases.submit raises, AssetTooLarge, InvalidPayload.
        """
        submission = self._submission(worker, given, asset)
        before = self._feedback_seq(worker) if given["wait_s"] else 0
        answer = self._leases.submit(submission)
        if isinstance(asset, bytes) and submission.inline is None and not self._blobs.confirm(submission.actual):
            self._blobs.put(asset)  # buried before its reference was committed, by somebody who was refused the same
        if answer["state"] == "scoring" and given["wait_s"]:
            return self._verdict(worker, given["lease_id"], before, given["wait_s"]) or answer
        return answer

    def uploaded(self, worker: WorkerIdentity, upload_id: str) -> Blob:
        return self._uploads.take(worker.identity, upload_id)

    def limit_of(self, worker: WorkerIdentity, lease_id: str) -> int:
        """Most bytes that a result of this lease may have; raises LeaseNotFound."""
        _, task = self._leases.expected(worker.identity, lease_id)
        return min(self._leases.kind_of(task).max_bytes, self._settings.scoring_max_bytes)

    def _submission(self, worker: WorkerIdentity, given: Mapping[str, Any], asset: bytes | Blob) -> Submission:
        size = asset.size if isinstance(asset, Blob) else len(asset)
        if not size:
            raise InvalidPayload(fields={"asset": ["must not be empty"]})
        task_id = given["task_id"]
        small = isinstance(asset, bytes) and size <= INLINE_MAX
        if not small or (worker.public_key is not None and task_id is None):
            _, task = self._leases.expected(worker.identity, given["lease_id"])
            self._check_size(task, size)
            task_id = task_id or task.id
        actual = digest(asset) if isinstance(asset, bytes) else asset.sha256
        if isinstance(asset, bytes) and not small:
            self._blobs.put(asset)
        return Submission(
            worker=worker.identity,
            lease_id=given["lease_id"],
            task_id=task_id,
            format=given["format"],
            sha256=given["sha256"],
            actual=actual,
            size=size,
            inline=asset if isinstance(asset, bytes) and small else None,
            signature_valid=self._signatures.valid(worker, actual, task_id or "", given["signature"]),
        )

    def _check_size(self, task: Any, size: int) -> None:
        limit = min(self._leases.kind_of(task).max_bytes, self._settings.scoring_max_bytes)
        if size > limit:
            raise AssetTooLarge(limit=limit)

    def _verdict(self, worker: WorkerIdentity, lease_id: str, after: int, wait_s: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + wait_s
        stream = workers.feedback_stream(worker.identity)
        while (left := deadline - time.monotonic()) > 0:
            for entry in self._streams.wait(stream, after, left):
                if entry.body["lease_id"] == lease_id:
                    return {"success": True, "state": entry.body["verdict"], **entry.body}
                after = entry.seq
        return None

    # --- the rest ---------------------------------------------------------------------------------------------

    def renew(self, worker: WorkerIdentity, lease_id: str) -> dict[str, Any]:
        return self._leases.renew(worker.identity, lease_id)

    def skip(self, worker: WorkerIdentity, lease_id: str) -> dict[str, Any]:
        return self._leases.skip(worker.identity, lease_id)

    def feedback(self, worker: WorkerIdentity, after_seq: int, wait_s: float) -> dict[str, Any]:
        """Verdicts above `after_seq`, oldest first; waits for the first one."""
        entries = self._streams.wait(workers.feedback_stream(worker.identity), after_seq, wait_s)
        last = max(self._feedback_seq(worker), after_seq)
        return {"success": True, "feedback": [entry.body for entry in entries], "last_seq": last}

    def _feedback_seq(self, worker: WorkerIdentity) -> int:
        return self.places(worker)[0]

    def places(self, worker: WorkerIdentity) -> tuple[int, int]:
        """The newest seq of the worker's feedback and of its notices."""
        row = self._store.read(
            lambda tx: tx.execute(
                select(workers.workers).where(workers.workers.c.identity == worker.identity)
            ).one_or_none()
        )
        return (row.feedback_seq, row.notice_seq) if row is not None else (0, 0)

    def status(self, worker: WorkerIdentity) -> dict[str, Any]:
        """Leases, cooldown, scores, and how much work waits for each kind."""
        return self._store.write(lambda tx: self._status(tx, worker))

    def _status(self, tx: Transaction, worker: WorkerIdentity) -> dict[str, Any]:
        now = self._clock.now()
        row = workers.worker_row(tx, worker.identity)
        waiting = select(tasks.c.kind, func.count().label("n")).where(tasks.c.status == QUEUED).group_by(tasks.c.kind)
        queued = {found.kind: found.n for found in tx.execute(waiting)}
        return {
            "success": True,
            "worker": worker.identity,
            "leases": [
                {
                    "task_id": copy.task_id,
                    "lease_id": copy.lease_id,
                    "lease_expires_at": rfc3339(copy.lease_expires_at),
                }
                for copy in self._leases.live(tx, worker.identity)
            ],
            "cooldown": workers.cooldown_view(row, now),
            "retry_after": max(0, ceil(row.cooldown_until - now)),
            "mean_score": workers.mean_score(row.recent),
            "strong": workers.is_strong(row.recent),
            "queue": {kind: queued.get(kind, 0) for kind in self._kinds},
        }
