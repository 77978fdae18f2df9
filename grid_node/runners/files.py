"""Files of workers and clients: bytes under a key that cannot be guessed, each for a time.

A row is what a file is; its bytes are a blob that the key refers to. Bytes are stored, held, and referred to in the
transaction that makes the row, so that no row is without its bytes and nothing stays of an upload that failed.
"""

import contextlib
import mimetypes
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from grid_node.blobs.holds import Hold, Holds
from grid_node.blobs.references import refer, release
from grid_node.blobs.store import Blob, Blobs
from grid_node.clock import Clock, rfc3339
from grid_node.database import Store, Transaction
from grid_node.errors import FileExpired, FileNotFound, FileTooLarge, GridError, PredictionClosed, UploadQuotaExceeded
from grid_node.runners import file_rows as rows
from grid_node.runners.cursors import cursor_of, place_of
from grid_node.runners.data_urls import decoded
from grid_node.runners.file_rows import DATA, INPUT, OUTPUT, FileInfo, Room
from grid_node.runners.ids import file_key
from grid_node.runners.incoming import DiskFloor, Incoming, storage_errors
from grid_node.runners.naming import UploadName, clean_name, extension_of, parse_upload_name, possible_ids
from grid_node.runners.prediction import Prediction
from grid_node.settings import Settings

PAGE = 100
"""Files in one answer."""
TOLD = 7 * 86400.0
"""Seconds for which an expired file is told from one that never was."""
FILES_URL = "/pc/client-api/files/"
OCTETS = "application/octet-stream"

_KEY = re.compile(r"[a-z2-7]{32}(\.[a-z0-9]{1,10})?")
_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+[ -~]*", re.ASCII)
_TYPE_MAX = 255
_CURSOR = "files"
_EXPIRE = 200
"""Files that one transaction lets expire."""
_STRINGS = 10_000
"""Texts of an output that are looked at."""


@dataclass(frozen=True, kw_only=True)
class NewFile:
    """What is known of a file before its bytes. `prediction` is a number, `prediction_id` what its owner calls it."""

    owner: str
    kind: str
    filename: str
    content_type: str | None = None
    prediction: int | None = None
    prediction_id: str | None = None
    index: int | None = None
    label: str | None = None
    about: dict[str, Any] = field(default_factory=dict)


class Stored(NamedTuple):
    """`is_new`: it was not there before."""

    file: FileInfo
    is_new: bool


class FilePage(NamedTuple):
    files: list[FileInfo]
    next: str | None


class _JustKnown(Exception):
    """The first report of its prediction came while the file waited: it must be held before the key's count is."""


