"""Reports are kept as they came, byte for byte, in little room; over every store."""

import hashlib
import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from grid_node.clock import ManualClock
from grid_node.errors import RunnerPredictionNotFound
from grid_node.runners import event_log
from grid_node.runners.tables import RunnerEvent
from tests.booth import ANNA, BERT, CARL
from tests.reporting import ReportDesk
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

events = RunnerEvent.__table__


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def make_desk(store, clock, tmp_path):
    def make(**settings):
        desk = ReportDesk(store, clock, tmp_path, **settings)
        desk.model()
        return desk

    return make


@pytest.fixture
def desk(make_desk):
    return make_desk()


def raw_bodies(desk, prediction, caller=BERT) -> list[str | None]:
    found, after = [], 0
    while page := desk.webhooks.events(caller, prediction.id, after, 50, as_text=True).results:
        found += [event["body"] for event in page]
        after = page[-1]["seq"]
    return found


def kept_bytes(desk) -> int:
    return desk.store.read(lambda tx: tx.execute(select(func.sum(func.length(events.c.body)))).scalar()) or 0


def steps(count: int, dice: random.Random) -> list[str]:
    """The log of a training run as it grows, hook by hook."""
    lines = [f"step {step}/{count} loss={dice.random():.6f}\n" for step in range(count)]
    return ["".join(lines[:end]) for end in range(0, count + 1, 41)]


def test_a_growing_log_takes_less_than_a_third_of_what_came_and_is_given_back_exactly(desk) -> None:
    prediction = desk.started()
    sent = [desk.by_token(prediction, status="processing", logs=logs) for logs in steps(5000, random.Random(1))]
    received = sum(map(len, sent))
    assert received > 1_800_000
    assert kept_bytes(desk) <= 0.1 * received
    assert [body.encode() for body in raw_bodies(desk, prediction)] == sent


def test_bodies_that_have_nothing_in_common_are_given_back_exactly(desk) -> None:
    prediction, dice = desk.started(), random.Random(2)
    sent = [desk.by_token(prediction, logs=dice.randbytes(dice.randrange(3000)).hex()) for _ in range(20)]
    assert [body.encode() for body in raw_bodies(desk, prediction)] == sent


def test_a_report_is_told_with_its_receipt(desk, clock) -> None:
    prediction = desk.started()
    sent = desk.by_token(prediction, status="processing", logs="a")
    clock.advance(1.5)
    desk.by_key(id=prediction.id, status="aborted")
    first, second = desk.webhooks.events(BERT, prediction.id).results
    assert first == {
        "seq": 1,
        "received_at": "2027-01-15T08:00:00.000Z",
        "auth": "token",
        "status": "processing",
        "size": len(sent),
        "sha256": hashlib.sha256(sent).hexdigest(),
        "late": False,
        "merged": True,
        "body": orjson.loads(sent),
    }
    assert (second["auth"], second["status"], second["received_at"]) == ("key", "aborted", "2027-01-15T08:00:01.500Z")


def test_the_same_body_again_is_recorded_in_a_few_bytes_and_changes_nothing(desk) -> None:
    prediction, dice = desk.started(), random.Random(3)
    sent = desk.by_token(prediction, status="processing", logs=dice.randbytes(5000).hex(), output=["a"])
    once, size = desk.now(prediction), kept_bytes(desk)
    desk.by_token(prediction, raw=sent)
    assert kept_bytes(desk) - size < 50
    again = desk.now(prediction)
    assert (again.output, again.logs, again.seq) == (once.output, once.logs, once.seq)
    assert [body.encode() for body in raw_bodies(desk, prediction)] == [sent, sent]


def test_another_process_keeps_bodies_that_both_can_read(desk, make_desk, store, clock, tmp_path) -> None:
    prediction, other = desk.started(), ReportDesk(store, clock, tmp_path)
    sent = [one.by_token(prediction, logs="x" * 100 * (turn + 1)) for turn in range(4) for one in (desk, other)]
    for one in (desk, other):
        assert [body.encode() for body in raw_bodies(one, prediction)] == sent


def test_a_report_that_could_not_be_committed_is_no_base_of_the_next(desk) -> None:
    prediction = desk.started()
    apply, desk.changes.apply = desk.changes.apply, _broken
    with pytest.raises(RuntimeError):
        desk.by_token(prediction, logs="x" * 1000)
    desk.changes.apply = apply
    sent = desk.by_token(prediction, logs="x" * 1000)
    assert [body.encode() for body in raw_bodies(desk, prediction)] == [sent]


def _broken(*_given):
    raise RuntimeError("not today")


def test_a_prediction_that_took_an_old_one_s_name_has_its_own_bases(desk) -> None:
    desk.by_key(id="7", status="succeeded", logs="x" * 1000)
    old = desk.of(ANNA, "7")
    desk.store.write(lambda tx: tx.connection.exec_driver_sql("DELETE FROM runner_predictions"))
    desk.store.write(lambda tx: tx.connection.exec_driver_sql("DELETE FROM runner_events"))
    filler = desk.started()
    sent = desk.by_key(id="7", status="starting", logs="x" * 1000)
    assert desk.of(ANNA, "7").number not in (old.number, filler.number)
    assert [body.encode() for body in raw_bodies(desk, desk.of(ANNA, "7"), ANNA)] == [sent]


