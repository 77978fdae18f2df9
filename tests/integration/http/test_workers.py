"""Routes of workers against a real server."""

import base64
import contextlib
import hashlib
import socket
import threading
import time
import uuid
from typing import Any

import httpx
import pytest
from bittensor_wallet import Keypair

from grid_node.clock import SystemClock
from grid_node.database import DirectStore, make_engine
from grid_node.identity.epistula import body_digest
from grid_node.identity.hotkeys import format_signature, result_bytes
from grid_node.identity.node_key import NodeKey
from grid_node.identity.standing import AllowList
from grid_node.settings import Settings
from tests.nodes import LiveNode, until
from tests.text_node import HTTP, Client

MIB = 1024 * 1024


def test_a_waiting_pull_is_answered_when_a_task_comes(client, worker):
    leases = []
    until(lambda: pulls_waiting(client) == 0)  # else another test's worker might be given the task

    def pull() -> None:
        lease = worker.pull(wait_s=20)
        while lease is not None and lease["prompt"] != "what it waits for":
            worker.hand_in(lease)  # another test left it
            lease = worker.pull(wait_s=20)
        leases.append(lease)

    waiting = threading.Thread(target=pull)
    waiting.start()
    until(lambda: pulls_waiting(client) >= 1)
    task = client.submit("what it waits for")
    waiting.join(30)
    assert leases[0]["task_id"] == task["id"]


def test_a_pull_in_vain_says_so(worker):
    answer = worker.http.post("/worker/tasks/pull", json={"kinds": ["text"]})
    assert answer.json() == {"success": True, "task": None, "retry_after": 0, "cooldown": None}


def test_a_lost_answer_to_a_pull_loses_no_lease(client, worker):
    client.submit()
    lease = worker.pull()
    again = worker.pull(wait_s=0)
    assert again["lease_id"] == lease["lease_id"]
    held = worker.pull(wait_s=0, holding=[lease["lease_id"]])
    assert held is None


def test_a_worker_that_hung_up_while_waiting_gets_no_lease(node, client, worker, worker_key):
    with socket.create_connection(("127.0.0.1", node.port)) as peer:
        body = b'{"kinds":["text"],"wait_s":20}'
        head = f"POST /worker/tasks/pull HTTP/1.1\r\nHost: n\r\nContent-Length: {len(body)}\r\n"
        peer.sendall(f"{head}Authorization: Bearer {worker_key}\r\nX-Worker-Name: hasty\r\n\r\n".encode() + body)
        until(lambda: pulls_waiting(client) == 1)
    until(lambda: pulls_waiting(client) == 0)
    task = client.submit()
    lease = worker.pull()
    assert lease["task_id"] == task["id"]


def test_a_connection_is_good_for_the_next_request_after_a_waiting_pull(node, client, worker_key):
    headers = {"Authorization": f"Bearer {worker_key}", "X-Worker-Name": "steady"}
    with httpx.Client(base_url=node.url, headers=headers, timeout=30) as kept:
        for _ in range(3):
            waited = kept.post("/worker/tasks/pull", json={"kinds": ["text"], "wait_s": 0.05})
            assert waited.json()["task"] is None
        assert kept.get("/worker/status").json()["success"]


def test_a_lease_is_renewed_and_after_a_cancel_gone(client, worker):
    task = client.submit()
    lease = worker.pull()
    renewed = worker.http.post(f"/worker/leases/{lease['lease_id']}/renew")
    assert renewed.json()["lease_expires_at"] >= lease["lease_expires_at"]
    client.http.delete(f"/tasks/{task['id']}")
    gone = worker.http.post(f"/worker/leases/{lease['lease_id']}/renew")
    assert (gone.status_code, gone.json()["code"], gone.json()["reason"]) == (410, "lease_closed", "cancelled")
    late = worker.hand_in(lease)
    assert (late.status_code, late.json()["verdict"], late.json()["cooldown"]) == (200, "late", None)


def test_a_skipped_lease_goes_back(client, new_worker):
    client.submit()
    first, second = new_worker(), new_worker()
    lease = first.pull()
    skipped = first.http.post(f"/worker/leases/{lease['lease_id']}/skip", json={"reason": "too hard"})
    assert skipped.json() == {"success": True, "cooldown": None}
    assert second.pull()["task_id"] == lease["task_id"]


@pytest.mark.parametrize("form", ["raw", "chunked", "json", "upload"])
def test_a_result_may_come_in_every_form(client, worker, form):
    task = client.submit()
    lease = worker.pull()
    answer = {"raw": raw, "chunked": chunked, "json": as_json, "upload": by_upload}[form](worker, lease, b"an answer")
    assert answer.status_code == 200, answer.text
    if form in ("raw", "json"):  # small ones are judged at once
        assert answer.json()["verdict"] == "accepted"
        assert client.ended(task["id"])["results"][0]["sha256"] == hashlib.sha256(b"an answer").hexdigest()
    else:
        assert answer.json() == {
            "success": True,
            "task_id": task["id"],
            "lease_id": lease["lease_id"],
            "state": "scoring",
        }


