"""Uploads from creation to the blob, on every store; the partial file is the truth."""

import base64
import contextlib
import hashlib
import resource
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, Event

import pytest
from sqlalchemy import delete

from grid_node.blobs.factory import make_blobs
from grid_node.blobs.local import LocalBlobs
from grid_node.blobs.references import refer, release
from grid_node.blobs.store import CHUNK, Blob
from grid_node.blobs.tables import BlobReference
from grid_node.clock import ManualClock
from grid_node.database import Base, DirectStore, GroupCommitStore, Store, make_engine
from grid_node.errors import (
    BodyIncomplete,
    ChecksumMismatch,
    Forbidden,
    GridError,
    InvalidPayload,
    NotFound,
    OffsetMismatch,
    QuotaExceeded,
    RateLimited,
    Sha256Mismatch,
    StoreFull,
    StoreUnavailable,
    UploadBusy,
    UploadExpired,
    UploadNotFound,
    UploadTooLarge,
)
from grid_node.uploads import rows
from grid_node.uploads.service import REMEMBERED, Body, UploadService
from grid_node.uploads.tables import Upload
from grid_node.uploads.target import Completion, FinishedUpload, StoredTarget
from grid_node.uploads.tus import Checksum, parse_metadata
from tests.stores import call, postgres_database

CONTENT = bytes(range(251)) * 3000
"""753,000 bytes: several pieces of CHUNK and a rest."""

OWNER = "5Owner"


@dataclass
class PublishingTarget:
    """A kind of upload whose target says what `answers` tells it to say, in that order."""

    answers: list[Completion | GridError]
    kind: str = "model"
    max_bytes: int = 10**6
    open_max: int = 16
    ttl: float = 1000.0
    kept: float = 100.0
    done: str = "published"
    told: tuple[str, ...] = ("model_id", "version")
    secrets: tuple[str, ...] = ("token",)
    patience: float | None = None
    open_bytes: int | None = None
    keep: Callable[[], object] = bool
    """What it does with the blob before it answers."""
    seen: list[tuple[FinishedUpload, Blob]] = field(default_factory=list)

    def check(self, owner: str, metadata: Mapping[str, str], length: int) -> None:
        if metadata.get("model_id") == "taken":
            raise Forbidden

    def room(self, owner: str) -> int | None:
        return self.open_bytes

    def completed(self, upload: FinishedUpload, blob: Blob) -> Completion:
        self.seen.append((upload, blob))
        answer = self.answers.pop(0)
        if isinstance(answer, GridError):
            raise answer
        self.keep()
        return answer


