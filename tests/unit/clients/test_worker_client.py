import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from bittensor_wallet import Keypair
from grid_client import delivery
from grid_client.backoff import Backoff
from grid_client.delivery import Job, Output
from grid_client.errors import GridError
from grid_client.signing import request_headers, signed, signing_input
from grid_client.worker import WorkerClient

KEY = "key-of-the-tests-0001"
WAIT = 10.0


def lease(number: int = 1, **fields: Any) -> dict[str, Any]:
    base = {"task_id": f"t{number}", "lease_id": f"l{number}", "kind": "text", "prompt": "p", "formats": ["text"]}
    return base | fields


def answers(asset: bytes = b"hello"):
    return lambda job: Output(asset, "text")


def make_worker(node: Any, handler: Any, **options: Any) -> WorkerClient:
    identity = {} if "keypair" in options else {"api_key": KEY, "name": "w-1"}
    options = {"kinds": ["text"], "formats": ["text"], **identity, **options}
    return WorkerClient(node.url, handler=handler, backoff=lambda: Backoff(0.01, 0.02), **options)


@contextmanager
def running(worker: WorkerClient) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        worker.stop()
        thread.join(WAIT)
        assert not thread.is_alive()


def test_a_worker_introduces_itself_pulls_and_submits(node: Any) -> None:
    node.leases = [lease()]
    with running(make_worker(node, answers())):
        assert node.submitted.acquire(timeout=WAIT)
    (sent,) = node.authentications
    assert (sent["api_key"], sent["name"], sent["max_parallel"]) == (KEY, "w-1", 1)
    assert (sent["kinds"], sent["formats"]) == (["text"], ["text"])
    assert node.pulls[0] == {"kinds": ["text"], "formats": ["text"], "wait_s": 20, "holding": []}
    (done,) = node.submissions
    assert (done["route"], done["task_id"], done["lease_id"]) == ("event", "t1", "l1")
    assert done["sha256"] == sha256(b"hello").hexdigest()


def test_work_in_hand_is_named_while_the_next_task_is_pulled(node: Any) -> None:
    release = threading.Event()
    node.leases = [lease(1)]

    def slow(job: Job) -> Output:
        release.wait(WAIT)
        return Output(b"x", "text")

    with running(make_worker(node, slow, max_parallel=2)):
        while not any(pull["holding"] == ["l1"] for pull in node.pulls):
            node.pulled.clear()
            assert node.pulled.wait(WAIT)
        release.set()
        assert node.submitted.acquire(timeout=WAIT)


def test_a_result_is_sent_again_after_a_broken_connection_until_it_is_acknowledged(node: Any) -> None:
    node.leases = [lease()]
    node.refusals = [{"cut": True, "success": False, "status": 503, "code": "store_unavailable"}] * 2
    with running(make_worker(node, answers())):
        assert node.submitted.acquire(timeout=WAIT)
    assert [done["route"] for done in node.submissions] == ["event"] * 3
    assert len({done["sha256"] for done in node.submissions}) == 1
    assert len(node.authentications) >= 2


def test_a_result_refused_for_good_is_not_sent_again(node: Any) -> None:
    node.leases = [lease(1), lease(2)]
    node.refusals = [{"success": False, "status": 409, "code": "already_submitted", "error": "no"}]
    with running(make_worker(node, answers())):
        assert node.submitted.acquire(timeout=WAIT)
    assert [done["lease_id"] for done in node.submissions] == ["l1", "l2"]


def test_a_large_result_goes_over_http_as_it_is(node: Any) -> None:
    node.leases = [lease()]
    with running(make_worker(node, answers(b"x" * 3_000_000))):
        assert node.submitted.acquire(timeout=WAIT)
    (done,) = node.submissions
    assert (done["route"], done["size"], done["format"]) == ("body", 3_000_000, "text")


def test_an_event_that_the_node_finds_too_large_goes_over_http(node: Any) -> None:
    node.leases = [lease()]
    node.event_limit = 100
    with running(make_worker(node, answers(b"x" * 101))):
        assert node.submitted.acquire(timeout=WAIT)
    assert [done["route"] for done in node.submissions] == ["body"]


