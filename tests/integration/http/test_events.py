"""Server-sent events of a task against a real server."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.nodes import until


def read(client: Any, task_id: str, **options: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Id, event and data of each update until the stream ends."""
    with client.http.stream("GET", f"/tasks/{task_id}/events", **options) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if not line and "data" in fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])
                fields = {}
            elif name in ("id", "event", "data"):
                fields[name] = value


def test_every_update_comes_once_in_order_and_then_the_stream_ends(client, worker):
    task = client.submit(send_first_results=True)
    updates = read(client, task["id"])
    first = next(updates)
    worker.serve()
    told = [first, *updates]
    assert [(seq, event) for seq, event, _ in told] == [
        ("1", "queued"),
        ("2", "started"),
        ("3", "first_results"),
        ("4", "best_results"),
    ]
    assert [data["seq"] for _, _, data in told] == [1, 2, 3, 4]
    assert told[-1][2]["results"]["assets"] is None


@pytest.mark.parametrize("where", [{"headers": {"Last-Event-ID": "2"}}, {"params": {"after_seq": 2}}])
def test_a_reader_that_comes_again_gets_what_it_missed(client, worker, where):
    task = client.submit()
    worker.serve()
    client.ended(task["id"])
    assert [seq for seq, _, _ in read(client, task["id"], **where)] == ["3"]


def test_the_header_outweighs_the_address(client, worker):
    task = client.submit()
    worker.serve()
    client.ended(task["id"])
    again = {"headers": {"Last-Event-ID": "2"}, "params": {"after_seq": 0}}
    assert [seq for seq, _, _ in read(client, task["id"], **again)] == ["3"]


def test_after_the_last_update_a_reconnect_gets_204(client, worker):
    task = client.submit()
    worker.serve()
    last = client.ended(task["id"])["seq"]
    answer = client.http.get(f"/tasks/{task['id']}/events", headers={"Last-Event-ID": str(last)})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize(
    ("last", "status", "code"), [("-1", 400, "invalid_payload"), ("x", 400, "invalid_payload"), ("9", 409, "seq_ahead")]
)
def test_a_place_that_cannot_be(client, last, status, code):
    task = client.submit(kind="text_to_3d")
    answer = client.http.get(f"/tasks/{task['id']}/events", headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_removed_key_ends_its_streams(node, new_client):
    owner = new_client()
    task = owner.submit(kind="text_to_3d")
    updates = read(owner, task["id"])
    next(updates)
    node.keys.remove(owner.key)
    assert [event for _, event, _ in updates] in ([], ["cancelled"])


def test_a_reader_that_left_is_forgotten(client):
    task = client.submit(kind="text_to_3d")
    updates = read(client, task["id"])
    next(updates)
    assert open_streams(client) == 1
    updates.close()
    client.http.delete(f"/tasks/{task['id']}")
    until(lambda: open_streams(client) == 0)


def open_streams(client: Any) -> int:
    lines = client.node.metrics().splitlines()
    found = [line for line in lines if line.startswith('grid_connections{face="sse"}')]
    return int(float(found[0].split()[1])) if found else 0