@pytest.fixture(scope="module", params=["sqlite-group", "sqlite-direct", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One database of each kind for the whole module: making one on PostgreSQL takes its time."""
    with contextlib.ExitStack() as stack:
        if request.param == "postgresql":
            url = stack.enter_context(postgres_database())
        else:
            url = f"sqlite:///{tmp_path_factory.mktemp('database') / 'grid.db'}"
        engine = make_engine(url)
        Base.metadata.create_all(engine, tables=[Upload.__table__, BlobReference.__table__])
        made = GroupCommitStore(engine, call) if request.param == "sqlite-group" else DirectStore(engine)
        stack.callback(made.close)
        yield made


@pytest.fixture
def store(filled: Store) -> Store:
    """Without a row of the test before."""
    filled.write(lambda tx: tx.execute(delete(Upload)))
    filled.write(lambda tx: tx.execute(delete(BlobReference)))
    return filled


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs", call)


@pytest.fixture
def start(store: Store, blobs: LocalBlobs, clock: ManualClock, tmp_path: Path) -> Callable[[], UploadService]:
    """Starts the service; again after a crash, on what the one before left."""
    return lambda: UploadService(store, blobs, clock, tmp_path / "uploads", call)


@pytest.fixture
def uploads(start: Callable[[], UploadService]) -> UploadService:
    return start()


@pytest.fixture
def target() -> StoredTarget:
    return StoredTarget("worker", max_bytes=10**6, open_max=16, ttl=1000.0, kept=100.0)


def sends(content: bytes, size: int = 64 * 1024) -> Body:
    def opened(max_bytes: int) -> Iterator[bytes]:
        if len(content) > max_bytes:
            raise UploadTooLarge(limit=max_bytes)
        for at in range(0, len(content), size):
            yield content[at : at + size]

    return opened


def sends_and_fails(content: bytes, error: BaseException) -> Body:
    def opened(max_bytes: int) -> Iterator[bytes]:
        yield from sends(content)(max_bytes)
        raise error

    return opened


def metadata(**values: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


def sha256_of(content: bytes) -> Checksum:
    return Checksum("sha256", hashlib.sha256(content).digest())


def created(uploads: UploadService, target, length: int = len(CONTENT), **values: str) -> str:
    return uploads.create(OWNER, target, length, metadata(**values)).id


def uploaded(uploads: UploadService, target, **values: str) -> str:
    upload_id = created(uploads, target, **values)
    uploads.append(OWNER, target, upload_id, 0, sends(CONTENT))
    return upload_id


def offset_of(uploads: UploadService, target, upload_id: str) -> int:
    return uploads.find(OWNER, target, upload_id).offset


def take(store: Store, uploads: UploadService, upload_id: str, owner: str = OWNER, **expect: str) -> Blob:
    return store.write(lambda tx: uploads.take(tx, owner, upload_id, expect))


def test_an_upload_in_pieces_becomes_a_blob_that_can_be_taken(uploads, target, store, blobs) -> None:
    upload_id = created(uploads, target)
    for at in range(0, len(CONTENT), 300_000):
        progress = uploads.append(OWNER, target, upload_id, at, sends(CONTENT[at : at + 300_000]))
        assert progress.offset == min(len(CONTENT), at + 300_000)
    assert progress.row.state == "stored"
    blob = take(store, uploads, upload_id)
    assert blob == Blob(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert b"".join(blobs.open(blob.sha256)) == CONTENT
    assert take(store, uploads, upload_id) == blob


def test_a_finished_upload_lands_in_an_object_store_too(store, clock, target, tmp_path) -> None:
    bucket = f"memory://uploads-{uuid.uuid4().hex}"
    uploads = UploadService(store, make_blobs(bucket, tmp_path / "cache", call), clock, tmp_path / "uploads", call)
    digest = take(store, uploads, uploaded(uploads, target)).sha256
    assert b"".join(make_blobs(bucket, tmp_path / "empty", call).open(digest)) == CONTENT


def test_a_restart_goes_on_from_the_bytes_on_disk(start, target, store) -> None:
    before = start()
    upload_id = created(before, target)
    before.append(OWNER, target, upload_id, 0, sends(CONTENT[:400_001]))
    after = start()
    assert offset_of(after, target, upload_id) == 400_001
    after.append(OWNER, target, upload_id, 400_001, sends(CONTENT[400_001:]))
    assert take(store, after, upload_id).sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_a_body_that_is_cut_keeps_what_came(uploads, target, store) -> None:
    upload_id = created(uploads, target)
    with pytest.raises(BodyIncomplete):
        uploads.append(OWNER, target, upload_id, 0, sends_and_fails(CONTENT[:400_001], BodyIncomplete()))
    assert offset_of(uploads, target, upload_id) == 400_001
    uploads.append(OWNER, target, upload_id, 400_001, sends(CONTENT[400_001:]))
    assert take(store, uploads, upload_id).sha256 == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("error", [BodyIncomplete(), RuntimeError(), KeyboardInterrupt()])
def test_a_cut_body_with_a_checksum_leaves_nothing(uploads, target, store, error: BaseException) -> None:
    upload_id = created(uploads, target)
    uploads.append(OWNER, target, upload_id, 0, sends(CONTENT[:1000]), sha256_of(CONTENT[:1000]))
    broken = sends_and_fails(CONTENT[1000:600_000], error)
    with pytest.raises(type(error)):
        uploads.append(OWNER, target, upload_id, 1000, broken, sha256_of(CONTENT[1000:]))
    assert offset_of(uploads, target, upload_id) == 1000
    uploads.append(OWNER, target, upload_id, 1000, sends(CONTENT[1000:]), sha256_of(CONTENT[1000:]))
    assert take(store, uploads, upload_id).sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_a_wrong_checksum_discards_the_piece(uploads, target, store) -> None:
    upload_id = created(uploads, target)
    uploads.append(OWNER, target, upload_id, 0, sends(CONTENT[:1000]))
    with pytest.raises(ChecksumMismatch) as wrong:
        uploads.append(OWNER, target, upload_id, 1000, sends(CONTENT[1000:]), sha256_of(b"other"))
    assert wrong.value.status == 460
    assert offset_of(uploads, target, upload_id) == 1000
    uploads.append(OWNER, target, upload_id, 1000, sends(CONTENT[1000:]))
    assert take(store, uploads, upload_id).sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_unverified_bytes_do_not_count_while_they_come_in(start, target) -> None:
    """And so not after a crash either: the second service stands for the one after it."""
    uploads, other = start(), start()
    upload_id = created(uploads, target)
    uploads.append(OWNER, target, upload_id, 0, sends(CONTENT[:1000]))
    seen: list[int] = []

    def body(_: int) -> Iterator[bytes]:
        for _ in range(2):
            yield CONTENT[1000 : 1000 + CHUNK]
            seen.append(offset_of(other, target, upload_id))

    sent = CONTENT[1000 : 1000 + CHUNK] * 2
    uploads.append(OWNER, target, upload_id, 1000, body, sha256_of(sent))
    assert seen == [1000, 1000]
    assert offset_of(other, target, upload_id) == 1000 + len(sent)


def test_what_a_crash_left_unverified_is_cut_before_the_next_piece(start, target, store, tmp_path) -> None:
    before = start()
    upload_id = created(before, target)
    before.append(OWNER, target, upload_id, 0, sends(CONTENT[:1000]))
    store.write(lambda tx: rows.mark_unverified(tx, upload_id, 1000))
    with (tmp_path / "uploads" / upload_id).open("ab") as file:
        file.write(b"damaged")
    after = start()
    assert offset_of(after, target, upload_id) == 1000
    after.append(OWNER, target, upload_id, 1000, sends(CONTENT[1000:2000]))
    assert offset_of(start(), target, upload_id) == 2000
    after.append(OWNER, target, upload_id, 2000, sends(CONTENT[2000:]))
    assert take(store, after, upload_id).sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_two_at_the_same_time_is_busy(start, target) -> None:
    uploads, other = start(), start()
    upload_id = created(uploads, target)
    refused: list[str] = []

    def body(_: int) -> Iterator[bytes]:
        yield CONTENT[:1000]
        for second in (uploads, other):
            with pytest.raises(UploadBusy) as busy:
                second.append(OWNER, target, upload_id, 0, sends(b"x"))
            refused.append(busy.value.code)
            with pytest.raises(UploadBusy):
                second.terminate(OWNER, target, upload_id)

    assert uploads.append(OWNER, target, upload_id, 0, body).offset == 1000
    assert refused == ["upload_busy", "upload_busy"]
    assert uploads.append(OWNER, target, upload_id, 1000, sends(b"x")).offset == 1001


@pytest.mark.parametrize("offset", [0, 999, 1001, 10**12])
def test_a_wrong_offset_is_refused_and_told(uploads, target, offset: int) -> None:
    upload_id = created(uploads, target)
    uploads.append(OWNER, target, upload_id, 0, sends(CONTENT[:1000]))
    with pytest.raises(OffsetMismatch) as wrong:
        uploads.append(OWNER, target, upload_id, offset, sends(b"x"))
    assert wrong.value.body()["offset"] == 1000


def test_more_bytes_than_announced_are_refused(uploads, target) -> None:
    upload_id = created(uploads, target, length=10)
    with pytest.raises(UploadTooLarge):
        uploads.append(OWNER, target, upload_id, 0, sends(b"01234567890"))
    assert offset_of(uploads, target, upload_id) == 0


def test_a_full_disk_keeps_what_was_written_and_goes_on_later(uploads, target, store) -> None:
    upload_id = created(uploads, target)
    uploads.append(OWNER, target, upload_id, 0, sends(CONTENT[:300_000]))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (310_000, hard))
    try:
        with pytest.raises((StoreFull, StoreUnavailable)):
            uploads.append(OWNER, target, upload_id, 300_000, sends(CONTENT[300_000:]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert offset_of(uploads, target, upload_id) == 300_000
    uploads.append(OWNER, target, upload_id, 300_000, sends(CONTENT[300_000:]))
    assert take(store, uploads, upload_id).sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_an_upload_belongs_to_its_owner_and_its_kind(uploads, target, store) -> None:
    upload_id = uploaded(uploads, target)
    other_kind = PublishingTarget([])
    for owner, kind in (("5Other", target), (OWNER, other_kind)):
        with pytest.raises(UploadNotFound):
            uploads.find(owner, kind, upload_id)
        with pytest.raises(UploadNotFound):
            uploads.append(owner, kind, upload_id, 0, sends(b"x"))
        with pytest.raises(UploadNotFound):
            uploads.terminate(owner, kind, upload_id)
    with pytest.raises(UploadNotFound):
        take(store, uploads, upload_id, owner="5Other")


@pytest.mark.parametrize("upload_id", ["", "..", "../blobs", "x" * 65, "é", "0" * 32])
def test_an_unknown_id_is_not_found(uploads, target, store, upload_id: str) -> None:
    with pytest.raises(UploadNotFound):
        uploads.find(OWNER, target, upload_id)
    with pytest.raises(UploadNotFound):
        take(store, uploads, upload_id)


def test_an_upload_is_taken_only_for_what_it_was_made_for(uploads, target, store) -> None:
    upload_id = uploaded(uploads, target, lease_id="L1")
    with pytest.raises(UploadNotFound):
        take(store, uploads, upload_id, lease_id="L2")
    assert take(store, uploads, upload_id, lease_id="L1").size == len(CONTENT)


def test_an_incomplete_upload_cannot_be_taken(uploads, target, store) -> None:
    upload_id = created(uploads, target)
    uploads.append(OWNER, target, upload_id, 0, sends(CONTENT[:-1]))
    with pytest.raises(BodyIncomplete):
        take(store, uploads, upload_id)


def test_an_expired_upload_is_gone_then_unknown_and_leaves_no_file(uploads, target, clock, tmp_path) -> None:
    upload_id = created(uploads, target)
    uploads.append(OWNER, target, upload_id, 0, sends(b"x"))
    clock.advance(target.ttl)
    with pytest.raises(UploadExpired):
        uploads.find(OWNER, target, upload_id)
    with pytest.raises(UploadExpired):
        uploads.append(OWNER, target, upload_id, 1, sends(b"x"))
    assert uploads.expire() == 1
    assert list((tmp_path / "uploads").iterdir()) == []
    with pytest.raises(UploadExpired):
        uploads.find(OWNER, target, upload_id)
    clock.advance(REMEMBERED + 1)
    assert uploads.expire() == 0
    with pytest.raises(UploadNotFound):
        uploads.find(OWNER, target, upload_id)


def test_expiry_leaves_living_uploads_and_foreign_files_alone(uploads, target, tmp_path) -> None:
    (tmp_path / "uploads" / ".nfs0001").touch()
    upload_id = created(uploads, target)
    uploads.append(OWNER, target, upload_id, 0, sends(CONTENT[:1000]))
    assert uploads.expire() == 0
    assert offset_of(uploads, target, upload_id) == 1000


def test_the_blob_is_referenced_until_the_upload_is_past_its_time(uploads, target, clock, store) -> None:
    upload_id = uploaded(uploads, target)
    digest = take(store, uploads, upload_id).sha256
    assert uploads.referenced([digest, "0" * 64]) == {digest}
    clock.advance(target.kept)
    assert uploads.referenced([digest]) == set()
    with pytest.raises(UploadExpired):
        take(store, uploads, upload_id)


def test_a_terminated_upload_is_unknown(uploads, target, tmp_path) -> None:
    upload_id = created(uploads, target)
    uploads.append(OWNER, target, upload_id, 0, sends(CONTENT[:1000]))
    uploads.terminate(OWNER, target, upload_id)
    assert list((tmp_path / "uploads").iterdir()) == []
    for again in (uploads.find, uploads.terminate):
        with pytest.raises(UploadNotFound):
            again(OWNER, target, upload_id)


def test_open_uploads_of_an_owner_are_bounded(uploads, store) -> None:
    target = StoredTarget("worker", max_bytes=100, open_max=2, ttl=1000.0)
    first, second = created(uploads, target, 1), created(uploads, target, 1)
    with pytest.raises(RateLimited) as refused:
        created(uploads, target, 1)
    assert refused.value.body()["limit"] == 2
    assert uploads.create("5Other", target, 1, "").id
    uploads.terminate(OWNER, target, first)
    assert created(uploads, target, 1)
    uploads.append(OWNER, target, second, 0, sends(b"x"))
    with pytest.raises(RateLimited):
        created(uploads, target, 1)
    take(store, uploads, second)
    assert created(uploads, target, 1)


def test_the_bound_holds_for_uploads_made_together(uploads) -> None:
    target = StoredTarget("worker", max_bytes=100, open_max=2, ttl=1000.0)
    together = Barrier(8)

    def made(owner: str) -> bool:
        together.wait(10)
        try:
            return bool(uploads.create(owner, target, 1, "").id)
        except RateLimited:
            return False

    with ThreadPoolExecutor(8) as pool:
        counts = [sum(pool.map(made, [f"5Owner{turn}"] * 8)) for turn in range(10)]
    assert counts == [2] * 10


def test_what_the_target_refuses_at_creation_is_never_made(uploads, tmp_path) -> None:
    with pytest.raises(Forbidden):
        created(uploads, PublishingTarget([]), model_id="taken")
    with pytest.raises(InvalidPayload):
        uploads.create(OWNER, PublishingTarget([]), 1, "key not-base64")


def test_the_target_is_told_once_and_its_answer_is_kept(uploads) -> None:
    target = PublishingTarget([Completion({"model_id": "m1", "version": 2}, {"Model-Id": "m1"})])
    upload_id = created(uploads, target, model_id="m1")
    progress = uploads.append(OWNER, target, upload_id, 0, sends(CONTENT))
    assert progress.headers == {"Model-Id": "m1"}
    [(finished, blob)] = target.seen
    assert (finished.id, finished.owner, finished.metadata) == (upload_id, OWNER, {"model_id": "m1"})
    assert blob.sha256 == hashlib.sha256(CONTENT).hexdigest()
    row = uploads.find(OWNER, target, upload_id).row
    assert (row.state, row.told) == ("published", {"fields": {"model_id": "m1", "version": 2}})


def test_what_the_target_refuses_at_the_end_is_rejected_and_drops_the_bytes(uploads, blobs) -> None:
    target = PublishingTarget([Sha256Mismatch()])
    upload_id = created(uploads, target)
    with pytest.raises(Sha256Mismatch):
        uploads.append(OWNER, target, upload_id, 0, sends(CONTENT))
    row = uploads.find(OWNER, target, upload_id).row
    assert row.state == "rejected"
    assert row.told["error"]["code"] == "sha256_mismatch"
    assert uploads.referenced([row.sha256]) == set()


@pytest.mark.parametrize("answer", [Completion(), Sha256Mismatch()])
def test_a_secret_in_the_metadata_is_forgotten_with_the_outcome(uploads, answer) -> None:
    target = PublishingTarget([answer])
    upload_id = created(uploads, target, model_id="m1", token="between us", tags="[]")
    with contextlib.suppress(Sha256Mismatch):
        uploads.append(OWNER, target, upload_id, 0, sends(CONTENT))
    assert target.seen[0][0].metadata["token"] == "between us"
    row = uploads.find(OWNER, target, upload_id).row
    assert parse_metadata(row.upload_metadata) == {"model_id": "m1", "tags": "[]"}


def test_a_fault_of_ours_at_the_end_is_made_good_after_a_restart(start, tmp_path) -> None:
    target = PublishingTarget([StoreUnavailable(retry_after=1), Completion({"model_id": "m1"})])
    before = start()
    upload_id = created(before, target)
    with pytest.raises(StoreUnavailable):
        before.append(OWNER, target, upload_id, 0, sends(CONTENT))
    after = start()
    after.recover(target)
    assert len(target.seen) == 2
    assert after.find(OWNER, target, upload_id).row.state == "published"
    assert list((tmp_path / "uploads").iterdir()) == []


def test_a_whole_file_without_an_answer_is_finished_at_the_next_look(start, target, tmp_path, store) -> None:
    """The node died between the last byte and the digest."""
    before = start()
    upload_id = created(before, target)
    before.append(OWNER, target, upload_id, 0, sends(CONTENT[:1000]))
    with (tmp_path / "uploads" / upload_id).open("ab") as file:
        file.write(CONTENT[1000:])
    after = start()
    progress = after.find(OWNER, target, upload_id)
    assert (progress.offset, progress.row.state) == (len(CONTENT), "stored")
    assert take(store, after, upload_id).sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_a_repeated_last_piece_is_told_where_the_upload_stands(uploads, target) -> None:
    upload_id = uploaded(uploads, target)
    with pytest.raises(OffsetMismatch) as wrong:
        uploads.append(OWNER, target, upload_id, 0, sends(CONTENT))
    assert wrong.value.body()["offset"] == len(CONTENT)
    assert uploads.append(OWNER, target, upload_id, len(CONTENT), sends(b"")).offset == len(CONTENT)


# --- checks that take long, and bytes that nobody wants


class SlowTarget(PublishingTarget):
    """Its check ends when it is told to; `waiting` tells that it began."""

    def __init__(self, *answers: Completion | GridError, patience: float = 0.05) -> None:
        super().__init__(list(answers), patience=patience)
        self.waiting, self.go_on = Event(), Event()

    def completed(self, upload: FinishedUpload, blob: Blob) -> Completion:
        self.waiting.set()
        assert self.go_on.wait(20)
        return super().completed(upload, blob)


def until_state(uploads: UploadService, target, upload_id: str, state: str) -> None:
    deadline = time.monotonic() + 20
    while uploads.find(OWNER, target, upload_id).state != state:
        assert time.monotonic() < deadline


def test_a_check_that_takes_long_goes_on_after_the_answer(uploads) -> None:
    target = SlowTarget(Completion({"model_id": "m1", "version": 1}, {"Model-Id": "m1"}))
    upload_id = created(uploads, target)
    progress = uploads.append(OWNER, target, upload_id, 0, sends(CONTENT))
    assert (progress.offset, progress.headers, progress.state) == (len(CONTENT), {}, "checking")
    assert uploads.find(OWNER, target, upload_id).state == "checking"
    with pytest.raises(UploadBusy):
        uploads.terminate(OWNER, target, upload_id)
    target.go_on.set()
    until_state(uploads, target, upload_id, "published")
    assert uploads.find(OWNER, target, upload_id).row.told["fields"] == {"model_id": "m1", "version": 1}
    assert len(target.seen) == 1


def test_a_check_within_the_patience_is_waited_for(uploads) -> None:
    target = SlowTarget(Completion({}, {"Model-Id": "m1"}), patience=20.0)
    target.go_on.set()
    upload_id = created(uploads, target)
    assert uploads.append(OWNER, target, upload_id, 0, sends(CONTENT)).headers == {"Model-Id": "m1"}
    refusing = SlowTarget(Sha256Mismatch(), patience=20.0)
    refusing.go_on.set()
    with pytest.raises(Sha256Mismatch):
        uploads.append(OWNER, refusing, created(uploads, refusing), 0, sends(CONTENT))


def test_a_refusal_that_nobody_waited_for_is_told_later(uploads, blobs) -> None:
    target = SlowTarget(Sha256Mismatch())
    upload_id = created(uploads, target)
    uploads.append(OWNER, target, upload_id, 0, sends(CONTENT))
    target.go_on.set()
    until_state(uploads, target, upload_id, "rejected")
    assert uploads.find(OWNER, target, upload_id).row.told["error"]["code"] == "sha256_mismatch"
    deadline = time.monotonic() + 20
    while blobs_in(blobs):
        assert time.monotonic() < deadline


def test_a_restart_finishes_in_the_background_what_was_whole(start) -> None:
    target = SlowTarget(StoreUnavailable(retry_after=1), Completion({"model_id": "m1"}), patience=20.0)
    target.go_on.set()
    before = start()
    upload_id = created(before, target)
    with pytest.raises(StoreUnavailable):
        before.append(OWNER, target, upload_id, 0, sends(CONTENT))
    target.go_on.clear()
    target.waiting.clear()
    after = start()
    after.recover(target)
    assert target.waiting.wait(20)
    assert after.find(OWNER, target, upload_id).state == "checking"
    target.go_on.set()
    until_state(after, target, upload_id, "published")


def test_a_fault_in_the_background_is_made_good_by_the_next_look(uploads) -> None:
    target = SlowTarget(StoreUnavailable(retry_after=1), Completion({"model_id": "m1"}))
    upload_id = created(uploads, target)
    uploads.append(OWNER, target, upload_id, 0, sends(CONTENT))
    target.patience = 20.0
    target.go_on.set()
    until_state(uploads, target, upload_id, "published")
    assert len(target.seen) == 2


def test_refused_bytes_are_gone_at_once_unless_somebody_else_has_the_same(uploads, target, blobs) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    for kept in (False, True):
        if kept:
            uploaded(uploads, target)
        refusing = PublishingTarget([Sha256Mismatch()])
        with pytest.raises(Sha256Mismatch):
            uploads.append(OWNER, refusing, created(uploads, refusing), 0, sends(CONTENT))
        assert (digest in {path.name for path in blobs_in(blobs)}) is kept


def test_published_bytes_are_the_models_alone(uploads, store, blobs, clock) -> None:
    """What the target referred to stays; what it did not, as the plaintext of shares, is gone."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    keeping = PublishingTarget([Completion()], keep=lambda: store.write(lambda tx: refer(tx, "model-1-1", [digest])))
    uploaded(uploads, keeping)
    assert uploads.referenced([digest]) == set()
    assert blobs.size(digest) == len(CONTENT)
    store.write(lambda tx: release(tx, ["model-1-1"]))
    uploaded(uploads, PublishingTarget([Completion()]))
    with pytest.raises(NotFound):
        blobs.size(digest)


def test_an_upload_that_is_terminated_before_its_outcome_leaves_no_bytes(uploads, blobs) -> None:
    target = PublishingTarget([StoreUnavailable(retry_after=1)])
    upload_id = created(uploads, target)
    with pytest.raises(StoreUnavailable):
        uploads.append(OWNER, target, upload_id, 0, sends(CONTENT))
    assert len(blobs_in(blobs)) == 1
    uploads.terminate(OWNER, target, upload_id)
    assert blobs_in(blobs) == []


def test_an_upload_whose_bytes_were_lost_begins_anew(uploads, blobs, tmp_path) -> None:
    target = PublishingTarget([StoreUnavailable(retry_after=1), Completion()])
    upload_id = created(uploads, target)
    with pytest.raises(StoreUnavailable):
        uploads.append(OWNER, target, upload_id, 0, sends(CONTENT))
    blobs.delete(hashlib.sha256(CONTENT).hexdigest())
    (tmp_path / "uploads" / upload_id).unlink()
    with pytest.raises(StoreUnavailable):
        uploads.find(OWNER, target, upload_id)
    standing = uploads.find(OWNER, target, upload_id)
    assert (standing.offset, standing.state) == (0, "receiving")
    assert uploads.append(OWNER, target, upload_id, 0, sends(CONTENT)).state == "published"


def test_the_bytes_of_open_uploads_are_bounded_together(uploads) -> None:
    target = PublishingTarget([Completion(), Completion()], open_bytes=2 * len(CONTENT))
    first, second = created(uploads, target), created(uploads, target)
    with pytest.raises(QuotaExceeded) as refused:
        created(uploads, target, 1)
    assert (refused.value.body()["used"], refused.value.body()["limit"]) == (2 * len(CONTENT), 2 * len(CONTENT))
    uploads.terminate(OWNER, target, first)
    assert created(uploads, target, 1)
    uploads.append(OWNER, target, second, 0, sends(CONTENT))
    assert created(uploads, target, len(CONTENT))


def blobs_in(blobs: LocalBlobs) -> list[Path]:
    return list(blobs._root.glob("??/??/*"))
