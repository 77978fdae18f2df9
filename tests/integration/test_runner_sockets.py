"""Agents of models at a real node: who is let in, what they are told, and what happens when they go."""

import hashlib
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import socketio

from tests.nodes import LiveNode, running_node, until
from tests.scripted_runner import Run, ScriptedRunner, echo

SIGNATURE = {"inputs": [{"name": "prompt", "type": "str"}], "outputs": "str"}
ENDED = ("succeeded", "failed", "canceled")


class Desk:
    """A node, and the keys of a model's owner who is his own client."""

    def __init__(self, node: LiveNode) -> None:
        self.node = node
        self.key = node.add_key("owner", ("runner", "client"))

    def ask(self, method: str, path: str, key: str | None = None, **given: Any) -> Any:
        headers = {"X-API-KEY": key or self.key}
        answer = requests.request(method, self.node.url + path, headers=headers, timeout=30, **given)
        assert answer.ok, answer.text
        return answer.json()

    def model(self) -> dict[str, Any]:
        return dict(self.ask("POST", "/pc/client-api/predict_signature", json=SIGNATURE))

    def runner(self, model: str) -> dict[str, Any]:
        """How the node says that the model's runner is."""
        return dict(self.ask("GET", f"/pc/client-api/predict_signature/{model}")["runner"])

    def run(self, model: str, prompt: str = "a cat") -> str:
        account = self.ask("GET", "/v1/account")["username"]
        made = self.ask("POST", "/v1/predictions", json={"version": f"{account}/{model}", "input": {"prompt": prompt}})
        return str(made["id"])

    def shown(self, id: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/v1/predictions/{id}"))

    def ended(self, id: str) -> dict[str, Any]:
        until(lambda: self.shown(id)["status"] in ENDED)
        return self.shown(id)

    def agent(self, model: str, **given: Any) -> ScriptedRunner:
        return ScriptedRunner(self.node.url, model, self.key, **given)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with running_node(tmp_path_factory.mktemp("node"), runners_per_model=2) as node:
        yield Desk(node)


@pytest.fixture
def model(desk: Desk) -> str:
    return str(desk.model()["id"])


def refusal(desk: Desk, **auth: Any) -> dict[str, Any]:
    """What `connect_error` says to an agent that shows this."""
    client = socketio.Client(reconnection=False)
    told: list[Any] = []
    client.on("connect_error", told.append, namespace="/runner")
    with pytest.raises(socketio.exceptions.ConnectionError):
        client.connect(desk.node.url, auth=auth, namespaces=["/runner"], transports=["websocket"], wait_timeout=20)
    client.shutdown()
    return dict(told[0])


def shown_by(model: str, **members: Any) -> dict[str, Any]:
    return {"protocol": 1, "model_id": model, "instance": uuid.uuid4().hex, "agent": "test/1", **members}


def puts(agent: ScriptedRunner) -> list[str]:
    """What was sent to it to be run."""
    return [path for method, path, _ in agent.calls if method == "PUT"]


# --- who is let in


def test_an_agent_comes_in_with_the_token_of_the_credential(desk: Desk) -> None:
    made = desk.model()
    agent = desk.agent(made["id"])
    agent.connect(token=made["credential"]["token"])
    until(lambda: desk.runner(made["id"])["status"] == "READY")
    agent.close()
    until(lambda: desk.runner(made["id"])["status"] == "OFFLINE")
    assert desk.runner(made["id"])["last_seen"] is not None


def test_an_agent_is_told_where_its_worker_uploads(desk: Desk, model: str) -> None:
    client = socketio.Client(reconnection=False)
    greeting: list[Any] = []
    came = threading.Event()
    client.on("ready", lambda body: (greeting.append(body), came.set()), namespace="/runner")
    auth = shown_by(model, key=desk.key)
    client.connect(desk.node.url, auth=auth, namespaces=["/runner"], transports=["websocket"], wait_timeout=20)
    assert came.wait(20)
    client.disconnect()
    assert greeting == [
        {
            "runner_id": auth["instance"],
            "model_id": model,
            "upload_url": f"{desk.node.url}/pc/client-api/upload",
            "max_message_bytes": 2 * 1024 * 1024,
        }
    ]


def test_a_wrong_token_is_refused_in_the_words_of_a_wrong_key(desk: Desk, model: str) -> None:
    said = refusal(desk, **shown_by(model, token="not the token"))
    assert said == {
        "message": "API key is not valid.",
        "data": {"success": False, "error": "API key is not valid.", "code": "invalid_key", "status": 401},
    }
    assert refusal(desk, **shown_by(model, key="not a key"))["data"]["code"] == "invalid_key"


def test_the_token_of_another_model_is_a_wrong_one(desk: Desk, model: str) -> None:
    token = desk.model()["credential"]["token"]
    assert refusal(desk, **shown_by(model, token=token))["data"]["code"] == "invalid_key"


def test_the_hash_of_the_token_is_no_token(desk: Desk) -> None:
    made = desk.model()
    shown = hashlib.sha256(made["credential"]["token"].encode()).hexdigest()
    assert refusal(desk, **shown_by(made["id"], token=shown))["data"]["code"] == "invalid_key"


def test_a_model_of_somebody_else_is_as_little_there_as_one_that_does_not_exist(desk: Desk, model: str) -> None:
    stranger = desk.node.add_key("stranger", ("runner",))
    theirs = refusal(desk, **shown_by(model, key=stranger))
    nobodys = refusal(desk, **shown_by("m-" + "z" * 20, key=stranger))
    assert theirs == nobodys
    assert (theirs["message"], theirs["data"]["code"]) == ("Model not found.", "model_not_found")


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"token": None}, "missing_key"),
        ({"protocol": 2, "token": "t"}, "invalid_payload"),
        ({"protocol": None, "token": "t"}, "invalid_payload"),
        ({"instance": "x", "token": "t"}, "invalid_payload"),
        ({"instance": ["a" * 32], "token": "t"}, "invalid_payload"),
        ({"token": {"a": 1}}, "invalid_payload"),
        ({"token": "t\0"}, "invalid_payload"),
        ({"agent": "a\nb", "token": "t"}, "invalid_payload"),
        ({"model_id": "x" * 65, "token": "t"}, "invalid_payload"),
    ],
)
def test_what_an_agent_shows_is_checked(desk: Desk, model: str, members: dict[str, Any], code: str) -> None:
    assert refusal(desk, **{**shown_by(model), **members})["data"]["code"] == code


