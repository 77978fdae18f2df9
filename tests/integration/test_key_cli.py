"""The key and miner commands, and the shell script, as an operator meets them."""

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from bittensor_wallet import Keypair
from flask import Flask
from sqlalchemy import text

from grid_node.cli.keys import keys_cli
from grid_node.cli.keys_script import main
from grid_node.cli.miners import miners_cli
from grid_node.clock import ManualClock
from grid_node.database import Base, DirectStore, make_engine
from grid_node.errors import InvalidKey
from grid_node.identity import keys, tables
from grid_node.identity.service import KeyService
from grid_node.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "api_key_cli.sh"
KEY = "EWJzrqUL94r5BEz0ZLPUbEwD8qdQX18dCUF9B7C2e0"
OTHER_KEY = "another-key_of-a-client"
INJECTION = "x' OR '1'='1"
HERE = "192.0.2.1"
MINER = Keypair.create_from_seed("0x" + "01" * 32).ss58_address

MAX_TEXT = "max_requests must be a whole number from 0 to 1000000"
PERIOD_TEXT = "period must be a whole number from 1 to 2678400"
NAME_TEXT = "name must be 1 to 64 characters without | and control characters"
KEY_TEXT = "API key must be 16 to 200 printable ASCII characters without space"


class Operator:
    """Types commands on a node's machine."""

    def __init__(self, folder):
        self.file = folder / "grid.db"
        engine = make_engine(f"sqlite:///{self.file}")
        models = (tables.ApiKey, tables.Charge, tables.KeyEpoch, tables.AllowedMiner, tables.BlacklistedMiner)
        Base.metadata.create_all(engine, tables=[model.__table__ for model in models])
        self.store = DirectStore(engine)
        self.clock = ManualClock()
        self.service = KeyService(self.store, self.clock, Settings())
        app = Flask("test")
        app.cli.add_command(keys_cli)
        app.cli.add_command(miners_cli)
        app.extensions["grid"] = SimpleNamespace(store=self.store, clock=self.clock, settings=Settings())
        self._runner = app.test_cli_runner()

    def flask(self, *arguments, stdin=None):
        return self._runner.invoke(args=list(arguments), input=stdin)

    def done(self, *arguments, stdin=None):
        """stdout of a command that must succeed."""
        result = self.flask(*arguments, stdin=stdin)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    def refused(self, *arguments, status=1):
        """stderr of a command that must change nothing."""
        before = self.rows()
        result = self.flask(*arguments)
        assert (result.exit_code, result.stdout) == (status, "")
        assert self.rows() == before
        return result.stderr

    def rows(self):
        names = ("api_keys", "key_epoch", "miner_allowlist", "miner_blacklist")
        return self.store.read(lambda tx: [[tuple(r) for r in tx.execute(text(f"SELECT * FROM {n}"))] for n in names])


@pytest.fixture
def operator(tmp_path):
    made = Operator(tmp_path)
    yield made
    made.store.close()


# --- flask keys ------------------------------------------------------------------------------------------------


def test_gen_prints_a_key_and_stores_nothing(operator):
    before = operator.rows()
    word, key = operator.done("keys", "gen").strip().rsplit(" ", 1)
    assert word == "Generated API Key:"
    assert keys.own_id(key)
    assert operator.rows() == before


def test_create_makes_a_key_that_works(operator):
    generated, added = operator.done("keys", "create", "client-name", "100", "60").splitlines()
    key = generated.removeprefix("Generated API Key: ")
    assert added == f"Added API Key: {key}"
    assert operator.service.authenticate(key, HERE, "client").key_id == key[2:10]


def test_an_added_key_works_and_a_removed_one_does_not(operator):
    assert operator.done("keys", "add", KEY, "client-name", "100", "60") == f"Added API Key: {KEY}\n"
    assert operator.service.authenticate(KEY, HERE).max_requests == 100
    assert operator.done("keys", "remove", KEY) == f"Removed API Key: {KEY}\n"
    with pytest.raises(InvalidKey):
        operator.service.authenticate(KEY, HERE)


def test_a_key_may_come_on_stdin(operator):
    operator.done("keys", "add", "-", "client-name", "100", "60", stdin=f"{KEY}\n")
    assert operator.service.authenticate(KEY, HERE)
    operator.done("keys", "remove", "-", stdin=KEY)
    assert operator.refused("keys", "add", "-", "client-name", "100", "60") == f"{KEY_TEXT}\n"


