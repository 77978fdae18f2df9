"""Reports of workers: taken, kept as they came, and merged into what they are about.

A worker posts in line and without a deadline of its own, so an answer waits for nothing but one commit. Large reports
and those with files in them are kept first and merged after: the former by a job, the latter right away but in a unit
of their own. Which terminal report came first is decided by their order in the log: one that comes while another
waits to be merged waits too.
"""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

from grid_node.clock import Clock
from grid_node.database import Offload, Store, Transaction, plain_call
from grid_node.errors import (
    FileTooLarge,
    GridError,
    InvalidToken,
    InvalidWebhook,
    PredictionMismatch,
    RunnerInvalidJson,
    RunnerPredictionNotFound,
    StoreUnavailable,
)
from grid_node.runners.changes import Changes
from grid_node.runners.data_urls import is_data_url
from grid_node.runners.event_log import (
    OFFLOADED,
    PAGE_MAX,
    Entry,
    EventLog,
    Packed,
    ReportPage,
    event_by_id,
    first_waiting,
    unmerged_before,
)
from grid_node.runners.file_rows import FileInfo
from grid_node.runners.ids import prediction_of_token
from grid_node.runners.merge import Uploads, merge, urls_in
from grid_node.runners.models import signature_at
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.prediction import (
    EXTERNAL,
    HIDDEN,
    STARTING,
    SUCCEEDED,
    Prediction,
    by_number,
    held,
    held_by_id,
    held_of_runner,
    of_owner,
)
from grid_node.runners.report import Report, id_of, mapped_texts, read_report, texts_in
from grid_node.settings import Settings

log = logging.getLogger(__name__)

IN_LINE = 256 * 1024
"""Bytes of a report up to which it is merged before its answer."""
FILES_IN_LINE = 8
"""Files in a report that are stored before its answer; each takes a commit and an fsync."""
FORGOTTEN, OVERDUE = 5.0, 60.0
"""Seconds after which a report that waits is given to the jobs again, and after which this process merges it."""
TOKEN, KEY = "token", "key"
_FILES = re.compile(r"\b(Path|File)\b")
"""In the type of an output: it is made of files."""


class ReportedFiles(Protocol):
    """The files that outputs may name."""

    def keep_data(self, owner: str, url: str, prediction: Prediction | None) -> str:
        """Store what is inside a data: URL and return the file's own. Raises ValueError, GridError."""

    def known(self, tx: Transaction, urls: Iterable[str]) -> dict[str, FileInfo]:
        """Those of the URLs that are files of this node."""

    def of_prediction(self, tx: Transaction, prediction: Prediction) -> list[FileInfo]:
        """What was uploaded for it."""

    def link(self, tx: Transaction, prediction: Prediction) -> None:
        """Files that came for it before its row are its own."""

    def claim(self, tx: Transaction, prediction: Prediction, files: Iterable[FileInfo]) -> None:
        """Files that came for nothing known are its own."""


@dataclass(frozen=True, slots=True)
class _Sender:
    """Who reports: how it was let in, what its reports are called before their row is known, and how that is found."""

    auth: str
    name: str
    find: Callable[[Transaction, float], Prediction]


class _Kept(NamedTuple):
    """What became of a report: its row in the log, whether it must yet be merged, and whether a job should do that."""

    event: int | None
    waits: bool
    by_job: bool


