"""The whole way of a model that runs elsewhere: a real Cog behind a real agent, registered as the seed does it.

What each version of Cog makes of one run is in `tests/integration/test_real_cogs.py`.
"""

import contextlib
import json
import os
import sqlite3
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from grid_client.generation import GenerationClient
from grid_client.procedural import build
from grid_client.splats import encode

from tests import cogs
from tests.cogs import Cog
from tests.nodes import ROOT, LiveNode, running_node, until
from tests.stands import ENDED, PATIENCE, Stand, agent, fetched

pytestmark = pytest.mark.timeout(300)

VERSION = cogs.VERSIONS[0]
COGLET_AND_PYTHON = pytest.mark.parametrize("version", [VERSION, "0.16.12"])
LOST = 5.0
"""Seconds of silence after which a worker that is away has lost its prediction."""
SEED_SIGNATURE: dict[str, Any] = {
    "inputs": [
        {"name": "prompt", "type": "str", "validation": {"description": "this is a prompt"}},
        {"name": "seed", "type": "int", "validation": {"description": "seed"}},
        {
            "name": "steps",
            "type": "int",
            "validation": {"default": "50", "description": "steps", "ge": "0", "le": "1000"},
        },
        {
            "name": "guidance_scale",
            "type": "float",
            "validation": {"default": "5.0", "description": "guidance_scale", "ge": "0", "le": "20"},
        },
    ],
    "outputs": "list[Path]",
}
"""To the letter."""
GENERATION = {"prompt_input": "prompt", "inputs": {"seed": "7", "steps": "2"}, "output_index": 1}

PREDICTOR = """
import os
import tempfile
import time
from typing import List

from cog import BasePredictor, Input, Path, current_scope


class Predictor(BasePredictor):
    def predict(
        self,
        prompt: str = Input(description="this is a prompt"),
        seed: int = Input(description="seed"),
        steps: int = Input(default=50, ge=0, le=1000),
        guidance_scale: float = Input(default=5.0, ge=0, le=20),
    ) -> List[Path]:
        with open("ran.txt", "a") as file:
            file.write(prompt + "\\n")
        while prompt == "held" and not os.path.exists("let_go"):
            time.sleep(0.02)
        for step in range(steps):
            if step % 20 == 0:
                print(f"step {step} of {steps}", flush=True)
            time.sleep(0.02)
        return [self.picture(f"{prompt}|{seed}|{steps}|{guidance_scale}|{number}", number) for number in range(2)]

    def picture(self, text, number):
        known = (current_scope().context or {}).get("prediction_id")
        path = os.path.join(tempfile.mkdtemp(), f"{known}_{number}_picture.png")
        with open(path, "wb") as file:
            file.write(text.encode() + bytes(range(256)) * 1000)
        return Path(path)
"""
"""50 steps take a second. The prompt `held` waits until it is let go."""


def picture(prompt: str, number: int, seed: int = 1, steps: int = 2, guidance_scale: float = 5.0) -> bytes:
    """What the predictor writes into file `number`."""
    return f"{prompt}|{seed}|{steps}|{guidance_scale}|{number}".encode() + bytes(range(256)) * 1000


def times_run(stand: Stand) -> Counter[str]:
    """How often the worker has begun each prompt."""
    return Counter((stand.folder / "cog" / "ran.txt").read_text().splitlines())


def ends_told(node: LiveNode) -> Counter[str]:
    """How often each prediction's stream says that it is over."""
    told = """SELECT p.id, e.body FROM stream_entries e JOIN runner_predictions p ON e.stream = 'run:' || p.number"""
    with contextlib.closing(sqlite3.connect(node.data / "grid.db")) as database:
        return Counter(id for id, body in database.execute(told) if json.loads(body)["event"] == "done")


@contextlib.contextmanager
def worker_of(stand: Stand, predictor: str = PREDICTOR, version: str = VERSION) -> Iterator[Cog]:
    worker = Cog(version, stand.folder / "cog", stand.upload_url)
    (stand.folder / "cog" / "predict.py").write_text(predictor)
    try:
        worker.start()
        yield worker
    finally:
        worker.kill()


