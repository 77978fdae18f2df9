"""Workers, agents and clients that break the rules, at once and without end: the others are served all the same."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from grid_node.runners.cursors import cursor_of
from tests.nodes import LiveNode, until
from tests.promises.runner_yard import BASE, SIGNATURES, WEBHOOK, Person, yard
from tests.scripted_runner import Run, ScriptedRunner

CLOSED = ["succeeded", "failed", "canceled"]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    settings = {"cancel_grace_s": 1, "runner_call_s": 2, "webhook_allow_private": True}
    with yard(tmp_path_factory.mktemp("hostile"), **settings) as live:
        yield live


@pytest.fixture(scope="module")
def anna(node: LiveNode) -> Person:
    return Person(node, "anna")


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    """Closes after the test what was passed through it."""
    with ExitStack() as stack:

        def track(opened: Any) -> Any:
            stack.callback(opened.close)
            return opened

        yield track


def updates(person: Person, id: str) -> list[str]:
    """Names of all updates of a prediction that has ended."""
    text = person.ask("GET", f"/v1/predictions/{id}/stream").text
    return [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]


# --- races ----------------------------------------------------------------------------------------------------


def test_of_many_ends_at_once_the_first_one_stays(anna: Person) -> None:
    id = anna.run(anna.register()["id"])["id"]
    with ThreadPoolExecutor(12) as pool:
        ends = [CLOSED[number % 3] for number in range(24)]
        answers = list(pool.map(lambda end: anna.report(id, status=end, output=end, error=end), ends))
        answers += list(pool.map(lambda _: anna.ask("POST", f"/v1/predictions/{id}/cancel"), range(4)))
    assert {answer.status_code for answer in answers} == {200}
    shown = anna.shown(id)
    assert shown["output"] == shown["status"]
    assert updates(anna, id).count("done") == 1
    told = anna.ask("GET", f"/v1/predictions/{id}/events").json()["results"]
    assert [event["late"] for event in told].count(False) == 1
    assert told[0]["late"] is False


def test_a_cancel_and_a_success_at_once_end_it_once(anna: Person, closing: Callable[[Any], Any]) -> None:
    model = anna.register()["id"]

    def held(run: Run) -> None:
        run.report("processing")
        run.cancelled.wait(20)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda end: run.report(end, output=end), ["succeeded", "canceled"]))

    closing(anna.worker(model, held, slots=8)).connect()
    ids = [anna.run(model)["id"] for _ in range(6)]
    until(lambda: all(anna.shown(id)["status"] == "processing" for id in ids))
    for id in ids:
        anna.ask("POST", f"/v1/predictions/{id}/cancel")
    until(lambda: all(anna.shown(id)["completed_at"] for id in ids))
    first = [anna.shown(id) for id in ids]
    assert all(one["output"] in {one["status"], None} for one in first)
    assert all(updates(anna, id).count("done") == 1 for id in ids)
    assert [anna.shown(id) for id in ids] == first


def test_what_was_removed_does_not_come_back_with_a_late_report(anna: Person) -> None:
    id = anna.run(anna.register()["id"], prompt="private")["id"]
    anna.report(id, status="succeeded", output="private")
    with ThreadPoolExecutor(4) as pool:
        late = pool.submit(
            lambda: [anna.report(id, status="failed", output="private", logs="private") for _ in range(8)]
        )
        assert anna.ask("DELETE", f"/v1/predictions/{id}").status_code == 204
        assert {answer.status_code for answer in late.result()} == {200}
    anna.report(id, status="processing", output="private", logs="private", x="private")
    assert "private" not in json.dumps(anna.shown(id))
    assert "private" not in anna.ask("GET", f"/v1/predictions/{id}/events").text
    assert "private" not in anna.ask("GET", f"/v1/predictions/{id}/stream").text
    assert anna.upload(f"{id}_0_x.bin", b"private").status_code == 409


def test_a_model_that_goes_ends_what_it_does(anna: Person, closing: Callable[[Any], Any]) -> None:
    model = anna.register()["id"]

    def deaf(run: Run) -> None:
        run.report("processing")
        run.cancelled.wait(60)

    runner: ScriptedRunner = closing(anna.worker(model, deaf)).connect()
    ids = [anna.run(model)["id"] for _ in range(3)]
    until(lambda: anna.shown(ids[0])["status"] == "processing")
    assert anna.ask("DELETE", f"{SIGNATURES}/{model}").json()["code"] == "model_busy"
    assert anna.ask("DELETE", f"{SIGNATURES}/{model}?force=true").status_code == 200
    until(lambda: {anna.shown(id)["status"] for id in ids} == {"canceled"})
    assert anna.report(ids[0], status="succeeded", output="late").status_code == 200
    assert anna.shown(ids[0])["status"] == "canceled"
    until(lambda: not runner._client.connected)


# --- keys that go ---------------------------------------------------------------------------------------------


def test_a_key_that_is_removed_ends_what_it_holds_open(node: LiveNode, anna: Person) -> None:
    model = anna.register(visibility="public")["id"]
    bert = Person(node, "bert", "client")
    id = bert.run(model, owner=anna)["id"]
    socket = bert.socket("/v1")
    assert socket.call("predictions.subscribe", {"id": id})["success"]
    stream = bert.ask("GET", f"/v1/predictions/{id}/stream", stream=True)
    node.keys.remove(bert.key)
    socket.wait_for("disconnect")
    assert b"done" not in stream.content
    assert bert.ask("GET", f"/v1/predictions/{id}").status_code == 401
    assert anna.report(id, status="succeeded", output="nobody's").status_code == 200


def test_an_agent_goes_with_the_key_of_its_model_s_owner(node: LiveNode, closing: Callable[[Any], Any]) -> None:
    """Also where it came in by the tunnel's token: whose key is removed gets no more inputs of clients."""
    carl = Person(node, "carl")
    made = carl.register(visibility="public")
    runner: ScriptedRunner = closing(carl.worker(made["id"])).connect(token=made["credential"]["token"])
    node.keys.remove(carl.key)
    until(lambda: not runner._client.connected)
    again = closing(carl.worker(made["id"]))
    with pytest.raises(Exception, match="failed to connect"):
        again.connect(token=made["credential"]["token"])


