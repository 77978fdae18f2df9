import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grid_client.backoff import Backoff
from grid_client.errors import DeadlineExceeded, GridError, HashMismatch, TaskFailed
from grid_client.generation import GenerationClient

KEY = "key-of-the-tests-0001"
RESULT = {"n": 0, "hotkey": "w", "score": 0.9, "format": "ply", "size": 3, "sha256": "ab"}


@pytest.fixture
def client(node: Any, no_sleep: Callable[[float], None]):
    with GenerationClient(node.url, KEY, sleep=no_sleep, backoff=lambda: Backoff(0.01, 0.02)) as client:
        yield client


def finish(node: Any) -> None:
    for status in ("queued", "started", "first_results"):
        node.add_update(status)
    node.add_update("best_results", results=RESULT)


def test_a_prompt_is_submitted_with_an_idempotency_key(node: Any, client: GenerationClient) -> None:
    task = client.submit("a donut", copies=2)
    assert (task.id, task.status, task.position) == ("t1", "queued", 1)
    (sent,) = node.generated
    assert sent["prompt"] == "a donut"
    assert sent["copies"] == 2
    assert len(sent["idempotency_key"]) == 36


def test_a_lost_ack_is_asked_for_again_under_the_same_idempotency_key(node: Any, client: GenerationClient) -> None:
    cut = []

    def lose_the_first(sid: str) -> None:
        if not cut:
            cut.append(sid)
            node.sio.disconnect(sid)

    node.on_generate = lose_the_first
    assert client.submit("a donut").id == "t1"
    first, second = node.generated
    assert first == second


def test_a_wrong_key_is_refused_at_once_with_the_nodes_words(node: Any) -> None:
    with GenerationClient(node.url, "another-key-0000001") as client, pytest.raises(GridError) as refused:
        client.submit("a donut")
    assert (refused.value.code, refused.value.status) == ("invalid_key", 401)


def test_a_refusal_is_raised_with_code_status_and_retry_after(node: Any, client: GenerationClient) -> None:
    body = {"success": False, "error": "Too Many Requests", "code": "rate_limited", "status": 429}
    node.on_generate = lambda sid: {**body, "retry_after": 500}
    with pytest.raises(GridError) as refused:
        client.submit("a donut")
    assert (refused.value.status, refused.value.retry_after) == (429, 500.0)
    assert len(node.generated) == 1


def test_an_unreachable_node_is_given_up_after_the_timeout() -> None:
    with (
        GenerationClient("http://127.0.0.1:9", KEY, backoff=lambda: Backoff(5, 5, lambda low, high: high)) as client,
        pytest.raises(GridError, match="connection_lost"),
    ):
        client.submit("a donut", timeout=1)


def test_updates_of_an_ended_task_come_at_once_and_end(node: Any, client: GenerationClient) -> None:
    finish(node)
    assert [u.seq for u in client.updates("t1")] == [1, 2, 3, 4]
    assert [u.seq for u in client.updates("t1", after_seq=2)] == [3, 4]
    assert list(client.updates("t1", after_seq=4)) == []


def test_pushes_that_overlap_the_resume_are_yielded_once_and_in_order(node: Any, client: GenerationClient) -> None:
    node.add_update("queued")
    started = node.add_update("started")

    def push_twice_then_go_on(sid: str, after: int) -> None:
        node.push(started, sid)
        node.push(started, sid)
        node.push(node.add_update("best_results", results=RESULT), sid)

    node.on_resume = push_twice_then_go_on
    assert [(u.seq, u.status) for u in client.updates("t1")] == [
        (1, "queued"),
        (2, "started"),
        (3, "best_results"),
    ]


def test_a_gap_in_the_pushes_makes_the_client_ask_for_what_is_missing(node: Any, client: GenerationClient) -> None:
    node.add_update("queued")

    def push_only_the_last(sid: str, after: int) -> None:
        if after == 0:
            node.add_update("started")
            node.push(node.add_update("best_results", results=RESULT), sid)

    node.on_resume = push_only_the_last
    assert [u.seq for u in client.updates("t1")] == [1, 2, 3]
    assert node.resumed == [0, 1]


def test_pushes_do_not_overtake_each_other(node: Any, client: GenerationClient) -> None:
    node.add_update("queued")

    def push_many(sid: str, after: int) -> None:
        for n in range(60):  # a large one takes longer to read than the small one behind it
            filler = list(range(50_000)) if n % 6 == 0 else []
            node.push(node.add_update("started", statistics={"filler": filler}), sid)
        node.push(node.add_update("best_results", results=RESULT), sid)

    node.on_resume = push_many
    assert [u.seq for u in client.updates("t1")] == list(range(1, 63))
    assert node.resumed == [0]


