"""The Socket.IO face against a real server: clients, workers, and what ends a connection."""

import hashlib
import threading

import pytest
import socketio
from bittensor_wallet import Keypair

from grid_node.clock import SystemClock
from grid_node.database import DirectStore, make_engine
from grid_node.identity.hotkeys import format_signature, result_bytes
from grid_node.identity.standing import AllowList
from tests.integration.sockets import Socket, authenticate_message, worker
from tests.nodes import LiveNode


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    live = LiveNode(
        tmp_path_factory.mktemp("events"),
        scoring_processes=0,
        public_api_settle=1,
        worker_lease=60,
        websocket_auth_timeout=3,
    )
    live.start()
    yield live
    live.stop()


@pytest.fixture
def sockets():
    """Opens sockets that are closed after the test."""
    opened = []

    def track(socket):
        opened.append(socket)
        return socket

    yield track
    for socket in opened:
        socket.close()


@pytest.fixture
def client(node, sockets):
    return sockets(Socket(node.url, api_key=node.add_key("client")))


@pytest.fixture
def grid_worker(node, sockets):
    return sockets(worker(node.url, node.add_key("worker", ["worker"]), "one"))


def hand_in(socket, lease, text="a poem about the prompt", **changes):
    data = text.encode()
    message = {
        "task_id": lease["task_id"],
        "lease_id": lease["lease_id"],
        "format": "text",
        "sha256": hashlib.sha256(data).hexdigest(),
        "asset": data,
        **changes,
    }
    return socket.call("submit_result", message)


def generate(client, **fields):
    answer = client.call("generate", {"prompt": "a chair", "kind": "text", "copies": 1, **fields})
    assert answer["success"], answer
    return answer["task"]


def test_a_prompt_goes_in_and_the_best_result_comes_out(client, grid_worker):
    task = generate(client, send_first_results=True)
    assert (task["status"], task["seq"], task["kind"]) == ("queued", 1, "text")
    lease = grid_worker.call("pull_task", {"wait_s": 10})["task"]
    assert lease["prompt"] == "a chair"
    verdict = hand_in(grid_worker, lease)
    assert (verdict["verdict"], verdict["credited"]) == ("accepted", True)
    updates = client.wait_for("task_update", 3)
    assert [update["status"] for update in updates] == ["started", "first_results", "best_results"]
    assert [update["seq"] for update in updates] == [2, 3, 4]
    assert grid_worker.wait_for("feedback")[0]["task_id"] == task["id"]


def test_a_waiting_pull_is_answered_when_a_task_comes(client, grid_worker):
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(grid_worker.call("pull_task", {"wait_s": 20})))
    waiting.start()
    task = generate(client)
    waiting.join(10)
    assert answers[0]["task"]["task_id"] == task["id"]
    hand_in(grid_worker, answers[0]["task"])


def test_a_socket_without_key_connects_but_may_not_generate(node, sockets):
    socket = sockets(Socket(node.url))
    refusal = socket.call("generate", {"prompt": "x"})
    assert (refusal["status"], refusal["code"]) == (401, "missing_key")


def test_a_wrong_key_is_refused_at_connect_with_the_error_body(node):
    client = socketio.Client(reconnection=False)
    refusals = []
    client.on("connect_error", refusals.append)
    with pytest.raises(socketio.exceptions.ConnectionError):
        client.connect(node.url, auth={"api_key": "x" * 40}, transports=["websocket"], wait_timeout=5)
    assert refusals[0]["message"] == "Invalid API Key"
    assert refusals[0]["data"]["code"] == "invalid_key"


def test_a_key_without_the_scope_is_forbidden(node, sockets):
    socket = sockets(Socket(node.url, api_key=node.add_key("runner", ["runner"])))
    assert socket.call("generate", {"prompt": "x"})["code"] == "forbidden"


