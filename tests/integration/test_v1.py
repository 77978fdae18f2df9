"""`/v1` on a running node: the published replicate client unmodified, and what it does not look at."""

import json
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest
import requests
import socketio

from tests.integration.sockets import Socket
from tests.nodes import ROOT, LiveNode, running_node, until
from tests.scripted_runner import ScriptedRunner

SCRIPT = Path(__file__).with_name("replicate_calls.py")
PYTHON = Path(os.environ.get("GRID_TEST_REPLICATE_PYTHON") or ROOT / ".venv-replicate" / "bin" / "python")
PAINTER = {
    "name": "painter",
    "inputs": [
        {"name": "prompt", "type": "str", "validation": {}},
        {"name": "steps", "type": "int", "validation": {"default": "50", "ge": "0", "le": "1000"}},
        {"name": "image", "type": "Optional[Path]", "validation": {}},
    ],
    "outputs": "list[Path]",
}
TALKER = {
    "name": "talker",
    "inputs": [{"name": "prompt", "type": "str", "validation": {}}],
    "outputs": "ConcatenateIterator[str]",
}
PICTURES = [b"\x89PNG\r\n\x1a\n" + bytes([number]) * 40 for number in range(2)]


def paint(run):
    """Two pictures, or the one that was given."""
    if run.input["prompt"] == "copy":
        given = requests.get(run.input["image"], timeout=20)
        assert given.status_code == 200
        urls = [run.upload(f"{run.id}_0_copy.png", given.content, "image/png")]
    else:
        urls = [run.upload(f"{run.id}_{n}_out.png", picture, "image/png") for n, picture in enumerate(PICTURES)]
        run.report("processing", output=urls[:1])
    run.report("succeeded", output=urls, metrics={"predict_time": 0.1})


class Talker:
    """Says the prompt word by word. The words `slow`, `later`, `step` wait: to be cancelled, a while, to be let on."""

    def __init__(self):
        self.steps = threading.Semaphore(0)

    def __call__(self, run):
        prompt = run.input["prompt"]
        run.report("starting")
        if prompt == "fail":
            run.report("failed", error="out of memory", logs="no!\n")
            return
        said, logs = [], ""
        for word in prompt.split():
            if word == "slow":
                run.cancelled.wait(60)
                run.report("canceled", output=said, logs=logs)
                return
            if word == "later":
                run.cancelled.wait(3)
            if word == "step":
                assert self.steps.acquire(timeout=60)
            said, logs = [*said, word], f"{logs}{word}\r\n"
            run.report("processing", output=said, logs=logs)
        run.report("succeeded", output=said, logs=logs)


class Stage:
    """A node with two models that are at work; `anna` owns them, `bert` uses them."""

    def __init__(self, node):
        self.node = node
        self.owner_key = node.add_key("anna", ("runner", "client"))
        self.key = node.add_key("bert", ("client",))
        self.owner = self.ask("GET", "/v1/account", key=self.owner_key).json()["username"]
        self.talker = Talker()
        self.runners = [self._runner(PAINTER, paint), self._runner(TALKER, self.talker)]

    def _runner(self, signature, script):
        body = {**signature, "visibility": "public"}
        made = self.ask("POST", "/pc/client-api/predict_signature", key=self.owner_key, json=body)
        assert made.status_code == 200, made.text
        return ScriptedRunner(self.node.url, made.json()["id"], self.owner_key, script, slots=4).connect()

    def ask(self, method, path, key=None, headers=None, **more):
        headers = {"Authorization": f"Bearer {key or self.key}", **(headers or {})}
        return requests.request(method, self.node.url + path, headers=headers, timeout=90, **more)

    def run(self, model="talker", key=None, headers=None, **given):
        return self.ask("POST", f"/v1/models/{self.owner}/{model}/predictions", key, headers, json={"input": given})

    def reader(self, id, last=None):
        headers = {"Last-Event-ID": last} if last else None
        return Reader(self.ask("GET", f"/v1/predictions/{id}/stream", headers=headers, stream=True))

    def ended(self, id):
        until(lambda: self.ask("GET", f"/v1/predictions/{id}").json()["completed_at"] is not None)
        return self.ask("GET", f"/v1/predictions/{id}").json()

    def socket(self, key=None):
        return Socket(self.node.url, "/v1", key=key or self.key)

    def close(self):
        for runner in self.runners:
            runner.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    node = LiveNode(tmp_path_factory.mktemp("v1"), scoring_processes=0, webhook_allow_private=True)
    node.start()
    try:
        made = Stage(node)
        try:
            yield made
        finally:
            made.close()
    finally:
        node.discard()


