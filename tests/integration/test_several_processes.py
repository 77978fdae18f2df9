"""Two nodes of one grid: whatever one of them commits, the other serves; no limit, lease or verdict is given twice."""

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter

import pytest
import socketio
from grid_client.procedural import build
from grid_client.splats import encode

from tests.nodes import until
from tests.several import KINDS, Socket, TimedSocket, generate, hand_in, pull, sockets, started_pair, worker

SCORING = "postgresql-redis"
"""Where the first node runs a job process: the queue must reach over data folders."""
ENDED = ("best_results", "failed", "cancelled")


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    jobs = 1 if request.param == SCORING else 0
    with started_pair(tmp_path_factory.mktemp("pair"), request.param, scoring_processes=jobs) as running:
        yield running


@pytest.fixture
def opened():
    with sockets() as track:
        yield track


def client_of(opened, node, key):
    return opened(TimedSocket(node.url, api_key=key))


def worker_of(opened, pair, node, name, **offer):
    return opened(worker(node.url, pair.worker_key, name, **offer))


def submit_by_http(node, key):
    """Status and headers of one `POST /tasks`."""
    body = json.dumps({"prompt": "a chair", "kind": "text", "copies": 1}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{node.url}/tasks", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers


def test_a_task_asked_of_one_node_is_worked_at_the_other_and_the_client_sees_it(pair, opened):
    client = client_of(opened, pair.a, pair.a.add_key())
    hands = worker_of(opened, pair, pair.b, "elsewhere")
    task = generate(client, send_first_results=True)
    lease = pull(hands)
    granted = time.monotonic()
    assert lease["task_id"] == task["id"]
    client.wait_for("task_update", 1)
    seen = client.times[0] - granted
    assert hand_in(hands, lease)["verdict"] == "accepted"
    assert [update["status"] for update in client.wait_for("task_update", 3)] == [
        "started",
        "first_results",
        "best_results",
    ]
    print(f"{pair.kind}: a push from the other node came {max(seen, 0) * 1000:.0f} ms after the worker's ack")
    assert seen < 5.0


def test_a_pull_that_waits_at_one_node_is_answered_by_a_task_of_the_other(pair, opened):
    hands = worker_of(opened, pair, pair.b, "patient")
    answers = []
    waiting = threading.Thread(target=lambda: answers.append((pull(hands, 20), time.monotonic())))
    waiting.start()
    until(lambda: bool(pair.rows("SELECT 1 FROM workers WHERE identity LIKE '%/patient'")))
    client = client_of(opened, pair.a, pair.a.add_key())
    task = generate(client)
    asked = time.monotonic()
    waiting.join(25)
    lease, came = answers[0]
    assert lease["task_id"] == task["id"]
    print(f"{pair.kind}: the lease came {max(came - asked, 0) * 1000:.0f} ms after the client's ack")
    hand_in(hands, lease)
    client.wait_for("task_update", 2)


def test_a_client_that_lost_its_node_resumes_at_the_other_once_and_in_order(pair, opened):
    key = pair.a.add_key()
    first = client_of(opened, pair.a, key)
    task = generate(first, copies=2, send_first_results=True)
    hands = [worker_of(opened, pair, node, f"resume-{name}") for node, name in ((pair.a, "a"), (pair.b, "b"))]
    leases = [pull(one) for one in hands]
    first.wait_for("task_update", 1)
    first.close()
    hand_in(hands[0], leases[0])
    second = client_of(opened, pair.b, key)
    answer = second.call("resume", {"task_id": task["id"], "after_seq": 2})
    hand_in(hands[1], leases[1])
    until(lambda: second.all("task_update") and second.all("task_update")[-1]["status"] == "best_results")
    updates = answer["updates"] + second.all("task_update")
    assert [(update["seq"], update["status"]) for update in updates] == [(3, "first_results"), (4, "best_results")]


def test_a_feedback_reaches_a_worker_that_went_to_the_other_node(pair, opened):
    client = client_of(opened, pair.a, pair.a.add_key())
    here = worker_of(opened, pair, pair.a, "mover")
    generate(client)
    lease = pull(here)
    here.close()
    there = worker_of(opened, pair, pair.b, "mover")
    assert pull(there)["lease_id"] == lease["lease_id"]
    assert hand_in(there, lease)["verdict"] == "accepted"
    assert there.wait_for("feedback")[0]["lease_id"] == lease["lease_id"]


def test_a_worker_at_two_nodes_gets_no_more_than_its_hands_hold(pair, opened):
    hands = [worker_of(opened, pair, node, "double") for node in (pair.a, pair.b)]
    leases = []
    waiting = [threading.Thread(target=lambda one=one: leases.append(pull(one, 3))) for one in hands]
    for thread in waiting:
        thread.start()
    until(lambda: bool(pair.rows("SELECT 1 FROM workers WHERE identity LIKE '%/double'")))
    client = client_of(opened, pair.a, pair.a.add_key())
    tasks = [generate(client), generate(client)]
    for thread in waiting:
        thread.join(20)
    assert len({lease["lease_id"] for lease in leases if lease}) == 1
    for task in tasks:
        client.call("cancel_task", {"task_id": task["id"]})


def test_a_cancel_at_one_node_reaches_the_worker_at_the_other(pair, opened):
    key = pair.a.add_key()
    task = generate(client_of(opened, pair.a, key))
    hands = worker_of(opened, pair, pair.b, "cancelled")
    lease = pull(hands)
    assert client_of(opened, pair.b, key).call("cancel_task", {"task_id": task["id"]})["success"]
    assert hands.wait_for("lease_cancelled")[0]["lease_id"] == lease["lease_id"]


def refusal(client):
    """The code of the answer, or `ended` where the node let go of the socket before it came."""
    try:
        return client.call("generate", {"prompt": "x"}, timeout=10)["code"]
    except socketio.exceptions.SocketIOError:
        return "ended"


def test_keys_added_limited_and_removed_elsewhere_count_at_once_in_both(pair, opened):
    """By the service that the command line calls, in a third process: this one."""
    key = pair.a.keys.generate()
    info = pair.a.key_info(key, "coming", ("client",), 5, 60, 0)
    clients = [client_of(opened, node, key) for node in (pair.a, pair.b)]
    tasks = [generate(client) for client in clients]
    pair.a.keys.limit(info.id, 2, 60)
    assert [client.call("generate", {"prompt": "x", "kind": "text"})["code"] for client in clients] == [
        "rate_limited",
        "rate_limited",
    ]
    pair.a.keys.remove(info.id)
    removed = time.monotonic()
    assert {refusal(client) for client in clients} <= {"invalid_key", "ended"}
    for client in clients:
        assert client.wait_for("closing")[0]["error"] == "Invalid API Key"
        client.wait_for("disconnect")
    print(f"{pair.kind}: both nodes let go of the key's sockets after {time.monotonic() - removed:.2f} s")
    states = "SELECT status FROM tasks WHERE id IN (:one, :two)"
    both = {"one": tasks[0]["id"], "two": tasks[1]["id"]}
    until(lambda: [row.status for row in pair.rows(states, **both)] == ["cancelled", "cancelled"])


def test_a_window_holds_exactly_over_both_nodes_and_both_faces(pair, opened):
    key = pair.a.add_key("window", max_requests=100, period=60)
    outcomes = []

    def by_socket(node):
        client = client_of(opened, node, key)
        for _ in range(15):
            answer = client.call("generate", {"prompt": "x", "kind": "text", "copies": 1})
            outcomes.append(201 if answer["success"] else answer["status"])

    def by_http(node):
        outcomes.extend(submit_by_http(node, key)[0] for _ in range(15))

    work = [(face, node) for face in (by_socket, by_http) for node in (pair.a, pair.b) for _ in range(2)]
    threads = [threading.Thread(target=face, args=(node,)) for face, node in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert Counter(outcomes) == {201: 100, 429: 20}
    status, headers = submit_by_http(pair.b, key)
    assert status == 429
    assert 1 <= int(headers["Retry-After"]) <= 60
    pair.a.keys.remove(key)
    until(lambda: not pair.rows("SELECT 1 FROM tasks WHERE status = 'queued'"))


def test_two_nodes_under_load_grant_judge_and_end_everything_once(pair, opened):
    key = pair.a.add_key("load", max_requests=100_000)
    clients = [client_of(opened, node, key) for node in (pair.a, pair.b)]
    stop = threading.Event()

    def work(hands):
        while not stop.is_set():
            lease = pull(hands, 0.5)
            if lease:
                hand_in(hands, lease)

    names = [("both", pair.a), ("both", pair.b), *((f"a{n}", pair.a) for n in "12"), *((f"b{n}", pair.b) for n in "12")]
    hands = [worker_of(opened, pair, node, f"load-{name}") for name, node in names]
    threads = [threading.Thread(target=work, args=(one,)) for one in hands]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    tasks = [generate(client, copies=2)["id"] for _ in range(15) for client in clients]
    marks = ", ".join(f"'{task}'" for task in tasks)
    ended = f"SELECT count(*) AS n FROM tasks WHERE id IN ({marks}) AND finished_at IS NOT NULL"
    until(lambda: pair.rows(ended)[0].n == len(tasks), 60)
    print(f"{pair.kind}: {len(tasks)} tasks of 2 copies in {time.monotonic() - started:.1f} s")
    stop.set()
    for thread in threads:
        thread.join(20)
    assert_everything_once(pair, marks)
    for client in clients:
        until(lambda client=client: sum(u["status"] in ENDED for u in client.all("task_update")) == 15)
        assert_in_order(client.all("task_update"))


def assert_everything_once(pair, marks):
    copies = pair.rows(f"SELECT task_id, worker, state, n, credited FROM copies WHERE task_id IN ({marks})")
    assert max(Counter(copy.task_id for copy in copies).values()) <= 3  # copies + 1 for a strong worker
    assert max(Counter((copy.task_id, copy.worker) for copy in copies).values()) == 1
    numbers = [(copy.task_id, copy.n) for copy in copies if copy.n is not None]
    assert len(numbers) == len(set(numbers))
    streams = marks.replace("'", "'task:", 1).replace(" '", " 'task:")
    entries = pair.rows(
        f"SELECT stream, seq, body FROM stream_entries WHERE stream IN ({streams}) ORDER BY stream, seq"
    )
    by_stream = {}
    for entry in entries:
        by_stream.setdefault(entry.stream, []).append((entry.seq, json.loads(entry.body)["status"]))
    for updates in by_stream.values():
        assert [seq for seq, _ in updates] == list(range(1, len(updates) + 1))
        assert [status in ENDED for _, status in updates] == [False] * (len(updates) - 1) + [True]
    feedback = pair.rows("SELECT stream, seq FROM stream_entries WHERE stream LIKE 'worker:%' ORDER BY stream, seq")
    last = Counter(entry.stream for entry in feedback)
    assert all(last[entry.stream] >= entry.seq for entry in feedback)


def assert_in_order(updates):
    """Every task's updates came once, from 2 on, with none missing."""
    by_task = {}
    for update in updates:
        by_task.setdefault(update["task_id"], []).append(update["seq"])
    for seqs in by_task.values():
        assert seqs == list(range(2, len(seqs) + 2))


@pytest.mark.parametrize(
    "pair", [pytest.param(SCORING, marks=[pytest.mark.postgres, pytest.mark.redis])], indirect=True
)
def test_a_result_handed_to_one_node_is_scored_by_the_other_and_its_worker_hears(pair, opened):
    client = client_of(opened, pair.a, pair.a.add_key())
    hands = worker_of(opened, pair, pair.b, "maker", kinds=["text_to_3d"])
    generate(client, kind="text_to_3d", prompt="a red donut")
    lease = pull(hands, kinds=["text_to_3d"])
    asset = encode(build(lease["prompt"], lease["seed"], "maker", splats=20_000), "spz")
    assert hand_in(hands, lease, asset, "spz")["state"] == "scoring"
    until(lambda: bool(hands.all("feedback")), 60)
    feedback = hands.all("feedback")
    assert [(told["verdict"], told["lease_id"]) for told in feedback] == [("accepted", lease["lease_id"])]
    assert client.wait_for("task_update", 2)[-1]["results"]["score"] == feedback[0]["score"]


def test_when_a_node_is_killed_the_other_serves_on_and_its_leases_live_on(pair, opened):
    key = pair.a.add_key()
    client = client_of(opened, pair.a, key)
    task = generate(client)
    lease = pull(worker_of(opened, pair, pair.a, "orphan"))
    pair.a.kill()
    try:
        hands = worker_of(opened, pair, pair.b, "orphan")
        assert hands.call("renew_lease", {"lease_id": lease["lease_id"]})["success"]
        second = client_of(opened, pair.b, key)
        assert [u["seq"] for u in second.call("resume", {"task_id": task["id"], "after_seq": 1})["updates"]] == [2]
        assert hand_in(hands, lease)["verdict"] == "accepted"
        assert second.wait_for("task_update")[0]["status"] == "best_results"
        generate(second)
        hand_in(hands, pull(hands))
        second.wait_for("task_update", 3)
    finally:
        pair.a.start()
    with contextlib.closing(Socket(pair.a.url, api_key=key)) as back:
        assert back.call("task_status", {"task_id": task["id"]})["task"]["status"] == "best_results"
