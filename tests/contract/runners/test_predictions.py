"""Predictions from the side of whoever asks, over every store."""

import json
import threading

import pytest
from sqlalchemy import func, insert, select, update

from grid_node.clock import ManualClock
from grid_node.errors import (
    BadCursor,
    BodyTooLarge,
    InvalidInput,
    InvalidPayload,
    ModelNotFound,
    PredictionActive,
    RateLimited,
    RunnerIdempotencyConflict,
    RunnerPredictionNotFound,
    RunnerQueueFull,
    UnknownVersion,
    WebhookNotAllowed,
)
from grid_node.runners import agents, prediction_pages
from grid_node.runners.agents import Agent
from grid_node.runners.cursors import cursor_of, place_of
from grid_node.runners.health import NO_ANSWER, health_of
from grid_node.runners.models import models
from grid_node.runners.prediction import EXTERNAL, insert_prediction
from grid_node.runners.run_events import start_of
from grid_node.runners.tables import RunnerDelivery, RunnerEvent, RunnerPrediction
from grid_node.streams.tables import StreamEntry
from tests.booth import ANNA, BERT, CARL, SIGNATURE, Booth
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

BIG_DATA = "data:image/png;base64," + "A" * 70_000


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def booth(store, clock):
    made = Booth(store, clock)
    made.id, made.version = made.model()
    return made


def fields_of(booth, **members):
    with pytest.raises(InvalidInput) as caught:
        booth.run(**members)
    return caught.value.data["fields"]


def count(booth, table, *where):
    return booth.store.read(lambda tx: tx.execute(select(func.count()).select_from(table).where(*where)).scalar())


# --- run ------------------------------------------------------------------------------------------------------


def test_a_run_is_queued_with_checked_input_and_counted(booth):
    made = booth.run(input={"prompt": "a cat", "steps": "7"})
    kept = booth.stored(made.id)
    assert kept == made
    assert kept.input == {"prompt": "a cat", "steps": 7}
    assert (kept.state, kept.owner, kept.runner_owner) == ("queued", "bert-key", "anna-key")
    assert (kept.model, kept.version, kept.model_id) == ("anna/paint", booth.version, booth.id)
    assert kept.due_at == booth.clock.now() + 600
    assert booth.row_of_model(booth.id).run_count == 1
    assert booth.charges.charged == ["bert-key"]
    assert booth.queued == 1


def test_one_that_waits_says_that_no_runner_is_there_as_long_as_that_is_so(booth):
    """It is told and not kept."""
    made = booth.run()
    agent = Agent(booth.id, "1" * 32, "node-1", "grid-runner/1")
    assert booth.predictions.view(made)["warnings"] == ["no_runner"]
    assert [one["warnings"] for one in booth.predictions.views([made, made])] == [["no_runner"]] * 2
    assert booth.stored(made.id).warnings == []
    booth.store.write(lambda tx: agents.connect(tx, agent, 8, booth.clock.now()))
    assert booth.predictions.view(made)["warnings"] == []
    booth.store.write(lambda tx: agents.gone(tx, agent, booth.clock.now()))
    assert booth.predictions.view(made)["warnings"] == ["no_runner"]
    assert booth.predictions.view(booth.report(made, state="processing"))["warnings"] == []


def test_a_worker_without_an_agent_is_missed_once_it_was_asked(store, clock):
    names = ("tunnel_api_token", "dns_api_token", "account_id", "zone_id")
    account = {f"cloudflare_{name}": "x" for name in names}
    booth = Booth(store, clock, runner_tunnel_provider="cloudflare", runner_domain="runners.example", **account)
    id, _ = booth.model()
    made = booth.run()
    assert booth.predictions.view(made)["warnings"] == []
    direct = Agent(id, agents.DIRECT, "node-1", "")
    booth.store.write(lambda tx: agents.probed(tx, direct, NO_ANSWER, clock.now()))
    assert booth.predictions.view(made)["warnings"] == ["no_runner"]
    booth.store.write(lambda tx: agents.probed(tx, direct, health_of({"status": "READY"}), clock.now()))
    assert booth.predictions.view(made)["warnings"] == []