@pytest.fixture(scope="module")
def results(stage):
    """What each call of the replicate client returned."""
    if not PYTHON.exists():
        pytest.skip("no environment with replicate (GRID_TEST_REPLICATE_PYTHON)")
    key = stage.node.add_key("carl", ("client",))
    command = [str(PYTHON), "-W", "ignore", str(SCRIPT), stage.node.url, stage.owner]
    environment = {**os.environ, "REPLICATE_API_TOKEN": key}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr + stage.node.log_text()
    return json.loads(done.stdout)


# --- the replicate client -------------------------------------------------------------------------------------


def test_the_client_knows_who_it_is_and_what_there_is(results, stage):
    assert results["account"]["type"] == "user"
    assert re.fullmatch(r"carl-[0-9]+", results["account"]["username"])
    assert results["models"] == [f"{stage.owner}/painter", f"{stage.owner}/talker"]
    version = results["model"]["version"]
    assert results["model"]["input"] == ["image", "prompt", "steps"]
    assert re.fullmatch("[0-9a-f]{64}", version)
    assert results["versions"] == [[version], version]


def test_the_client_keeps_files(results):
    assert results["files"] == ["some.txt", 10, {"a": 1}, True, True, True]


@pytest.mark.parametrize("call", ["painted", "painted_by_version"])
def test_a_run_returns_the_files_of_the_worker(results, call):
    assert [requests.get(url, timeout=20).content for url in results[call]] == PICTURES


def test_a_worker_reads_the_file_that_was_given(results):
    assert [requests.get(url, timeout=20).content for url in results["from_file"]] == [b"\x89PNG 123"]
    assert [requests.get(url, timeout=20).content for url in results["from_data"]] == [b"\x89PNG" + b"x" * 100_000]


@pytest.mark.parametrize("call", ["talked", "talked_by_version"])
def test_a_run_returns_what_was_said(results, call):
    assert results[call] == ["one", "two", "three"]


def test_a_failure_of_the_model_is_raised_as_one(results):
    assert results["failed"] == {"model error": "out of memory", "status": "failed"}


def test_a_refusal_says_what_is_wrong(results):
    assert results["refused"]["error"] == {
        "title": "Input validation failed",
        "status": 422,
        "detail": "- input.steps: Must be greater than or equal to 0 and less than or equal to 1000.\n"
        "- input.prompt: Missing data for required field.\n",
    }
    assert results["unknown"]["error"] == {"title": "Model not found.", "status": 404, "detail": "Model not found."}


def test_a_wait_ends_with_the_prediction_or_says_starting(results):
    assert results["waited"] == ["succeeded", ["a", "b"], "succeeded", "a\r\nb\r\n"]
    assert results["waited_in_vain"] == ["starting", "canceled"]
    assert results["run_longer_than_its_wait"] == ["later"]


def test_a_cancelled_prediction_stays_cancelled(results):
    assert results["cancelled"] == ["canceled", "canceled", True]


def test_a_stream_tells_output_logs_and_end(results):
    *events, text = results["streamed"]
    assert [data for event, data in events if event == "output"] == ["one", "two"]
    assert "".join(data for event, data in events if event == "logs") == "one\ntwo\n"
    assert events[-1] == ["done", "{}"]
    assert text == "onetwo"
    assert results["streamed_failure"] == {"runtime error": '{"detail":"out of memory"}'}


