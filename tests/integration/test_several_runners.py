"""Models of one grid at two nodes: an agent at one, clients, reports and files at the other, and each run ends once."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from sqlalchemy import text

from tests.nodes import LiveNode, until
from tests.scripted_runner import Run, Script, ScriptedRunner
from tests.several import KINDS, Pair, Socket, generate, started_pair

GRID = "http://grid.example"
"""Where the nodes say that they are reached: nothing goes through the name, each step says which node it means."""
SIGNATURE = {"inputs": [{"name": "prompt", "type": "str"}], "outputs": "list[Path]"}
ENDED = ("succeeded", "failed", "canceled")
TASK_ENDS = ("best_results", "failed", "cancelled")
LOST = 4
"""Seconds of silence after which a run is looked into."""
WAIT = 20
SCORING = "postgresql-redis"
"""Where the first node runs a job process."""


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    jobs = 1 if request.param == SCORING else 0
    settings = {"public_base_url": GRID, "runner_lost_s": LOST, "scoring_processes": jobs}
    with started_pair(tmp_path_factory.mktemp("pair"), request.param, **settings) as running:
        yield running


class Desk:
    """The owner of models, who is his own client, at either node."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.key = pair.a.add_key("owner", ("runner", "client"))
        self._agents: list[ScriptedRunner] = []

    def ask(self, node: LiveNode, method: str, path: str, **given: Any) -> Any:
        headers = {"X-API-KEY": self.key, **given.pop("headers", {})}
        answer = requests.request(method, node.url + path, headers=headers, timeout=60, **given)
        assert answer.ok, answer.text
        return answer.json()

    def model(self, node: LiveNode, **members: Any) -> str:
        return str(self.ask(node, "POST", "/pc/client-api/predict_signature", json={**SIGNATURE, **members})["id"])

    def runner(self, node: LiveNode, model: str) -> dict[str, Any]:
        """How this node says that the model's runner is."""
        return dict(self.ask(node, "GET", f"/pc/client-api/predict_signature/{model}")["runner"])

    def run(self, node: LiveNode, model: str, prompt: str = "a cat", **headers: str) -> dict[str, Any]:
        account = self.ask(node, "GET", "/v1/account")["username"]
        asked = {"version": f"{account}/{model}", "input": {"prompt": prompt}}
        return dict(self.ask(node, "POST", "/v1/predictions", json=asked, headers=headers))

    def shown(self, node: LiveNode, id: str) -> dict[str, Any]:
        return dict(self.ask(node, "GET", f"/v1/predictions/{id}"))

    def ended(self, node: LiveNode, id: str, seconds: float = 30) -> dict[str, Any]:
        until(lambda: self.shown(node, id)["status"] in ENDED, seconds)
        return self.shown(node, id)

    def ends(self, node: LiveNode, id: str) -> list[str]:
        """The last words of workers about it."""
        events = self.ask(node, "GET", f"/v1/predictions/{id}/events")["results"]
        return [event["status"] for event in events if event["status"] in ENDED]

    def told(self, node: LiveNode, id: str) -> list[tuple[str, str, str]]:
        """The whole stream of one that ends: offset, event and data of each update."""
        address = f"{node.url}/v1/predictions/{id}/stream"
        answer = requests.get(address, headers={"X-API-KEY": self.key}, timeout=60)
        blocks = [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]
        fields = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
        return [(one["id"], one["event"], one["data"]) for one in fields]

    def agent(self, node: LiveNode, model: str, script: Script, **given: Any) -> ScriptedRunner:
        """Connected to this node. Ends with the test."""
        return self.keep(ScriptedRunner(node.url, model, self.key, script, **given).connect())

    def keep(self, agent: ScriptedRunner) -> ScriptedRunner:
        self._agents.append(agent)
        return agent

    def close(self) -> None:
        for agent in self._agents:
            agent.close()


@pytest.fixture
def desk(pair: Pair) -> Iterator[Desk]:
    made = Desk(pair)
    yield made
    made.close()


