"""Reports of workers change predictions, whoever sends them and in whatever order; over every store."""

import random
import sqlite3
import threading
from contextlib import closing

import orjson
import pytest

from grid_node.clock import ManualClock
from grid_node.database import GroupCommitStore, make_engine
from grid_node.errors import (
    InvalidToken,
    InvalidWebhook,
    PredictionMismatch,
    RunnerInvalidJson,
    RunnerPredictionNotFound,
    StoreUnavailable,
)
from grid_node.runners.ids import webhook_token
from grid_node.runners.prediction import CANCELED, ORDER
from grid_node.runners.webhooks import FORGOTTEN, OVERDUE
from tests.booth import ANNA, BERT
from tests.reporting import SECRET, ReportDesk
from tests.stores import call, postgres_tables, sqlite_template, store
from tests.unit.runners.test_report import SEED

__all__ = ["postgres_tables", "sqlite_template", "store"]

SEED_END = orjson.dumps(
    orjson.loads(SEED)
    | {
        "completed_at": "2024-12-23T22:52:08.814683+00:00",
        "status": "succeeded",
        "metrics": {"predict_time": 7.354538},
        "output": ["http://elsewhere/a.png", "http://elsewhere/a.png"],
    }
)
LARGE = "x" * 300_000
PNG = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def desk(store, clock, tmp_path):
    made = ReportDesk(store, clock, tmp_path)
    made.model()
    return made


def raws(desk, prediction, caller=BERT):
    found, after = [], 0
    while page := desk.webhooks.events(caller, prediction.id, after, as_text=True).results:
        found += page
        after = page[-1]["seq"]
    return found


def test_the_seed_s_reports_make_a_prediction_of_the_key_s_owner(desk) -> None:
    for caller in (ANNA, BERT):
        desk.by_key(caller, raw=SEED)
        desk.by_key(caller, raw=SEED_END)
    anna, bert = desk.of(ANNA, "7"), desk.of(BERT, "7")
    assert anna.number != bert.number
    assert (anna.owner, anna.runner_owner, anna.model, anna.version) == (
        "anna-key", "anna-key", "anna/external", "hidden",
    )  # fmt: skip
    assert (anna.source, anna.state, anna.model_id) == ("external", "succeeded", None)
    assert anna.input == {"prompt": "a photo of sprite", "seed": 76551, "steps": 50, "guidance_scale": 5.0}
    assert anna.output == ["http://elsewhere/a.png"] * 2
    assert anna.metrics == {"predict_time": 7.354538}
    assert anna.times == {
        "created_at": "2024-12-06T00:20:04.185000+00:00",
        "started_at": "2024-12-23T22:52:01.460145+00:00",
        "completed_at": "2024-12-23T22:52:08.814683+00:00",
        "source": "worker",
    }
    assert anna.warnings == ["external_output"]
    assert [event["body"].encode() for event in raws(desk, anna, ANNA)] == [SEED, SEED_END]


def test_an_id_may_be_a_number(desk) -> None:
    desk.by_key(id=7, status="processing")
    assert desk.of(ANNA, "7").state == "processing"


def test_a_token_reports_of_its_prediction_only(desk) -> None:
    prediction, other = desk.started(), desk.started()
    with pytest.raises(PredictionMismatch):
        desk.by_token(prediction, raw=orjson.dumps({"id": other.id, "status": "succeeded"}))
    assert (desk.now(prediction).events, desk.now(other).events) == (0, 0)


@pytest.mark.parametrize(
    "change", [lambda token: "", lambda token: token[:-1] + "!", lambda token: "a" * 26 + token[26:]]
)
def test_a_token_that_is_not_ours_is_refused(desk, change) -> None:
    prediction = desk.started()
    with pytest.raises(InvalidToken):
        desk.webhooks.by_token(change(webhook_token(SECRET, prediction.id)), b'{"id":"x"}')


def test_a_token_of_a_prediction_that_is_gone_is_not_found(desk) -> None:
    with pytest.raises(RunnerPredictionNotFound):
        desk.webhooks.by_token(webhook_token(SECRET, "a" * 26), orjson.dumps({"id": "a" * 26}))