def raw(worker: Any, lease: Any, data: bytes, **changes: Any) -> httpx.Response:
    return worker.http.post(f"/worker/leases/{lease['lease_id']}/result", params=claim(data, **changes), content=data)


def chunked(worker: Any, lease: Any, data: bytes) -> httpx.Response:
    path = f"/worker/leases/{lease['lease_id']}/result"
    return worker.http.post(path, params=claim(data), content=iter([data[:3], data[3:]]))


def as_json(worker: Any, lease: Any, data: bytes, **changes: Any) -> httpx.Response:
    payload = {**claim(data), "asset": base64.b64encode(data).decode(), **changes}
    return worker.http.post(f"/worker/leases/{lease['lease_id']}/result", json=payload)


def by_upload(worker: Any, lease: Any, data: bytes) -> httpx.Response:
    """tus 1.0.0, cut at 60 % and continued."""
    tus = {"Tus-Resumable": "1.0.0"}
    metadata = "lease_id " + base64.b64encode(lease["lease_id"].encode()).decode()
    made = worker.http.post(
        "/worker/uploads", headers={**tus, "Upload-Length": str(len(data)), "Upload-Metadata": metadata}
    )
    assert made.status_code == 201, made.text
    place, cut = made.headers["Location"], len(data) * 6 // 10
    for start, end in ((0, cut), (cut, len(data))):
        offset = worker.http.head(place, headers=tus).headers["Upload-Offset"]
        assert int(offset) == start
        piece = {**tus, "Upload-Offset": offset, "Content-Type": "application/offset+octet-stream"}
        assert worker.http.patch(place, headers=piece, content=data[start:end]).status_code == 204
    payload = {**claim(data), "upload_id": place.rpartition("/")[2]}
    return worker.http.post(f"/worker/leases/{lease['lease_id']}/result", json=payload)


def claim(data: bytes, **changes: Any) -> dict[str, Any]:
    return {"format": "text", "sha256": hashlib.sha256(data).hexdigest(), **changes}


def test_an_upload_is_for_a_lease_of_ones_own(client, new_worker):
    client.submit()
    lease = new_worker().pull()
    stranger = new_worker()
    for lease_id, code in ((lease["lease_id"], "lease_not_found"), ("", "invalid_payload")):
        metadata = f"lease_id {base64.b64encode(lease_id.encode()).decode()}".strip()
        headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "5", "Upload-Metadata": metadata}
        assert stranger.http.post("/worker/uploads", headers=headers).json()["code"] == code


def test_what_is_too_large_is_refused_before_it_is_read(client, worker):
    client.submit()
    lease = worker.pull()
    for answer in (
        raw(worker, lease, b"x" * 70_000),
        as_json(worker, lease, b"", asset="A" * (2 * MIB)),
        as_json(worker, lease, b"x" * (MIB + 1)),
    ):
        assert answer.status_code == 413
        assert answer.json()["limit"]
    assert worker.http.post(f"/worker/leases/{lease['lease_id']}/renew").status_code == 200
    assert as_json(worker, lease, b"x" * (MIB + 1)).json()["upload_url"] == "/worker/uploads"


def test_a_body_that_breaks_off_leaves_the_lease(node, client, worker, worker_key):
    client.submit()
    lease = worker.pull()
    query = f"format=text&sha256={'0' * 64}"
    head = f"POST /worker/leases/{lease['lease_id']}/result?{query} HTTP/1.1\r\nHost: n\r\nContent-Length: 100\r\n"
    name = worker.http.headers["X-Worker-Name"]
    with socket.create_connection(("127.0.0.1", node.port), timeout=30) as peer:
        peer.sendall(f"{head}Authorization: Bearer {worker_key}\r\nX-Worker-Name: {name}\r\n\r\nshort".encode())
        peer.shutdown(socket.SHUT_WR)
        answer = b""
        while b"}" not in answer and (piece := peer.recv(65536)):
            answer += piece
    assert b" 400 " in answer.splitlines()[0]
    assert b"body_incomplete" in answer
    assert raw(worker, lease, b"whole").json()["verdict"] == "accepted"


def test_feedback_is_read_again_from_where_one_stopped(client, worker):
    client.submit()
    worker.serve()
    answer = worker.http.get("/worker/feedback", params={"after_seq": 0, "wait_s": 20}).json()
    assert [entry["verdict"] for entry in answer["feedback"]] == ["accepted"]
    after = worker.http.get("/worker/feedback", params={"after_seq": answer["last_seq"]}).json()
    assert after == {"success": True, "feedback": [], "last_seq": answer["last_seq"]}