def test_unknown_events_and_extra_arguments_are_answered(client):
    assert client.call("no_such_event", {})["code"] == "unknown_event"
    assert client.call("tasks", ({}, {}))["code"] == "invalid_message"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({}, "invalid_payload"),
        ({"prompt": ""}, "invalid_payload"),
        ({"prompt": "a\u0000b"}, "invalid_payload"),
        ({"prompt": 7}, "invalid_payload"),
        ({"prompt": "x", "copies": 0}, "invalid_payload"),
        ({"prompt": "x", "copies": 9}, "invalid_payload"),
        ({"prompt": "x", "copies": "2"}, "invalid_payload"),
        ({"prompt": "x", "copies": True}, "invalid_payload"),
        ({"prompt": "x", "deadline_s": 5}, "invalid_payload"),
        ({"prompt": "x", "seed": -1}, "invalid_payload"),
        ({"prompt": "x", "seed": 2**32}, "invalid_payload"),
        ({"prompt": "x", "send_first_results": "true"}, "invalid_payload"),
        ({"prompt": "x", "kind": "no such kind"}, "invalid_payload"),
        ({"prompt": "x", "colour": "red"}, "invalid_payload"),
        ({"prompt": "x" * 1025}, "prompt_too_long"),
        ([1, 2], "invalid_payload"),
        ("text", "invalid_payload"),
    ],
)
def test_a_bad_request_is_answered_with_its_code(client, payload, code):
    answer = client.call("generate", payload)
    assert (answer["success"], answer["code"]) == (False, code)


def test_resume_gives_what_was_missed_and_then_what_follows(node, sockets, grid_worker):
    key = node.add_key("resumer")
    first = sockets(Socket(node.url, api_key=key))
    task = generate(first)
    first.close()
    lease = grid_worker.call("pull_task", {"wait_s": 10})["task"]
    second = sockets(Socket(node.url, api_key=key))
    answer = second.call("resume", {"task_id": task["id"], "after_seq": 1})
    assert [update["seq"] for update in answer["updates"]] == [2]
    assert answer["recovered"] is True
    hand_in(grid_worker, lease)
    assert [update["seq"] for update in second.wait_for("task_update")] == [3]


def test_another_keys_task_does_not_exist(node, sockets, client):
    task = generate(client)
    other = sockets(Socket(node.url, api_key=node.add_key("other")))
    for event in ("task_status", "cancel_task", "resume"):
        assert other.call(event, {"task_id": task["id"]})["code"] == "task_not_found"
    assert other.call("tasks", {})["tasks"] == []
    client.call("cancel_task", {"task_id": task["id"]})


def test_task_status_can_wait_for_the_next_update(client, grid_worker):
    task = generate(client)
    answers = []
    request = {"task_id": task["id"], "after_seq": 1, "wait_s": 20}
    waiting = threading.Thread(target=lambda: answers.append(client.call("task_status", request)))
    waiting.start()
    lease = grid_worker.call("pull_task", {"wait_s": 10})["task"]
    waiting.join(15)
    assert answers[0]["task"]["status"] == "started"
    hand_in(grid_worker, lease)


def test_cancelling_tells_the_worker_at_once(client, grid_worker):
    task = generate(client)
    lease = grid_worker.call("pull_task", {"wait_s": 10})["task"]
    assert client.call("cancel_task", {"task_id": task["id"]})["task"]["status"] == "cancelled"
    assert grid_worker.wait_for("lease_cancelled")[0]["lease_id"] == lease["lease_id"]
    assert grid_worker.call("renew_lease", {"lease_id": lease["lease_id"]})["code"] == "lease_closed"


def test_a_worker_must_authenticate_first_and_in_time(node, sockets):
    socket = sockets(Socket(node.url, "/worker"))
    assert socket.call("pull_task", {})["code"] == "not_authenticated"
    assert socket.wait_for("closing")[0]["code"] == 4402


def test_a_failed_authentication_ends_the_connection(node, sockets):
    socket = sockets(Socket(node.url, "/worker"))
    assert socket.call("authenticate", {"api_key": "y" * 40, "name": "w"})["code"] == "invalid_key"
    assert socket.wait_for("closing")[0]["code"] == 4401
    socket.wait_for("disconnect")


def test_a_newer_connection_of_a_worker_replaces_the_older_one(node, sockets, client):
    key = node.add_key("worker", ["worker"])
    older, newer = (sockets(worker(node.url, key, "same")) for _ in range(2))
    assert older.wait_for("closing")[0]["code"] == 4409
    generate(client)
    lease = newer.call("pull_task", {"wait_s": 10})["task"]
    assert hand_in(newer, lease)["verdict"] == "accepted"


@pytest.mark.parametrize("size", [1_100_000, 5_000_000])
def test_a_result_above_one_message_is_sent_elsewhere(client, grid_worker, size):
    task = generate(client)
    lease = grid_worker.call("pull_task", {"wait_s": 10})["task"]
    answer = hand_in(grid_worker, lease, "x" * size)
    assert (answer["code"], answer["limit"]) == ("message_too_large", 1048576)
    assert answer["upload_url"] == "/worker/uploads"
    client.call("cancel_task", {"task_id": task["id"]})