def test_the_view_has_every_member_that_clients_read(booth):
    first, second = booth.run(), booth.run()
    view = booth.predictions.view(second)
    address = f"http://grid.test/v1/predictions/{second.id}"
    assert view["urls"] == {"get": address, "cancel": f"{address}/cancel", "stream": f"{address}/stream"}
    assert (view["status"], view["queue_position"], view["source"]) == ("starting", 2, "node")
    assert booth.predictions.view(first)["queue_position"] == 1
    assert booth.predictions.view(booth.report(first, state="processing"))["queue_position"] is None
    assert booth.predictions.view(second)["queue_position"] == 1


def test_a_version_is_named_alone_or_behind_the_model(booth):
    for text in (booth.version, "anna/paint", f"anna/paint:{booth.version}", f"anna/{booth.id}"):
        assert booth.run(model=None, version=text).model_id == booth.id


def test_an_older_version_keeps_its_own_rules(booth):
    stricter = json.loads(json.dumps(SIGNATURE))
    stricter["inputs"][1]["validation"]["le"] = "60"
    newer = booth.new_version(booth.id, json.dumps(stricter))
    assert booth.run(model=None, version=booth.version, input={"prompt": "x", "steps": 900}).version == booth.version
    assert booth.run().version == newer
    assert list(fields_of(booth, input={"prompt": "x", "steps": 900})) == ["steps"]


def test_a_version_that_several_models_have_means_the_callers_own_then_the_oldest(booth):
    booth.clock.advance(1)
    booth.model(CARL, "mine", visibility="private")
    booth.clock.advance(1)
    booth.model(BERT, "later")
    assert booth.run(CARL, None, version=booth.version).model == "carl/mine"
    assert booth.run(BERT, None, version=booth.version).model == "bert/later"
    assert booth.run(ANNA, None, version=booth.version).model == "anna/paint"


def test_a_model_that_had_the_version_counts_behind_one_that_has_it(booth):
    other = json.dumps({**SIGNATURE, "outputs": "Any"})
    booth.clock.advance(1)
    mine, _ = booth.model(BERT, "mine")
    booth.clock.advance(1)
    booth.model(BERT, "newer")
    booth.new_version(mine, other)
    assert booth.run(BERT, None, version=booth.version).model == "bert/newer"
    booth.new_version(booth.id, other)
    assert booth.run(CARL, None, version=booth.version).model == "bert/newer"


def test_an_own_model_that_had_the_version_counts_before_anothers_that_has_it(booth):
    mine, _ = booth.model(BERT, "mine")
    booth.new_version(mine, json.dumps({**SIGNATURE, "outputs": "Any"}))
    assert booth.run(BERT, None, version=booth.version).model == "bert/mine"


def test_a_version_of_a_model_that_leaves_is_unknown(booth):
    _, version = booth.model(BERT, "leaving", {**SIGNATURE, "outputs": "Any"}, state="deleting")
    with pytest.raises(UnknownVersion):
        booth.run(BERT, None, version=version)


def test_a_model_that_leaves_in_the_middle_takes_nothing_more(booth, monkeypatch):
    def keep_and_leave(owner, url, prediction):
        leaving = update(models).where(models.c.id == booth.id).values(state="deleting")
        booth.store.write(lambda tx: tx.execute(leaving))
        return "http://grid.test/x"

    monkeypatch.setattr(booth.files, "keep_data", keep_and_leave)
    with pytest.raises(ModelNotFound):
        booth.run(input={"prompt": "x", "image": BIG_DATA})
    assert count(booth, RunnerPrediction) == 0


@pytest.mark.parametrize(
    "version", ["", "f" * 64, "nobody/paint", "anna/none", "anna/paint:" + "f" * 64, "a/b/c", "x\0"]
)
def test_an_unknown_version_is_told_as_one(booth, version):
    with pytest.raises((UnknownVersion, InvalidPayload)):
        booth.run(model=None, version=version)


def test_a_private_or_unready_model_is_not_found(booth):
    booth.model(ANNA, "secret", visibility="private")
    booth.model(ANNA, "leaving", state="deleting")
    for name in ("anna/secret", "anna/leaving", "anna/none", "carl/paint"):
        with pytest.raises(ModelNotFound):
            booth.run(model=name)
    with pytest.raises(UnknownVersion):
        booth.run(model=None, version="anna/secret")
    assert booth.run(ANNA, "anna/secret").runner_owner == "anna-key"