def test_a_body_that_the_node_finds_too_large_is_uploaded_and_resumed_at_its_offset(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.leases = [lease()]
    node.body_limit = 2_000_000
    node.upload_breaks_at = [1_234_567]
    monkeypatch.setattr("grid_client.backoff.Backoff.next", lambda self, at_least=None: 0.01)
    with running(make_worker(node, answers(b"y" * 5_000_000))):
        assert node.submitted.acquire(timeout=WAIT)
    (done,) = node.submissions
    assert (done["route"], done["size"]) == ("upload", 5_000_000)
    assert node.patches == [(1_234_567, 5_000_000 - 1_234_567)]


def test_a_cancelled_lease_drops_the_work(node: Any) -> None:
    node.leases = [lease(1)]
    began, seen = threading.Event(), threading.Event()

    def patient(job: Job) -> Output:
        if job.lease.lease_id == "l1":
            began.set()
            assert job.cancelled.wait(WAIT)
            seen.set()
        return Output(b"z", "text")

    with running(make_worker(node, patient)):
        assert began.wait(WAIT)
        node.sio.emit("lease_cancelled", {"task_id": "t1", "lease_id": "l1"}, namespace="/worker")
        assert seen.wait(WAIT)
        node.leases = [lease(2)]
        assert node.submitted.acquire(timeout=WAIT)
    assert [done["lease_id"] for done in node.submissions] == ["l2"]


def test_a_lease_that_cannot_be_renewed_drops_the_work(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grid_client.worker.RENEW_TICK", 0.02)
    node.leases = [lease(1, renew_every_s=0.01)]
    seen = threading.Event()

    def patient(job: Job) -> Output:
        assert job.cancelled.wait(WAIT)
        seen.set()
        return Output(b"z", "text")

    with running(make_worker(node, patient)):
        assert seen.wait(WAIT)
    assert node.renewed.is_set()
    assert node.submissions == []


def test_stop_finishes_the_work_in_hand_and_takes_no_more(node: Any) -> None:
    node.leases = [lease(1), lease(2)]
    began, release = threading.Event(), threading.Event()

    def slow(job: Job) -> Output:
        began.set()
        release.wait(WAIT)
        return Output(b"x", "text")

    worker = make_worker(node, slow)
    with running(worker) as thread:
        assert began.wait(WAIT)
        worker.stop()
        release.set()
        thread.join(WAIT)
    assert [done["lease_id"] for done in node.submissions] == ["l1"]


def test_a_generator_that_fails_gives_its_lease_back_and_the_worker_goes_on(node: Any) -> None:
    node.leases = [lease(1), lease(2)]

    def moody(job: Job) -> Output:
        if job.lease.lease_id == "l1":
            raise RuntimeError("out of paint")
        return Output(b"x", "text")

    with running(make_worker(node, moody)):
        assert node.submitted.acquire(timeout=WAIT)
        assert node.submitted.acquire(timeout=WAIT)
    assert [skip["lease_id"] for skip in node.skipped] == ["l1"]
    assert [done["lease_id"] for done in node.submissions] == ["l2"]


def test_feedback_is_handed_on(node: Any) -> None:
    arrived = threading.Event()
    node.leases = [lease()]
    worker = make_worker(node, answers(), on_feedback=lambda body: body["seq"] == 4 and arrived.set())
    with running(worker):
        assert node.submitted.acquire(timeout=WAIT)
        node.sio.emit("feedback", {"seq": 4, "verdict": "accepted"}, namespace="/worker")
        assert arrived.wait(WAIT)


def test_a_wrong_key_ends_the_worker_with_the_nodes_words(node: Any) -> None:
    node.authenticate = lambda data: {"success": False, "status": 401, "code": "invalid_key", "error": "no"}
    with pytest.raises(GridError) as refused:
        make_worker(node, answers()).run()
    assert refused.value.code == "invalid_key"
    assert len(node.authentications) == 1


def close_all(node: Any, **closing: Any) -> None:
    node.sio.emit("closing", closing, namespace="/worker")
    for sid, _ in list(node.sio.manager.get_participants("/worker", None)):
        node.sio.disconnect(sid, namespace="/worker")


def test_a_worker_replaced_by_another_process_ends_and_does_not_fight_it(node: Any) -> None:
    worker = make_worker(node, answers())
    failures: list[GridError] = []

    def run() -> None:
        try:
            worker.run()
        except GridError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert node.pulled.wait(WAIT)
    close_all(node, code=4409, reason="replaced", error="New connection established")
    thread.join(WAIT)
    assert [error.code for error in failures] == ["replaced"]
    assert len(node.authentications) == 1


def test_a_worker_comes_back_after_a_shutdown_of_the_node(node: Any) -> None:
    with running(make_worker(node, answers())):
        assert node.pulled.wait(WAIT)
        close_all(node, code=4503, reason="shutdown", error="Server shutting down", retry_after=0.01)
        node.leases = [lease()]
        assert node.submitted.acquire(timeout=WAIT)
    assert len(node.authentications) == 2


def test_a_worker_waits_for_a_node_that_is_not_there_yet(late_node: Any) -> None:
    node, serve = late_node
    tried = threading.Event()

    class Watched(Backoff):
        def next(self, at_least: float | None = None) -> float:
            tried.set()
            return 0.02

    node.leases = [lease()]
    worker = WorkerClient(node.url, handler=answers(), api_key=KEY, kinds=["text"], formats=["text"], backoff=Watched)
    with running(worker):
        assert tried.wait(WAIT)
        with serve():
            assert node.submitted.acquire(timeout=WAIT)


def test_an_unregistered_worker_keeps_asking(node: Any) -> None:
    refusals = [{"success": False, "status": 403, "code": "not_registered", "retry_after": 0.01}] * 2

    def register_later(data: dict[str, Any]) -> dict[str, Any]:
        return refusals.pop() if refusals else {"success": True}

    node.authenticate = register_later
    node.leases = [lease()]
    with running(make_worker(node, answers())):
        assert node.submitted.acquire(timeout=WAIT)


NODE_PAIR = Keypair.create_from_seed("0x" + "22" * 32)
WORKER_PAIR = Keypair.create_from_seed("0x" + "33" * 32)


def authenticated(data: dict[str, Any], pair: Keypair = NODE_PAIR) -> dict[str, Any]:
    """What a genuine node answers: it checks everything that the contract lets it check."""
    assert data["message_type"] == "authenticate"
    assert data["sender_hotkey"] == WORKER_PAIR.ss58_address
    assert data["receiver_hotkey"] == NODE_PAIR.ss58_address
    assert data["nonce"] == "ab" * 32
    assert data["timestamp"].endswith("Z")
    assert WORKER_PAIR.verify(signing_input(data), bytes.fromhex(data["signature"][2:]))
    answer = {
        "message_id": "m",
        "message_type": "authenticated",
        "sender_hotkey": NODE_PAIR.ss58_address,
        "receiver_hotkey": data["sender_hotkey"],
        "client_nonce": data["client_nonce"],
        "success": True,
        "max_in_flight": 64,
    }
    return signed(pair, answer)


def hotkey_worker(node: Any, **options: Any) -> WorkerClient:
    pairs = {"keypair": WORKER_PAIR, "node_hotkey": NODE_PAIR.ss58_address}
    return make_worker(node, answers(), **pairs, **options)


def test_a_hotkey_worker_answers_the_challenge_and_signs_its_result(node: Any) -> None:
    node.challenge = {"nonce": "ab" * 32, "expires_in": 10}
    node.authenticate = authenticated
    node.leases = [lease()]
    with running(hotkey_worker(node)):
        assert node.submitted.acquire(timeout=WAIT)
    (done,) = node.submissions
    covered = f"grid.v1.result.{done['sha256']}.t1.{NODE_PAIR.ss58_address}".encode()
    assert len(done["signature"]) == 130
    assert WORKER_PAIR.verify(covered, bytes.fromhex(done["signature"][2:]))


def test_a_node_with_another_key_is_not_worked_for(node: Any) -> None:
    node.challenge = {"nonce": "ab" * 32}
    node.authenticate = lambda data: authenticated(data, WORKER_PAIR)
    with pytest.raises(GridError, match="wrong_node"):
        hotkey_worker(node).run()
    assert node.pulls == []


def test_request_headers_sign_body_uuid_time_and_node() -> None:
    import uuid

    number = uuid.UUID(int=5)
    when = datetime(2026, 11, 20, 12, 0, 0, 250_000, tzinfo=UTC)
    digest = sha256(b"GET /worker/status").hexdigest()
    headers = request_headers(WORKER_PAIR, NODE_PAIR.ss58_address, digest, when, number)
    stamp = headers["Epistula-Timestamp"]
    assert int(stamp) == int(when.timestamp() * 1000)
    covered = f"{digest}.{number}.{stamp}.{NODE_PAIR.ss58_address}".encode()
    signature = bytes.fromhex(headers["Epistula-Request-Signature"][2:])
    assert WORKER_PAIR.verify(covered, signature)
    assert headers["Epistula-Version"] == "2"


def test_a_worker_needs_exactly_one_identity() -> None:
    with pytest.raises(ValueError, match="either an API key or a keypair"):
        WorkerClient("http://127.0.0.1:9", handler=answers())
    with pytest.raises(ValueError, match="node's hotkey"):
        WorkerClient("http://127.0.0.1:9", handler=answers(), keypair=WORKER_PAIR)


def test_the_event_limit_leaves_room_for_the_rest_of_a_one_mebibyte_message() -> None:
    assert delivery.EVENT_LIMIT + 16_384 < 1 << 20
