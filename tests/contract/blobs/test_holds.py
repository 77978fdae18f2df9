"""Blobs in hand: refused bytes go at once, wanted bytes never do."""

import hashlib
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier

import pytest

from grid_node.blobs.factory import make_blobs
from grid_node.blobs.holds import STALE, Holds
from grid_node.blobs.references import refer, referred, release
from grid_node.blobs.store import Blob, Blobs
from grid_node.clock import ManualClock
from grid_node.database import Store
from grid_node.errors import InvalidModel, NotFound, StoreUnavailable
from tests.stores import call, postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]


@pytest.fixture(params=["local", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    url = str(tmp_path / "blobs") if request.param == "local" else f"memory://holds-{uuid.uuid4().hex}"
    return make_blobs(url, tmp_path / "cache", call)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def holds(store: Store, blobs: Blobs, clock: ManualClock) -> Holds:
    return Holds(store, blobs, clock)


def is_there(blobs: Blobs, blob: Blob) -> bool:
    try:
        return b"".join(blobs.open(blob.sha256)) is not None
    except NotFound:
        return False


def refused(holds: Holds, blob: Blob) -> None:
    with suppress(InvalidModel), holds.hold(blob):
        raise InvalidModel


def test_a_blob_that_is_refused_is_gone_when_the_hold_ends(holds: Holds, blobs: Blobs, store: Store) -> None:
    blob = blobs.put(b"refused")
    with suppress(InvalidModel), holds.hold(blob):
        assert is_there(blobs, blob)
        assert referred(store, [blob.sha256]) == {blob.sha256}
        raise InvalidModel
    assert not is_there(blobs, blob)
    assert referred(store, [blob.sha256]) == set()


def test_a_blob_that_somebody_refers_to_stays(holds: Holds, blobs: Blobs, store: Store) -> None:
    blob = blobs.put(b"kept")
    with holds.hold(blob):
        store.write(lambda tx: refer(tx, "model-1-1", [blob.sha256]))
    assert is_there(blobs, blob)
    refused(holds, blob)
    assert is_there(blobs, blob)
    store.write(lambda tx: release(tx, ["model-1-1"]))
    refused(holds, blob)
    assert not is_there(blobs, blob)


def test_a_hold_ends_in_the_transaction_of_the_lasting_reference(holds: Holds, blobs: Blobs, store: Store) -> None:
    blob = blobs.put(b"published")
    with holds.hold(blob) as held:

        def publish(tx) -> None:
            refer(tx, "model-1-1", [blob.sha256])
            held.release(tx)

        store.write(publish)
        assert held.is_over
    assert is_there(blobs, blob)
    assert holds.expire() == 0


def test_what_nobody_keeps_is_gone_also_after_success(holds: Holds, blobs: Blobs) -> None:
    """The plaintext of a model that was split into shares."""
    blob = blobs.put(b"plaintext")
    with holds.hold(blob):
        pass
    assert not is_there(blobs, blob)


def test_the_last_of_two_holds_decides(holds: Holds, blobs: Blobs) -> None:
    blob = blobs.put(b"twice")
    with holds.hold(blob):
        refused(holds, blob)
        assert is_there(blobs, blob)
    assert not is_there(blobs, blob)


def test_others_are_asked_before_a_blob_is_buried(holds: Holds, blobs: Blobs) -> None:
    blob = blobs.put(b"uploaded")
    holds.consult(set)
    refused(holds, blob)
    holds.discard(blob)
    assert is_there(blobs, blob)


def test_bytes_that_were_removed_must_be_sent_again(holds: Holds, blobs: Blobs, store: Store) -> None:
    blob = blobs.put(b"gone")
    blobs.delete(blob.sha256)
    with pytest.raises(StoreUnavailable) as gone, holds.hold(blob):
        pytest.fail("there is nothing to hold")
    assert gone.value.retry_after == 1
    assert referred(store, [blob.sha256]) == set()


def test_holds_of_a_node_that_died_go_by_their_age(holds: Holds, blobs: Blobs, store: Store, clock) -> None:
    blob = blobs.put(b"abandoned")
    owner = f"hold-{int(clock.now())}-{clock.new_id()}"
    store.write(lambda tx: refer(tx, owner, [blob.sha256]))
    store.write(lambda tx: refer(tx, "model-9-1", [hashlib.sha256(b"other").hexdigest()]))
    clock.advance(STALE - 10)
    assert (holds.expire(), is_there(blobs, blob)) == (0, True)
    clock.advance(20)
    assert (holds.expire(), is_there(blobs, blob)) == (1, False)
    assert holds.needed([blob.sha256, hashlib.sha256(b"other").hexdigest()]) == {hashlib.sha256(b"other").hexdigest()}


def test_a_blob_that_is_wanted_after_all_is_put_back(blobs: Blobs) -> None:
    blob = blobs.put(b"wanted")
    assert blobs.bury(blob.sha256, lambda: True) is False
    assert is_there(blobs, blob)
    assert blobs.bury(blob.sha256, lambda: False) is True
    assert blobs.bury(blob.sha256, lambda: False) is False


def test_who_comes_while_a_blob_is_being_buried_finds_it_again(blobs: Blobs, tmp_path: Path) -> None:
    blob = blobs.put(b"between")
    seen: list[object] = []

    def wanted() -> bool:
        seen.append(blobs.confirm(blob.sha256))
        seen.append(blobs.size(blob.sha256))
        return True

    assert blobs.bury(blob.sha256, wanted) is False
    assert seen == [True, blob.size]
    assert is_there(blobs, blob)
    assert [path.name for path in tmp_path.rglob("tmp/*")] == []


def test_what_a_dying_process_was_burying_is_put_back_by_the_sweep(tmp_path: Path) -> None:
    blobs = make_blobs(str(tmp_path), tmp_path, call)
    wanted, unwanted = blobs.put(b"wanted"), blobs.put(b"unwanted")
    for blob in (wanted, unwanted):
        os.replace(blobs.path(blob.sha256), tmp_path / "tmp" / f"{blob.sha256}.crashed")
    blobs.sweep(lambda digests: {wanted.sha256} & set(digests), older_than=time.time() + 60)
    assert (is_there(blobs, wanted), is_there(blobs, unwanted)) == (True, False)


def test_among_senders_of_equal_bytes_no_reference_is_left_without_its_blob(
    holds: Holds, blobs: Blobs, store: Store
) -> None:
    """One is refused, the other publishes, again and again; one that finds its bytes gone sends them again."""
    start = Barrier(2)
    content = b"contested"
    resent = []

    def refuse() -> None:
        start.wait(20)
        with suppress(StoreUnavailable):
            refused(holds, blobs.put(content))

    def sent(turn: int) -> None:
        blob = blobs.put(content)
        with holds.hold(blob):
            store.write(lambda tx: refer(tx, f"model-{turn}", [blob.sha256]))
        assert is_there(blobs, blob)

    def publish(turn: int) -> None:
        start.wait(20)
        for _ in range(50):
            try:
                return sent(turn)
            except StoreUnavailable:
                resent.append(turn)
        raise AssertionError("the bytes were never taken")

    with ThreadPoolExecutor(2) as pool:
        for turn in range(60):
            other = pool.submit(refuse)
            published = pool.submit(publish, turn)
            other.result(30)
            published.result(30)
            assert is_there(blobs, Blob(hashlib.sha256(content).hexdigest(), len(content)))
            store.write(lambda tx, turn=turn: release(tx, [f"model-{turn}"]))
    assert holds.expire() == 0