@contextlib.contextmanager
def model(
    node: LiveNode,
    folder: Path,
    predictor: str = PREDICTOR,
    version: str = VERSION,
    line_to: Callable[[Cog], str] | None = None,
    **members: Any,
) -> Iterator[tuple[Stand, Cog]]:
    """A model whose worker is ready, behind an agent. `line_to`: how the agent gets to the worker, if not directly."""
    cogs.environment_of(version)
    with contextlib.ExitStack() as stack:
        stand = stack.enter_context(contextlib.closing(Stand(node, folder, {**SEED_SIGNATURE, **members})))
        worker = stack.enter_context(worker_of(stand, predictor, version))
        stack.enter_context(agent(stand, line_to(worker) if line_to else worker.url))
        stand.until_runner_is("READY")
        yield stand, worker


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    """One that judges tasks."""
    settings = {"scoring_processes": 1, "compute_processes": 0, "runner_lost_s": LOST}
    with running_node(tmp_path_factory.mktemp("node"), **settings) as live:
        yield live


@pytest.fixture(scope="module")
def painter(node: LiveNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stand, Cog]]:
    with model(node, tmp_path_factory.mktemp("painter"), name="painter", generation=GENERATION) as found:
        yield found


# --- replicate's client -----------------------------------------------------------------------------------------------

REPLICATE = """
import json, sys, time
from replicate.client import Client

client, name = Client(base_url=sys.argv[1]), sys.argv[2]
version = client.models.get(name).latest_version.id
given = {"prompt": "a cat", "seed": 1, "steps": 2}
latest = client.run(name, input=given, use_file_output=False)
pinned = client.run(f"{name}:{version}", input={**given, "guidance_scale": 0.5}, use_file_output=False)
long = client.predictions.create(version=version, input={**given, "steps": 1000})
while long.status != "processing" or not long.logs:
    time.sleep(0.05)
    long.reload()
long.cancel()
long.wait()
listed = [one.id for one in client.predictions.list().results]
print(json.dumps({
    "latest": latest, "pinned": pinned, "ended": long.status, "logs": long.logs, "place": listed.index(long.id),
    "done": long.completed_at is not None, "output": long.output,
}))
"""