def test_every_wrong_input_is_named_at_once_and_nothing_is_kept(booth):
    assert fields_of(booth, input={"steps": 10**400, "color": 1}) == {
        "prompt": ["Missing data for required field."],
        "steps": ["Not a valid integer."],
        "color": ["Unknown field."],
    }
    assert fields_of(booth, input=[1]) == {"_schema": ["Invalid input type."]}
    assert (count(booth, RunnerPrediction), booth.row_of_model(booth.id).run_count) == (0, 0)


def test_patterns_are_looked_for_where_nobody_waits(booth, monkeypatch):
    offloaded = []

    def offload(function, *args):
        offloaded.append(function.__name__)
        return function(*args)

    monkeypatch.setattr(booth.predictions, "_offload", offload)
    pattern = {"inputs": [{"name": "prompt", "type": "str", "validation": {"regex": "^c"}}], "outputs": "str"}
    booth.model(name="strict", signature=pattern)
    booth.run()
    assert offloaded == []
    assert booth.run(model="anna/strict", input={"prompt": "cat"}).input == {"prompt": "cat"}
    assert fields_of(booth, model="anna/strict", input={"prompt": "a cat"}) == {
        "prompt": ["String does not match expected pattern."]
    }
    assert offloaded == ["check_input", "check_input"]


def test_an_input_above_the_limit_is_refused(store, clock):
    booth = Booth(store, clock, input_max_bytes=1000)
    booth.model()
    assert booth.run(input={"prompt": "é" * 450})
    with pytest.raises(BodyTooLarge):
        booth.run(input={"prompt": "é" * 500})


def test_long_data_goes_to_a_file_and_short_data_stays(booth):
    short = "data:image/png;base64,AAAA"
    assert booth.run(input={"prompt": "x", "image": short}).input["image"] == short
    made = booth.run(input={"prompt": BIG_DATA, "image": BIG_DATA})
    assert made.input["image"] == "http://grid.test/pc/client-api/files/00000000000000000000000000000001.png"
    assert made.input["prompt"] == BIG_DATA
    assert booth.files.kept == [BIG_DATA]
    assert fields_of(booth, input={"prompt": "x", "image": BIG_DATA.replace("base64", "broken")}) == {
        "image": ["Not a valid URL."]
    }


def test_a_full_queue_takes_no_more_until_one_has_left(store, clock):
    booth = Booth(store, clock, runner_queue_max=2)
    booth.model()
    booth.model(name="other")
    first = booth.run()
    booth.run()
    with pytest.raises(RunnerQueueFull) as caught:
        booth.run()
    assert 0 < caught.value.retry_after <= 30
    assert booth.run(model="anna/other")
    booth.report(first, state="processing")
    assert booth.run()


def test_a_key_over_its_limit_leaves_nothing_behind(booth):
    booth.charges.refusal = RateLimited(retry_after=3600)
    with pytest.raises(RateLimited):
        booth.run()
    assert (count(booth, RunnerPrediction), booth.row_of_model(booth.id).run_count) == (0, 0)


def test_the_same_key_and_body_make_one_prediction_for_a_day(booth):
    first = booth.run(idempotency_key="k", input={"prompt": "x"})
    booth.report(first, state="processing")
    again = booth.run(idempotency_key="k", input={"prompt": "x"})
    assert (again.id, again.state) == (first.id, "processing")
    assert booth.run(CARL, idempotency_key="k", input={"prompt": "x"}).id != first.id
    for other in ({"input": {"prompt": "y"}}, {"input": {"prompt": 10**400}}, {"cancel_after": "5s"}):
        with pytest.raises(RunnerIdempotencyConflict):
            booth.run(**{"idempotency_key": "k", "input": {"prompt": "x"}, **other})
    booth.clock.advance(86401)
    assert booth.run(idempotency_key="k", input={"prompt": "x"}).id != first.id