def test_beyond_the_count_reports_are_merged_and_no_longer_logged_but_the_end_is(make_desk) -> None:
    desk = make_desk(events_per_prediction=3)
    prediction = desk.started()
    sent = [desk.by_token(prediction, status="processing", logs="x" * turn) for turn in range(6)]
    end = desk.by_token(prediction, status="succeeded", logs="x" * 7)
    desk.by_token(prediction, status="failed")
    assert [body.encode() for body in raw_bodies(desk, prediction)] == [*sent[:3], end]
    assert desk.now(prediction).logs == "x" * 7


def test_beyond_the_bytes_too(make_desk) -> None:
    desk = make_desk(events_per_prediction_bytes=2500)
    prediction = desk.started()
    sent = [desk.by_token(prediction, logs=str(turn) * 1000) for turn in range(4)]
    assert [body.encode() for body in raw_bodies(desk, prediction)] == sent[:2]


def test_beyond_the_limit_a_large_report_is_kept_until_it_is_merged(make_desk) -> None:
    desk = make_desk(events_per_prediction_bytes=1000)
    prediction = desk.started()
    desk.by_token(prediction, status="processing", logs="x" * 300_000)
    assert kept_bytes(desk) > 0
    desk.merge_enqueued()
    assert desk.now(prediction).logs_length == 300_000
    assert raw_bodies(desk, prediction) == []
    end = desk.by_token(prediction, status="succeeded", logs="x" * 300_001)
    desk.merge_enqueued()
    assert [body.encode() for body in raw_bodies(desk, prediction)] == [end]


def test_pages_are_bounded_in_number_and_in_bytes(desk, monkeypatch) -> None:
    prediction = desk.started()
    for turn in range(5):
        desk.by_token(prediction, logs="x" * 1000 * turn)

    def seqs(*given):
        return [event["seq"] for event in desk.webhooks.events(BERT, prediction.id, *given).results]

    assert seqs(0, 2) == [1, 2]
    assert seqs(2, 2) == [3, 4]
    assert seqs(5) == []
    assert seqs(0, -1) == [1]
    monkeypatch.setattr(event_log, "PAGE_BYTES", 3500)
    assert seqs() == [1, 2, 3]
    assert seqs(3) == [4]
    assert seqs(4) == [5]


def test_a_page_says_whether_there_are_more(desk, monkeypatch) -> None:
    """Also one that is shorter than was asked for, because its bodies were long."""
    prediction = desk.started()
    for turn in range(5):
        desk.by_token(prediction, logs="x" * 1000 * turn)

    def following(*given):
        return desk.webhooks.events(BERT, prediction.id, *given).next

    assert (following(), following(0, 2), following(3, 2), following(5)) == (None, 2, None, None)
    monkeypatch.setattr(event_log, "PAGE_BYTES", 3500)
    assert (following(), following(3), following(4)) == (3, 4, None)
    monkeypatch.setattr(event_log, "PAGE_MAX", 2)
    assert following(0, 500) == 2


def test_a_body_that_is_no_json_is_told_as_text(desk) -> None:
    prediction = desk.started()
    desk.by_token(prediction, raw=b"{" + b"x" * 300_000)
    (event,) = desk.webhooks.events(BERT, prediction.id).results
    assert event["body"] == "{" + "x" * 300_000


def test_only_who_asked_for_the_prediction_reads_its_reports(desk) -> None:
    prediction = desk.started()
    desk.by_token(prediction, status="processing")
    for stranger in (ANNA, CARL):
        with pytest.raises(RunnerPredictionNotFound):
            desk.webhooks.events(stranger, prediction.id)


def test_when_the_data_are_removed_nothing_of_a_later_report_is_kept(desk) -> None:
    prediction = desk.started()
    desk.by_token(prediction, status="succeeded", output=["a"])
    desk.predictions.delete(BERT, prediction.id)
    desk.by_token(prediction, status="succeeded", output=["a"])
    (event,) = desk.webhooks.events(BERT, prediction.id).results
    assert (event["body"], event["late"]) == (None, True)
    assert kept_bytes(desk) == 0


def test_remembered_bases_are_bounded(monkeypatch) -> None:
    each = 3 + event_log._BESIDE
    monkeypatch.setattr(event_log, "BASES_MAX", 3 * each + 1)
    log = event_log.EventLog(1, 1, lambda function, *given: function(*given))
    for turn in range(20):
        log._remember(str(turn % 7), event_log.Base(1, turn, b"xyz"))
    assert list(log._bases) == ["3", "4", "5"]
    assert log._size == 3 * each


@given(st.binary(max_size=12), st.binary(max_size=4), st.binary(max_size=4), st.binary(max_size=12), st.integers(1, 5))
def test_what_two_bodies_have_in_common_is_all_of_it_and_never_overlaps(head, one, other, tail, block) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_log, "_BLOCK", block)
        start, end = event_log._common(base := head + one + tail, raw := head + other + tail)
    assert start == min(len(base), len(raw)) or base[start] != raw[start]
    assert start + end <= min(len(base), len(raw))
    assert base[:start] + raw[start : len(raw) - end] + base[len(base) - end :] == raw
    assert start + end == min(len(base), len(raw)) or base[len(base) - end - 1] != raw[len(raw) - end - 1]
