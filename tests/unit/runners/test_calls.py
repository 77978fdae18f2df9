"""What is said to a worker, and what its answers and its health-check mean."""

import pytest

from grid_node.clock import ManualClock
from grid_node.runners.backoff import Backoffs
from grid_node.runners.calls import Answer, detail_of, message, outcome_of
from grid_node.runners.health import best, health_of
from grid_node.runners.ids import prediction_of_token
from grid_node.runners.ports import Reply
from tests.unit.runners.test_watching import prediction

SECRET = b"secret of the node"
LANE = ("m-1", "a" * 32)


def test_a_prediction_is_sent_with_its_input_and_where_to_report():
    sent = message(prediction(input={"prompt": "a cat", "steps": 50}), "https://grid.example", SECRET)
    address, _, token = sent.pop("webhook").partition("?token=")
    assert sent == {
        "id": "p1",
        "input": {"prompt": "a cat", "steps": 50},
        "created_at": "2027-01-15T08:00:00.000Z",
        "context": {"prediction_id": "p1"},
        "webhook_events_filter": ["start", "output", "logs", "completed"],
    }
    assert address == "https://grid.example/pc/client-api/webhook/prediction"
    assert token.startswith("p1.")


def test_the_token_of_a_report_names_its_prediction():
    id = "abcdefghijklmnopqrstuvwxyz"
    sent = message(prediction(id=id), "https://grid.example", SECRET)
    assert prediction_of_token(SECRET, sent["webhook"].partition("?token=")[2]) == id


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, Answer.ACCEPTED),
        (202, Answer.ACCEPTED),
        (409, Answer.BUSY),
        (503, Answer.BUSY),
        (400, Answer.REFUSED),
        (404, Answer.REFUSED),
        (405, Answer.REFUSED),
        (422, Answer.REFUSED),
        (302, Answer.REFUSED),
        (500, Answer.FAULT),
        (502, Answer.FAULT),
    ],
)
def test_each_status_of_a_worker_means_one_thing(status, answer):
    assert outcome_of(Reply(status, None)).answer is answer


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"detail": "no such input"}, "no such input"),
        ({"error": "At capacity"}, "At capacity"),
        (
            {"detail": [{"loc": ["body", "input", "steps"], "msg": "too many", "type": "x"}]},
            "body.input.steps: too many",
        ),
        ({"detail": [{"msg": "one"}, {"msg": "two"}, 3]}, "one; two"),
        ({"detail": "x" * 5000}, "x" * 1024),
        ({"detail": "a\0b\ud800c"}, "abc"),
        ({"detail": {"deep": 1}}, ""),
        (["detail"], ""),
        (None, ""),
    ],
)
def test_the_detail_of_a_refusal_is_the_workers_words_bounded_and_clean(body, detail):
    assert detail_of(body) == detail


def test_a_refusal_without_words_names_its_status():
    assert outcome_of(Reply(405, None)).detail == "status 405"


# --- health


def test_the_health_check_is_kept_whole_with_what_the_node_reads():
    health = health_of({"status": "BUSY", "version": {"cog": "0.23.1"}, "concurrency": {"max": 2, "current": 1}})
    assert (health.status, health.cog_version, health.in_use) == ("BUSY", "0.23.1", 1)
    assert '"max":2' in health.text


@pytest.mark.parametrize(
    "body", [None, [], {}, {"status": 5}, {"status": "NICE"}, {"status": "READY " * 3}, {"status": ["READY"]}]
)
def test_a_health_check_that_says_nothing_known_is_unknown(body):
    assert health_of(body).status == "UNKNOWN"


def test_of_a_large_health_check_only_what_the_node_reads_is_kept():
    health = health_of({"status": "SETUP_FAILED", "setup": {"logs": "x" * 100_000}})
    assert health.text == '{"status":"SETUP_FAILED"}'


@pytest.mark.parametrize("version", ["x" * 33, "a\nb", 5, None, {"a": 1}])
def test_a_version_that_is_none_is_not_kept(version):
    assert health_of({"status": "READY", "version": {"cog": version}}).cog_version is None


def test_the_best_of_several_runners_is_the_one_that_may_take_work():
    assert best(["OFFLINE", "STARTING", "READY", "BUSY"]) == "READY"
    assert best(["DEFUNCT", "STARTING"]) == "STARTING"
    assert best([]) == "OFFLINE"


# --- backoff


def test_a_busy_runner_rests_for_a_time_that_doubles_up_to_five_seconds():
    clock = ManualClock()
    backoffs = Backoffs(clock)
    rests = []
    for _ in range(7):
        backoffs.busy(LANE, 1)
        rests.append(round(backoffs.next_end(), 3))
        clock.advance(rests[-1])
        assert not backoffs.rests(LANE)
    assert rests == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_freed_runner_begins_at_the_shortest_rest_again():
    backoffs = Backoffs(ManualClock())
    for _ in range(5):
        backoffs.busy(LANE, 1)
    assert backoffs.free(LANE)
    assert not backoffs.rests(LANE)
    backoffs.busy(LANE, 1)
    assert round(backoffs.next_end(), 3) == 0.2


def test_a_rest_that_is_over_for_long_is_forgotten():
    clock = ManualClock()
    backoffs = Backoffs(clock)
    backoffs.busy(LANE, 1)
    clock.advance(10)
    backoffs.forget()
    assert not backoffs.free(LANE)