def test_a_key_may_be_removed_by_its_id(operator):
    operator.done("keys", "add", KEY, "client-name", "100", "60")
    key_id = operator.service.all_keys()[0].id
    assert operator.done("keys", "remove", key_id) == f"Removed API Key: {key_id}\n"


def test_list_prints_a_line_a_key_and_nothing_without_keys(operator):
    assert operator.done("keys", "list") == ""
    key = json.loads(operator.done("keys", "create", "one", "0", "1", "--json"))["key"]
    operator.service.authenticate(key, HERE)
    operator.service.flush_uses()
    operator.clock.advance(1)  # keys of one moment are listed in the order of their random ids
    operator.done(
        *("keys", "add", KEY, "two words", "100", "60"),
        *("--scope", "worker", "--scope", "client", "--max-concurrent", "4", "--expires", "2027-01-15T08:00:10Z"),
    )
    operator.clock.advance(9)
    first, second = operator.done("keys", "list").splitlines()
    assert first == f"{key[2:10]}|one|0|1|0|client|active|2027-01-15T08:00:00.000Z"
    assert second.split("|", 1)[1] == "two words|100|60|4|client,worker|expired|never"


def test_answers_come_in_json(operator):
    made = json.loads(operator.done("keys", "create", "one", "5", "60", "--json"))
    assert made["key"][2:10] == made["id"]
    assert (made["max_requests"], made["scopes"], made["state"]) == (5, ["client"], "active")
    listed = json.loads(operator.done("keys", "list", "--json"))
    assert "key" not in listed[0]
    assert listed[0]["created_at"] == "2027-01-15T08:00:00.000Z"
    assert keys.own_id(json.loads(operator.done("keys", "gen", "--json"))["key"])
    assert json.loads(operator.done("keys", "remove", made["id"], "--json"))["id"] == made["id"]


def test_limit_disable_and_enable_say_what_they_did(operator):
    operator.done("keys", "add", KEY, "client-name", "100", "60")
    key_id = operator.service.all_keys()[0].id
    assert operator.done("keys", "limit", key_id, "5", "10") == f"Limited API Key: {key_id}\n"
    assert operator.done("keys", "disable", key_id) == f"Disabled API Key: {key_id}\n"
    assert operator.done("keys", "list").endswith("|client-name|5|10|0|client|disabled|never\n")
    assert operator.done("keys", "enable", key_id) == f"Enabled API Key: {key_id}\n"
    assert operator.refused("keys", "limit", key_id, "5", "10") == "API key already has this limit\n"
    assert operator.refused("keys", "enable", key_id) == "API key is already enabled\n"


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ((OTHER_KEY, "n", "-1", "60"), MAX_TEXT),
        ((OTHER_KEY, "n", "many", "60"), MAX_TEXT),
        ((OTHER_KEY, "n", "1000001", "60"), MAX_TEXT),
        ((OTHER_KEY, "n", "1.5", "60"), MAX_TEXT),
        ((OTHER_KEY, "n", INJECTION, "60"), MAX_TEXT),
        ((OTHER_KEY, "n", "", "60"), MAX_TEXT),
        ((OTHER_KEY, "n", "1", "0"), PERIOD_TEXT),
        ((OTHER_KEY, "n", "1", "-60"), PERIOD_TEXT),
        ((OTHER_KEY, "n", "1", "2678401"), PERIOD_TEXT),
        ((OTHER_KEY, "a|b", "1", "60"), NAME_TEXT),
        ((OTHER_KEY, "", "1", "60"), NAME_TEXT),
        ((OTHER_KEY, "n" * 65, "1", "60"), NAME_TEXT),
        ((INJECTION, "n", "1", "60"), KEY_TEXT),
        (("short", "n", "1", "60"), KEY_TEXT),
        ((OTHER_KEY, "n", "1", "60", "--expires", "soon"), "expires must be a time like 2027-01-31T12:00:00Z"),
        ((OTHER_KEY, "n", "1", "60", "--expires", "2020-01-01T00:00:00Z"), "expires is in the past"),
        (
            (OTHER_KEY, "n", "1", "60", "--max-concurrent", "-1"),
            "max_concurrent must be a whole number from 0 to 1000000",
        ),
    ],
)
def test_what_cannot_be_added_is_refused_in_one_line(operator, arguments, answer):
    operator.done("keys", "add", KEY, "client-name", "100", "60")
    assert operator.refused("keys", "add", *arguments) == f"{answer}\n"