def test_a_broken_connection_is_resumed_after_the_last_seq_seen(node: Any, client: GenerationClient) -> None:
    node.add_update("queued")

    def break_the_first(sid: str, after: int) -> None:
        if after == 0:
            node.add_update("started")
            threading.Timer(0.05, node.sio.disconnect, (sid,)).start()
        else:
            node.push(node.add_update("best_results", results=RESULT), sid)

    node.on_resume = break_the_first
    assert [u.status for u in client.updates("t1")] == ["queued", "started", "best_results"]
    assert node.resumed == [0, 1]


def test_waiting_ends_at_its_deadline(node: Any, client: GenerationClient) -> None:
    node.add_update("queued")
    with pytest.raises(DeadlineExceeded):
        list(client.updates("t1", timeout=0.2))


def test_wait_returns_the_best_result(node: Any, client: GenerationClient) -> None:
    finish(node)
    best = client.wait("t1")
    assert best.results is not None
    assert best.results.score == 0.9


def test_wait_raises_what_the_task_failed_of(node: Any, client: GenerationClient) -> None:
    node.add_update("queued")
    node.add_update("failed", error={"code": "no_worker", "error": "No worker took the task"})
    with pytest.raises(TaskFailed, match="no_worker: No worker took the task"):
        client.wait("t1")


def test_pushes_that_are_no_updates_are_ignored(node: Any, client: GenerationClient) -> None:
    node.add_update("queued")

    def push_rubbish(sid: str, after: int) -> None:
        for rubbish in (None, [], {"seq": "x"}, {"task_id": "t1", "seq": None, "status": 4}):
            node.sio.emit("task_update", rubbish, to=sid)
        node.push(node.add_update("best_results", results=RESULT), sid)

    node.on_resume = push_rubbish
    assert [u.seq for u in client.updates("t1")] == [1, 2]


ASSET = bytes(range(256)) * 4096


def test_a_download_appears_whole_and_checked(node: Any, client: GenerationClient, tmp_path: Path) -> None:
    node.assets["best"] = ASSET
    path = client.download("t1", "best", tmp_path / "best.ply")
    assert path.read_bytes() == ASSET
    assert [p.name for p in tmp_path.iterdir()] == ["best.ply"]


def test_a_broken_download_goes_on_where_it_broke(node: Any, client: GenerationClient, tmp_path: Path) -> None:
    node.assets["best"] = ASSET
    node.cut_downloads_at = [300_000, 700_000]
    assert client.download("t1", "best", tmp_path / "b").read_bytes() == ASSET
    first, second, third = node.ranges
    assert first is None
    assert 0 < int(second[6:-1]) <= 300_000 < int(third[6:-1]) <= 700_000


def test_what_is_left_of_an_earlier_download_is_used(node: Any, client: GenerationClient, tmp_path: Path) -> None:
    node.assets["best"] = ASSET
    node.cut_downloads_at = [300_000]
    with pytest.raises(GridError, match="deadline_exceeded"):
        client.download("t1", "best", tmp_path / "b", timeout=0.0)
    assert not (tmp_path / "b").exists()
    client.download("t1", "best", tmp_path / "b")
    assert node.ranges[1] is not None
    assert (tmp_path / "b").read_bytes() == ASSET


def test_wrong_bytes_never_become_the_file(node: Any, client: GenerationClient, tmp_path: Path) -> None:
    node.assets["best"] = ASSET
    node.cut_downloads_at = [300_000]
    with pytest.raises(GridError):
        client.download("t1", "best", tmp_path / "b", timeout=0.0)
    (part,) = tmp_path.iterdir()
    part.write_bytes(b"x" * part.stat().st_size)
    with pytest.raises(HashMismatch):
        client.download("t1", "best", tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_the_api_key_is_not_sent_to_another_host(node: Any, client: GenerationClient) -> None:
    with pytest.raises(GridError, match="another host"):
        client._http.request("GET", "http://example.invalid/asset")


def test_an_address_on_the_nodes_host_is_asked_at_the_origin_that_the_caller_chose(
    node: Any, client: GenerationClient
) -> None:
    """A node behind a proxy that ends TLS may name itself with another scheme and port."""
    node.assets["best"] = ASSET
    answer = client._http.request("GET", "https://127.0.0.1:444/tasks/t1/results/best/asset")
    assert answer.content == ASSET
