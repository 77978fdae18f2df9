"""`grid-node serve` and `flask shell|tasks`: what reaches the node, and how they end."""

import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from click.testing import Result
from flask import Flask

from app import create_app
from grid_node.cli import start
from grid_node.generation.tables import Task
from grid_node.generation.tasks import NewTask
from grid_node.identity.service import NewKey
from grid_node.settings import BadSetting, Settings
from tests.nodes import ROOT, empty_database, free_port, until


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a `.env`, an environment without the node's variables."""
    for name in [name for name in os.environ if name.startswith("GRID_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(*arguments: str, **environ: str) -> Settings:
    """What the start command would serve with."""
    os.environ.update(environ)
    try:
        return start.configure(vars(start.parser().parse_args(["serve", *arguments])), os.environ)
    finally:
        for name in [name for name in os.environ if name.startswith("GRID_")]:
            del os.environ[name]


# --- precedence -------------------------------------------------------------------------------------------------------


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(folder: Path) -> None:
    assert settings().public_api_copies == 4
    (folder / ".env").write_text("GRID_PUBLIC_API_COPIES=5\n")
    assert settings().public_api_copies == 5
    assert settings(GRID_PUBLIC_API_COPIES="6").public_api_copies == 6
    assert settings("--public_api.copies", "7", GRID_PUBLIC_API_COPIES="6").public_api_copies == 7


@pytest.mark.usefixtures("folder")
def test_the_flags_of_the_404_gen_validator_work() -> None:
    served = settings(
        *("--public_api.enabled", "--public_api.server_port", "9999", "--public_api.copies", "2"),
        *("--public_api.wait_after_first_copy", "12.5", "--public_api.sync_api_keys_interval", "0.5"),
    )

    assert served.public_api_enabled is True
    assert served.public_api_server_port == 9999
    assert served.public_api_copies == 2
    assert served.public_api_wait_after_first_copy == 12.5
    assert served.public_api_sync_api_keys_interval == 0.5


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("word", "meaning"), [("true", True), ("false", False), ("1", True), ("0", False)])
def test_a_boolean_is_a_parsed_word(word: str, meaning: bool) -> None:
    assert settings("--public_api.enabled", word).public_api_enabled is meaning
    assert settings("--worker.api_keys", word).worker_api_keys is meaning


@pytest.mark.usefixtures("folder")
def test_every_setting_has_a_flag() -> None:
    known = vars(start.parser().parse_args(["serve"]))

    assert set(known) == {field.name for field in dataclasses.fields(Settings)} - {"async_mode"}
    assert settings("--log_level", "debug", "--scoring.threshold", "0.7").scoring_threshold == 0.7


@pytest.mark.usefixtures("folder")
def test_a_longer_sync_interval_is_cut_to_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    assert settings("--public_api.sync_api_keys_interval", "30").public_api_sync_api_keys_interval == 1.0
    assert "GRID_PUBLIC_API_SYNC_API_KEYS_INTERVAL is cut from 30 s to 1 s" in capsys.readouterr().err


# --- nonsense ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("flag", "value", "variable"),
    [
        ("--public_api.copies", "9", "GRID_PUBLIC_API_COPIES"),
        ("--public_api.copies", "many", "GRID_PUBLIC_API_COPIES"),
        ("--public_api.enabled", "maybe", "GRID_PUBLIC_API_ENABLED"),
        ("--public_api.server_port", "0", "GRID_PUBLIC_API_SERVER_PORT"),
        ("--public_api.wait_after_first_copy", "nan", "GRID_PUBLIC_API_WAIT_AFTER_FIRST_COPY"),
        ("--public_api.sync_api_keys_interval", "-1", "GRID_PUBLIC_API_SYNC_API_KEYS_INTERVAL"),
        ("--worker.lease", "inf", "GRID_WORKER_LEASE"),
        ("--scoring.threshold", "1.5", "GRID_SCORING_THRESHOLD"),
        ("--log_level", "loud", "GRID_LOG_LEVEL"),
    ],
)
def test_nonsense_is_refused_with_the_variable_named(flag: str, value: str, variable: str) -> None:
    with pytest.raises(BadSetting, match=variable):
        settings(flag, value)


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "grid_node.cli.start", "serve"],
        ["-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"],
        ["-m", "grid_node.jobs.worker"],
    ],
)
def test_every_entry_point_exits_2_before_anything_is_opened(folder: Path, command: list[str]) -> None:
    data = folder / "data"
    done = run(*command, GRID_DATA_DIR=str(data), GRID_PUBLIC_API_COPIES="0")

    assert done.returncode == 2
    assert "GRID_PUBLIC_API_COPIES must be a whole number from 1 to 8, not 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert not data.exists()