def test_a_duplicate_is_refused_with_the_id_of_the_first(operator):
    operator.done("keys", "add", KEY, "client-name", "100", "60")
    key_id = operator.service.all_keys()[0].id
    assert operator.refused("keys", "add", KEY, "other", "1", "60") == f"API key already exists: {key_id}\n"
    answer = operator.refused("keys", "add", OTHER_KEY, "client-name", "1", "60")
    assert answer == f"name is already used by API key {key_id}\n"


@pytest.mark.parametrize("absent", [INJECTION, OTHER_KEY, "absent12", "%", "' --", "-x"])
def test_an_absent_key_is_not_found(operator, absent):
    operator.done("keys", "add", KEY, "client-name", "100", "60")
    assert operator.refused("keys", "remove", absent) == "API key not found\n"
    assert operator.refused("keys", "limit", absent, "1", "1") == "API key not found\n"
    assert operator.refused("keys", "disable", absent) == "API key not found\n"


@pytest.mark.parametrize("name", ["O'Reilly", '"; DROP TABLE api_keys; --', "Zoë"])
def test_names_are_values_and_nothing_else(operator, name):
    operator.done("keys", "add", KEY, name, "1", "1")
    assert operator.service.authenticate(KEY, HERE).name == name


def test_a_limit_of_0_is_a_limit(operator):
    operator.done("keys", "add", KEY, "looks-only", "0", "60")
    assert operator.service.authenticate(KEY, HERE).max_requests == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", KEY),
        ("add", KEY, "n", "1", "1", "1"),
        ("create",),
        ("add", KEY, "n", "1", "1", "--scope", "root"),
        ("import", "/no/such/file"),
        ("frobnicate",),
    ],
)
def test_misuse_ends_with_status_2(operator, arguments):
    assert operator.refused("keys", *arguments, status=2).startswith("Usage:")


def test_a_database_without_tables_is_a_matter_of_configuration(operator, tmp_path):
    operator.store.close()
    engine = make_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    store = DirectStore(engine)
    operator._runner.app.extensions["grid"].store = store
    for arguments in (("list",), ("add", KEY, "n", "1", "1"), ("remove", KEY)):
        result = operator.flask("keys", *arguments)
        assert result.exit_code == 2
        assert result.stderr == "The database is not available: check GRID_DATABASE_URL and run `flask db upgrade`\n"
    store.close()


# --- import ----------------------------------------------------------------------------------------------------


def old_database(path, *rows):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE api_keys (api_key TEXT PRIMARY KEY, name TEXT, max_requests INTEGER, period INTEGER)"
        )
        connection.executemany("INSERT INTO api_keys VALUES (?, ?, ?, ?)", rows)
        connection.commit()
    return path


def test_keys_of_an_old_database_work_and_are_nowhere_to_be_read(operator, tmp_path):
    old = old_database(tmp_path / "old.db", (KEY, "client-name", 100, 60), (OTHER_KEY, "other", 5, 3600))
    lines = operator.done("keys", "import", str(old)).splitlines()
    assert sorted(lines) == [f"Imported API Key: {info.id}" for info in operator.service.all_keys()]
    assert operator.service.authenticate(KEY, HERE, "client").max_requests == 100
    assert operator.service.authenticate(OTHER_KEY, HERE, "client").period == 3600
    operator.store.close()
    files = [path for path in tmp_path.iterdir() if path.name.startswith("grid.db")]
    assert files
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content
        assert OTHER_KEY.encode() not in content


def test_an_import_is_all_or_nothing(operator, tmp_path):
    old = old_database(tmp_path / "old.db", (KEY, "client-name", 100, 60), (OTHER_KEY, "other", 5, 0))
    assert operator.refused("keys", "import", str(old)) == f"row 2: {PERIOD_TEXT}\n"


def test_an_import_passes_over_what_is_there(operator, tmp_path):
    operator.done("keys", "add", KEY, "client-name", "1", "1")
    old = old_database(tmp_path / "old.db", (KEY, "client-name", 100, 60), (OTHER_KEY, "other", 5, 60))
    lines = operator.done("keys", "import", str(old)).splitlines()
    assert lines[1:] == ["Passed over 1 that exist already"]
    assert operator.refused("keys", "import", str(old)) == "nothing to add: every API key already exists\n"


