"""Real Cog workers of four versions, behind an agent and behind an address: the same runs, files and ends in each."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from grid_client.generation import GenerationClient

from tests import cogs, stands
from tests.cloudflare import cloudflare, settings_of
from tests.cogs import Cog, content
from tests.nodes import ROOT, LiveNode, free_port, running_node, until
from tests.stands import ENDED, PATIENCE, agent

pytestmark = pytest.mark.timeout(300)

STUCK = 5.0
"""Seconds after which a prediction that still waits makes us look whether its worker is stuck."""
GENERATION = {"prompt_input": "prompt", "inputs": {"count": 2}, "output_index": 1}


class Stand(stands.Stand):
    """With its worker, which is freed when it is stuck."""

    def __init__(self, node: LiveNode, folder: Path, **members: Any) -> None:
        super().__init__(node, folder, {**cogs.SIGNATURE, **members})
        self.worker: Cog | None = None

    def until_state_is(self, prediction_id: str, *states: str, seconds: float = PATIENCE) -> dict[str, Any]:
        look_at = time.monotonic() + STUCK

        def is_there() -> bool:
            status = self.look(prediction_id)["status"]
            if status == "starting" and self.worker is not None and time.monotonic() > look_at:
                self.worker.free()
            return status in states

        until(is_there, seconds)
        return self.look(prediction_id)


@contextlib.contextmanager
def behind_an_agent(node: LiveNode, folder: Path, version: str) -> Iterator[tuple[Stand, Cog]]:
    with contextlib.closing(Stand(node, folder, generation=GENERATION)) as stand, contextlib.ExitStack() as stack:
        worker = stand.worker = stack.enter_context(cogs.cog(version, folder / "cog", stand.upload_url))
        stack.enter_context(agent(stand, worker.url))
        stand.until_runner_is("READY")
        yield stand, worker


@contextlib.contextmanager
def behind_an_address(node: LiveNode, folder: Path, version: str, port: int) -> Iterator[tuple[Stand, Cog]]:
    with contextlib.closing(Stand(node, folder)) as stand, contextlib.ExitStack() as stack:
        worker = stand.worker = stack.enter_context(cogs.cog(version, folder / "cog", stand.upload_url, port=port))
        yield stand, worker


@pytest.fixture(scope="module")
def agents_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with running_node(tmp_path_factory.mktemp("node"), compute_processes=0) as node:
        yield node


@pytest.fixture(scope="module")
def scoring_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    """One that scores results: a generation task is not over before."""
    with running_node(tmp_path_factory.mktemp("node"), scoring_processes=1, compute_processes=0) as node:
        yield node


@pytest.fixture(scope="module")
def addresses_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveNode, int]]:
    """One that reaches every worker at the same port of this machine, as if a tunnel ended there."""
    port = free_port()
    with cloudflare() as standin:
        settings = {**settings_of(standin), "runner_url_template": f"http://127.0.0.1:{port}", "compute_processes": 0}
        with running_node(tmp_path_factory.mktemp("node"), **settings) as node:
            yield node, port


@pytest.fixture(scope="module", params=[(way, version) for way in ("agent", "address") for version in cogs.VERSIONS],
                ids=lambda param: f"{param[0]}-{param[1]}")  # fmt: skip
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stand, Cog]]:
    way, version = request.param
    cogs.environment_of(version)
    folder = tmp_path_factory.mktemp("stand")
    if way == "agent":
        with behind_an_agent(request.getfixturevalue("agents_node"), folder, version) as found:
            yield found
    else:
        node, port = request.getfixturevalue("addresses_node")
        with behind_an_address(node, folder, version, port) as found:
            yield found


@pytest.fixture
def stand(running: tuple[Stand, Cog]) -> Stand:
    return running[0]


def test_two_files_come_back_byte_for_byte(running: tuple[Stand, Cog]) -> None:
    """Where nothing tells their order, the prediction says so."""
    stand, worker = running
    done = stand.run(prompt="två", count=2)

    assert (done["status"], done["error"]) == ("succeeded", None)
    assert done["logs"] == "prompt: två\nmade 2\n"
    assert done["input"] == {"prompt": "två", "kind": "files", "count": 2, "scale": 1.5, "seconds": 0.0}
    assert stand.bytes_of(done) == [content("två", 0), content("två", 1)]
    assert done["warnings"] == ([] if worker.version in cogs.KNOWS_ITS_PREDICTION else ["output_unordered"])


def test_files_say_what_they_are(stand: Stand) -> None:
    done = stand.run(prompt="one", count=1)

    answer = httpx.head(done["output"][0], trust_env=False)
    assert answer.headers["ETag"] == f'"{sha256(content("one", 0)).hexdigest()}"'
    assert int(answer.headers["Content-Length"]) == len(content("one", 0))
    assert "out-0.png" in answer.headers["Content-Disposition"]


def test_many_files_come_back_in_their_order(stand: Stand) -> None:
    done = stand.run(prompt="many", count=20)

    assert stand.bytes_of(done) == [content("many", number) for number in range(20)]


def test_files_of_one_name_are_two_files(stand: Stand) -> None:
    done = stand.run(prompt="twins", kind="same", count=2)

    assert len(set(done["output"])) == 2
    assert stand.bytes_of(done) == [content("twins", 0), content("twins", 1)]


@pytest.mark.parametrize("kind", ["empty", "plain"])
def test_a_file_without_bytes_or_extension_is_a_file(stand: Stand, kind: str) -> None:
    done = stand.run(prompt="odd", kind=kind, count=1)

    assert done["status"] == "succeeded"
    assert stand.bytes_of(done) == [content("odd", 0, kind)]


def test_no_files_are_no_output(stand: Stand) -> None:
    done = stand.run(prompt="none", count=0)

    assert done["status"] == "succeeded"
    assert done["output"] in ([], None)  # what coglet and what Python makes of an empty list


def test_a_model_that_raises_fails_the_prediction(stand: Stand) -> None:
    done = stand.run(prompt="bad", kind="fail")

    assert done["status"] == "failed"
    assert "told to fail" in done["error"]
    assert done["logs"].startswith("prompt: bad\n")
    assert not done["output"]


def test_a_cancelled_prediction_frees_its_worker(stand: Stand) -> None:
    prediction_id = stand.begin(prompt="long", seconds=100)
    stand.until_state_is(prediction_id, "processing")

    stand.cancel(prediction_id)

    done = stand.until_state_is(prediction_id, *ENDED)
    assert (done["status"], done["error"]) == ("canceled", None)
    assert done["logs"] == "prompt: long\n"
    assert stand.run(prompt="next", count=0)["status"] == "succeeded"


def test_a_busy_worker_takes_the_next_one_later(stand: Stand) -> None:
    begun = [stand.begin(prompt=str(number), count=1, seconds=0.5) for number in range(3)]

    done = [stand.until_state_is(prediction_id, *ENDED) for prediction_id in begun]
    assert [one["status"] for one in done] == ["succeeded"] * 3
    assert [stand.bytes_of(one) for one in done] == [[content(str(number), 0)] for number in range(3)]
    assert sorted(one["started_at"] for one in done) == [one["started_at"] for one in done]


def test_input_that_the_signature_refuses_reaches_no_worker(running: tuple[Stand, Cog]) -> None:
    stand, worker = running
    given = {"input": {"prompt": "unwanted", "count": 51}}

    refused = stand.http.post(f"/v1/models/{stand.model}/predictions", json=given)

    assert refused.status_code == 422
    assert refused.json()["fields"] == {"count": ["Must be greater than or equal to 0 and less than or equal to 50."]}
    marked = stand.run(prompt="marker", count=0)
    assert "marker" in marked["logs"]
    assert "unwanted" not in worker.log()


# --- a worker that dies


@pytest.mark.parametrize("version", [cogs.VERSIONS[0], cogs.VERSIONS[-1]])
def test_a_worker_killed_in_mid_run_fails_its_prediction_before_the_deadline(tmp_path: Path, version: str) -> None:
    cogs.environment_of(version)
    quick = {"runner_lost_s": 3.0, "runner_call_s": 2.0, "prediction_run_s": 600.0, "compute_processes": 0}
    with running_node(tmp_path / "node", **quick) as node, behind_an_agent(node, tmp_path / "stand", version) as found:
        stand, worker = found
        prediction_id = stand.begin(prompt="doomed", seconds=100)
        stand.until_state_is(prediction_id, "processing")

        worker.kill()

        done = stand.until_state_is(prediction_id, *ENDED)
        assert (done["status"], done["error"]) == ("failed", "The runner stopped reporting.")
        stand.until_runner_is("OFFLINE")
        waiting = stand.begin(prompt="after", count=1)
        worker.start()
        done = stand.until_state_is(waiting, *ENDED)
        assert stand.bytes_of(done) == [content("after", 0)]
        assert stand.look(prediction_id)["status"] == "failed"


# --- the ways to call one


REPLICATE = """
import json, sys
from replicate.client import Client
client = Client(base_url=sys.argv[1])
found = client.run(sys.argv[2], input={"prompt": "by replicate", "count": 2}, use_file_output=False)
made = client.predictions.create(version=sys.argv[2], input={"prompt": "cancelled", "seconds": 100})
made.cancel()
made.wait()
print(json.dumps({"urls": found, "cancelled": made.status}))
"""


def test_the_replicate_client_runs_it(agents_node: LiveNode, tmp_path: Path) -> None:
    python = ROOT / ".venv-replicate" / "bin" / "python"
    if not python.exists():
        pytest.skip("replicate is not there: make peers")
    with behind_an_agent(agents_node, tmp_path, cogs.VERSIONS[0]) as (stand, _worker):
        done = subprocess.run(
            [str(python), "-c", REPLICATE, agents_node.url, stand.model],
            env={**os.environ, "REPLICATE_API_TOKEN": stand.key, "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        found = [httpx.get(url, trust_env=False).content for url in told["urls"]]

    assert found == [content("by replicate", 0), content("by replicate", 1)]
    assert told["cancelled"] == "canceled"


def test_a_generation_task_gets_the_file_that_the_worker_uploaded(scoring_node: LiveNode, tmp_path: Path) -> None:
    with (
        behind_an_agent(scoring_node, tmp_path, cogs.VERSIONS[0]) as (stand, _worker),
        GenerationClient(scoring_node.url, stand.key) as client,
    ):
        task = client.submit("by generate", kind="cog", copies=1)
        client.wait(task.id, timeout=PATIENCE)
        client.download(task.id, "best", tmp_path / "best")

    assert (tmp_path / "best").read_bytes() == content("by generate", 1)


def test_a_generation_task_that_is_cancelled_cancels_the_worker(scoring_node: LiveNode, tmp_path: Path) -> None:
    slow = {**GENERATION, "inputs": {"seconds": 100}}
    with contextlib.closing(Stand(scoring_node, tmp_path, generation=slow)) as stand, contextlib.ExitStack() as stack:
        worker = stack.enter_context(cogs.cog(cogs.VERSIONS[0], tmp_path / "cog", stand.upload_url))
        stack.enter_context(agent(stand, worker.url))
        client = stack.enter_context(GenerationClient(scoring_node.url, stand.key))
        task = client.submit("never", kind="cog", copies=1)
        until(lambda: worker.status() == "BUSY", PATIENCE)

        client.cancel(task.id)

        until(lambda: worker.status() == "READY", PATIENCE)
        (run,) = stand.http.get("/v1/predictions").raise_for_status().json()["results"]
        assert run["status"] == "canceled"


# --- the agent


def test_an_agent_with_a_wrong_token_exits_3(agents_node: LiveNode, tmp_path: Path) -> None:
    with contextlib.closing(Stand(agents_node, tmp_path)) as stand:
        credential = json.loads(stand.credential.read_text())
        stand.credential.write_text(json.dumps({**credential, "token": "d3Jvbmc="}))

        with agent(stand, "http://127.0.0.1:9") as process:
            assert process.wait(PATIENCE) == 3

        told = (tmp_path / "agent.log").read_text()
        assert "API key is not valid." in told
        assert "d3Jvbmc=" not in told


def test_an_agent_with_a_key_of_the_owner_is_let_in(
    agents_node: LiveNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with contextlib.closing(Stand(agents_node, tmp_path)) as stand:
        command = [sys.executable, "-m", "grid_client.cli.main", "runner", "--url", "http://127.0.0.1:9"]
        command += ["--node", agents_node.url, "--model-id", stand.model_id]
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python"), "GRID_API_KEY": stand.key},
            cwd=tmp_path,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: bool(stand.registered()["runner"]["connected"]), PATIENCE)
            stand.until_runner_is("OFFLINE")
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
        until(lambda: not stand.registered()["runner"]["connected"], PATIENCE)


def test_an_agent_killed_in_mid_run_costs_no_prediction(agents_node: LiveNode, tmp_path: Path) -> None:
    """The worker reports by itself; the next agent takes the calls again."""
    with contextlib.closing(Stand(agents_node, tmp_path)) as stand, contextlib.ExitStack() as stack:
        worker = stack.enter_context(cogs.cog(cogs.VERSIONS[0], tmp_path / "cog", stand.upload_url))
        with agent(stand, worker.url):
            stand.until_runner_is("READY")
            prediction_id = stand.begin(prompt="on its own", count=1, seconds=2.0)
            stand.until_state_is(prediction_id, "processing")
        done = stand.until_state_is(prediction_id, *ENDED)
        assert stand.bytes_of(done) == [content("on its own", 0)]
        waiting = stand.begin(prompt="again", count=1)
        with agent(stand, worker.url):
            assert stand.until_state_is(waiting, *ENDED)["status"] == "succeeded"
