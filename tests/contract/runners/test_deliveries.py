"""Webhooks to clients, over each store: owed with the change, tried until somebody has them, kept in a log."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook

from grid_node.clock import ManualClock
from grid_node.errors import BadCursor, DeliveryNotFound, RunnerPredictionNotFound, WebhookNotAllowed
from grid_node.runners import delivery_rows as rows
from grid_node.runners.changes import Changes
from grid_node.runners.deliveries import INTERRUPTED, MARGIN, PAUSES, Deliveries
from grid_node.runners.guarded_http import Answer, Unreachable
from grid_node.runners.hook_secrets import HookSecrets
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.prediction import Prediction, by_number
from grid_node.runners.secrets_box import SecretsBox
from grid_node.runners.tables import RunnerHookSecret
from grid_node.settings import Settings
from grid_node.streams.service import Streams
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

ALICE, BOB = RunnerCaller("key-alice", "alice"), RunnerCaller("key-bob", "bob")
URL = "https://hooks.example/x?token=of-the-client"
BASE = "https://grid.example"
TIMEOUT = 10.0


class Receiver:
    """What clients have at the end of their URLs: says what it is told to, 200 otherwise."""

    def __init__(self):
        self.got = []
        self.answers = []
        self.during = None

    def __call__(self, url, headers, body, *, timeout_s, allow_private):
        assert (timeout_s, allow_private) == (TIMEOUT, False)
        self.got.append((url, dict(headers), body.decode()))
        if self.during is not None:
            self.during()
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Answer) else Answer(answer, b"")

    @property
    def bodies(self):
        return [json.loads(body) for _url, _headers, body in self.got]

    @property
    def ids(self):
        return [headers["webhook-id"] for _url, headers, _body in self.got]


class Post:
    """The service over a store, a queue that the test empties, and a receiver."""

    def __init__(self, store):
        self.store = store
        self.clock = ManualClock()
        self.box = SecretsBox("", b"secret of the node".ljust(32))
        self.receiver = Receiver()
        self.queue = []
        self.secrets = HookSecrets(store, self.clock, self.box)
        self.chance = 0.5
        self.deliveries = self.process()
        self.changes = Changes(Streams(store), self.clock, self.deliveries)

    def process(self):
        """The service in a process of its own."""
        settings = Settings.load({})
        made = Deliveries(self.store, self.clock, settings, BASE, self.box, self.receiver, lambda: self.chance)
        made.enqueue = lambda id, seconds: self.queue.append((id, round(seconds, 6)))
        return made

    def prediction(self, **given):
        members = {
            "id": "p1",
            "owner": ALICE.owner,
            "runner_owner": "key-runner",
            "model_id": None,
            "model": "alice/model",
            "version": "f" * 64,
            "source": "node",
            "state": "starting",
            "input": {"prompt": "a robot"},
            "webhook": URL,
            "webhook_events": "",
            "due_at": self.clock.now(),
            "created_at": self.clock.now(),
            **given,
        }
        return self.store.write(lambda tx: self.changes.insert(tx, Prediction(**members)))

    def change(self, before, **changed):
        if "logs" in changed:
            changed["logs_length"] = len(changed["logs"])
        return self.store.write(lambda tx: self.changes.apply(tx, before, replace(before, **changed)))

    def run(self):
        """What the queue holds now, as the errands process would do it."""
        waiting, self.queue[:] = list(self.queue), []
        for id, _seconds in waiting:
            self.deliveries.deliver(id)

    def advance(self, seconds):
        self.clock.advance(seconds)

    def log(self, id="p1", caller=ALICE):
        return self.deliveries.of_prediction(caller, id)

    def states(self):
        told = [(one["event"], one["state"]) for one in self.log()]
        return sorted(told, key=lambda one: ["start", "output", "logs", "completed"].index(one[0]))


@pytest.fixture
def post(store):
    return Post(store)


def test_a_change_that_is_undone_owes_nothing(post):
    before = post.prediction()

    def failing(tx):
        post.changes.apply(tx, before, replace(before, state="processing"))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        post.store.write(failing)
    assert (post.queue, post.log()) == ([], [])


def test_the_body_is_the_prediction_at_that_moment(post):
    running = post.change(post.prediction(), state="processing")
    post.change(running, state="succeeded", output=["https://grid.example/1.png"])
    assert post.states() == [("start", "dropped"), ("completed", "pending")]
    post.run()
    (body,) = post.receiver.bodies
    assert body["status"] == "succeeded"
    assert body["output"] == ["https://grid.example/1.png"]
    assert body["urls"]["get"] == f"{BASE}/v1/predictions/p1"
    assert post.receiver.got[0][0] == URL
    assert post.receiver.got[0][1]["Content-Type"] == "application/json"


def test_start_is_sent_as_it_was_though_more_has_happened_since(post):
    running = post.change(post.prediction(), state="processing")
    post.change(running, logs="step 1")
    post.run()
    assert [body["logs"] for body in post.receiver.bodies] == ["", "step 1"]


def test_a_prediction_without_a_webhook_owes_nothing(post):
    post.change(post.prediction(webhook=None), state="succeeded")
    assert post.log() == []


def test_only_the_events_that_were_asked_for_are_sent(post):
    running = post.change(post.prediction(webhook_events="output,completed"), state="processing")
    more = post.change(running, logs="step 1", output=["a"])
    assert post.states() == [("output", "pending")]
    post.change(more, state="failed", error="no memory")
    assert post.states() == [("output", "dropped"), ("completed", "pending")]


def test_the_last_output_is_sent_where_nobody_asked_for_the_end(post):
    running = post.change(post.prediction(webhook_events="output"), state="processing", output=["a"])
    post.change(running, state="succeeded", output=["a", "b"])
    assert post.states() == [("output", "pending")]


def test_output_that_waits_is_brought_up_to_date_and_sent_once(post):
    seen = post.change(post.prediction(webhook_events="output"), state="processing", output=["a"])
    post.change(seen, output=["a", "b"])
    post.run()
    assert [body["output"] for body in post.receiver.bodies] == [["a", "b"]]


def test_output_and_logs_are_sent_at_most_every_half_second_each(post):
    seen = post.change(post.prediction(), state="processing", output=["a"], logs="1")
    post.run()
    assert len(post.receiver.got) == 3
    post.advance(0.2)
    seen = post.change(seen, output=["a", "b"], logs="12")
    assert [seconds for _id, seconds in post.queue] == [0.3, 0.3]
    post.run()
    assert len(post.receiver.got) == 3, "too soon: it waits for its time"
    assert [seconds for _id, seconds in post.queue] == [0.3, 0.3]
    post.advance(0.3)
    post.run()
    assert [body["logs"] for body in post.receiver.bodies[3:]] == ["12", "12"]


def test_half_a_second_counts_from_when_it_was_sent(post):
    seen = post.change(post.prediction(webhook_events="logs"), state="processing", logs="1")
    post.advance(0.4)
    post.run()
    post.change(seen, logs="12")
    assert post.queue[0][1] == 0.5


def test_output_that_is_being_sent_is_not_changed_any_more(post):
    seen = post.change(post.prediction(webhook_events="output"), state="processing", output=["a"])
    post.receiver.during = lambda: post.change(seen, output=["a", "b"])
    post.run()
    post.receiver.during = None
    post.advance(0.5)
    post.run()
    assert [body["output"] for body in post.receiver.bodies] == [["a"], ["a", "b"]]
    assert post.states() == [("output", "delivered")] * 2


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_an_answer_of_success_ends_it(post, status):
    post.receiver.answers = [Answer(status, b"thank you\0\xff")]
    post.change(post.prediction(), state="succeeded")
    post.run()
    (entry,) = post.log()
    (one,) = entry["tries"]
    assert (entry["state"], entry["attempts"], entry["next_try_at"]) == ("delivered", 1, None)
    assert (one["attempt"], one["status"], one["error"], one["answer"]) == (1, status, None, "thank you\ufffd")
    assert (one["event"], one["at"]) == ("completed", entry["created_at"])
    assert post.queue == []


@pytest.mark.parametrize("answer", [400, 401, 404, 410, 301, 302, 101, WebhookNotAllowed()])
def test_another_answer_ends_it_too(post, answer):
    post.receiver.answers = [answer]
    post.change(post.prediction(), state="succeeded")
    post.run()
    assert post.states() == [("completed", "failed")]
    assert post.queue == []


@pytest.mark.parametrize("answer", [408, 429, 500, 503, Unreachable("no answer in time")])
def test_completed_is_tried_seven_times_with_growing_pauses_under_one_id(post, answer):
    post.receiver.answers = [answer] * 20
    post.change(post.prediction(), state="succeeded")
    pauses = []
    while post.queue:
        pauses.append(post.queue[0][1])
        post.advance(pauses[-1])
        post.run()
    assert pauses == [0.0, 2.0, 10.0, 60.0, 300.0, 1800.0, 7200.0] == list(PAUSES)
    assert len(set(post.receiver.ids)) == 1
    assert len({body for _url, _headers, body in post.receiver.got}) == 1
    (entry,) = post.log()
    assert (entry["id"], entry["state"]) == (post.receiver.ids[0], "failed")
    assert [one["attempt"] for one in entry["tries"]] == [1, 2, 3, 4, 5, 6, 7]
    told = (answer, None) if isinstance(answer, int) else (None, "no answer in time")
    assert {(one["status"], one["error"]) for one in entry["tries"]} == {told}


@pytest.mark.parametrize(("chance", "pause"), [(0.0, 1.8), (1.0, 2.2)])
def test_pauses_differ_by_a_tenth(post, chance, pause):
    post.chance = chance
    post.receiver.answers = [500]
    post.change(post.prediction(), state="succeeded")
    post.run()
    assert post.queue[0][1] == pytest.approx(pause)


def test_the_other_events_have_one_try(post):
    post.receiver.answers = [500] * 3
    post.change(post.prediction(), state="processing", output=["a"], logs="1")
    post.run()
    assert post.states() == [("start", "failed"), ("output", "failed"), ("logs", "failed")]
    assert post.queue == []


def test_two_who_deliver_the_same_send_it_once(post):
    post.change(post.prediction(), state="succeeded")
    (id, _) = post.queue[0]
    other = post.process()
    post.receiver.during = lambda: other.deliver(id)
    post.run()
    other.deliver(id)
    assert len(post.receiver.got) == 1


class Killed(BaseException):
    """As kill -9: nothing that was begun is ended."""


def killed():
    raise Killed


def test_a_try_whose_process_died_is_made_again_under_the_same_id(post):
    post.change(post.prediction(), state="succeeded")
    post.receiver.answers = [500]
    post.run()
    post.advance(2.0)
    post.receiver.during = killed
    with pytest.raises(Killed):
        post.run()
    post.receiver.during = None
    assert post.deliveries.sweep() == 0, "the claim still counts"
    post.advance(TIMEOUT + MARGIN)
    assert post.deliveries.sweep() == 1
    post.run()
    (entry,) = post.log()
    assert entry["state"] == "delivered"
    assert [(one["attempt"], one["status"], one["error"]) for one in entry["tries"]] == [
        (1, 500, None),
        (2, None, INTERRUPTED),
        (3, 200, None),
    ]
    assert len(set(post.receiver.ids)) == 1


def test_one_that_ends_every_process_is_given_up(post):
    post.change(post.prediction(), state="succeeded")
    (id, _) = post.queue[0]
    post.receiver.during = killed
    for _ in PAUSES:
        with pytest.raises(Killed):
            post.process().deliver(id)
        post.advance(TIMEOUT + MARGIN)
    post.process().deliver(id)
    assert post.states() == [("completed", "failed")]
    assert len(post.log()[0]["tries"]) == len(PAUSES)


def test_who_comes_back_after_its_claim_was_taken_over_has_no_say(post):
    post.change(post.prediction(), state="succeeded")
    (id, _) = post.queue[0]
    other = post.process()

    def slow():
        post.receiver.during = None
        post.advance(TIMEOUT + MARGIN)
        other.deliver(id)

    post.receiver.answers = [200, 500]
    post.receiver.during = slow
    post.run()
    (entry,) = post.log()
    assert entry["state"] == "delivered"
    assert [(one["attempt"], one["status"]) for one in entry["tries"]] == [(1, None), (2, 200)]


def test_the_sweeper_finds_what_the_queue_lost_and_does_not_flood_it(post):
    post.change(post.prediction(), state="succeeded")
    post.queue.clear()
    assert post.deliveries.sweep() == 0, "it may still be on its way"
    post.advance(2.0)
    assert post.deliveries.sweep() == 1
    post.advance(5.0)
    assert post.deliveries.sweep() == 0, "it was enqueued a moment ago"
    post.advance(30.0)
    assert post.deliveries.sweep() == 1
    post.run()
    post.advance(100.0)
    assert post.deliveries.sweep() == 0
    assert post.states() == [("completed", "delivered")]


def test_the_backlog_of_one_owner_does_not_hide_anothers(post):
    for number in range(rows.SWEPT + 5):
        post.change(post.prediction(id=f"a{number}"), state="succeeded")
    post.change(post.prediction(id="b", owner=BOB.owner), state="succeeded")
    post.queue.clear()
    post.advance(5.0)
    assert post.deliveries.sweep() == rows.SWEPT + 1
    assert post.log("b", BOB)[0]["id"] in [id for id, _seconds in post.queue]


def test_an_owner_whose_receivers_do_not_answer_leaves_a_thread_to_others(post):
    """Of four threads an owner has three."""
    for number in range(4):
        post.change(post.prediction(id=f"a{number}"), state="succeeded")
    post.change(post.prediction(id="b", owner=BOB.owner), state="succeeded")
    waiting = [id for id, _seconds in post.queue]

    def others():
        while waiting:
            post.deliveries.deliver(waiting.pop(0))

    post.receiver.during = others
    others()
    assert [body["id"] for body in post.receiver.bodies] == ["a0", "a1", "a2", "b"]
    post.receiver.during = None
    post.advance(5.0)
    post.queue.clear()
    post.deliveries.sweep()
    post.run()
    assert post.receiver.bodies[-1]["id"] == "a3"


# --- signatures


def test_every_try_is_signed_as_standard_webhooks_want(post):
    post.receiver.answers = [500]
    post.change(post.prediction(), state="succeeded")
    post.run()
    post.advance(2.0)
    post.run()
    stamps = [headers["webhook-timestamp"] for _url, headers, _body in post.receiver.got]
    assert stamps == [str(int(post.clock.now() - 2)), str(int(post.clock.now()))]
    for _url, headers, body in post.receiver.got:
        assert _verified(post.secrets.key(ALICE.owner), headers, body)


def _verified(secret, headers, body):
    """By the library, whose own clock is the machine's: the signature is computed anew."""
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    return Webhook(secret).sign(headers["webhook-id"], at, body) in headers["webhook-signature"].split(" ")