@pytest.mark.parametrize(
    "row",
    [
        (b"\xff\x00" * 10, "n", 1, 1),
        (None, "n", 1, 1),
        (KEY, None, 1, 1),
        (KEY, "n", 1.5, 1),
        (KEY, "n", "1; DROP", 1),
        (KEY, "n", 2**62, 1),
    ],
)
def test_old_rows_of_any_type_are_judged_as_text(operator, tmp_path, row):
    old = old_database(tmp_path / "old.db", row)
    assert operator.refused("keys", "import", str(old)).startswith("row 1: ")


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_file_of_another_kind_is_not_imported(operator, tmp_path, content):
    path = tmp_path / "other file?.db"
    path.write_bytes(content)
    answer = operator.refused("keys", "import", str(path))
    assert answer == f"{path} has no table api_keys(api_key, name, max_requests, period)\n"
    assert path.read_bytes() == content


# --- flask miners ------------------------------------------------------------------------------------------------


def test_hotkeys_are_allowed_and_taken_off(operator):
    assert operator.done("miners", "allow", "list") == ""
    assert operator.done("miners", "allow", "add", MINER) == f"Allowed hotkey: {MINER}\n"
    assert operator.done("miners", "allow", "list") == f"{MINER}\n"
    assert operator.refused("miners", "allow", "add", MINER) == "hotkey is already allowed\n"
    assert operator.done("miners", "allow", "remove", MINER) == f"Removed hotkey: {MINER}\n"
    assert operator.refused("miners", "allow", "remove", MINER) == "hotkey is not allowed\n"


def test_hotkeys_are_blacklisted_with_reason_and_end(operator):
    until = "2027-01-15T09:00:01+01:00"
    operator.done("miners", "blacklist", "add", MINER, "--reason", "sends noise", "--until", until)
    assert operator.done("miners", "blacklist", "list") == f"{MINER}|2027-01-15T08:00:01.000Z|sends noise\n"
    assert operator.refused("miners", "blacklist", "add", MINER) == "hotkey is already blacklisted\n"
    operator.clock.advance(1)
    assert operator.done("miners", "blacklist", "list") == ""
    operator.done("miners", "blacklist", "add", MINER)
    listed = json.loads(operator.done("miners", "blacklist", "list", "--json"))
    assert listed == [{"hotkey": MINER, "until": None, "reason": ""}]
    assert operator.done("miners", "blacklist", "remove", MINER) == f"Removed hotkey: {MINER}\n"
    assert operator.refused("miners", "blacklist", "remove", MINER) == "hotkey is not blacklisted\n"


@pytest.mark.parametrize("hotkey", ["5abc", INJECTION, "HNZata7iMYWmk5RvZRTiAsSDhV8366zq2YGb3tLH5Upf74F"])
def test_text_that_is_no_hotkey_is_refused(operator, hotkey):
    for command in (("allow", "add"), ("allow", "remove"), ("blacklist", "add"), ("blacklist", "remove")):
        assert operator.refused("miners", *command, hotkey) == "Invalid hotkey\n"


def test_a_blacklist_entry_needs_an_end_that_makes_sense(operator):
    add = ("miners", "blacklist", "add", MINER, "--until")
    assert operator.refused(*add, "tomorrow") == "until must be a time like 2027-01-31T12:00:00Z\n"
    assert operator.refused(*add, "2020-01-01T00:00:00Z") == "until is in the past\n"


# --- scripts/api_key_cli.sh --------------------------------------------------------------------------------------

USAGE = "Usage: api_key_cli.sh DB {list|gen|add <api_key> <name> <max_requests> <period>|remove <api_key>}"


