"""Damaged files: never served whole, remembered, found by the scrub, healed by the same bytes."""

import hashlib
import json
import uuid
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import insert

from grid_node.blobs.factory import make_blobs
from grid_node.blobs.local import LocalBlobs
from grid_node.blobs.store import CHUNK, Blob
from grid_node.clock import ManualClock
from grid_node.database import Store
from grid_node.errors import AssetTooLarge, ModelCorrupt
from grid_node.hosting.integrity import Damages, GuardedBlobs
from grid_node.hosting.scrub import PACE, SLICE, Scrub
from grid_node.hosting.tables import ModelVersion
from tests.stores import call, postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

CONTENT = bytes(range(256)) * 2048
INTERVAL = 1000.0


@pytest.fixture
def raw(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs", call)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def found() -> list[int]:
    return []


@pytest.fixture
def damages(store: Store, clock: ManualClock, found: list[int]) -> Damages:
    return Damages(store, clock, lambda: found.append(1))


@pytest.fixture
def blobs(raw: LocalBlobs, damages: Damages) -> GuardedBlobs:
    return GuardedBlobs(raw, damages)


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def scrub(store, raw, damages, clock, tmp_path, waits) -> Scrub:
    return Scrub(store, raw, damages, clock, tmp_path / "scrub.json", INTERVAL, waits.append)


def damage(blobs: LocalBlobs, blob: Blob, at: int = 0) -> None:
    with blobs.path(blob.sha256).open("r+b") as file:
        file.seek(at)
        was = file.read(1)
        file.seek(at)
        file.write(bytes([was[0] ^ 1]))


def named(store: Store, *digests: str) -> None:
    rows = [
        {
            "model": number,
            "version": 1,
            "owner": "",
            "sha256": digest,
            "size": 1,
            "format": "opaque",
            "allow_download": True,
            "allow_remote_inference": False,
            "mpc": False,
            "tags": "[]",
            "description": "",
            "created_at": 0.0,
            "kills": 0,
        }
        for number, digest in enumerate(digests, int(uuid.uuid4().int % 10**9))
    ]
    store.write(lambda tx: tx.execute(insert(ModelVersion), rows))


@pytest.mark.parametrize("at", [0, CHUNK, len(CONTENT) - 1])
def test_a_damaged_stream_never_comes_to_its_end(blobs, raw, found: list[int], at: int) -> None:
    blob = blobs.put(CONTENT)
    damage(raw, blob, at)
    received: list[bytes] = []
    with pytest.raises(ModelCorrupt) as corrupt:
        received.extend(blobs.open_checked(blob.sha256))
    assert sum(map(len, received)) < len(CONTENT)
    assert corrupt.value.retry_after is not None
    assert found == [1]


def test_a_whole_stream_does(blobs, found: list[int]) -> None:
    for content in (CONTENT, b"x", b""):
        assert b"".join(blobs.open_checked(blobs.put(content).sha256)) == content
    assert found == []


@pytest.mark.parametrize("length", [0, 1, CHUNK, len(CONTENT) - 1])
def test_a_file_that_is_too_short_is_damaged(blobs, raw, length: int) -> None:
    blob = blobs.put(CONTENT)
    with raw.path(blob.sha256).open("r+b") as file:
        file.truncate(length)
    with pytest.raises(ModelCorrupt):
        list(blobs.open_checked(blob.sha256))


def test_a_read_at_once_is_checked_before_it_is_given_out(blobs, raw) -> None:
    blob = blobs.put(CONTENT)
    assert blobs.read_checked(blob.sha256, len(CONTENT)) == CONTENT
    with pytest.raises(AssetTooLarge):
        blobs.read_checked(blob.sha256, len(CONTENT) - 1)
    damage(raw, blob)
    with pytest.raises(ModelCorrupt):
        blobs.read_checked(blob.sha256, len(CONTENT))


def test_what_is_known_to_be_damaged_is_refused_by_every_read_of_every_process(
    blobs, raw, store, clock, found: list[int]
) -> None:
    blob = blobs.put(CONTENT)
    damage(raw, blob)
    with pytest.raises(ModelCorrupt):
        blobs.read_checked(blob.sha256, len(CONTENT))
    other = GuardedBlobs(raw, Damages(store, clock, lambda: found.append(2)))
    for reader in (blobs, other):
        at_once = partial(reader.read_checked, max_bytes=10**9)
        for read in (reader.open, reader.open_checked, reader.path, reader.size, at_once):
            with pytest.raises(ModelCorrupt):
                read(blob.sha256)
    assert found == [1]


@pytest.mark.parametrize("way", ["put", "writer", "adopt"])
def test_the_same_bytes_heal(blobs, raw, tmp_path: Path, way: str) -> None:
    blob = blobs.put(CONTENT)
    damage(raw, blob)
    with pytest.raises(ModelCorrupt):
        blobs.read_checked(blob.sha256, len(CONTENT))
    if way == "put":
        blobs.put(CONTENT)
    elif way == "writer":
        with blobs.writer(len(CONTENT)) as writer:
            writer.write(CONTENT)
            assert writer.size == len(CONTENT)
            writer.commit()
    else:
        (tmp_path / "file").write_bytes(CONTENT)
        blobs.adopt(tmp_path / "file", blob)
    assert blobs.read_checked(blob.sha256, len(CONTENT)) == CONTENT
    assert b"".join(blobs.open(blob.sha256)) == CONTENT


def test_an_object_store_is_checked_too(damages, tmp_path: Path) -> None:
    url = f"memory://integrity-{uuid.uuid4().hex}"
    blob = make_blobs(url, tmp_path / "one", call).put(CONTENT)
    cold = make_blobs(url, tmp_path / "two", call)
    guarded = GuardedBlobs(cold, damages)
    assert b"".join(guarded.open_checked(blob.sha256)) == CONTENT
    cold._fs.pipe_file(cold._key(blob.sha256), CONTENT[:-1] + b"!")
    with pytest.raises(ModelCorrupt):
        list(guarded.open_checked(blob.sha256))
    assert damages.is_known(blob.sha256)


def test_the_scrub_finds_what_nobody_read(scrub, blobs, raw, damages, store, found: list[int]) -> None:
    good, bad, lost = blobs.put(b"good"), blobs.put(CONTENT), blobs.put(b"lost")
    unnamed = blobs.put(b"unnamed")
    named(store, good.sha256, bad.sha256, lost.sha256)
    for blob in (bad, unnamed):
        damage(raw, blob)
    raw.delete(lost.sha256)
    assert scrub.tick() == 3
    known = [damages.is_known(blob.sha256) for blob in (good, bad, lost, unnamed)]
    assert known == [False, True, True, False]
    assert found == [1, 1]


def test_a_round_begins_when_it_is_due_and_heals_what_is_whole_again(
    scrub, blobs, raw, damages, store, clock, found: list[int]
) -> None:
    blob = blobs.put(CONTENT)
    named(store, blob.sha256)
    damage(raw, blob)
    assert (scrub.tick(), damages.is_known(blob.sha256)) == (1, True)
    damage(raw, blob)  # the same bit again: as if a backup had been put in its place
    clock.advance(INTERVAL - 1)
    assert (scrub.tick(), damages.is_known(blob.sha256)) == (0, True)
    clock.advance(2)
    assert (scrub.tick(), damages.is_known(blob.sha256)) == (1, False)
    assert found == [1]


def test_a_round_goes_on_after_a_restart_and_reads_each_blob_once(
    scrub, blobs, store, raw, damages, clock, tmp_path, waits
) -> None:
    digests = sorted(blobs.put(str(number).encode()).sha256 for number in range(SLICE + 5))
    named(store, *digests, digests[0])
    assert scrub.tick() == SLICE
    assert json.loads((tmp_path / "scrub.json").read_text())["after"] == digests[SLICE - 1]
    again = Scrub(store, raw, damages, clock, tmp_path / "scrub.json", INTERVAL, waits.append)
    assert [again.tick(), again.tick(), again.tick()] == [5, 0, 0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"since": null, "after": ""}', '{"since": 1}'])
def test_a_place_that_a_crash_spoiled_begins_a_round(scrub, blobs, store, tmp_path, text: str) -> None:
    named(store, blobs.put(CONTENT).sha256)
    (tmp_path / "scrub.json").write_text(text)
    assert scrub.tick() == 1


def test_two_processes_of_one_folder_do_not_scrub_together(store, raw, damages, clock, blobs, tmp_path) -> None:
    blob = blobs.put(CONTENT)
    named(store, blob.sha256)
    file = tmp_path / "scrub.json"
    other = Scrub(store, raw, damages, clock, file, INTERVAL, lambda _: None)
    met: list[int] = []
    Scrub(store, raw, damages, clock, file, INTERVAL, lambda _: met.append(other.tick())).tick()
    assert met == [0] * (len(CONTENT) // CHUNK)


def test_the_scrub_leaves_the_disk_to_others_in_between(scrub, blobs, store, waits: list[float]) -> None:
    named(store, blobs.put(CONTENT).sha256, hashlib.sha256(b"none").hexdigest())
    scrub.tick()
    assert waits == [CHUNK / PACE] * (len(CONTENT) // CHUNK)