def test_a_key_for_clients_opens_no_way_to_a_worker(desk: Desk, model: str) -> None:
    key = desk.node.add_key("client", ("client",))
    assert refusal(desk, **shown_by(model, key=key))["data"]["code"] == "wrong_scope"


def test_there_are_so_many_agents_of_a_model_and_no_more(desk: Desk, model: str) -> None:
    with desk.agent(model), desk.agent(model):
        said = refusal(desk, **shown_by(model, key=desk.key))
        assert (said["data"]["code"], said["data"]["limit"]) == ("too_many_runners", 2)
    with desk.agent(model):
        pass


def test_the_same_instance_again_replaces_its_older_connection(desk: Desk, model: str) -> None:
    older = desk.agent(model).connect()
    newer = desk.agent(model, instance=older.instance).connect()
    assert older.replaced.wait(20)
    until(lambda: not older._client.connected)
    id = desk.run(model)
    assert desk.ended(id)["output"] == "a cat"
    assert [path for _, path, _ in newer.calls] == [f"/predictions/{id}"]
    assert desk.runner(model)["connected"]
    older.close()
    newer.close()


# --- what an agent says


@pytest.mark.parametrize(
    "payload", [None, [], "READY", {"status": 5}, {}], ids=["null", "list", "text", "number", "no"]
)
def test_a_health_that_is_none_is_refused_and_the_agent_stays(desk: Desk, model: str, payload: Any) -> None:
    with desk.agent(model) as agent:
        said = agent._client.call("health", payload, namespace="/runner", timeout=20)
        assert said["code"] == "invalid_payload"
        assert agent.health("READY") == {"success": True}


def test_a_model_shows_what_its_worker_says(desk: Desk, model: str) -> None:
    with desk.agent(model) as agent:
        for status in ("SETUP_FAILED", "READY"):
            agent.health(status)
            until(lambda word=status: desk.runner(model)["status"] == word)


# --- calls


def test_a_prediction_goes_to_the_worker_and_comes_back(desk: Desk, model: str) -> None:
    with desk.agent(model) as agent:
        id = desk.run(model, "a dog")
        assert desk.ended(id)["output"] == "a dog"
        [(method, path, body)] = agent.calls
    assert (method, path) == ("PUT", f"/predictions/{id}")
    assert body["input"] == {"prompt": "a dog"}
    assert body["context"] == {"prediction_id": id}
    assert body["webhook_events_filter"] == ["start", "output", "logs", "completed"]


def test_what_waited_is_sent_when_an_agent_comes_oldest_first(desk: Desk, model: str) -> None:
    ids = [desk.run(model, str(number)) for number in range(5)]
    with desk.agent(model) as agent:
        assert [desk.ended(id)["output"] for id in ids] == ["0", "1", "2", "3", "4"]
        taken = list(dict.fromkeys(puts(agent)))
    assert taken == [f"/predictions/{id}" for id in ids]


def test_a_cancel_reaches_the_worker(desk: Desk, model: str) -> None:
    begun = threading.Event()

    def patient(run: Run) -> None:
        run.report("processing")
        begun.set()
        assert run.cancelled.wait(20)
        run.report("canceled")

    with desk.agent(model, script=patient):
        id = desk.run(model)
        assert begun.wait(20)
        desk.ask("POST", f"/v1/predictions/{id}/cancel")
        assert desk.ended(id)["status"] == "canceled"


def test_an_agent_that_goes_in_the_middle_of_a_call_costs_nothing_but_time(desk: Desk, model: str) -> None:
    """The answer is lost with the connection; the same id goes to the same agent when it is back."""
    agent = desk.agent(model)
    agent.answers.append(None)
    agent.connect()
    id = desk.run(model)
    until(lambda: bool(agent.calls))
    agent._client.eio.ws.sock.shutdown(socket.SHUT_RDWR)
    until(lambda: not desk.runner(model)["connected"], 5)
    again = desk.agent(model, instance=agent.instance).connect()
    assert desk.ended(id)["status"] == "succeeded"
    assert puts(again) == [f"/predictions/{id}"]
    again.close()
    agent.close()