def test_replicates_client_runs_it_with_and_without_a_version_and_cancels_it(painter: tuple[Stand, Cog]) -> None:
    stand, worker = painter
    python = ROOT / ".venv-replicate" / "bin" / "python"
    if not python.exists():
        pytest.skip("replicate is not there: make peers")
    ran = subprocess.run(
        [str(python), "-c", REPLICATE, stand.node.url, stand.model],
        env={**os.environ, "REPLICATE_API_TOKEN": stand.key, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert [fetched(url) for url in told["latest"]] == [picture("a cat", 0), picture("a cat", 1)]
    scaled = [picture("a cat", number, guidance_scale=0.5) for number in range(2)]
    assert [fetched(url) for url in told["pinned"]] == scaled
    assert (told["ended"], told["done"], told["output"], told["place"]) == ("canceled", True, None, 0)
    assert told["logs"].startswith("step 0 of 1000\n")
    until(lambda: worker.status() == "READY", PATIENCE)


# --- generate ---------------------------------------------------------------------------------------------------------


def test_a_task_ends_with_the_bytes_that_the_worker_uploaded(painter: tuple[Stand, Cog], tmp_path: Path) -> None:
    stand, _worker = painter
    with GenerationClient(stand.node.url, stand.key) as client:
        task = client.submit("a dog", kind="cog", copies=1)
        client.wait(task.id, timeout=PATIENCE)
        client.download(task.id, "best", tmp_path / "best")
        results, report = client.status(task.id)["results"], client.report(task.id)
    assert (tmp_path / "best").read_bytes() == picture("a dog", 1, seed=7)
    assert [(one["hotkey"], one["format"]) for one in results] == [(stand.model_id, "file")]
    assert report["accepted"] is True
    made = stand.newest()
    assert (made["status"], made["source"], made["input"]["prompt"]) == ("succeeded", "node", "a dog")
    assert stand.bytes_of(made)[1] == (tmp_path / "best").read_bytes()


def test_a_cancelled_task_frees_the_worker_for_the_next_one(painter: tuple[Stand, Cog], tmp_path: Path) -> None:
    stand, worker = painter
    long = {**GENERATION, "inputs": {"seed": 7, "steps": 1000}}
    with GenerationClient(stand.node.url, stand.key) as client, changed(stand, long):
        task = client.submit("never", kind="cog", copies=1)
        until(lambda: stand.newest()["input"]["prompt"] == "never" and worker.status() == "BUSY", PATIENCE)
        cancelled = stand.newest()["id"]
        client.cancel(task.id)
        made = stand.until_state_is(cancelled, *ENDED)
    assert (made["status"], made["output"]) == ("canceled", None)
    until(lambda: worker.status() == "READY", PATIENCE)
    assert stand.run(prompt="next", seed=1, steps=2)["status"] == "succeeded"


@contextlib.contextmanager
def changed(stand: Stand, generation: dict[str, Any]) -> Iterator[None]:
    """The model does its tasks in another way inside the block."""
    path = f"/pc/client-api/predict_signature/{stand.model_id}"
    stand.http.patch(path, json={"generation": generation}).raise_for_status()
    try:
        yield
    finally:
        stand.http.patch(path, json={"generation": GENERATION}).raise_for_status()


def test_a_kind_of_task_that_the_node_does_not_know_is_refused(painter: tuple[Stand, Cog]) -> None:
    stand, _worker = painter
    generation = {**GENERATION, "task_kind": "text_to_music"}
    refused = stand.http.post("/pc/client-api/predict_signature", json={**SEED_SIGNATURE, "generation": generation})
    assert refused.status_code == 422
    assert refused.json()["fields"] == {"generation.task_kind": ["Must be one of: cog, text, text_to_3d."]}


SCULPTOR = """
import os
import shutil

from cog import BasePredictor, Input, Path


class Predictor(BasePredictor):
    def predict(self, prompt: str = Input(description="what to make")) -> Path:
        here = os.path.dirname(os.path.abspath(__file__))
        return Path(shutil.copy(os.path.join(here, "made", f"{prompt}.ply"), os.environ["TMPDIR"]))
"""
SHAPES = {
    "inputs": [{"name": "prompt", "type": "str", "validation": {"description": "what to make"}}],
    "outputs": "Path",
    "generation": {"prompt_input": "prompt", "task_kind": "text_to_3d"},
}


def test_a_model_of_another_kind_wins_a_task_against_a_miner(node: LiveNode, tmp_path: Path) -> None:
    shape = encode(build("a red chair", None, "sculptor"), "ply")
    (tmp_path / "stand" / "cog" / "made").mkdir(parents=True)
    (tmp_path / "stand" / "cog" / "made" / "a red chair.ply").write_bytes(shape)
    node.start_workers(1, "text_to_3d", "--quality", "0.8")
    client = GenerationClient(node.url, node.add_key("client"))
    with client, model(node, tmp_path / "stand", SCULPTOR, **SHAPES) as (stand, _worker):
        task = client.submit("a red chair", kind="text_to_3d", copies=2)
        client.wait(task.id, timeout=2 * PATIENCE)
        client.download(task.id, "best", tmp_path / "best.ply")
        copies = {one["hotkey"]: one for one in client.status(task.id)["statistics"]["miners"]}
    won = copies.pop(stand.model_id)
    (miner,) = copies.values()
    assert (won["state"], won["data_format"], won["score"] > miner["score"] > 0) == ("accepted", "ply", True)
    assert (tmp_path / "best.ply").read_bytes() == shape


# --- a worker that dies -----------------------------------------------------------------------------------------------


def test_a_worker_killed_in_a_task_fails_it_with_a_reason_before_its_deadline(
    painter: tuple[Stand, Cog], node: LiveNode
) -> None:
    stand, worker = painter
    long = {**GENERATION, "inputs": {"seed": 7, "steps": 1000}}
    with GenerationClient(node.url, stand.key) as client, changed(stand, long):
        task = client.submit("doomed", kind="cog", copies=1, deadline_s=600)
        until(lambda: stand.newest()["input"]["prompt"] == "doomed", PATIENCE)
        stand.until_state_is(stand.newest()["id"], "processing")
        worker.kill()
        made = stand.until_state_is(stand.newest()["id"], *ENDED)
        assert (made["status"], made["error"]) == ("failed", "The runner stopped reporting.")
        assert (made["input"]["prompt"], made["output"]) == ("doomed", None)
        until(lambda: states_of_copies(node, task.id) == ["skipped"], PATIENCE)
        client.cancel(task.id)
    worker.start()
    done = stand.run(prompt="after", seed=1, steps=2)
    assert stand.bytes_of(done) == [picture("after", 0), picture("after", 1)]


def states_of_copies(node: LiveNode, task_id: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(node.data / "grid.db")) as database:
        return [state for (state,) in database.execute("SELECT state FROM copies WHERE task_id = ?", (task_id,))]


# --- a node that dies -------------------------------------------------------------------------------------------------


@COGLET_AND_PYTHON
def test_a_node_killed_with_twenty_waiting_and_one_running_ends_each_once(tmp_path: Path, version: str) -> None:
    with (
        running_node(tmp_path / "node", compute_processes=0) as node,
        model(node, tmp_path / "stand", version=version) as (stand, _worker),
    ):
        running = stand.begin(prompt="held", seed=1, steps=2)
        stand.until_state_is(running, "processing")
        waiting = {stand.begin(prompt=f"no {number}", seed=1, steps=0): f"no {number}" for number in range(20)}
        node.kill()
        node.start()
        (stand.folder / "cog" / "let_go").touch()
        ended = {id: stand.until_state_is(id, *ENDED, seconds=120) for id in [running, *waiting]}
        assert {one["status"] for one in ended.values()} == {"succeeded"}
        for id, prompt in waiting.items():
            assert stand.bytes_of(ended[id]) == [picture(prompt, number, steps=0) for number in range(2)]
        assert stand.bytes_of(ended[running])[0] == picture("held", 0)
        assert times_run(stand) == Counter(["held", *waiting.values()])
        assert ends_told(node) == Counter([running, *waiting])


# --- answers that get lost --------------------------------------------------------------------------------------------


class Forgetful(ThreadingHTTPServer):
    """Passes calls on to a worker. Of every fourth prediction that it takes the first answer is lost."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Call)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.worker = httpx.Client(base_url=target, trust_env=False)
        self.taken: set[str] = set()
        self.lost = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.worker.close()


class _Call(BaseHTTPRequestHandler):
    server: Forgetful

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def do_PUT(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kept = {name: self.headers[name] for name in ("Content-Type", "Prefer") if name in self.headers}
        answer = self.server.worker.request(self.command, self.path, content=body, headers=kept)
        if answer.status_code < 300 and self._loses():
            self.server.lost += 1
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def _loses(self) -> bool:
        if self.command != "PUT" or self.path in self.server.taken:
            return False
        self.server.taken.add(self.path)
        return len(self.server.taken) % 4 == 0

    def log_message(self, *_args: Any) -> None:
        pass


@COGLET_AND_PYTHON
def test_predictions_whose_dispatch_was_never_answered_end_once_and_none_is_lost(
    node: LiveNode, tmp_path: Path, version: str
) -> None:
    lines: list[Forgetful] = []

    def forgetful(worker: Cog) -> str:
        lines.append(Forgetful(worker.url))
        return lines[0].url

    with model(node, tmp_path, version=version, line_to=forgetful) as (stand, _worker), contextlib.closing(lines[0]):
        begun = {stand.begin(prompt=f"no {number}", seed=1, steps=0): f"no {number}" for number in range(24)}
        for id, prompt in begun.items():
            done = stand.until_state_is(id, *ENDED)
            assert (done["status"], done["error"]) == ("succeeded", None)
            assert stand.bytes_of(done) == [picture(prompt, number, steps=0) for number in range(2)]
        assert lines[0].lost == len(begun) // 4
        assert times_run(stand).keys() == set(begun.values())
        told = ends_told(node)
        assert [told[id] for id in begun] == [1] * len(begun)