def at(node: LiveNode, address: str) -> str:
    """The same address at this node."""
    assert address.startswith(GRID), address
    return node.url + address.removeprefix(GRID)


def reporting_to(node: LiveNode) -> Script:
    """Hands in the prompt as a file and says that it is done, both at this node."""

    def script(run: Run) -> None:
        run.runner.upload_url = f"{node.url}/pc/client-api/upload"
        hook = at(node, run.call["webhook"])
        assert run.report("processing", webhook=hook, logs="at work\n").ok
        url = run.upload(f"{run.id}_0_out.txt", run.input["prompt"].encode(), "text/plain")
        assert run.report("succeeded", webhook=hook, logs="at work\n", output=[url]).ok

    return script


def patient(node: LiveNode, begun: threading.Event) -> Script:
    """Works until it is cancelled, and says so at this node."""

    def script(run: Run) -> None:
        hook = at(node, run.call["webhook"])
        run.report("processing", webhook=hook)
        begun.set()
        assert run.cancelled.wait(WAIT)
        run.report("canceled", webhook=hook)

    return script


def test_what_is_asked_at_one_node_runs_on_an_agent_at_the_other_and_both_tell_it_alike(pair: Pair, desk: Desk) -> None:
    model = desk.model(pair.b)
    desk.agent(pair.a, model, reporting_to(pair.b))
    id = desk.run(pair.b, model)["id"]
    with ThreadPoolExecutor(2) as pool:
        streams = list(pool.map(lambda node: desk.told(node, id), (pair.a, pair.b)))
    assert [event for _, event, _ in streams[0]] == ["logs", "output", "done"]
    assert streams[0] == streams[1]
    shown = [desk.shown(node, id) for node in (pair.a, pair.b)]
    assert shown[0] == shown[1]
    assert shown[0]["status"] == "succeeded"
    [url] = shown[0]["output"]
    for node in (pair.a, pair.b):
        assert requests.get(at(node, url), timeout=WAIT).content == b"a cat"


def test_a_client_that_waits_at_one_node_gets_what_the_other_took(pair: Pair, desk: Desk) -> None:
    model = desk.model(pair.a)
    desk.agent(pair.b, model, reporting_to(pair.b))
    made = desk.run(pair.a, model, Prefer="wait=20")
    assert made["status"] == "succeeded", made


def test_a_subscriber_at_one_node_goes_on_at_the_other_where_it_stopped(pair: Pair, desk: Desk) -> None:
    model = desk.model(pair.a)
    desk.agent(pair.a, model, reporting_to(pair.a))
    id = desk.run(pair.b, model)["id"]
    with contextlib.closing(Socket(pair.b.url, "/v1", key=desk.key)) as here:
        assert here.call("predictions.subscribe", {"id": id})["success"]
        heard = here.wait_for("prediction.event", 3)
    with contextlib.closing(Socket(pair.a.url, "/v1", key=desk.key)) as there:
        answer = there.call("predictions.subscribe", {"id": id, "after": heard[0]["offset"]})
        assert answer["recovered"]
        assert there.wait_for("prediction.event", 2) == heard[1:]


@pytest.mark.parametrize("reports_at", ["a", "b"])
def test_a_cancel_at_one_node_reaches_the_worker_at_the_other(pair: Pair, desk: Desk, reports_at: str) -> None:
    begun = threading.Event()
    model = desk.model(pair.a)
    agent = desk.agent(pair.a, model, patient(getattr(pair, reports_at), begun))
    id = desk.run(pair.b, model)["id"]
    assert begun.wait(WAIT)
    desk.ask(pair.b, "POST", f"/v1/predictions/{id}/cancel")
    assert desk.ended(pair.b, id)["status"] == "canceled"
    assert ("POST", f"/predictions/{id}/cancel") in [(method, path) for method, path, _ in agent.calls]
    assert desk.ends(pair.a, id) == ["canceled"]