# --- agents ---------------------------------------------------------------------------------------------------


class Garbage(ScriptedRunner):
    """Answers each call with what it is given."""

    def __init__(self, *given: Any, reply: Any) -> None:
        super().__init__(*given)
        self.reply = reply

    def _called(self, message: dict[str, Any]) -> Any:
        self.calls.append((message["method"], message["path"], message.get("json")))
        return self.reply(message)


GARBAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda _message: None,
    "text": lambda _message: "yes",
    "list": lambda _message: [[[]]],
    "number": lambda _message: 202,
    "two": lambda message: ({"call_id": message["call_id"], "status": 202, "json": {}}, {}),
    "no status": lambda message: {"call_id": message["call_id"]},
    "status of text": lambda message: {"call_id": message["call_id"], "status": "202", "json": {}},
    "status true": lambda message: {"call_id": message["call_id"], "status": True, "json": {}},
    "status 99999": lambda message: {"call_id": message["call_id"], "status": 99999, "json": {}},
    "another call": lambda _message: {"call_id": "x", "status": 202, "json": {}},
    "odd code": lambda message: {"call_id": message["call_id"], "code": {"a": []}},
    "binary": lambda message: {"call_id": message["call_id"], "status": 202, "json": b"\0" * 100},
    "too large": lambda message: {"call_id": message["call_id"], "status": 202, "json": "x" * 600_000},
    "number of 400 digits": lambda message: {"call_id": message["call_id"], "status": 202, "json": 10**400},
}