def test_a_webhook_is_signed_so_that_the_client_believes_it(results):
    assert results["webhook"] == [True, ["told"]]


def test_pages_lead_through_all_predictions(results):
    sizes, different = results["pages"]
    assert sum(sizes) == different > 10


# --- waiting --------------------------------------------------------------------------------------------------


def test_a_create_waits_for_the_end_if_asked_to(stage):
    made = stage.run(prompt="a", headers={"Prefer": "wait"})
    assert (made.status_code, made.json()["status"], made.json()["output"]) == (201, "succeeded", ["a"])
    made = stage.run(prompt="slow", headers={"Prefer": "wait=2"})
    assert (made.status_code, made.json()["status"]) == (202, "starting")
    assert made.headers["Location"] == made.json()["urls"]["get"]
    cancelled = stage.ask("POST", f"/v1/predictions/{made.json()['id']}/cancel")
    assert (cancelled.status_code, stage.ended(made.json()["id"])["status"]) == (200, "canceled")
    made = stage.run(prompt="a", headers={"Prefer": "respond-async"})
    assert (made.status_code, made.json()["status"]) == (201, "starting")


@pytest.mark.parametrize("prefer", ["wait=0", "wait=61", "wait=x"])
def test_a_wait_that_is_none_is_refused(stage, prefer):
    made = stage.run(prompt="a", headers={"Prefer": prefer})
    assert (made.status_code, made.json()["code"]) == (400, "invalid_prefer")


def test_a_run_ends_by_cancel_after(stage):
    made = stage.run(prompt="slow", headers={"Cancel-After": "1s"})
    assert stage.ended(made.json()["id"])["status"] == "canceled"


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "key", "status", "code"),
    [
        ("GET", "/v1/nothing/here", None, 404, "not_found"),
        ("PUT", "/v1/predictions", None, 405, "method_not_allowed"),
        ("GET", "/v1/predictions", "x", 401, "invalid_key"),
        ("GET", "/v1/predictions?cursor=x", None, 400, "bad_cursor"),
        ("POST", "/v1/predictions", None, 400, "invalid_json"),
        ("GET", "/v1/files/none", None, 404, "file_not_found"),
        ("POST", "/v1/deliveries/none/redeliver", None, 404, "delivery_not_found"),
    ],
)
def test_every_refusal_is_a_problem(stage, method, path, key, status, code):
    answer = stage.ask(method, path, key=key)
    body = answer.json()
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert (body["code"], body["status"], body["title"]) == (code, status, body["error"])
    assert isinstance(body["detail"], str)


def test_a_key_over_its_limit_is_told_to_come_back_soon(stage):
    key = stage.node.add_key("busy", ("client",), 1, 3600)
    assert stage.run(prompt="a", key=key).status_code == 201
    refused = stage.run(prompt="a", key=key)
    assert (refused.status_code, refused.headers["Retry-After"], refused.json()["retry_after"]) == (429, "30", 30)


def test_a_worker_key_without_the_scope_is_refused(stage):
    key = stage.node.add_key("runner", ("runner",))
    refused = stage.ask("GET", "/v1/predictions", key=key)
    assert (refused.status_code, refused.json()["error"]) == (403, "API key lacks the scope client.")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", "/cancel"),
        ("GET", "/stream"),
        ("DELETE", ""),
        ("GET", "/events"),
        ("GET", "/deliveries"),
    ],
)
def test_somebody_elses_prediction_is_not_there(stage, method, path):
    made = stage.run(prompt="step").json()
    other = stage.node.add_key("dora", ("client", "runner"))
    for key in (other, stage.owner_key):
        refused = stage.ask(method, f"/v1/predictions/{made['id']}{path}", key=key)
        assert (refused.status_code, refused.json()["code"]) == (404, "prediction_not_found")
    stage.talker.steps.release()
    assert stage.ended(made["id"])["status"] == "succeeded"