def test_a_secret_is_made_once_and_is_each_owners_own(post):
    first = post.secrets.key(ALICE.owner)
    assert first.startswith("whsec_")
    assert len(first) == 6 + 44
    assert post.secrets.key(ALICE.owner) == first != post.secrets.key(BOB.owner)


def test_a_secret_lies_encrypted_in_the_database(post):
    secret = post.secrets.key(ALICE.owner)
    post.secrets.rotate(ALICE.owner)
    row = post.store.read(lambda tx: tx.execute(select(RunnerHookSecret.__table__)).one())
    assert secret not in str(row)
    assert secret.removeprefix("whsec_") not in str(row)


def test_after_a_rotation_both_secrets_sign_for_a_day(post):
    old = post.secrets.key(ALICE.owner)
    new = post.secrets.rotate(ALICE.owner)
    assert post.secrets.key(ALICE.owner) == new != old
    for number, (seconds, good) in enumerate([(0.0, 2), (86399.0, 2), (1.0, 1)]):
        post.advance(seconds)
        post.change(post.prediction(id=f"p{number}"), state="succeeded")
        post.run()
        _url, headers, body = post.receiver.got[-1]
        assert headers["webhook-signature"].count("v1,") == good
        assert _verified(new, headers, body)
        assert _verified(old, headers, body) is (good == 2)