def test_removing_a_key_ends_its_sockets_and_its_waiting_tasks(node, sockets):
    key = node.add_key("short")
    socket = sockets(Socket(node.url, api_key=key))
    generate(socket)
    node.keys.remove(key)
    assert socket.wait_for("closing")[0]["error"] == "Invalid API Key"
    socket.wait_for("disconnect")


# --- hotkeys


@pytest.fixture(scope="module")
def hotkey_node(tmp_path_factory):
    live = LiveNode(tmp_path_factory.mktemp("hotkeys"), scoring_processes=0, worker_api_keys=False)
    live.start()
    yield live
    live.stop()


@pytest.fixture(scope="module")
def allow_list(hotkey_node):
    engine = make_engine(f"sqlite:///{hotkey_node.data / 'grid.db'}")
    yield AllowList(DirectStore(engine), SystemClock())
    engine.dispose()


def keypair(number):
    return Keypair.create_from_seed("0x" + bytes([number] * 32).hex())


def introduce(node, sockets, keys, **changes):
    socket = sockets(Socket(node.url, "/worker"))
    challenge = socket.wait_for("challenge")[0]
    return socket, challenge, socket.call("authenticate", authenticate_message(challenge, keys, **changes))


def test_a_registered_hotkey_works_with_signed_results(hotkey_node, allow_list, sockets):
    keys = keypair(1)
    allow_list.allow(bytes(keys.public_key))
    socket, _, answer = introduce(hotkey_node, sockets, keys)
    assert answer["success"], answer
    assert answer["message_type"] == "authenticated"
    client = sockets(Socket(hotkey_node.url, api_key=hotkey_node.add_key("client")))
    task = generate(client)
    lease = socket.call("pull_task", {"wait_s": 10})["task"]
    text = "a signed poem"
    digest = hashlib.sha256(text.encode()).hexdigest()
    signature = format_signature(keys.sign(result_bytes(digest, task["id"], lease["node_hotkey"])))
    verdict = hand_in(socket, lease, text, signature=signature)
    assert verdict["verdict"] == "accepted"
    assert client.wait_for("task_update", 2)[-1]["results"]["hotkey"] == keys.ss58_address


def test_a_result_signed_for_another_task_is_fraud(hotkey_node, allow_list, sockets):
    keys = keypair(2)
    allow_list.allow(bytes(keys.public_key))
    socket, _, _ = introduce(hotkey_node, sockets, keys)
    client = sockets(Socket(hotkey_node.url, api_key=hotkey_node.add_key("client")))
    task = generate(client)
    lease = socket.call("pull_task", {"wait_s": 10})["task"]
    digest = hashlib.sha256(b"a poem").hexdigest()
    signature = format_signature(keys.sign(result_bytes(digest, "another task", lease["node_hotkey"])))
    assert hand_in(socket, lease, "a poem", signature=signature)["code"] == "bad_signature"
    assert socket.call("pull_task", {})["cooldown"]["reason"] == "fraud"
    client.call("cancel_task", {"task_id": task["id"]})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"nonce": "00" * 32}, "auth_failed"),
        ({"receiver_hotkey": keypair(9).ss58_address}, "wrong_receiver"),
        ({"timestamp": "2020-01-01T00:00:00.000Z"}, "stale_timestamp"),
        ({"sender_hotkey": keypair(8).ss58_address}, "bad_signature"),
        ({}, "not_registered"),
    ],
)
def test_a_hotkey_that_cannot_prove_itself_is_turned_away(hotkey_node, sockets, changes, code):
    socket, _, answer = introduce(hotkey_node, sockets, keypair(7), **changes)
    assert answer["code"] == code
    socket.wait_for("closing")


def test_a_deregistered_hotkey_loses_its_session_and_its_leases_go_back(hotkey_node, allow_list, sockets):
    gone, other = keypair(3), keypair(4)
    for keys in (gone, other):
        allow_list.allow(bytes(keys.public_key))
    socket, _, _ = introduce(hotkey_node, sockets, gone)
    client = sockets(Socket(hotkey_node.url, api_key=hotkey_node.add_key("client")))
    task = generate(client)
    assert socket.call("pull_task", {"wait_s": 10})["task"]["task_id"] == task["id"]
    allow_list.disallow(bytes(gone.public_key))
    assert socket.wait_for("closing")[0]["code"] == 4405
    next_one, _, _ = introduce(hotkey_node, sockets, other)
    assert next_one.call("pull_task", {"wait_s": 10})["task"]["task_id"] == task["id"]