def test_many_at_once_with_one_key_make_one_prediction(booth):
    made, threads = [], []
    for _ in range(6):
        threads.append(threading.Thread(target=lambda: made.append(booth.run(idempotency_key="k").id)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert (len(made), len(set(made)), count(booth, RunnerPrediction)) == (6, 1, 1)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/x", "ftp://example.org/", "https://10.1.2.3/", "https://a.example/" + "x" * 2048]
)
def test_a_webhook_goes_to_no_private_or_odd_address(booth, url):
    with pytest.raises(WebhookNotAllowed):
        booth.run(webhook=url)


def test_webhooks_and_their_events_are_kept(store, clock):
    booth = Booth(store, clock, webhook_allow_private=True)
    booth.model()
    every = booth.run(webhook="http://127.0.0.1:9/x")
    some = booth.run(webhook="http://127.0.0.1:9/x", webhook_events_filter=["completed", "start", "start"])
    old = booth.run(webhook_completed="http://127.0.0.1:9/y", stream=True, something="else")
    assert [(one.webhook, one.webhook_events) for one in (every, some, old)] == [
        ("http://127.0.0.1:9/x", ""),
        ("http://127.0.0.1:9/x", "start,completed"),
        ("http://127.0.0.1:9/y", "completed"),
    ]
    with pytest.raises(InvalidPayload):
        booth.run(webhook="http://127.0.0.1:9/x", webhook_events_filter=["end"])


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600)])
def test_cancel_after_is_a_deadline(booth, text, seconds):
    made = booth.run(cancel_after=text)
    assert made.deadline == booth.clock.now() + seconds
    assert made.due_at == booth.clock.now() + min(seconds, 600)


@pytest.mark.parametrize("text", ["", "0s", "5", "-5s", "1d", "5 s", "9" * 8 + "s", "١s"])
def test_what_is_no_duration_is_refused(booth, text):
    with pytest.raises(InvalidPayload):
        booth.run(cancel_after=text)


# --- look -----------------------------------------------------------------------------------------------------


def test_somebody_elses_prediction_is_not_found_and_stays_as_it_is(booth):
    made = booth.run()
    for call in (booth.predictions.get, booth.predictions.cancel, booth.predictions.delete):
        for caller, id in (
            (CARL, made.id),
            (ANNA, made.id),
            (BERT, "x" * 26),
            (BERT, "\0"),
            (BERT, "x" * 500),
        ):
            with pytest.raises(RunnerPredictionNotFound):
                call(caller, id)
    assert booth.stored(made.id) == made


def test_pages_are_newest_first_and_lead_to_each_other(booth):
    ids = [booth.run().id for _ in range(203)]
    booth.run(CARL)
    first = booth.predictions.page(BERT)
    second = booth.predictions.page(BERT, first.next)
    third = booth.predictions.page(BERT, second.next)
    told = [one.id for page in (first, second, third) for one in page.results]
    assert told == ids[::-1]
    assert [len(page.results) for page in (first, second, third)] == [100, 100, 3]
    assert (first.previous, third.next) == (None, None)
    assert booth.predictions.page(BERT, third.previous).results == second.results
    assert booth.predictions.page(BERT, second.previous).results == first.results


def test_a_page_of_large_predictions_ends_early_and_misses_none(booth, monkeypatch):
    monkeypatch.setattr(prediction_pages, "PAGE_BYTES", 5000)
    for size in (10, 3000, 3000, 9000, 10, 10):
        booth.report(booth.run(), state="processing", output="x" * size)
    sizes, cursor = [], None
    while True:
        page = booth.predictions.page(BERT, cursor)
        sizes.append([len(one.output) for one in page.results])
        if page.next is None:
            break
        cursor = page.next
    assert sizes == [[10, 10], [9000], [3000], [3000, 10]]


def test_a_list_shows_the_end_of_long_logs_and_says_so(booth):
    logs = "".join(f"step {number}\n" for number in range(2000))
    made = booth.report(booth.run(), state="processing", logs=logs, logs_length=len(logs))
    [listed] = booth.predictions.page_view(booth.predictions.page(BERT))["results"]
    assert listed["logs"] == logs[-4096:]
    assert listed["warnings"] == ["logs_truncated"]
    assert booth.predictions.view(booth.predictions.get(BERT, made.id))["logs"] == logs


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: "x" + text[1:],
        lambda _: "",
        lambda _: "0",
        lambda _: "é",
        lambda _: "A" * 600,
    ],
)
def test_a_cursor_that_was_changed_is_none(booth, change):
    cursor = cursor_of("predictions", "older", 7)
    assert place_of("predictions", cursor, str, int) == ["older", 7]
    for kind, text in (("predictions", change(cursor)), ("models", cursor)):
        with pytest.raises(BadCursor):
            place_of(kind, text, str, int)
    with pytest.raises(BadCursor):
        booth.predictions.page(BERT, change(cursor))