def shell(folder, *arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")}
    command = ["bash", str(SCRIPT), *arguments]
    done = subprocess.run(
        command, cwd=folder, env=clean | environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def key_file(tmp_path):
    """An existing, empty file, as `touch` makes one."""
    path = tmp_path / "api_keys.db"
    path.touch()
    return path


def test_the_script_does_what_the_commands_do(tmp_path, key_file, capsys):
    assert shell(tmp_path, key_file.name, "add", KEY, "client-name", "100", "60") == (0, f"Added API Key: {KEY}\n", "")
    status, listed, _ = shell(tmp_path, key_file.name, "list")
    assert status == 0
    key_id, rest = listed.split("|", 1)
    assert rest == "client-name|100|60|0|client|active|never\n"
    assert shell(tmp_path, key_file.name, "remove", INJECTION) == (1, "", "API key not found\n")
    assert KEY.encode() not in key_file.read_bytes()

    assert main([str(key_file), "add", KEY, "client-name", "100", "60"]) == 1
    assert capsys.readouterr().err == f"API key already exists: {key_id}\n"
    assert main([str(key_file), "list"]) == 0
    assert capsys.readouterr().out == listed
    assert main([str(key_file), "remove", KEY]) == 0
    assert capsys.readouterr().out == f"Removed API Key: {KEY}\n"
    assert main([str(key_file), "remove", KEY]) == 1
    assert main([str(key_file), "list"]) == 0
    assert capsys.readouterr() == ("", "API key not found\n")


def test_the_script_takes_keys_that_begin_with_a_dash(key_file, capsys):
    assert main([str(key_file), "add", f"--{KEY}", "dash", "1", "1"]) == 0
    assert main([str(key_file), "remove", f"--{KEY}"]) == 0
    assert capsys.readouterr().out.endswith(f"Removed API Key: --{KEY}\n")


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        (("n", "-1", "60"), MAX_TEXT),
        (("n", "1", "0"), PERIOD_TEXT),
        (("a|b", "1", "60"), NAME_TEXT),
    ],
)
def test_the_script_tells_what_cannot_be(key_file, capsys, values, answer):
    assert main([str(key_file), "add", KEY, *values]) == 1
    assert capsys.readouterr() == ("", f"{answer}\n")


def test_the_script_wants_a_database_first(tmp_path, capsys):
    answer = "Database file must be specified as the first argument.\n"
    assert shell(tmp_path) == (1, "", answer)
    assert main([""]) == 1
    assert capsys.readouterr() == ("", answer)


@pytest.mark.parametrize(
    "arguments", [(), ("remopve", KEY), ("add", KEY), ("list", "all"), ("gen", "1"), ("import", "f")]
)
def test_the_script_shows_its_usage_for_everything_else(tmp_path, capsys, arguments):
    assert main([str(tmp_path / "keys.db"), *arguments]) == 1
    out, answer = capsys.readouterr()
    assert out == ""
    assert answer.startswith(USAGE)
    assert answer.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_script_makes_a_missing_file(tmp_path):
    status, out, _ = shell(tmp_path, "new.db", "gen")
    assert (status, out.startswith("Generated API Key: gk")) == (0, True)
    assert shell(tmp_path, "new.db", "list") == (0, "", "")


def test_the_script_leaves_a_strange_file_alone(tmp_path, capsys):
    strange = tmp_path / "strange.db"
    strange.write_text("hello")
    for database in (strange, tmp_path / "no" / "such" / "folder.db", tmp_path):
        assert main([str(database), "list"]) == 2
        assert capsys.readouterr() == ("", "The database named as the first argument cannot be used\n")
    assert strange.read_text() == "hello"


def test_a_database_address_with_its_password_is_not_repeated(capsys):
    assert main(["postgresql+psycopg://user:secret@127.0.0.1:1/none", "list"]) == 2
    assert "secret" not in "".join(capsys.readouterr())


def test_the_script_does_not_touch_a_file_of_clear_keys(tmp_path, capsys):
    old = old_database(tmp_path / "old.db", (KEY, "client-name", 100, 60))
    before = old.read_bytes()
    assert main([str(old), "list"]) == 1
    assert capsys.readouterr().err == f"{old} holds clear keys; take them over with: flask keys import {old}\n"
    assert old.read_bytes() == before


def test_the_script_finds_the_configured_database(tmp_path, operator):
    folder = {"GRID_DATA_DIR": str(tmp_path)}
    assert shell(tmp_path, "-", "add", KEY, "client-name", "1", "1", **folder)[0] == 0
    assert operator.service.authenticate(KEY, HERE)
    url = f"sqlite:///{operator.file}"
    assert shell(tmp_path, url, "remove", KEY)[0] == 0
    with pytest.raises(InvalidKey):
        operator.service.authenticate(KEY, HERE)
    assert shell(tmp_path, "-", "list", GRID_PUBLIC_API_COPIES="99")[0] == 2