# --- updates --------------------------------------------------------------------------------------------------


class Reader:
    """Reads server-sent events as a browser does."""

    def __init__(self, answer):
        self.answer = answer
        self._lines = self.answer.iter_lines()

    def __iter__(self):
        return self

    def __next__(self):
        event = {}
        for line in self._lines:
            name, _, value = line.decode().partition(": ")
            if not name and not value and event:
                return event["id"], event["event"], event["data"]
            if name:
                event[name] = f"{event[name]}\n{value}" if name in event else value
        raise StopIteration

    def close(self):
        self.answer.close()


def test_a_reader_that_was_cut_goes_on_without_gap_or_repeat(stage):
    id = stage.run(prompt="one step two three").json()["id"]
    first = stage.reader(id)
    told = [next(first), next(first)]
    first.close()
    stage.talker.steps.release()
    told += stage.reader(id, told[-1][0])
    assert [data for _, event, data in told if event == "output"] == ["one", "step", "two", "three"]
    assert [event for _, event, _ in told].count("done") == 1
    assert [int(place.partition(":")[2]) for place, _, _ in told] == list(range(1, len(told) + 1))
    assert list(stage.reader(id)) == told
    assert list(stage.reader(id, "0:99")) == told
    after = stage.reader(id, told[-1][0])
    assert (after.answer.status_code, list(after)) == (204, [])


def test_a_reader_of_removed_data_hears_the_end(stage):
    made = stage.run(prompt="a b", headers={"Prefer": "wait"}).json()
    assert stage.ask("DELETE", f"/v1/predictions/{made['id']}").status_code == 204
    assert [(event, data) for _, event, data in stage.reader(made["id"])] == [("done", "{}")]
    kept = stage.ask("GET", f"/v1/predictions/{made['id']}").json()
    assert (kept["data_removed"], kept["input"], kept["output"], kept["logs"]) == (True, {}, None, "")
    assert stage.ask("GET", f"/v1/predictions/{made['id']}/events").json()["results"] == []


def test_the_reports_are_kept_as_they_came(stage):
    made = stage.run(prompt="a b", headers={"Prefer": "wait"}).json()
    address = f"/v1/predictions/{made['id']}/events"
    reports = stage.ask("GET", address).json()
    assert [one["body"]["status"] for one in reports["results"]] == [
        "starting",
        "processing",
        "processing",
        "succeeded",
    ]
    page = stage.ask("GET", f"{address}?limit=3").json()
    rest = stage.ask("GET", page["next"].removeprefix(stage.node.url)).json()
    assert page["results"] + rest["results"] == reports["results"]


# --- sockets --------------------------------------------------------------------------------------------------


def test_sockets_answer_what_http_answers(stage):
    socket = stage.socket()
    try:
        made = socket.call("predictions.create", {"model": f"{stage.owner}/talker", "input": {"prompt": "a"}})
        id = made["id"]
        assert made["status"] == "starting"
        stage.ended(id)
        for event, method, path, payload in (
            ("get", "GET", f"/v1/predictions/{id}", {"id": id}),
            ("cancel", "POST", f"/v1/predictions/{id}/cancel", {"id": id}),
            ("list", "GET", "/v1/predictions", {}),
            ("list", "GET", "/v1/predictions?cursor=x", {"cursor": "x"}),
            ("get", "GET", "/v1/predictions/none", {"id": "none"}),
            ("delete", "DELETE", "/v1/predictions/none", {"id": "none"}),
            ("create", "POST", "/v1/predictions", {"version": "x/y", "input": {}}),
            ("create", "POST", "/v1/predictions", {"version": f"{stage.owner}/painter", "input": {"steps": 5000}}),
        ):
            by_http = stage.ask(method, path, json=payload if method == "POST" else None).json()
            assert socket.call(f"predictions.{event}", payload) == by_http
        assert socket.call("predictions.delete", {"id": id}) == {"success": True}
        assert socket.call("predictions.get", {"id": id})["data_removed"] is True
    finally:
        socket.close()


