"""A node on PostgreSQL: its waits are green, and it survives the absence of its database."""

import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack

import psycopg
import pytest

from tests.nodes import ROOT, LiveNode, until
from tests.several import Line, Socket, generate, hand_in, pull, sockets, tables, worker
from tests.stores import postgres_database

pytestmark = pytest.mark.postgres

POOL = 4


@pytest.fixture(scope="module")
def database():
    with tables() as url:
        yield url


@pytest.fixture(scope="module")
def line(database):
    made = Line(5432)
    yield made
    made.cut()


@pytest.fixture(scope="module")
def node(database, line, tmp_path_factory):
    url = database.replace(":5432/", f":{line.port}/")
    live = LiveNode(
        tmp_path_factory.mktemp("postgres"),
        database_url=url,
        scoring_processes=0,
        public_api_settle=1,
        db_pool=POOL,
        lock_timeout=1,
    )
    live.start()
    yield live
    live.stop()


@pytest.fixture
def opened():
    with sockets() as track:
        yield track


@pytest.fixture
def direct(database):
    """A connection past the line, to hold what the node needs and to look."""
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        yield connection
        connection.rollback()


def ask(url, key, path="/tasks", body=None):
    """Status, headers and JSON of a request."""
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=30) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.load(error)


def hub_gap(node):
    found = re.search(r"^grid_hub_gap_max_seconds (\S+)$", node.metrics(), re.MULTILINE)
    return float(found[1])


def test_a_request_that_waits_for_a_row_holds_up_nobody_else(node, opened, direct):
    held = node.keys.generate()
    info = node.key_info(held, "held", ("client",), 1000, 60, 0)
    waiting, other = (opened(Socket(node.url, api_key=key)) for key in (held, node.add_key("free")))
    direct.execute("SELECT id FROM api_keys WHERE id = %s FOR UPDATE", [info.id])
    answers = []
    blocked = threading.Thread(target=lambda: answers.append(waiting.call("generate", {"prompt": "x", "kind": "text"})))
    blocked.start()
    until(lambda: bool(waiters(direct)))
    for _ in range(50):
        assert other.call("tasks", {})["success"]
    generate(other)
    assert not answers
    direct.rollback()
    blocked.join(20)
    assert answers[0]["success"], answers
    print(f"longest hub gap while a request waited for its row: {hub_gap(node) * 1000:.0f} ms")


def waiters(connection):
    statement = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return connection.execute(statement).fetchall()


def test_a_row_that_is_never_let_go_is_told_as_unavailable(node, opened, direct):
    key = node.keys.generate()
    info = node.key_info(key, "stuck", ("client",), 1000, 60, 0)
    client = opened(Socket(node.url, api_key=key))
    direct.execute("SELECT id FROM api_keys WHERE id = %s FOR UPDATE", [info.id])
    answer = client.call("generate", {"prompt": "x", "kind": "text"})
    assert (answer["code"], answer["retry_after"]) == ("store_unavailable", 1)
    direct.rollback()
    generate(client)


def test_more_requests_than_connections_are_all_answered(node):
    key = node.add_key("many", max_requests=1000)
    answers = []
    work = [
        threading.Thread(target=lambda: answers.append(ask(node.url, key, body={"prompt": "x", "kind": "text"})[0]))
        for _ in range(8 * POOL)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join(60)
    assert answers == [201] * 8 * POOL
    node.keys.remove(key)


def test_without_its_database_the_node_says_so_and_works_again_when_it_is_back(node, opened, line, direct):
    key = node.add_key("patient")
    client = opened(Socket(node.url, api_key=key))
    hands = opened(worker(node.url, node.add_key("worker", ["worker"]), "w"))
    before = generate(client)
    lease = pull(hands)
    while lease["task_id"] != before["id"]:  # what other tests left
        hand_in(hands, lease)
        lease = pull(hands)
    line.cut()
    for answer in (
        client.call("generate", {"prompt": "x", "kind": "text"}),
        client.call("task_status", {"task_id": before["id"]}),
        hand_in(hands, lease),
        hands.call("pull_task", {"wait_s": 0}),
    ):
        assert (answer["status"], answer["code"], answer["retry_after"]) == (503, "store_unavailable", 1), answer
    for body in ({"prompt": "x", "kind": "text"}, None):
        status, headers, answer = ask(node.url, key, body=body)
        assert (status, answer["code"], headers["Retry-After"]) == (503, "store_unavailable", "1")
    assert ask(node.url, key, "/readyz")[0] == 503
    assert ask(node.url, key, "/healthz")[0] == 200
    line.mend()
    until(lambda: ask(node.url, key, "/readyz")[0] == 200)
    assert hand_in(hands, lease)["verdict"] == "accepted"
    client.wait_for("task_update", 2)
    charges = (
        "SELECT count(*) FROM tasks JOIN api_keys ON api_keys.id = tasks.key_id WHERE api_keys.name LIKE 'patient%'"
    )
    assert direct.execute(charges).fetchone() == (1,)
    generate(client)
    assert pull(hands) is not None


def test_backends_ended_in_the_middle_cost_one_answer_at_most(node, opened, direct):
    client = opened(Socket(node.url, api_key=node.add_key("ended")))
    generate(client)
    ended = direct.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ).fetchall()
    assert ended
    answers = [client.call("generate", {"prompt": "x", "kind": "text"}) for _ in range(5)]
    assert {answer["code"] for answer in answers if not answer["success"]} <= {"store_unavailable"}
    assert answers[-1]["success"]


def test_nodes_that_start_together_migrate_an_empty_database_once():
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")}
    command = [sys.executable, "-W", "ignore", "-m", "flask", "--app", "app", "db", "upgrade", "-d", "migrations"]
    with postgres_database() as url, ExitStack() as stack:
        environ = {**clean, "GRID_DATABASE_URL": url}
        migrating = [
            stack.enter_context(subprocess.Popen(command, cwd=ROOT, env=environ, stdout=-1, stderr=-2)) for _ in "ab"
        ]
        outputs = [one.communicate(timeout=60)[0].decode() for one in migrating]
        assert [one.returncode for one in migrating] == [0, 0], outputs
