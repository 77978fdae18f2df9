"""The JavaScript example of runners: a model is registered, run, followed over a broken line, and cancelled."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_js_client import example, run
from tests.nodes import LiveNode, running_node
from tests.programs import Program
from tests.proxy import proxied
from tests.scripted_runner import Run, ScriptedRunner

__all__ = ["example"]

DOCUMENT = {
    "name": "talker",
    "inputs": [
        {"name": "prompt", "type": "str"},
        {"name": "steps", "type": "int", "validation": {"default": "50", "ge": "0", "le": "1000"}},
    ],
    "outputs": "ConcatenateIterator[str]",
}


class Talker:
    """Says the words of the prompt, each when it may."""

    def __init__(self) -> None:
        self.words = threading.Semaphore(0)

    def __call__(self, run: Run) -> None:
        said: list[str] = []
        for word in run.input["prompt"].split():
            if word == "break":
                run.report("failed", error="out of memory", output=said)
                return
            while not self.words.acquire(timeout=0.05):
                if run.cancelled.is_set():
                    run.report("canceled", output=said)
                    return
            said.append(word)
            run.report("processing", output=said, logs="".join(f"{one}\n" for one in said))
        run.report("succeeded", output=said)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with running_node(tmp_path_factory.mktemp("node")) as made:
        yield made


@pytest.fixture(scope="module")
def key(node: LiveNode) -> str:
    return node.add_key("anna", ("runner", "client"))


@pytest.fixture(scope="module")
def runs_example(example: list[str]) -> list[str]:
    return [example[0], str(Path(example[1]).with_name("runs.mjs"))]


@pytest.fixture(scope="module")
def registered(
    runs_example: list[str], node: LiveNode, key: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str, Path]:
    """Id, address and folder of the model that the example registered."""
    folder = tmp_path_factory.mktemp("tunnel")
    (folder / "document.json").write_text(json.dumps(DOCUMENT))
    done = run(runs_example, "register", node.url, "document.json", ".", key, cwd=folder)
    assert done.returncode == 0, done.stderr
    word, id, address = done.stdout.split()
    assert word == "REGISTERED"
    return id, address, folder


@pytest.fixture
def talker(node: LiveNode, key: str, registered: tuple[str, str, Path]) -> Iterator[Talker]:
    """The model's worker; its agent shows the credential that the example has written."""
    id, _, folder = registered
    credential = json.loads((folder / "tunnel_credential.json").read_text())
    made = Talker()
    agent = ScriptedRunner(node.url, id, key, made)
    agent.connect(token=credential["token"])
    yield made
    agent.close()


Start = Callable[..., Program]


@pytest.fixture
def start(runs_example: list[str], node: LiveNode, key: str, registered: tuple[str, str, Path]) -> Iterator[Start]:
    """Runs the model with a prompt."""
    with contextlib.ExitStack() as stack:

        def begin(prompt: str, url: str = node.url, **more: Any) -> Program:
            text = json.dumps({"prompt": prompt, **more})
            made = Program([*runs_example, "run", url, registered[1], text], key)
            stack.callback(made.close)
            return made

        yield begin


def said(line: str) -> str:
    """The data of an update that was printed."""
    return str(json.loads(line.partition(" ")[2]))


def test_the_agent_gets_its_files_and_the_credential_is_for_its_owner_alone(registered: tuple[str, str, Path]) -> None:
    id, _, folder = registered
    credential, config = folder / "tunnel_credential.json", folder / "tunnel_config.json"
    assert json.loads(credential.read_text())["TunnelName"] == id
    assert credential.stat().st_mode & 0o077 == 0
    assert json.loads(config.read_text())["credentials-file"] == "tunnel_credential.json"


def test_a_run_prints_every_update_as_it_comes(start: Start, talker: Talker) -> None:
    program = start("red donut")
    program.wait_for("CREATED")
    for word in ("red", "donut"):
        talker.words.release()
        assert said(program.wait_for("OUTPUT")) == word
        assert said(program.wait_for("LOGS")) == f"{word}\n"
    assert program.wait_for("DONE") == "succeeded"
    assert program.end() == (0, "")


def test_after_a_cut_it_goes_on_behind_what_it_has(start: Start, node: LiveNode, talker: Talker) -> None:
    with proxied(node.port) as line:
        program = start("one two three four", url=line.url)
        program.wait_for("CREATED")
        talker.words.release()
        program.wait_for("LOGS")
        line.cut()
        talker.words.release(3)
        assert program.wait_for("DONE") == "succeeded"
        assert program.end() == (0, "")
    printed = [text for text in program.lines if text.startswith("OUTPUT")]
    assert [said(text.partition(" ")[2]) for text in printed] == ["one", "two", "three", "four"]
    assert "AGAIN" not in program.lines


def test_an_interrupt_cancels_it_at_the_worker(start: Start, talker: Talker) -> None:
    program = start("red donut")
    talker.words.release()
    program.wait_for("OUTPUT")
    program.interrupt()
    assert program.wait_for("DONE") == "canceled"
    assert program.end() == (1, "")


def test_a_failure_is_told_in_the_workers_words(start: Start, talker: Talker) -> None:
    program = start("break")
    assert program.wait_for("ERROR").endswith(" out of memory")
    assert program.wait_for("DONE") == "error"
    assert program.end() == (1, "")


def test_every_wrong_input_is_named(start: Start) -> None:
    code, words = start("a", steps=5000).end()
    assert code == 1
    assert words.startswith("runs: invalid_input: Input validation failed; steps: Must be")


def test_a_refused_key_and_wrong_usage_end_it(runs_example: list[str], node: LiveNode, tmp_path: Path) -> None:
    done = run(runs_example, "run", node.url, "anna/talker", "{}", "no-such-key-000000", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "runs: invalid_key: API key is not valid.\n")
    done = run(runs_example, "run", node.url, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")