def test_a_node_that_others_reach_must_say_who_may_use_its_models(folder: Path) -> None:
    data = folder / "data"
    command = ["-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"]
    done = run(*command, GRID_DATA_DIR=str(data), GRID_HOST="0.0.0.0")
    assert done.returncode == 2
    assert "GRID_MODELS_AUTH must be set (none, write or all)" in done.stderr
    assert not data.exists()
    for auth in ("none", "write", "all"):
        assert settings("--host", "0.0.0.0", "--models_auth", auth).models_auth == auth
    for host in ("127.0.0.1", "::1", "localhost"):
        assert settings("--host", host).models_auth == ""


def test_a_flag_that_does_not_exist_exits_2() -> None:
    done = run("-m", "grid_node.cli.start", "serve", "--public_api.copy", "2")

    assert done.returncode == 2
    assert "--public_api.copy" in done.stderr


# --- the whole way ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_the_start_command_migrates_serves_and_ends(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "grid_node.cli.start", "serve", "--public_api.server_port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        environ = {**os.environ, "GRID_DATA_DIR": str(tmp_path / "data")}
        node = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)
    try:
        until(lambda: answers(port), 60)
        assert has_table(tmp_path / "data" / "grid.db", "tasks")
    finally:
        node.send_signal(signal.SIGTERM)
        status = node.wait(30)
    assert status == 0, (tmp_path / "log").read_text()


# --- flask shell, flask tasks -----------------------------------------------------------------------------------------


def test_the_shell_opens_with_services_tables_and_session(app: Flask) -> None:
    with app.app_context():
        at_hand = app.make_shell_context()

    assert at_hand["grid"] is app.extensions["grid"]
    assert at_hand["tasks"] is at_hand["grid"].tasks
    assert at_hand["Task"] is Task
    assert {"ApiKey", "Copy", "Worker", "session", "db", "select", "keys"} <= at_hand.keys()


def test_the_commands_are_there(app: Flask) -> None:
    assert {"keys", "miners", "scorer", "tasks", "db"} <= app.cli.commands.keys()


def test_tasks_are_listed_shown_and_cancelled(app: Flask) -> None:
    first, second = (submit(app, prompt) for prompt in ("a cat", "a dog"))

    listed = flask(app, "tasks", "list", "--json")
    shown = flask(app, "tasks", "show", first)
    cancelled = flask(app, "tasks", "cancel", first)

    assert [task["id"] for task in json.loads(listed.stdout)] == [second, first]
    assert json.loads(shown.stdout)["prompt"] == "a cat"
    assert cancelled.stdout == f"Cancelled task: {first}\n"
    assert flask(app, "tasks", "list", "--status", "queued").stdout.split("|")[:2] == [second, "queued"]
    assert json.loads(flask(app, "tasks", "show", first).stdout)["status"] == "cancelled"


def test_a_command_that_changes_nothing_says_so(app: Flask) -> None:
    task_id = submit(app, "a cat")
    flask(app, "tasks", "cancel", task_id)

    again = flask(app, "tasks", "cancel", task_id)
    absent = flask(app, "tasks", "cancel", "x' OR '1'='1")

    assert (again.exit_code, again.stderr) == (1, "The task has ended already: cancelled\n")
    assert (absent.exit_code, absent.stderr) == (1, "Task not found.\n")


@pytest.fixture
def app(folder: Path) -> Iterator[Flask]:
    data = folder / "data"
    data.mkdir()
    shutil.copy(empty_database(), data / "grid.db")
    app = create_app(Settings.load({}, data_dir=data, log_level="warning"))
    yield app
    app.extensions["grid"].bells.close()
    app.extensions["grid"].store.close()


def submit(app: Flask, prompt: str) -> str:
    """A task of a fresh key; returns its id."""
    grid = app.extensions["grid"]
    key = grid.keys.generate()
    info = grid.keys.add(NewKey(key, f"for {prompt}", 10, 60, ["client"]))
    task_id: str = grid.tasks.submit(info.id, NewTask(prompt, "text", False, 1, 600.0)).task["id"]
    return task_id


def flask(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=list(arguments))


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def has_table(file: Path, name: str) -> bool:
    with closing(sqlite3.connect(file)) as connection:
        return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone())


def run(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_database_without_tables_stops_the_start_with_the_remedy(folder: Path) -> None:
    environment = {**os.environ, "GRID_DATA_DIR": str(folder / "data"), "GRID_ASYNC_MODE": "threading"}
    command = [sys.executable, "-W", "ignore", "-c", "import wsgi"]
    ended = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "flask db upgrade" in ended.stderr
