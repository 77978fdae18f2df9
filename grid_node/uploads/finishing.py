"""From the last byte of an upload to its outcome, also when nobody waits for it any more."""

import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from grid_node.blobs.holds import Holds
from grid_node.blobs.store import Blob, Blobs
from grid_node.clock import Clock
from grid_node.database import Store
from grid_node.errors import GridError, StoreUnavailable
from grid_node.uploads import rows
from grid_node.uploads.intake import Intake
from grid_node.uploads.partials import Partial
from grid_node.uploads.rows import UploadRow
from grid_node.uploads.tables import REJECTED
from grid_node.uploads.target import Completion, FinishedUpload, UploadTarget
from grid_node.uploads.tus import parse_metadata, without

log = logging.getLogger(__name__)

SERVER_FAULT = 500


class Finishing:
    """Digest into the row, file into the store, then the target, then the outcome. May start again after each."""

    def __init__(self, store: Store, blobs: Blobs, holds: Holds, clock: Clock, intake: Intake) -> None:
        self._store = store
        self._blobs = blobs
        self._holds = holds
        self._clock = clock
        self._intake = intake

    def finish(self, row: UploadRow, target: UploadTarget, file: Partial) -> Completion:
        """The caller holds the file. Raises what the target raises; a refusal is in the row. Bytes that nobody refers
        to after the outcome are gone.

        StoreUnavailable when the bytes were lost on the way; the upload then begins anew.
        """
        sha256 = row.sha256 or self._intake.whole_digest(row, file)
        blob = Blob(sha256, row.length)
        self._store.write(partial(rows.mark_checking, upload_id=row.id, sha256=sha256))
        if file.length == row.length:
            file.become(blob, self._blobs)
        if not self._blobs.confirm(sha256):
            self._store.write(partial(rows.mark_lost, upload_id=row.id))
            raise StoreUnavailable("The bytes were lost; send them again", retry_after=1)
        try:
            done = target.completed(FinishedUpload(row.id, row.owner, parse_metadata(row.upload_metadata)), blob)
        except GridError as error:
            if error.status < SERVER_FAULT:
                self._record(row, REJECTED, {"error": error.body()}, target)
                self._clear(file, blob)
            raise
        self._record(row, target.done, {"fields": dict(done.fields)}, target)
        self._clear(file, blob)
        return done

    def finish_within(
        self, held: contextlib.ExitStack, row: UploadRow, target: UploadTarget, file: Partial, wait: float | None
    ) -> Completion:
        """The same, waited for at most `wait` seconds (None: to the end); an empty Completion when that is too short.

        `held` is what keeps the file ours: it passes to the thread that finishes, and ends with it.
        """
        if wait is None:
            return self.finish(row, target, file)
        owned = held.pop_all()

        def finish() -> Completion:
            with owned:
                return self.finish(row, target, file)

        return _Unattended(finish).outcome(wait) or Completion()

    def _clear(self, file: Partial, blob: Blob) -> None:
        file.remove()
        self._holds.discard(blob)

    def _record(self, row: UploadRow, state: str, told: dict[str, Any], target: UploadTarget) -> None:
        until = self._clock.now() + target.kept
        metadata = without(row.upload_metadata, target.secrets)
        outcome = partial(rows.mark_outcome, state=state, told=told, metadata=metadata, expires_at=until)
        self._store.write(partial(outcome, upload_id=row.id))


class _Unattended:
    """A call in a thread of its own, which goes on when nobody waits any more."""

    def __init__(self, call: Callable[[], Completion]) -> None:
        self._call = call
        self._ended = threading.Event()
        self._result: Completion | None = None
        self._error: Exception | None = None
        threading.Thread(target=self._run, name="grid-upload", daemon=True).start()

    def outcome(self, wait: float) -> Completion | None:
        """Its result, or None when it takes longer than `wait` seconds. Raises what the call raised by then."""
        if not self._ended.wait(wait):
            return None
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._call()
        except GridError as error:
            self._error = error
        except Exception as error:  # a fault of ours: the upload stays as it is, and is tried again at the next look
            log.exception("an upload could not be finished")
            self._error = error
        finally:
            self._ended.set()