def test_what_an_agent_says_that_is_no_answer_fails_the_prediction_with_a_reason(tmp_path: Path) -> None:
    with yard(tmp_path, runner_call_s=1, prediction_queue_ttl_s=5) as node, ExitStack() as stack:
        anna = Person(node, "anna")
        ids = {}
        for kind, reply in GARBAGE.items():
            model = anna.register()["id"]
            stack.enter_context(Garbage(node.url, model, anna.key, reply=reply))
            ids[kind] = anna.run(model)["id"]
        until(lambda: all(anna.shown(id)["completed_at"] for id in ids.values()))
        shown = {kind: anna.shown(id) for kind, id in ids.items()}
        assert {kind: one["status"] for kind, one in shown.items()} == dict.fromkeys(ids, "failed")
        assert all("unner" in one["error"] for one in shown.values())
        assert '"level": "error"' not in node.log_text()


def test_an_agent_that_tells_its_health_without_end_stops_nobody(anna: Person, closing: Callable[[Any], Any]) -> None:
    noisy, quiet = anna.register()["id"], anna.register()["id"]
    loud: ScriptedRunner = closing(anna.worker(noisy)).connect()
    closing(anna.worker(quiet)).connect()
    stop = threading.Event()

    def shout() -> None:
        number = 0
        while not stop.is_set() and loud._client.connected:
            number += 1
            body = {"status": ("READY", "BUSY", "x" * 1000)[number % 3], "junk": "j" * 5000, "n": number}
            loud._client.emit("health", body, namespace="/runner")

    threads = [threading.Thread(target=shout, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            id = anna.run(quiet)["id"]
            until(lambda id=id: anna.shown(id)["status"] == "succeeded")
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


# --- clients --------------------------------------------------------------------------------------------------


def made_up(kind: str, body: bytes) -> str:
    """A cursor that holds any JSON, with the sum that it must have."""
    return (
        base64.urlsafe_b64encode(hashlib.sha256(kind.encode() + b"\0" + body).digest()[:6] + body).rstrip(b"=").decode()
    )


@pytest.mark.parametrize(
    ("path", "cursor"),
    [
        ("/v1/predictions", cursor_of("predictions", "older", 2**63)),
        ("/v1/predictions", cursor_of("predictions", "newer", 2**64 - 1)),
        ("/v1/models", cursor_of("models", 1.0, "\0")),
        (f"{BASE}/models", cursor_of("models", 1.0, "\0")),
        ("/v1/files", cursor_of("files", 1.0, "\0")),
        ("/v1/predictions", made_up("predictions", b"5")),
        ("/v1/predictions", made_up("predictions", b'{"older":5}')),
    ],
)
def test_a_cursor_that_was_made_up_is_none(anna: Person, path: str, cursor: str) -> None:
    answer = anna.ask("GET", path, params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")


def test_many_readers_of_one_prediction_are_all_told_its_end(anna: Person) -> None:
    id = anna.run(anna.register()["id"])["id"]
    readers = [anna.ask("GET", f"/v1/predictions/{id}/stream", stream=True) for _ in range(60)]
    socket = anna.socket("/v1")
    try:
        for _ in range(50):
            assert socket.call("predictions.subscribe", {"id": id})["success"]
        anna.report(id, status="processing", output=["a"])
        anna.report(id, status="succeeded", output=["a", "b"])
        assert all(b"event: done" in reader.content for reader in readers)
        told = socket.wait_for("prediction.event", 3)
    finally:
        socket.close()
    assert [event["event"] for event in told] == ["output", "output", "done"]


def test_bodies_that_nobody_reads_hold_up_nobody(node: LiveNode, anna: Person) -> None:
    """Refused by their key: what else they bring is let go of."""

    def refused(path: str) -> int:
        def body() -> Iterator[bytes]:
            for _ in range(40):
                yield b"x" * 65536

        try:
            return requests.post(node.url + path, data=body(), headers={"X-API-KEY": "no"}, timeout=30).status_code
        except requests.ConnectionError:
            return 0

    with ThreadPoolExecutor(6) as pool:
        paths = [WEBHOOK, f"{WEBHOOK}?token=x", SIGNATURES, "/v1/predictions", "/v1/files", f"{BASE}/upload/x"]
        answers = pool.map(refused, paths)
        assert anna.ask("GET", "/v1/account").status_code == 200
        assert set(answers) <= {401, 405, 0}