class Webhooks:
    """Takes reports. Everything raises StoreUnavailable when the database is locked or away."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        changes: Changes,
        files: ReportedFiles,
        secret: bytes,
        offload: Offload = plain_call,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._changes = changes
        self._files = files
        self._secret = secret
        self._offload = offload
        self._log = EventLog(settings.events_per_prediction, settings.events_per_prediction_bytes, offload)
        self.enqueue: Callable[[int], None] = lambda _event: None
        """Have `merge_stored` called in a job; what it forgets, `sweep` finds."""

    # --- taking ----------------------------------------------------------------------------------------------------

    def admitted(self, token: str) -> str:
        """The prediction that this token may report of; before a byte of the body is read. Raises InvalidToken."""
        id = prediction_of_token(self._secret, token)
        if id is None:
            raise InvalidToken()
        return id

    def by_token(self, token: str, raw: bytes) -> None:
        """Raises InvalidToken, RunnerInvalidJson, InvalidWebhook, PredictionMismatch, RunnerPredictionNotFound."""
        id = self.admitted(token)
        report = read_report(raw) if len(raw) <= IN_LINE else None
        if report is not None and report.id != id:
            raise PredictionMismatch()
        self._receive(_Sender(TOKEN, f"/{id}", lambda tx, _now: _of_node(tx, id)), raw, report)

    def by_key(self, caller: RunnerCaller, raw: bytes) -> None:
        """An id that is not known makes a prediction of the caller's own. Raises RunnerInvalidJson, InvalidWebhook."""
        report = read_report(raw) if len(raw) <= IN_LINE else None
        id = id_of(raw) if report is None else report.id
        self._receive(_Sender(KEY, f"{caller.owner}/{id}", partial(self._of_worker, caller=caller, id=id)), raw, report)

    def too_large(self, token: str) -> None:
        """A report came that nobody will read: what it was about has failed. Raises InvalidToken."""
        self._store.write(partial(self._refuse, id=self.admitted(token)))

    def _refuse(self, tx: Transaction, id: str) -> None:
        before = held_by_id(tx, id)
        if before is not None:
            limit = self._settings.webhook_in_max_bytes
            self._changes.fail(tx, before, f"The runner's result is larger than {limit} bytes.")

    def _of_worker(self, tx: Transaction, now: float, caller: RunnerCaller, id: str) -> Prediction:
        found = held_of_runner(tx, caller.owner, id)
        if found is not None:
            return found
        made = self._changes.insert(tx, _external(caller, id, now, now + self._settings.prediction_ttl_s))
        self._files.link(tx, made)
        return made

    def _receive(self, sender: _Sender, raw: bytes, report: Report | None) -> None:
        packed = self._log.packed(sender.name, raw)
        kept = self._store.write(partial(self._keep, sender=sender, packed=packed, report=report))
        if kept.waits and kept.event is not None:
            (self.enqueue if kept.by_job else self.merge_stored)(kept.event)

    def _keep(self, tx: Transaction, sender: _Sender, packed: Packed, report: Report | None) -> _Kept:
        """Log it, and merge it if that can be done here and now."""
        now = self._clock.now()
        before = sender.find(tx, now)
        others = not before.ended and first_waiting(tx, before.number) is not None
        waits = not before.ended and (report is None or _has_data(report) or (report.ends and others))
        after = replace(before, reported_at=now)
        if report is not None and not waits:
            after = merge(after, report, now, self._uploads(tx, before, report))
        said, ends = (None, False) if report is None else (report.said, report.ends)
        entry = Entry(now, sender.auth, said, late=before.ended, merged=not waits, ends=ends)
        after, event = self._log.append(tx, after, packed, entry)
        self._changes.apply(tx, before, after)
        by_job = waits and (report is None or others or _has_data(report, FILES_IN_LINE))
        return _Kept(event, waits, by_job)

    # --- merging later ---------------------------------------------------------------------------------------------

    def merge_stored(self, event: int) -> None:
        """Merge this report, and those of its prediction that came before it and still wait."""
        row = self._store.read(partial(event_by_id, event=event))
        if row is not None and not row.merged:
            self._merge_waiting(row.prediction)

    def sweep(self) -> None:
        """Reports that wait for long are given to the jobs again; those that wait too long are merged here."""
        now = self._clock.now()
        for row in self._store.read(partial(unmerged_before, edge=now - FORGOTTEN)):
            if now - row.received_at < OVERDUE:
                self.enqueue(row.id)
                continue
            try:
                self.merge_stored(row.id)
            except Exception:
                log.exception("a report could not be merged", extra={"event": row.id})

    def _merge_waiting(self, number: int) -> None:
        """In the order in which they came."""
        while (row := self._store.read(partial(first_waiting, number=number))) is not None:
            self._merge_one(row)

    def _merge_one(self, row: Any) -> None:
        prediction, raw = self._store.read(lambda tx: (by_number(tx, row.prediction), self._log.raw(tx, row)))
        report = None
        if prediction is not None and raw is not None:
            report = self._readable(raw, prediction)
        if report is not None and prediction is not None and not prediction.ended:
            report = self._with_files(report, prediction)
        self._store.write(partial(self._settle, row=row, report=report))

    def _readable(self, raw: bytes, prediction: Prediction) -> Report | None:
        """None for what would have been refused, had it been read when it came."""
        try:
            read: Report = self._offload(read_report, raw) if len(raw) > OFFLOADED else read_report(raw)
        except (RunnerInvalidJson, InvalidWebhook) as error:
            log.warning("a large report is not valid: %s", error.code)
            return None
        return read if read.id == prediction.id else None

    def _settle(self, tx: Transaction, row: Any, report: Report | None) -> None:
        """Once, whoever else does the same."""
        before = held(tx, row.prediction)
        still = event_by_id(tx, row.id)
        if still is None or still.merged:
            return
        if before is not None and report is not None and not before.ended:
            after = merge(before, report, self._clock.now(), self._uploads(tx, before, report))
            self._changes.apply(tx, before, after)
        ended = before is not None and not before.ended and report is not None and report.ends
        status = None if report is None else report.said
        self._log.settle(tx, row, late=before is not None and before.ended, status=status, ended=ended)

    # --- files -----------------------------------------------------------------------------------------------------

    def _with_files(self, report: Report, prediction: Prediction) -> Report:
        """What is inside data: URLs becomes files of the prediction; what cannot be kept stays as it is."""

        full = False

        def kept(text: str) -> str:
            nonlocal full
            if full or not is_data_url(text):
                return text
            try:
                return self._files.keep_data(prediction.runner_owner, text, prediction)
            except StoreUnavailable:
                raise
            except (ValueError, FileTooLarge):
                return text
            except GridError:  # there is no room, for what follows either
                full = True
                return text

        return replace(report, output=mapped_texts(report.output, kept)) if _has_data(report) else report

    def _uploads(self, tx: Transaction, before: Prediction, report: Report) -> Uploads:
        """What must be known of files to merge this report; nothing is asked that it does not need."""
        urls = set() if before.ended else urls_in(report.output)
        if report.ends and report.status == SUCCEEDED:
            urls |= urls_in(before.output)
        known = self._known(tx, before, urls) if urls else {}
        if before.ended or report.status != SUCCEEDED or not isinstance(report.output, list | None):
            return Uploads(known)
        came = frozenset(file.index for file in self._files.of_prediction(tx, before) if file.index is not None)
        return Uploads(known, came, not report.output and _promises_files(tx, before))

    def _known(self, tx: Transaction, before: Prediction, urls: set[str]) -> dict[str, FileInfo]:
        """Files of whoever runs it or asked for it; a file of somebody else is as foreign as any other address."""
        found = self._files.known(tx, urls).items()
        known = {url: file for url, file in found if file.owner in (before.runner_owner, before.owner)}
        strays = [file for file in known.values() if file.prediction is None]
        if strays:
            self._files.claim(tx, before, strays)
        return known

    # --- reading ---------------------------------------------------------------------------------------------------

    def events(
        self, caller: RunnerCaller, id: str, after: int = 0, limit: int = PAGE_MAX, *, as_text: bool = False
    ) -> ReportPage:
        """The raw reports of a prediction above seq `after`. `body` is the JSON as data, or with `as_text` exactly
        as it came; null where it is not kept. Raises RunnerPredictionNotFound."""

        def unit(tx: Transaction) -> ReportPage:
            prediction = of_owner(tx, caller.owner, id)
            if prediction is None:
                raise RunnerPredictionNotFound()
            return self._log.page(tx, prediction.number, after, limit, as_text=as_text)

        return self._store.read(unit)


def _of_node(tx: Transaction, id: str) -> Prediction:
    found = held_by_id(tx, id)
    if found is None:
        raise RunnerPredictionNotFound()
    return found


def _external(caller: RunnerCaller, id: str, now: float, due_at: float) -> Prediction:
    """A prediction that this node only hears of."""
    return Prediction(
        id=id,
        owner=caller.owner,
        runner_owner=caller.owner,
        model_id=None,
        model=f"{caller.account}/external",
        version=HIDDEN,
        source=EXTERNAL,
        state=STARTING,
        input={},
        due_at=due_at,
        created_at=now,
    )


def _has_data(report: Report, more_than: int = 0) -> bool:
    found = (text for text in texts_in(report.output) if is_data_url(text))
    return next(islice(found, more_than, None), None) is not None


def _promises_files(tx: Transaction, before: Prediction) -> bool:
    """Whether the model's outputs are files: one that succeeded has some. Coglet 0.20.0 says so after a refused
    upload too, and then has none."""
    if before.model_id is None:
        return False
    signature = signature_at(tx, before.model_id, before.version)
    return (
        signature is not None
        and not signature.outputs.startswith("Optional")
        and bool(_FILES.search(signature.outputs))
    )