def test_a_worker_s_owner_may_report_by_key_and_nobody_else(desk) -> None:
    prediction = desk.started()
    desk.by_key(ANNA, id=prediction.id, status="processing")
    assert desk.now(prediction).state == "processing"
    desk.by_key(BERT, id=prediction.id, status="failed")
    assert desk.now(prediction).state == "processing"
    assert desk.of(BERT, prediction.id).source == "external"


@pytest.mark.parametrize(("raw", "error"), [(b"{", RunnerInvalidJson), (b'{"status":"failed"}', InvalidWebhook)])
def test_what_cannot_be_read_changes_nothing(desk, raw, error) -> None:
    prediction = desk.started()
    with pytest.raises(error):
        desk.by_token(prediction, raw=raw)
    with pytest.raises(error):
        desk.by_key(raw=raw)
    assert desk.now(prediction) == prediction


def test_reports_move_a_prediction_to_its_end(desk, clock) -> None:
    prediction = desk.started()
    for status in ("starting", "processing", "succeeded"):
        clock.advance(1)
        desk.by_token(prediction, status=status)
        assert desk.now(prediction).state == status
        assert desk.now(prediction).reported_at == clock.now()
    ended = desk.now(prediction)
    assert ended.finished_at == clock.now()
    assert (
        ended.times
        == {
            "created_at": prediction.times.get("created_at"),
            "started_at": "2027-01-15T08:00:02.000Z",
            "completed_at": "2027-01-15T08:00:03.000Z",
            "source": "node",
        }
        or "created_at" not in prediction.times
    )


