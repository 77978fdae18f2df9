import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from grid_client import outbox as outbox_module
from grid_client.errors import GridError
from grid_client.outbox import Ending, Entry, Outbox
from grid_client.receipts import body_digest

from tests.unit.clients.prediction_node import MINER, NODE, prediction, receipt_of

HOTKEY, ME = NODE.ss58_address, MINER.ss58_address
NOW, LATER = 1_800_000_000.0, 1_800_086_400.0


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path / "outbox.db")
    yield made
    made.close()


def add(outbox: Outbox, prediction_id: str, node: str = HOTKEY, miner: str = ME, **changes: object) -> Entry:
    outbox.add(node, miner, prediction(prediction_id, **changes), LATER, NOW)
    entry = outbox.get(node, prediction_id)
    assert entry is not None
    return entry


def test_a_prediction_is_queued_with_its_digest_and_deadline(outbox: Outbox) -> None:
    entry = add(outbox, "p1")
    assert (entry.state, entry.miner, entry.submitted_at, entry.deadline) == ("queued", ME, NOW, LATER)
    assert entry.prediction == prediction("p1")
    assert entry.body_sha256 == body_digest(prediction("p1"))
    assert not entry.is_finished
    assert entry.receipt is None


def test_the_same_body_under_its_id_is_the_same_prediction(outbox: Outbox) -> None:
    first = add(outbox, "p1")
    outbox.mark_sent([first])
    assert outbox.add(HOTKEY, ME, dict(reversed(prediction("p1").items())), LATER + 9, NOW + 9) == "p1"
    entry = outbox.get(HOTKEY, "p1")
    assert entry is not None
    assert (entry.number, entry.state, entry.deadline) == (first.number, "sent", LATER)


def test_another_body_or_another_miner_under_a_known_id_is_a_conflict(outbox: Outbox) -> None:
    add(outbox, "p1")
    for miner, body in ((ME, prediction("p1", wager="2.00")), ("another", prediction("p1"))):
        with pytest.raises(GridError, match="conflict"):
            outbox.add(HOTKEY, miner, body, LATER, NOW)
    assert outbox.counts()["queued"] == 1


def test_two_nodes_may_have_one_id(outbox: Outbox) -> None:
    add(outbox, "p1")
    add(outbox, "p1", node="another", wager="2.00")
    assert outbox.counts(HOTKEY)["queued"] == outbox.counts("another")["queued"] == 1
    assert outbox.counts()["queued"] == 2


@pytest.mark.parametrize("wager", [float("nan"), 2**60, object()])
def test_a_prediction_without_a_canonical_form_is_refused(outbox: Outbox, wager: object) -> None:
    with pytest.raises(GridError, match="invalid_prediction"):
        add(outbox, "p1", wager=wager)
    assert outbox.counts()["queued"] == 0


def test_unfinished_entries_come_oldest_first_and_only_the_miners_own(outbox: Outbox) -> None:
    entries = [add(outbox, f"p{number}") for number in range(4)]
    add(outbox, "theirs", miner="another")
    outbox.finish([Ending(entries[1], "expired", error={"code": "prediction_not_found"})], NOW)
    found = outbox.unfinished(HOTKEY, ME, 0, 10)
    assert [entry.prediction_id for entry in found] == ["p0", "p2", "p3"]
    assert [entry.prediction_id for entry in outbox.unfinished(HOTKEY, ME, found[0].number, 1)] == ["p2"]


def test_an_entry_ends_once_and_keeps_its_receipt(outbox: Outbox) -> None:
    entry = add(outbox, "p1")
    document = receipt_of(entry.prediction, seq=41)
    outbox.finish([Ending(entry, "accepted", document=document)], NOW + 1)
    outbox.finish([Ending(entry, "expired", error={"code": "late"})], NOW + 2)
    outbox.mark_sent([entry])
    outbox.move_deadlines({entry.number: NOW})
    ended = outbox.get(HOTKEY, "p1")
    assert ended is not None
    assert (ended.state, ended.finished_at, ended.error, ended.deadline) == ("accepted", NOW + 1, None, LATER)
    assert ended.document == document
    assert ended.receipt is not None
    assert ended.receipt.seq == 41


def test_what_was_unresolved_may_still_be_resolved(outbox: Outbox) -> None:
    entry = add(outbox, "p1")
    outbox.finish([Ending(entry, "unresolved", error={"code": "connection_lost"})], NOW)
    assert [found.prediction_id for found in outbox.unresolved(HOTKEY, ME, 10)] == ["p1"]
    outbox.finish([Ending(entry, "accepted", document=receipt_of(entry.prediction))], NOW + 1)
    assert outbox.unresolved(HOTKEY, ME, 10) == []
    assert outbox.counts()["accepted"] == 1