def external(booth, id, **members):
    first = booth.run()
    made = booth.stored(first.id).__class__(
        id=id, owner="bert-key", runner_owner="bert-key", model_id=None, model="bert/external", version="hidden",
        source=EXTERNAL, state="processing", input=None, due_at=0.0, created_at=booth.clock.now(), **members,
    )  # fmt: skip
    booth.store.write(lambda tx: insert_prediction(tx, made))
    return made


def test_an_id_of_a_worker_with_a_slash_is_found_by_query(booth):
    external(booth, "a/b")
    [found] = booth.predictions.page(BERT, external_id="a/b").results
    assert (found.id, found.model, found.version) == ("a/b", "bert/external", "hidden")
    assert booth.predictions.page(CARL, external_id="a/b").results == []
    assert booth.predictions.page(BERT, external_id="\0").results == []


def test_waiting_ends_with_the_prediction(booth):
    made = booth.run()
    ended = []
    waiting = threading.Thread(target=lambda: ended.append(booth.predictions.wait(BERT, made.id, 60)))
    waiting.start()
    while not booth.streams.followed(made.stream):
        pass
    booth.report(made, state="processing", logs="1\n", logs_length=2)
    booth.report(made, state="succeeded", output=["x"])
    waiting.join()
    assert ended[0].output == ["x"]
    assert not booth.streams.followed(made.stream)


def test_an_end_between_the_look_and_the_wait_is_heard(booth, monkeypatch):
    made = booth.run()
    subscribe = booth.streams.subscribe

    def late(*args):
        booth.report(made, state="succeeded")
        return subscribe(*args)

    monkeypatch.setattr(booth.streams, "subscribe", late)
    assert booth.predictions.wait(BERT, made.id, 600).state == "succeeded"


def test_a_wait_that_runs_out_tells_the_state(booth):
    made = booth.run()
    assert booth.predictions.wait(BERT, made.id, 0.01).state == "queued"
    assert booth.predictions.wait(BERT, made.id, -3).state == "queued"


# --- end ------------------------------------------------------------------------------------------------------


def test_a_waiting_prediction_is_cancelled_at_once(booth):
    made = booth.run(webhook=None)
    gone = booth.predictions.cancel(BERT, made.id)
    assert (gone.state, gone.finished_at) == ("canceled", booth.clock.now())
    assert booth.predictions.cancel(BERT, made.id) == gone
    assert booth.watched == 1


def test_a_running_prediction_is_cancelled_by_its_worker(booth):
    made = booth.report(booth.run(), state="processing", due_at=booth.clock.now() + 99)
    asked = booth.predictions.cancel(BERT, made.id)
    assert (asked.state, asked.cancel_at, asked.due_at) == ("processing", booth.clock.now(), booth.clock.now())
    assert booth.watched == 1
    booth.clock.advance(5)
    assert booth.predictions.cancel(BERT, made.id) == asked
    ended = booth.report(made, state="succeeded", output=[])
    assert booth.predictions.cancel(BERT, made.id) == ended


def test_a_cancelled_prediction_of_no_model_of_ours_ends(booth):
    made = external(booth, "7")
    assert booth.predictions.cancel(BERT, made.id).state == "canceled"


def test_an_active_prediction_is_not_removed(booth):
    made = booth.run()
    with pytest.raises(PredictionActive):
        booth.predictions.delete(BERT, made.id)


def filled(booth):
    """An ended prediction with everything that one can have."""
    made = booth.report(booth.run(), state="processing", output=["secret"], logs="secret\n", logs_length=7)
    made = booth.report(made, state="failed", error="oom", extra={"secret": 1}, metrics={"predict_time": 2.0})
    event = {
        "prediction": made.number, "seq": 1, "received_at": 0.0, "auth": "token", "status": "x", "sha256": "0" * 64,
        "size": 6, "body": b"secret", "late": False, "merged": True,
    }  # fmt: skip
    delivery = {
        "id": f"msg_{made.number}", "prediction": made.number, "owner": "bert-key", "event": "completed",
        "url": "https://a.example", "body": "secret", "state": "pending", "due_at": 0.0, "created_at": 0.0,
    }  # fmt: skip
    booth.store.write(lambda tx: tx.execute(insert(RunnerEvent), event))
    booth.store.write(lambda tx: tx.execute(insert(RunnerDelivery), delivery))
    return made