def test_status_lists_what_is_in_hand(client, worker):
    client.submit()
    lease = worker.pull()
    status = worker.http.get("/worker/status/").json()
    assert [held["lease_id"] for held in status["leases"]] == [lease["lease_id"]]


def test_the_window_of_a_client_is_no_matter_of_a_worker(worker):
    assert "RateLimit" not in worker.http.get("/worker/status").headers


def pulls_waiting(client: Any) -> int:
    lines = client.node.metrics().splitlines()
    return next(int(float(line.split()[1])) for line in lines if line.startswith("grid_pulls_waiting "))


# --- workers that sign each request -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain_node(tmp_path_factory):
    live = LiveNode(tmp_path_factory.mktemp("signed"), scoring_processes=0, worker_api_keys=False)
    live.start()
    yield live
    live.stop()


@pytest.fixture(scope="module")
def keypair(chain_node):
    made = Keypair.create_from_uri("//Signer")
    store = DirectStore(make_engine(f"sqlite:///{chain_node.data / 'grid.db'}"))
    AllowList(store, SystemClock()).allow(made.public_key)
    store.close()
    return made


class Signer:
    """A worker known by its hotkey."""

    def __init__(self, node: LiveNode, keypair: Keypair, hotkey: str) -> None:
        self.keypair = keypair
        self.hotkey = hotkey
        self.http = httpx.Client(base_url=node.url, **HTTP)

    def sign(self, method: str, target: str, body: bytes = b"", request: str | None = None) -> dict[str, str]:
        moment, name = str(round(time.time() * 1000)), request or str(uuid.uuid4())
        covered = f"{body_digest(method, target, body)}.{name}.{moment}.{self.hotkey}".encode()
        return {
            "Epistula-Version": "2",
            "Epistula-Timestamp": moment,
            "Epistula-Uuid": name,
            "Epistula-Signed-By": self.keypair.ss58_address,
            "Epistula-Signed-For": self.hotkey,
            "Epistula-Request-Signature": format_signature(self.keypair.sign(covered)),
        }

    def send(self, method: str, target: str, body: bytes = b"", **headers: str) -> httpx.Response:
        signed = {**self.sign(method, target, body), **headers}
        return self.http.request(method, target, content=body, headers=signed)


@pytest.fixture
def signer(chain_node, keypair):
    made = Signer(chain_node, keypair, node_hotkey(chain_node))
    with contextlib.closing(made.http):
        yield made


def node_hotkey(node: LiveNode) -> str:
    """As the node names itself in its log-in challenge: read from its own key."""
    return NodeKey.load(Settings.load({}, data_dir=node.data)).hotkey


def test_a_signed_worker_takes_a_task_and_hands_it_in(chain_node, signer, keypair):
    client = Client(chain_node)
    client.submit()
    lease = signer.send("POST", "/worker/tasks/pull", b'{"kinds":["text"],"wait_s":10}').json()["task"]
    data = b"an answer"
    digest = hashlib.sha256(data).hexdigest()
    signature = format_signature(keypair.sign(result_bytes(digest, lease["task_id"], signer.hotkey)))
    target = f"/worker/leases/{lease['lease_id']}/result?format=text&sha256={digest}&signature={signature}"
    assert signer.send("POST", target, data).json()["verdict"] == "accepted"
    client.http.close()


def test_a_signed_request_counts_once(signer):
    headers = signer.sign("GET", "/worker/status")
    first = signer.http.get("/worker/status", headers=headers)
    again = signer.http.get("/worker/status", headers=headers)
    assert (first.status_code, again.json()["code"]) == (200, "replayed_request")


def test_a_signature_covers_body_and_address(signer):
    forged = signer.sign("POST", "/worker/tasks/pull", b'{"kinds":["text"]}')
    other = signer.http.post("/worker/tasks/pull", content=b'{"kinds":["text"],"wait_s":1}', headers=forged)
    moved = signer.http.get("/worker/feedback", headers=signer.sign("GET", "/worker/status"))
    assert [answer.json()["code"] for answer in (other, moved)] == ["bad_signature"] * 2


def test_a_signed_upload_covers_each_piece(chain_node, signer):
    client = Client(chain_node)
    client.submit()
    lease = signer.send("POST", "/worker/tasks/pull", b'{"kinds":["text"],"wait_s":10}').json()["task"]
    metadata = "lease_id " + base64.b64encode(lease["lease_id"].encode()).decode()
    tus = {"Tus-Resumable": "1.0.0"}
    made = signer.send("POST", "/worker/uploads", b"", **tus, **{"Upload-Length": "4", "Upload-Metadata": metadata})
    assert made.status_code == 201, made.text
    place = made.headers["Location"]
    piece = {**tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    forged = signer.http.patch(place, content=b"evil", headers={**signer.sign("PATCH", place, b"good"), **piece})
    good = signer.send("PATCH", place, b"good", **piece)
    assert (forged.json()["code"], good.status_code) == ("bad_signature", 204)
    client.http.close()