def test_a_subscription_tells_what_a_stream_tells(stage):
    id = stage.run(prompt="one step two").json()["id"]
    socket, later = stage.socket(), stage.socket()
    try:
        answer = socket.call("predictions.subscribe", {"id": id, "after": None})
        assert (answer["success"], answer["prediction"]["id"], answer["recovered"]) == (True, id, True)
        socket.wait_for("prediction.event", 2)
        stage.talker.steps.release()
        until(lambda: any(body["event"] == "done" for body in socket.all("prediction.event")))
        told = [(body["offset"], body["event"], body["data"]) for body in socket.all("prediction.event")]
        assert [(place, event) for place, event, _ in told] == [line[:2] for line in stage.reader(id)]
        assert {body["id"] for body in socket.all("prediction.event")} == {id}
        assert later.call("predictions.subscribe", {"id": id, "after": told[1][0]})["recovered"] is True
        rest = later.wait_for("prediction.event", len(told) - 2)
        assert [(body["offset"], body["event"], body["data"]) for body in rest] == told[2:]
        assert later.call("predictions.subscribe", {"id": id, "after": "0:1"})["recovered"] is False
        assert len(later.wait_for("prediction.event", 2 * len(told) - 2)) == 2 * len(told) - 2
    finally:
        socket.close()
        later.close()


@pytest.mark.parametrize(
    ("scope", "status", "code", "text"),
    [
        (None, 401, "invalid_key", "API key is not valid."),
        ("runner", 403, "wrong_scope", "API key lacks the scope client."),
    ],
)
def test_a_socket_without_a_good_key_is_refused_in_words(stage, scope, status, code, text):
    key = "x" * 40 if scope is None else stage.node.add_key("other", (scope,))
    client, refusals = socketio.Client(reconnection=False), []
    client.on("connect_error", refusals.append, namespace="/v1")
    with pytest.raises(socketio.exceptions.ConnectionError):
        client.connect(stage.node.url, auth={"key": key}, namespaces=["/v1"], transports=["websocket"], wait_timeout=5)
    client.eio.ws.shutdown()
    [refusal] = refusals
    body = refusal["data"]
    assert (refusal["message"], body["status"], body["code"], body["title"]) == (text, status, code, text)


def test_a_subscription_to_somebody_elses_prediction_is_refused(stage):
    id = stage.run(prompt="a").json()["id"]
    socket = stage.socket(stage.node.add_key("eve", ("client",)))
    try:
        assert socket.call("predictions.subscribe", {"id": id})["code"] == "prediction_not_found"
    finally:
        socket.close()


# --- a node that dies -----------------------------------------------------------------------------------------


def test_a_reader_goes_on_at_a_node_that_was_killed(tmp_path):
    with running_node(tmp_path) as node:
        key = node.add_key("anna", ("client", "runner"))

        def ask(method, path, **more):
            headers = {"X-API-Key": key, **more.pop("headers", {})}
            return requests.request(method, node.url + path, headers=headers, timeout=30, **more)

        def report(**members):
            told = ask("POST", "/pc/client-api/webhook/prediction", json={"id": 7, **members})
            assert told.status_code == 200, told.text

        report(status="processing", output=["a"], logs="1\n")
        first = Reader(ask("GET", "/v1/predictions/7/stream", stream=True))
        told = [next(first), next(first)]
        node.kill()
        first.close()
        node.restart()
        report(status="succeeded", output=["a", "b"], logs="1\n")
        headers = {"Last-Event-ID": told[-1][0]}
        told += Reader(ask("GET", "/v1/predictions/7/stream", stream=True, headers=headers))
        assert [line[1:] for line in told] == [("output", "a"), ("logs", "1\n"), ("output", "b"), ("done", "{}")]