def test_agents_of_a_model_at_both_nodes_share_its_work_and_nothing_runs_twice(pair: Pair, desk: Desk) -> None:
    together = threading.Barrier(2)

    def met(node: LiveNode) -> Script:
        report = reporting_to(node)

        def script(run: Run) -> None:
            if run.input["prompt"] in ("0", "1"):
                together.wait(WAIT)  # so that each has one
            report(run)

        return script

    model = desk.model(pair.a)
    agents = [desk.agent(pair.a, model, met(pair.b)), desk.agent(pair.b, model, met(pair.a))]
    ids = [desk.run((pair.a, pair.b)[number % 2], model, str(number))["id"] for number in range(12)]
    assert [desk.ended(pair.a, id)["status"] for id in ids] == ["succeeded"] * 12
    assert [desk.ends(pair.b, id) for id in ids] == [["succeeded"]] * 12
    begun = [agent.begun for agent in agents]
    assert all(begun)
    assert sorted(begun[0] + begun[1]) == sorted(ids)


def test_both_nodes_know_of_an_agent_and_of_its_end(pair: Pair, desk: Desk) -> None:
    model = desk.model(pair.a)
    agent = desk.agent(pair.a, model, reporting_to(pair.a))
    until(lambda: desk.runner(pair.b, model)["status"] == "READY")
    agent.close()
    until(lambda: not desk.runner(pair.b, model)["connected"])
    assert desk.runner(pair.b, model)["status"] == "OFFLINE"


def test_an_agent_that_comes_to_the_other_node_is_let_go_by_the_first(pair: Pair, desk: Desk) -> None:
    model = desk.model(pair.a)
    older = desk.agent(pair.a, model, reporting_to(pair.a))
    newer = desk.agent(pair.b, model, reporting_to(pair.b), instance=older.instance)
    assert older.replaced.wait(WAIT)
    until(lambda: not older.connected)
    assert desk.ended(pair.a, desk.run(pair.a, model)["id"])["status"] == "succeeded"
    assert len(newer.begun) == 1
    assert older.begun == []
    assert desk.runner(pair.a, model)["connected"]


def test_an_agent_finds_its_model_gone_that_was_removed_at_the_other_node(pair: Pair, desk: Desk) -> None:
    model = desk.model(pair.a)
    agent = desk.agent(pair.a, model, reporting_to(pair.a))
    desk.ask(pair.b, "DELETE", f"/pc/client-api/predict_signature/{model}")
    until(lambda: not agent.connected)


def test_one_key_for_one_request_at_both_nodes_makes_one_prediction(pair: Pair, desk: Desk) -> None:
    model = desk.model(pair.a)
    with ThreadPoolExecutor(8) as pool:
        nodes = [pair.a, pair.b] * 4
        made = list(pool.map(lambda node: desk.run(node, model, **{"Idempotency-Key": model})["id"], nodes))
    assert len(set(made)) == 1
    assert len(desk.ask(pair.a, "GET", "/v1/predictions")["results"]) == 1