def test_a_secret_that_was_never_asked_for_can_be_rotated(post):
    assert post.secrets.rotate(BOB.owner) == post.secrets.key(BOB.owner)


# --- the log


def test_the_log_is_its_owners_alone(post):
    post.change(post.prediction(), state="succeeded")
    with pytest.raises(RunnerPredictionNotFound):
        post.log(caller=BOB)
    with pytest.raises(RunnerPredictionNotFound):
        post.log(caller=RunnerCaller("key-runner", "runner"))
    with pytest.raises(RunnerPredictionNotFound):
        post.log("another")


def test_the_log_comes_in_pages_newest_first(post, monkeypatch):
    monkeypatch.setattr(rows, "PAGE", 2)
    post.change(post.prediction(), state="processing", output=["a"], logs="1")
    first = post.log()
    second = post.deliveries.of_prediction(ALICE, "p1", first[-1]["id"])
    assert {one["event"] for one in first + second} == {"start", "output", "logs"}
    assert (len(first), len(second)) == (2, 1)
    for cursor in ("msg_unknown", ""):
        with pytest.raises(BadCursor):
            post.deliveries.of_prediction(ALICE, "p1", cursor)


def test_what_was_delivered_or_given_up_can_be_sent_again(post):
    post.change(post.prediction(), state="succeeded")
    post.receiver.answers = [404]
    post.run()
    (id,) = set(post.receiver.ids)
    again = post.deliveries.redeliver(ALICE, id)
    assert (again["id"], again["state"]) == (id, "pending")
    post.run()
    assert post.states() == [("completed", "delivered")]
    post.deliveries.redeliver(ALICE, id)
    post.run()
    assert post.receiver.ids == [id] * 3
    assert len({body for _url, _headers, body in post.receiver.got}) == 1
    assert [one["attempt"] for one in post.log()[0]["tries"]] == [1, 2, 3]