class RunnerFiles:
    """`folder` is where the disk's free space is looked at."""

    def __init__(
        self, store: Store, clock: Clock, settings: Settings, blobs: Blobs, holds: Holds, folder: Path
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._blobs = blobs
        self._holds = holds
        self._floor = DiskFloor(folder, settings.upload_disk_floor_bytes)
        self._prefix = settings.public_url + FILES_URL
        self._unwanted: deque[Blob] = deque()

    def url_of(self, file: FileInfo) -> str:
        return self._prefix + file.key

    # --- in

    def named(self, owner: str, file_name: str, prediction_id: str | None, content_type: str | None) -> NewFile:
        """What a worker's upload is, by its name and headers."""
        possible = possible_ids(file_name) if prediction_id is None else []
        known = self._store.read(partial(rows.known_ids, runner_owner=owner, ids=possible)) if possible else set()
        name: UploadName = parse_upload_name(file_name, prediction_id, known)
        return NewFile(owner=owner, kind=OUTPUT, content_type=content_type, **asdict(name))

    def check(self, new: NewFile, length: int | None) -> None:
        """What can be refused before any byte. `length` is None while it is not known.

        Raises PredictionClosed, FileTooLarge, UploadQuotaExceeded, StorageFull.
        """
        size = length or 0
        if size > self._settings.upload_max_bytes:
            raise FileTooLarge(limit=self._settings.upload_max_bytes)
        self._floor.check(size)
        self._store.read(partial(self._check_room, new=new, size=size))

    def receive(self, new: NewFile, pieces: Iterable[bytes]) -> Stored:
        """What a worker sends again, for the same place and under the same name, is the same file.

        Raises what `check` does, and whatever `pieces` raises; then nothing is kept.
        """
        with self.incoming() as incoming:
            for piece in pieces:
                incoming.write(piece)
            return self.keep(new, incoming)

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """Bytes to be kept; what is not kept is gone when the block ends. Raises StorageFull."""
        self._floor.check()
        limit = self._settings.upload_max_bytes
        with contextlib.ExitStack() as stack:
            with storage_errors(limit):
                writer = stack.enter_context(self._blobs.writer(limit))
            yield Incoming(writer, limit, self._floor)

    def keep(self, new: NewFile, incoming: Incoming) -> Stored:
        """Raises PredictionClosed, UploadQuotaExceeded, StorageFull, StoreUnavailable."""
        blob = incoming.commit()
        key = file_key(extension_of(new.filename))
        with storage_errors(self._settings.upload_max_bytes), self._holds.hold(blob) as held:
            file = partial(_file, key, new, blob, incoming.sniffed)
            unit = partial(self._insert, new=new, make=file, held=held)
            try:
                return self._store.write(unit)
            except _JustKnown:
                return self._store.write(unit)

    def keep_data(self, owner: str, url: str, prediction: Prediction | None = None) -> str:
        """A file that came as a `data:` URL, as an address of ours; the same again is the same file.

        Raises ValueError for what is none, and what `receive` raises. Not inside a unit of work.
        """
        content_type, pieces = decoded(url)
        with self.incoming() as incoming:
            for piece in pieces:
                incoming.write(piece)
            filename = clean_name("data" + (mimetypes.guess_extension(content_type) or ""))
            number = None if prediction is None else prediction.number or None
            name = None if prediction is None else prediction.id
            new = NewFile(
                owner=owner,
                kind=DATA,
                filename=filename,
                content_type=content_type,
                prediction=number,
                prediction_id=name,
            )
            return self.url_of(self.keep(new, incoming).file)

    # --- out

    def open_key(self, key: str) -> FileInfo:
        """Raises FileNotFound, FileExpired."""
        file = self._store.read(partial(rows.by_key, key=key)) if _KEY.fullmatch(key) else None
        return self._there(file)

    def known(self, tx: Transaction, urls: Iterable[str]) -> dict[str, FileInfo]:
        """Those addresses that are ours, with their files; also of files that have expired."""
        keys = {url: url[len(self._prefix) :] for url in urls if url.startswith(self._prefix)}
        found = rows.by_keys(tx, (key for key in keys.values() if _KEY.fullmatch(key)))
        return {url: found[key] for url, key in keys.items() if key in found}

    def of_prediction(self, tx: Transaction, prediction: Prediction) -> list[FileInfo]:
        """What its worker sent for it, as far as that said so."""
        return [file for file in rows.of_prediction(tx, prediction.number) if file.kind == OUTPUT]

    def link(self, tx: Transaction, prediction: Prediction) -> None:
        """A row was made for a prediction that may have sent files before: they are its own from now on. Who sends
        one at this moment waits for the key's count, and sees the row then."""
        rows.held_usage(tx, prediction.runner_owner)
        rows.link(tx, prediction.runner_owner, prediction.id, prediction.number)

    def claim(self, tx: Transaction, prediction: Prediction, files: Iterable[FileInfo]) -> None:
        """Its output names files that were sent without saying for what: they are its own, and go with it."""
        own = (prediction.owner, prediction.runner_owner)
        rows.claim(tx, prediction.number, [file.key for file in files if file.owner in own])

    # --- of clients

    def input_page(self, owner: str, cursor: str | None) -> FilePage:
        """The files that a client sent, newest first. Raises BadCursor."""
        place = None if cursor is None else place_of(_CURSOR, cursor, float, str)
        edge = None if place is None else (place[0], place[1])
        found = self._store.read(partial(rows.inputs_of, owner=owner, edge=edge, limit=PAGE + 1))
        page = found[:PAGE]
        more = len(found) > PAGE
        return FilePage(page, cursor_of(_CURSOR, page[-1].created_at, page[-1].key) if more else None)

    def input_file(self, owner: str, key: str) -> FileInfo:
        """Raises FileNotFound, FileExpired."""
        return self._own(owner, self._store.read(partial(rows.by_key, key=key)) if _KEY.fullmatch(key) else None)

    def delete_input(self, owner: str, key: str) -> None:
        """Raises FileNotFound, FileExpired."""
        self.input_file(owner, key)
        self._store.write(partial(self._delete_input, owner=owner, key=key))
        self._bury()

    def view(self, file: FileInfo) -> dict[str, Any]:
        """A client's file as Replicate's API tells of it (https://replicate.com/docs/reference/http#files.get)."""
        return {
            "id": file.key,
            "name": file.filename,
            "content_type": file.content_type,
            "size": file.size,
            "etag": file.sha256,
            "checksums": {"sha256": file.sha256},
            "metadata": file.about,
            "created_at": rfc3339(file.created_at),
            "expires_at": rfc3339(file.expires_at),
            "urls": {"get": self.url_of(file)},
        }

    # --- away

    def forget_prediction(self, tx: Transaction, prediction: Prediction) -> None:
        """Its files are gone after the commit: those sent for it, and those that only its output or input names.

        A file that a client uploaded stays his.
        """
        named = self.known(tx, _strings([prediction.output, prediction.input]))
        loose = [file for file in named.values() if _only_for(file, prediction)]
        found = {file.key: file for file in [*rows.of_prediction(tx, prediction.number), *loose]}
        self._remove(tx, list(found.values()))

    def expire(self) -> int:
        """Let go of what is past its time, and of what was removed; how many files that were. Every few seconds."""
        count = 0
        while gone := self._store.write(self._expire):
            count += len(gone)
        self._bury()
        return count

    # --- units of work

    def _insert(self, tx: Transaction, new: NewFile, make: Any, held: Hold) -> Stored:
        held.release(tx)
        now, size = self._clock.now(), held.blob.size
        room = self._check_room(tx, new, 0, hold=True)
        used = rows.held_usage(tx, new.owner)
        if room is not None and room.number is None and _is_known(tx, new):
            raise _JustKnown()
        file: FileInfo = make(room, now, now + self._settings.file_ttl_s)
        same = rows.same_file(tx, file) if _may_be_the_same(file) else None
        if same is not None:
            rows.renew(tx, same.key, file.expires_at)
            return Stored(replace(same, expires_at=file.expires_at), False)
        self._check_size(room, used, size)
        rows.insert_file(tx, file)
        refer(tx, file.key, [file.sha256])
        rows.use(tx, new.owner, size)
        if file.prediction is not None:
            rows.count(tx, file.prediction, [size])
        return Stored(file, True)

    def _check_room(self, tx: Transaction, new: NewFile, size: int, *, hold: bool = False) -> Room | None:
        """The prediction that the file is for. With `hold` it is held, and its size is left to `_check_size`."""
        room = _room(tx, new, hold)
        if room is not None:
            self._check_open(room, new.kind)
        if not hold:
            self._check_size(room, rows.usage_of(tx, new.owner), size)
        return room

    def _check_open(self, room: Room, kind: str) -> None:
        """Nothing comes back to a prediction whose data were removed; a worker's files come until a while after it."""
        edge = self._clock.now() - self._settings.upload_late_s
        is_late = kind == OUTPUT and room.finished_at is not None and room.finished_at < edge
        if room.data_removed or is_late:
            raise PredictionClosed()

    def _check_size(self, room: Room | None, used: int, size: int) -> None:
        limits = self._settings
        _within(used + size, limits.upload_per_owner_bytes, used)
        if room is not None:
            _within(room.files_bytes + size, limits.upload_per_prediction_bytes, room.files_bytes)
            _within(room.files + 1, limits.upload_per_prediction_files, room.files)

    def _delete_input(self, tx: Transaction, owner: str, key: str) -> None:
        file = rows.by_key(tx, key)
        if file is not None and file.owner == owner and not file.removed:
            self._remove(tx, [file])

    def _expire(self, tx: Transaction) -> list[FileInfo]:
        now = self._clock.now()
        due = rows.due(tx, now, _EXPIRE)
        for owner in sorted({file.owner for file in due}):  # as an upload does: the key's count before its files
            rows.held_usage(tx, owner)
        gone = rows.expire(tx, [file.key for file in due])
        self._let_go(tx, gone)
        rows.forget_expired(tx, now - TOLD)
        return gone

    def _remove(self, tx: Transaction, found: list[FileInfo]) -> None:
        """Each file once, whoever else removes it or lets it expire at the same time."""
        for owner in sorted({file.owner for file in found}):
            rows.held_usage(tx, owner)
        gone = rows.remove(tx, found)
        self._let_go(tx, [file for file in gone if not file.removed])

    def _let_go(self, tx: Transaction, gone: list[FileInfo]) -> None:
        """Nobody needs these bytes for the files any more."""
        if not gone:
            return
        release(tx, [file.key for file in gone])
        for file in sorted(gone, key=lambda file: file.owner):
            rows.use(tx, file.owner, -file.size)
        tx.on_commit(lambda: self._unwanted.extend(Blob(file.sha256, file.size) for file in gone))

    def _bury(self) -> None:
        """Free the disk of what nobody needs; what fails now is left to the sweep."""
        unwanted: list[Blob] = []
        with contextlib.suppress(IndexError):
            while True:
                unwanted.append(self._unwanted.popleft())
        for blob in unwanted:
            with contextlib.suppress(GridError):
                self._holds.discard(blob)

    # --- looks

    def _there(self, file: FileInfo | None) -> FileInfo:
        if file is None:
            raise FileNotFound()
        if file.removed or file.expires_at <= self._clock.now():
            raise FileExpired()
        return file

    def _own(self, owner: str, file: FileInfo | None) -> FileInfo:
        """A file of somebody else is none."""
        return self._there(file if file is not None and file.owner == owner and file.kind == INPUT else None)


def _file(
    key: str, new: NewFile, blob: Blob, sniffed: str | None, room: Room | None, now: float, expires_at: float
) -> FileInfo:
    return FileInfo(
        key=key,
        owner=new.owner,
        kind=new.kind,
        prediction=None if room is None else room.number,
        prediction_id=new.prediction_id,
        index=new.index,
        label=new.label,
        filename=new.filename,
        content_type=_content_type(new, sniffed),
        sniffed=sniffed,
        size=blob.size,
        sha256=blob.sha256,
        about=new.about,
        created_at=now,
        expires_at=expires_at,
    )


def _content_type(new: NewFile, sniffed: str | None) -> str:
    """As it was said, if that can stand in a header; else by the bytes, else by the name."""
    said = (new.content_type or "").strip()
    if len(said) <= _TYPE_MAX and _TYPE.fullmatch(said):
        return said
    return sniffed or mimetypes.guess_type(new.filename)[0] or OCTETS


def _room(tx: Transaction, new: NewFile, hold: bool) -> Room | None:
    if new.prediction is not None:
        return rows.room_of_number(tx, new.prediction, hold=hold)
    if new.prediction_id is not None and new.kind == OUTPUT:
        return rows.room_of_id(tx, new.owner, new.prediction_id, hold=hold)
    return None


def _is_known(tx: Transaction, new: NewFile) -> bool:
    room = _room(tx, new, hold=False)
    return room is not None and room.number is not None


def _within(wanted: int, limit: int, used: int) -> None:
    if wanted > limit:
        raise UploadQuotaExceeded(used=used, limit=limit)


def _may_be_the_same(file: FileInfo) -> bool:
    """Workers send again what got no answer. What a client sends twice are two files: he may remove one."""
    return file.kind == OUTPUT or (file.kind == DATA and file.prediction is not None)


def _only_for(file: FileInfo, prediction: Prediction) -> bool:
    """Made by or for this prediction, though nothing said so when it came."""
    if file.prediction is not None or file.kind == INPUT:
        return False
    return file.owner in {prediction.owner, prediction.runner_owner}


def _strings(value: Any) -> Iterator[str]:
    """The texts within a value, at most _STRINGS of them."""
    pending, found = [value], 0
    while pending and found < _STRINGS:
        one = pending.pop()
        if isinstance(one, str):
            found += 1
            yield one
        elif isinstance(one, dict):
            pending.extend(one.values())
        elif isinstance(one, list):
            pending.extend(one)