def test_the_first_end_stays_whichever_node_hears_it(pair: Pair, desk: Desk) -> None:
    """Both nodes are told at once, again and again; the stream has one end, and the log has all."""
    begun, over = threading.Event(), threading.Event()

    def script(run: Run) -> None:
        begun.set()
        assert over.wait(WAIT)

    model = desk.model(pair.a)
    agent = desk.agent(pair.a, model, script)
    id = desk.run(pair.b, model)["id"]
    assert begun.wait(WAIT)
    run = agent.running[id]
    hooks = [at(node, run.call["webhook"]) for node in (pair.a, pair.b)]
    words = [(hooks[number % 2], ("succeeded", "failed")[number // 2 % 2]) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda word: run.report(word[1], webhook=word[0], error="no").ok, words))
    over.set()
    streams = [desk.told(node, id) for node in (pair.a, pair.b)]
    assert streams[0] == streams[1]
    assert [event for _, event, _ in streams[0]].count("done") == 1
    events = desk.ask(pair.a, "GET", f"/v1/predictions/{id}/events")["results"]
    assert len(events) == 8
    shown = desk.shown(pair.b, id)["status"]
    on_time = {event["status"] for event in events if not event["late"]}
    assert on_time == {shown}


@pytest.mark.parametrize(
    "pair", [pytest.param(SCORING, marks=[pytest.mark.postgres, pytest.mark.redis])], indirect=True
)
def test_tasks_asked_of_one_node_are_done_by_agents_at_both(pair: Pair, desk: Desk) -> None:
    model = desk.model(pair.a, generation={"prompt_input": "prompt"})
    agents = [desk.agent(pair.a, model, reporting_to(pair.b)), desk.agent(pair.b, model, reporting_to(pair.a))]
    prompts = [f"poem {number}" for number in range(6)]
    with contextlib.closing(Socket(pair.b.url, api_key=desk.key)) as client:
        tasks = [generate(client, kind="cog", prompt=prompt)["id"] for prompt in prompts]
        until(lambda: sum(update["status"] in TASK_ENDS for update in client.all("task_update")) == 6, 60)
    for node in (pair.a, pair.b):
        addresses = [f"{node.url}/tasks/{task}/results/best/asset" for task in tasks]
        headers = {"Authorization": f"Bearer {desk.key}"}
        assert [requests.get(address, headers=headers, timeout=WAIT).text for address in addresses] == prompts
        assert "cannot be tended to" not in node.log_text()
    assert len(set(agents[0].begun + agents[1].begun)) == len(agents[0].begun + agents[1].begun) == 6


def test_what_runs_when_its_node_is_killed_goes_on_through_the_other(pair: Pair, desk: Desk) -> None:
    begun, back = threading.Event(), threading.Event()
    report = reporting_to(pair.b)

    def script(run: Run) -> None:
        begun.set()
        assert back.wait(60)
        report(run)

    model = desk.model(pair.a)
    agent = desk.agent(pair.a, model, script)
    ids = [desk.run(pair.a, model, str(number))["id"] for number in range(5)]
    assert begun.wait(WAIT)
    pair.a.kill()
    try:
        again = ScriptedRunner(pair.b.url, model, desk.key, script, instance=agent.instance)
        again.running = agent.running  # the same worker: its agent has lost its node
        desk.keep(again.connect())
        ids.append(desk.run(pair.b, model, "5")["id"])
        back.set()
        shown = [desk.ended(pair.b, id) for id in ids]
        assert [one["status"] for one in shown] == ["succeeded"] * 6
        contents = [requests.get(at(pair.b, one["output"][0]), timeout=WAIT).text for one in shown]
        assert contents == ["0", "1", "2", "3", "4", "5"]
        assert [desk.ends(pair.b, id) for id in ids] == [["succeeded"]] * 6
        assert agent.begun == ids[:1]
        # one that was on its way to the busy worker when its node died comes later than its place in the queue
        assert sorted(again.begun) == sorted(ids[1:])
    finally:
        pair.a.start()
    assert desk.shown(pair.a, ids[0])["status"] == "succeeded"


@pytest.mark.parametrize("pair", ["sqlite"], indirect=True)  # it takes most of a minute
def test_a_run_whose_node_and_agent_are_gone_is_failed_by_the_other_node(pair: Pair, desk: Desk) -> None:
    begun, over = threading.Event(), threading.Event()

    def script(run: Run) -> None:
        run.report("processing", webhook=at(pair.b, run.call["webhook"]))
        begun.set()
        over.wait(60)

    model = desk.model(pair.a)
    desk.agent(pair.a, model, script)
    id = desk.run(pair.b, model)["id"]
    assert begun.wait(WAIT)
    pair.a.kill()
    try:
        with pair.b._engine.begin() as connection:  # a dead process is given a minute
            connection.execute(text("UPDATE runner_agents SET seen_at = seen_at - 100"))
        shown = desk.ended(pair.b, id, 60)
    finally:
        over.set()
        pair.a.start()
    assert (shown["status"], shown["error"]) == ("failed", "The runner stopped reporting.")