def test_sending_again_is_its_owners_alone(post):
    post.change(post.prediction(), state="succeeded")
    post.run()
    for caller, id in ((BOB, post.receiver.ids[0]), (ALICE, "msg_unknown")):
        with pytest.raises(DeliveryNotFound):
            post.deliveries.redeliver(caller, id)
    assert post.queue == []
    assert post.states() == [("completed", "delivered")]


def test_what_is_being_sent_is_not_sent_beside_it(post):
    post.change(post.prediction(), state="succeeded")
    (id, _) = post.queue[0]
    post.receiver.during = lambda: post.deliveries.redeliver(ALICE, id)
    post.run()
    post.receiver.during = None
    post.run()
    assert len(post.receiver.got) == 1


def test_a_long_body_of_logs_is_not_kept_and_sent_again_as_things_are_then(post):
    seen = post.change(post.prediction(webhook_events="logs"), state="processing", logs="x" * 20_000)
    post.run()
    (id,) = post.receiver.ids
    assert post.store.read(lambda tx: tx.execute(select(rows.deliveries.c.body)).scalar_one()) == ""
    post.change(seen, state="succeeded")
    post.deliveries.redeliver(ALICE, id)
    post.run()
    assert [body["status"] for body in post.receiver.bodies] == ["processing", "succeeded"]


def test_a_delivery_whose_data_were_removed_meanwhile_leaves_no_trace_of_them(post):
    ended = post.change(post.prediction(), state="succeeded")
    post.receiver.answers = [Answer(200, b"you said: a robot")]

    def removed():
        emptied = {"body": "", "claimed_until": None, "state": "dropped"}
        post.store.write(lambda tx: tx.execute(update(rows.deliveries).values(**emptied)))

    post.receiver.during = removed
    post.run()
    (entry,) = post.log()
    assert (entry["state"], entry["tries"]) == ("dropped", [])
    assert post.store.read(lambda tx: by_number(tx, ended.number)) is not None