def test_a_reply_above_the_limit_does_not_end_the_link(desk: Desk, model: str) -> None:
    """It is no answer; and as the worker has not got it, the same id is sent again."""
    agent = desk.agent(model)
    agent.answers.append((202, {"x": "y" * 700_000}))
    agent.connect()
    assert desk.ended(desk.run(model))["status"] == "succeeded"
    assert len(puts(agent)) == 2
    agent.close()


def test_a_worker_that_refuses_is_quoted(desk: Desk, model: str) -> None:
    agent = desk.agent(model)
    agent.answers.append((422, {"detail": [{"loc": ["body", "input", "prompt"], "msg": "too dull"}]}))
    agent.connect()
    shown = desk.ended(desk.run(model))
    agent.close()
    assert shown["status"] == "failed"
    assert shown["error"] == "The runner refused the prediction: body.input.prompt: too dull"


def test_two_agents_of_a_model_share_its_work(desk: Desk, model: str) -> None:
    together = threading.Barrier(2)

    def meet(run: Run) -> None:
        together.wait(20)
        echo(run)

    with desk.agent(model, script=meet) as first, desk.agent(model, script=meet) as second:
        ids = [desk.run(model), desk.run(model)]
        assert [desk.ended(id)["status"] for id in ids] == ["succeeded", "succeeded"]
        assert puts(first)
        assert puts(second)


# --- how it ends


def closings(agent: ScriptedRunner) -> list[Any]:
    told: list[Any] = []
    agent._client.on("closing", told.append, namespace="/runner")
    return told


def test_deleting_the_model_hangs_up_on_its_agents(desk: Desk, model: str) -> None:
    agent = desk.agent(model)
    told = closings(agent)
    agent.connect()
    desk.ask("DELETE", f"/pc/client-api/predict_signature/{model}")
    until(lambda: not agent._client.connected)
    agent.close()
    assert [one["reason"] for one in told] == ["model_removed"]


def test_an_agent_whose_key_is_removed_is_cut(desk: Desk) -> None:
    key = desk.node.add_key("short", ("runner",))
    made = desk.ask("POST", "/pc/client-api/predict_signature", key, json=SIGNATURE)
    agent = ScriptedRunner(desk.node.url, made["id"], key)
    told = closings(agent)
    agent.connect()
    desk.node.keys.remove(key)
    until(lambda: not agent._client.connected)
    agent.close()
    assert [one["reason"] for one in told] == ["auth_failed"]


def test_twenty_queued_and_one_running_all_end_once_though_the_node_is_killed(tmp_path: Path) -> None:
    with running_node(tmp_path) as node:
        desk = Desk(node)
        model = str(desk.model()["id"])
        begun, back = threading.Event(), threading.Event()

        def patient(run: Run) -> None:
            run.report("processing")
            begun.set()
            assert back.wait(60)
            run.report("succeeded", output=run.input["prompt"])

        agent = desk.agent(model, script=patient).connect()
        ids = [desk.run(model, str(number)) for number in range(21)]
        assert begun.wait(20)
        node.kill()
        node.start()
        again = desk.agent(model, instance=agent.instance)
        again.running = agent.running  # the same worker, whose agent has lost its node for a while
        again.connect()
        back.set()
        assert [desk.ended(id)["output"] for id in ids] == [str(number) for number in range(21)]
        ends = [event for id in ids for event in desk.ask("GET", f"/v1/predictions/{id}/events")["results"]]
        assert sum(event["status"] == "succeeded" for event in ends) == 21
        assert sorted(set(puts(agent) + puts(again))) == sorted(f"/predictions/{id}" for id in ids)
        again.close()
        agent.close()


def test_an_agent_at_one_process_serves_what_is_asked_of_another(tmp_path: Path) -> None:
    begun = threading.Event()

    def patient(run: Run) -> None:
        run.report("processing")
        begun.set()
        assert run.cancelled.wait(20)
        run.report("canceled")

    with running_node(tmp_path / "one") as node:
        other = node.another(tmp_path / "two")
        other.start()
        try:
            desk = Desk(node)
            model = str(desk.model()["id"])
            agent = ScriptedRunner(other.url, model, desk.key, script=patient)
            told = closings(agent)
            agent.connect()
            until(lambda: desk.runner(model)["status"] == "READY")
            id = desk.run(model)
            assert begun.wait(20)
            desk.ask("POST", f"/v1/predictions/{id}/cancel")
            assert desk.ended(id)["status"] == "canceled"
            moved = desk.agent(model, instance=agent.instance)
            moved.connect()
            assert agent.replaced.wait(20)
            desk.ask("DELETE", f"/pc/client-api/predict_signature/{model}")
            until(lambda: not moved._client.connected)
            moved.close()
            agent.close()
            assert told == []
        finally:
            other.discard()