def test_removed_data_are_gone_everywhere_and_the_row_stays(booth):
    made, other = filled(booth), filled(booth)
    booth.predictions.delete(BERT, made.id)
    view = booth.predictions.view(booth.predictions.get(BERT, made.id))
    assert (view["data_removed"], view["input"], view["output"], view["logs"]) == (True, {}, None, "")
    assert (view["status"], view["error"], view["metrics"]) == ("failed", "oom", {"predict_time": 2.0})
    assert "secret" not in json.dumps(view)
    assert count(booth, RunnerEvent) == 1
    assert count(booth, StreamEntry, StreamEntry.stream == made.stream) == 0
    assert count(booth, StreamEntry, StreamEntry.stream == other.stream) == other.seq
    gone = booth.store.read(lambda tx: tx.execute(select(RunnerDelivery.body, RunnerDelivery.state)).all())
    assert sorted(gone) == [("", "dropped"), ("secret", "pending")]
    assert booth.files.forgotten == [made.id]
    booth.predictions.delete(BERT, made.id)


def test_old_predictions_are_forgotten_and_others_stay(booth):
    made, waiting = filled(booth), booth.run()
    booth.clock.advance(booth.settings.prediction_ttl_s + 1)
    fresh = filled(booth)
    assert booth.predictions.purge() == 1
    assert [booth.stored(one.id) is None for one in (made, waiting, fresh)] == [True, False, False]
    assert (count(booth, RunnerEvent), count(booth, RunnerDelivery)) == (1, 1)
    assert booth.predictions.purge() == 0


def test_the_key_of_a_forgotten_prediction_is_free_again(store, clock):
    booth = Booth(store, clock, prediction_ttl_s=10)
    booth.model()
    first = booth.run(idempotency_key="k")
    booth.predictions.cancel(BERT, first.id)
    booth.clock.advance(11)
    booth.predictions.purge()
    assert booth.run(idempotency_key="k").id != first.id


# --- updates --------------------------------------------------------------------------------------------------


def start(booth, made, given):
    prediction = booth.stored(made.id)
    return booth.store.read(lambda tx: start_of(tx, booth.streams, prediction, given))


def test_a_reader_goes_on_where_it_was_or_begins_again(booth):
    made = booth.report(booth.run(), state="processing", output=["a", "b"])
    epoch = made.epoch
    assert start(booth, made, None)[:2] == (0, True)
    assert start(booth, made, f"{epoch}:1")[:2] == (1, True)
    assert start(booth, made, f"{epoch}:2") == (2, True, None)
    for wrong in (f"{epoch}:3", f"{epoch[:-1]}x:1", "1", "", f"{epoch}:-1", f"{epoch}:١", "0:1"):
        assert start(booth, made, wrong) == (0, False, None)


def test_a_reader_that_has_the_end_gets_nothing_more(booth):
    made = booth.report(booth.run(), state="canceled")
    assert start(booth, made, f"{made.epoch}:{made.seq}").instead == []
    assert start(booth, made, None) == (0, True, None)


def test_updates_that_are_not_kept_are_told_from_the_row(booth):
    made = booth.report(booth.run(), state="processing", output=["a", {"b": 1}], logs="log", logs_length=3)
    made = booth.report(made, state="failed", error="oom")
    booth.run()
    booth.report(booth.run(), state="canceled")
    booth.store.write(lambda tx: booth.streams.purge(tx, booth.clock.now() + 1))
    told = start(booth, made, f"{made.epoch}:1")
    assert not told.recovered
    assert [(one.event, one.data) for one in told.instead] == [
        ("output", "a"),
        ("output", '{"b":1}'),
        ("logs", "log"),
        ("error", '{"detail":"oom"}'),
        ("done", '{"reason":"error"}'),
    ]
    assert told.instead[-1].offset == f"{made.epoch}:{made.seq}"