def test_overdue_entries_are_those_whose_deadline_has_come(outbox: Outbox) -> None:
    early, late = add(outbox, "p1"), add(outbox, "p2")
    outbox.move_deadlines({early.number: NOW + 60})
    assert outbox.overdue(HOTKEY, ME, NOW + 59, 10) == []
    assert [entry.prediction_id for entry in outbox.overdue(HOTKEY, ME, NOW + 60, 10)] == ["p1"]
    assert len(outbox.overdue(HOTKEY, ME, late.deadline, 10)) == 2


def test_entries_are_listed_by_node_and_state_page_by_page(outbox: Outbox) -> None:
    entries = [add(outbox, f"p{number}") for number in range(3)]
    outbox.finish([Ending(entries[0], "rejected", error={"code": "missing_data"})], NOW)
    add(outbox, "q", node="another")
    assert [entry.prediction_id for entry in outbox.entries(HOTKEY)] == ["p0", "p1", "p2"]
    assert [entry.prediction_id for entry in outbox.entries(HOTKEY, ["rejected"])] == ["p0"]
    assert [entry.prediction_id for entry in outbox.entries(after=entries[1].number, limit=1)] == ["p2"]
    assert outbox.entries(states=[]) == []


def test_a_prediction_survives_kill_9_right_after_add(tmp_path: Path) -> None:
    script = f"""
import os, signal
from grid_client.outbox import Outbox
Outbox({str(tmp_path / "o.db")!r}).add({HOTKEY!r}, {ME!r}, {prediction("p1")!r}, {LATER}, {NOW})
os.kill(os.getpid(), signal.SIGKILL)
"""
    folder = Path(__file__).parents[3] / "clients" / "python"
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60, env={"PYTHONPATH": str(folder)})
    assert done.returncode == -9
    outbox = Outbox(tmp_path / "o.db")
    try:
        assert [entry.prediction for entry in outbox.entries()] == [prediction("p1")]
    finally:
        outbox.close()


def test_the_file_syncs_every_commit_and_is_nobody_elses(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "folder" / "o.db")
    try:
        assert outbox._connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert outbox._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert (tmp_path / "folder" / "o.db").stat().st_mode & 0o777 == 0o600
    finally:
        outbox.close()


def test_several_outboxes_of_one_file_lose_nothing_and_number_in_one_order(tmp_path: Path) -> None:
    failures: list[GridError] = []

    def fill(name: str) -> None:
        try:
            outbox = Outbox(tmp_path / "o.db")
            for number in range(25):
                add(outbox, f"{name}-{number}")
            outbox.close()
        except GridError as error:
            failures.append(error)

    threads = [threading.Thread(target=fill, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    outbox = Outbox(tmp_path / "o.db")
    found = outbox.unfinished(HOTKEY, ME, 0, 1000)
    outbox.close()
    assert [entry.number for entry in found] == list(range(1, 101))
    for name in "abcd":
        assert [e.prediction_id for e in found if e.prediction_id[0] == name] == [f"{name}-{n}" for n in range(25)]


def test_a_locked_file_is_waited_for_no_longer_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "BUSY_TIMEOUT", 0.05)
    outbox = Outbox(tmp_path / "o.db")
    other = sqlite3.connect(tmp_path / "o.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(GridError, match="outbox_unavailable"):
            add(outbox, "p1")
        other.execute("ROLLBACK")
        add(outbox, "p1")
    finally:
        other.close()
        outbox.close()


def test_a_closed_outbox_says_so(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    outbox.close()
    outbox.close()
    with pytest.raises(GridError, match="outbox_closed"):
        outbox.counts()


@pytest.mark.parametrize("content", [b"this is no database, but it is long enough to be looked at as one" * 20])
def test_a_file_that_is_no_outbox_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "o.db").write_bytes(content)
    with pytest.raises(GridError, match="outbox_unavailable"):
        Outbox(tmp_path / "o.db")


def test_a_folder_or_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GridError, match="outbox_unavailable"):
        Outbox(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(GridError, match="outbox_unavailable"):
        Outbox(tmp_path / "file" / "o.db")


def test_an_outbox_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    Outbox(tmp_path / "o.db").close()
    newer = sqlite3.connect(tmp_path / "o.db")
    newer.execute("PRAGMA user_version = 2")
    newer.close()
    with pytest.raises(GridError, match="outbox_too_new"):
        Outbox(tmp_path / "o.db")
    assert os.path.exists(tmp_path / "o.db")