def hooks_of_a_run(desk, prediction):
    """121 hooks and the last, of twenty files that came in disorder and a log that grew."""
    dice = random.Random(7)
    urls = [desk.upload(prediction, f"{prediction.id}_{index}_out.png", b"%d" % index) for index in range(20)]
    arrived = dice.sample(urls, 20)
    hooks = [
        {"status": "processing", "output": arrived[: turn // 6], "logs": "step\n" * turn, "metrics": {}}
        for turn in range(121)
    ]
    last = {"status": "succeeded", "output": arrived, "logs": "step\n" * 121, "metrics": {"predict_time": 1.5}}
    shuffled = hooks + dice.choices(hooks, k=30)
    dice.shuffle(shuffled)
    return [*shuffled[:75], last, *shuffled[75:], last], urls


def test_hooks_in_any_order_and_twice_give_the_whole_sorted_result(desk) -> None:
    prediction = desk.started()
    hooks, urls = hooks_of_a_run(desk, prediction)
    before, sent = desk.now(prediction), []
    for hook in hooks:
        sent.append(desk.by_token(prediction, **hook))
        now = desk.now(prediction)
        assert ORDER[now.state] >= ORDER[before.state]
        assert len(now.output or []) >= len(before.output or [])
        assert now.logs_length >= before.logs_length
        before = now
    assert (before.state, before.output, before.logs) == ("succeeded", urls, "step\n" * 121)
    assert before.warnings == []
    events = raws(desk, prediction)
    assert [event["body"].encode() for event in events] == sent
    assert [event["late"] for event in events] == [False] * 76 + [True] * (len(sent) - 76)


def test_the_stream_ends_once_and_tells_every_item_once(desk) -> None:
    prediction = desk.started()
    hooks, urls = hooks_of_a_run(desk, prediction)
    for hook in hooks:
        desk.by_token(prediction, **hook)
    told = [(entry.body["event"], entry.body["data"]) for entry in desk.streams.after(prediction.stream, 0)]
    assert sorted(data for event, data in told if event == "output") == sorted(urls)
    assert [event for event, _ in told].count("done") == 1
    assert told[-1][0] == "done"


def test_reports_that_come_at_once_end_a_prediction_once(desk) -> None:
    prediction = desk.started()
    words = ["succeeded", "failed", "canceled"] * 4
    threads = [threading.Thread(target=desk.by_token, args=(prediction,), kwargs={"status": word}) for word in words]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    done = [entry for entry in desk.streams.after(prediction.stream, 0) if entry.body["event"] == "done"]
    assert len(done) == 1
    assert [event["late"] for event in raws(desk, prediction)] == [False] + [True] * 11


def test_unknown_ids_that_come_at_once_make_one_prediction(desk) -> None:
    def post(turn: int) -> None:
        desk.by_key(id="7", status="processing", logs="x" * turn)

    threads = [threading.Thread(target=post, args=(turn,)) for turn in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (desk.of(ANNA, "7").logs, desk.of(ANNA, "7").events) == ("x" * 7, 8)


def test_a_late_success_is_logged_and_the_failure_stays(desk) -> None:
    prediction = desk.started()
    desk.store.write(lambda tx: desk.changes.fail(tx, desk.now(prediction), "The runner stopped reporting."))
    desk.by_token(prediction, status="succeeded", output=["a"], logs="b")
    now = desk.now(prediction)
    assert (now.state, now.error, now.output, now.logs) == ("failed", "The runner stopped reporting.", None, "")
    (event,) = raws(desk, prediction)
    assert (event["status"], event["late"]) == ("succeeded", True)


def test_a_success_that_came_before_the_worker_heard_of_the_cancel_stays(desk, clock) -> None:
    prediction = desk.started()
    desk.predictions.cancel(BERT, prediction.id)
    assert desk.now(prediction).cancel_at is not None
    desk.by_token(prediction, status="succeeded", output=["a"])
    desk.by_token(prediction, status="canceled")
    assert desk.now(prediction).state == "succeeded"
    other = desk.started()
    desk.predictions.cancel(BERT, other.id)
    desk.by_token(other, status="canceled")
    assert desk.now(other).state == CANCELED


# --- files ----------------------------------------------------------------------------------------------------------


def test_files_that_are_missing_from_the_result_are_told(desk) -> None:
    prediction = desk.started()
    desk.upload(prediction, f"{prediction.id}_0_a.png")
    desk.by_token(prediction, status="succeeded", output=[])
    assert desk.now(prediction).warnings == ["output_missing"]


def test_success_with_an_empty_list_where_files_were_promised_is_told(desk) -> None:
    prediction = desk.started()
    desk.by_token(prediction, status="succeeded", output=[])
    assert (desk.now(prediction).state, desk.now(prediction).warnings) == ("succeeded", ["output_missing"])


@pytest.mark.parametrize("outputs", ["list[str]", "Optional[Path]", "dict"])
def test_an_empty_result_is_nothing_to_tell_where_no_files_were_promised(desk, outputs) -> None:
    desk.model(name="talk", signature={"inputs": [{"name": "prompt", "type": "str"}], "outputs": outputs})
    prediction = desk.started(model="anna/talk")
    desk.by_token(prediction, status="succeeded", output=[])
    assert desk.now(prediction).warnings == []


def test_files_inside_of_reports_become_files(desk) -> None:
    prediction = desk.started()
    desk.by_token(prediction, status="processing", output=[PNG])
    desk.by_token(prediction, status="succeeded", output=[PNG, "data:;base64,!"])
    now = desk.now(prediction)
    url, broken = now.output
    assert broken == "data:;base64,!"
    file = desk.store.read(lambda tx: desk.store_of_files.known(tx, [url]))[url]
    assert (file.size, file.prediction, file.owner) == (8, prediction.number, "anna-key")
    assert (now.state, now.warnings) == ("succeeded", [])
    assert all(event["merged"] for event in raws(desk, prediction))


def test_a_file_of_somebody_else_is_foreign(desk) -> None:
    desk.by_key(BERT, id="x", status="starting")
    theirs = desk.upload(desk.of(BERT, "x"), "x_0_a.png")
    prediction = desk.run(caller=ANNA)
    desk.by_token(prediction, status="processing", output=[theirs])
    assert desk.now(prediction).warnings == ["external_output"]


def test_files_that_came_before_the_first_report_are_the_prediction_s(desk) -> None:
    new = desk.store_of_files.named("anna-key", "7_0_a.png", "7", None)
    url = desk.store_of_files.url_of(desk.store_of_files.receive(new, [b"a"]).file)
    desk.by_key(id="7", status="starting")
    assert desk.of(ANNA, "7").files == 1
    desk.by_key(id="7", status="processing", output=[url])
    made = desk.of(ANNA, "7")
    assert (made.files, made.output, made.warnings) == (1, [url], [])


def test_files_that_came_without_a_name_are_claimed_by_the_report_that_shows_them(desk) -> None:
    prediction = desk.started()
    new = desk.store_of_files.named("anna-key", "image.png", None, None)
    url = desk.store_of_files.url_of(desk.store_of_files.receive(new, [b"a"]).file)
    desk.by_token(prediction, status="succeeded", output=[url])
    assert (desk.now(prediction).files, desk.now(prediction).warnings) == (1, [])


# --- large reports --------------------------------------------------------------------------------------------------


def test_a_large_report_is_kept_at_once_and_merged_by_a_job(desk, clock) -> None:
    prediction = desk.started()
    sent = desk.by_token(prediction, status="processing", logs=LARGE)
    now = desk.now(prediction)
    assert (now.state, now.logs_length, now.reported_at) == ("dispatching", 0, clock.now())
    assert [event["merged"] for event in raws(desk, prediction)] == [False]
    desk.merge_enqueued()
    now = desk.now(prediction)
    assert (now.state, now.logs) == ("processing", LARGE)
    (event,) = raws(desk, prediction)
    assert (event["merged"], event["status"], event["body"].encode()) == (True, "processing", sent)


def test_the_first_end_is_the_one_that_came_first_though_it_is_merged_later(desk) -> None:
    prediction = desk.started()
    desk.by_token(prediction, status="succeeded", logs=LARGE)
    desk.by_token(prediction, status="failed", error="no")
    desk.by_token(prediction, status="processing", output=["a"])
    assert (desk.now(prediction).state, desk.now(prediction).output) == ("processing", ["a"])
    desk.enqueued.reverse()
    desk.merge_enqueued()
    assert (desk.now(prediction).state, desk.now(prediction).output) == ("succeeded", ["a"])
    assert [event["late"] for event in raws(desk, prediction)] == [False, True, False]


@pytest.mark.parametrize(
    "raw", [b"{" + b"x" * 300_000, orjson.dumps({"id": "other", "status": "failed", "logs": LARGE})]
)
def test_a_large_report_that_means_nothing_changes_nothing(desk, raw) -> None:
    prediction = desk.started()
    desk.by_token(prediction, raw=raw)
    desk.merge_enqueued()
    assert desk.now(prediction).state == "dispatching"
    assert [event["merged"] for event in raws(desk, prediction)] == [True]


def test_a_large_report_by_key_finds_its_prediction(desk) -> None:
    desk.by_key(logs=LARGE, id="7", status="processing")
    desk.merge_enqueued()
    assert (desk.of(ANNA, "7").state, desk.of(ANNA, "7").logs) == ("processing", LARGE)
    with pytest.raises(InvalidWebhook):
        desk.by_key(logs=LARGE)


def test_a_job_that_runs_twice_merges_once(desk) -> None:
    prediction = desk.started()
    desk.by_token(prediction, status="succeeded", logs=LARGE)
    desk.enqueued *= 2
    desk.merge_enqueued()
    assert [entry.body["event"] for entry in desk.streams.after(prediction.stream, 0)] == ["logs", "done"]


def test_a_job_that_was_overtaken_by_another_changes_nothing(desk, monkeypatch) -> None:
    prediction = desk.started()
    desk.by_token(prediction, status="succeeded", logs=LARGE)
    (event,), readable = desk.enqueued, desk.webhooks._readable

    def overtaken(*given):
        monkeypatch.undo()
        desk.webhooks.merge_stored(event)
        return readable(*given)

    monkeypatch.setattr(desk.webhooks, "_readable", overtaken)
    desk.merge_enqueued()
    assert [(event["late"], event["merged"]) for event in raws(desk, prediction)] == [(False, True)]


def test_a_large_report_after_the_end_is_only_logged(desk) -> None:
    prediction = desk.started()
    desk.by_token(prediction, status="canceled")
    desk.by_token(prediction, status="succeeded", logs=LARGE)
    assert desk.enqueued == []
    assert [(event["late"], event["merged"]) for event in raws(desk, prediction)] == [(False, True), (True, True)]


def test_what_a_job_forgot_is_found_again_and_in_the_end_merged_here(desk, clock) -> None:
    prediction = desk.started()
    desk.by_token(prediction, status="processing", logs=LARGE)
    desk.enqueued.clear()
    desk.webhooks.sweep()
    assert desk.enqueued == []
    clock.advance(FORGOTTEN + 1)
    desk.webhooks.sweep()
    assert len(desk.enqueued) == 1
    desk.enqueued.clear()
    clock.advance(OVERDUE)
    desk.webhooks.sweep()
    assert (desk.enqueued, desk.now(prediction).logs_length) == ([], 300_000)
    desk.webhooks.sweep()
    assert desk.enqueued == []


def test_a_report_above_all_limits_fails_its_prediction(desk) -> None:
    prediction = desk.started()
    desk.webhooks.too_large(webhook_token(SECRET, prediction.id))
    now = desk.now(prediction)
    assert (now.state, now.error) == ("failed", "The runner's result is larger than 33554432 bytes.")
    with pytest.raises(InvalidToken):
        desk.webhooks.too_large("x")
    desk.webhooks.too_large(webhook_token(SECRET, "a" * 26))


# --- many files in one report ---------------------------------------------------------------------------------------


def test_a_report_with_many_files_in_it_is_answered_before_they_are_stored(desk) -> None:
    prediction = desk.started()
    desk.by_token(prediction, status="succeeded", output=[f"data:,{number}" for number in range(9)])
    assert desk.now(prediction).output is None
    assert len(desk.enqueued) == 1
    desk.merge_enqueued()
    assert all(url.startswith("http") for url in desk.now(prediction).output)


def test_where_a_prediction_has_no_room_for_more_files_none_is_tried(store, clock, tmp_path, monkeypatch) -> None:
    desk = ReportDesk(store, clock, tmp_path, upload_per_prediction_files=2)
    desk.model()
    tried = []
    keep = desk.store_of_files.keep_data
    monkeypatch.setattr(desk.store_of_files, "keep_data", lambda *given: tried.append(given) or keep(*given))
    prediction = desk.started()
    desk.by_token(prediction, status="succeeded", output=[f"data:,{number}" for number in range(8)])
    assert [url[:5] for url in desk.now(prediction).output] == ["http:"] * 2 + ["data:"] * 6
    assert len(tried) == 3


# --- the database is away -------------------------------------------------------------------------------------------


def test_a_report_waits_for_a_locked_database_and_is_kept(sqlite_template, tmp_path, clock) -> None:
    with _sqlite_desk(sqlite_template, tmp_path, clock, wait=5.0) as (desk, path):
        prediction = desk.started()
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            release = threading.Timer(3.0, other.execute, ("ROLLBACK",))
            release.start()
            desk.by_token(prediction, status="succeeded")
            release.join()
        assert desk.now(prediction).state == "succeeded"


def test_a_report_that_could_not_be_kept_counts_when_it_is_sent_again(sqlite_template, tmp_path, clock) -> None:
    with _sqlite_desk(sqlite_template, tmp_path, clock, wait=0.1) as (desk, path):
        prediction = desk.started()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable):
                desk.by_token(prediction, status="succeeded")
        assert desk.now(prediction).events == 0
        desk.by_token(prediction, status="succeeded")
        desk.by_token(prediction, status="succeeded")
        done = [entry for entry in desk.streams.after(prediction.stream, 0) if entry.body["event"] == "done"]
        assert (desk.now(prediction).state, len(done)) == ("succeeded", 1)


class _sqlite_desk:
    """A desk over a file that another connection can lock; its writer waits so long for that."""

    def __init__(self, template, folder, clock, wait: float) -> None:
        self._path = folder / "grid.db"
        self._path.write_bytes(template.read_bytes())
        self._store = GroupCommitStore(make_engine(f"sqlite:///{self._path}"), call, lock_timeout=wait)
        self._desk = ReportDesk(self._store, clock, folder)

    def __enter__(self):
        self._desk.model()
        return self._desk, self._path

    def __exit__(self, *_error) -> None:
        self._store.close()
