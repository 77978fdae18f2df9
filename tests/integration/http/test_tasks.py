"""Routes of clients against a real server."""

import hashlib
import os
import signal

import httpx
import psutil
import pytest

from tests.nodes import LiveNode, until
from tests.text_node import QUEUE_MAX


def test_a_task_goes_from_post_to_its_bytes(client, worker):
    task = client.submit("say hello")
    worker.serve("hello to you")
    ended = client.ended(task["id"])
    assert ended["status"] == "best_results"
    asset = client.http.get(ended["results"][0]["url"])
    assert asset.content == b"hello to you"
    assert asset.headers["ETag"] == f'"{hashlib.sha256(asset.content).hexdigest()}"'
    assert asset.headers["Content-Disposition"].startswith("attachment")


def test_creation_names_its_place_and_what_is_left_of_the_window(client):
    answer = client.http.post("/tasks", json={"prompt": "hello"})
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/tasks/{answer.json()['task']['id']}"
    assert answer.headers["RateLimit-Policy"] == '"key";q=1000;w=60'
    assert answer.headers["RateLimit"] == '"key";r=999;t=60'


def test_a_replay_answers_200_with_the_same_task(client):
    fields = {"prompt": "hello"}
    first = client.http.post("/tasks", json=fields, headers={"Idempotency-Key": "once"})
    again = client.http.post("/tasks", json=fields, headers={"Idempotency-Key": "once"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["duplicate"] is True
    assert again.json()["task"]["id"] == first.json()["task"]["id"]
    assert again.headers["RateLimit"].startswith('"key";r=999;')


def test_a_header_and_a_member_that_differ_are_refused(client):
    fields = {"prompt": "hello", "idempotency_key": "one"}
    answer = client.http.post("/tasks", json=fields, headers={"Idempotency-Key": "two"})
    assert answer.status_code == 400
    assert "idempotency_key" in answer.json()["fields"]


@pytest.mark.parametrize("path", ["/tasks", "/tasks/", "/tasks/{id}", "/tasks/{id}/"])
def test_one_trailing_slash_is_tolerated_without_a_redirect(client, path):
    task = client.submit(kind="text_to_3d")
    answer = client.http.get(path.format(id=task["id"]))
    assert answer.status_code == 200


def test_head_has_the_headers_of_get_and_no_body(client, worker):
    task = client.submit()
    worker.serve("four words of text")
    client.ended(task["id"])
    got, headed = (client.http.request(m, f"/tasks/{task['id']}/results/best/asset") for m in ("GET", "HEAD"))
    assert headed.content == b""
    for name in ("ETag", "Content-Length", "Content-Type", "Accept-Ranges"):
        assert headed.headers[name] == got.headers[name]


@pytest.fixture
def asset(client, worker):
    """The address of a result of ten bytes that lives in its row."""
    task = client.submit()
    worker.serve("0123456789")
    client.ended(task["id"])
    return f"/tasks/{task['id']}/results/0/asset"


@pytest.mark.parametrize(
    ("header", "status", "body", "content_range"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_a_range_of_an_asset(client, asset, header, status, body, content_range):
    answer = client.http.get(asset, headers={"Range": header})
    assert answer.status_code == status
    assert answer.headers.get("Content-Range") == content_range
    if body is not None:
        assert answer.content == body


def test_an_asset_that_is_known_is_not_sent_again(client, asset):
    etag = client.http.head(asset).headers["ETag"]
    assert client.http.get(asset, headers={"If-None-Match": etag}).status_code == 304
    held = client.http.get(asset, headers={"If-Range": etag, "Range": "bytes=0-0"})
    changed = client.http.get(asset, headers={"If-Range": '"other"', "Range": "bytes=0-0"})
    assert (held.status_code, changed.status_code) == (206, 200)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("results/1/asset", "result_not_found"),
        ("results/none/asset", "result_not_found"),
        ("results/0/previews/0.png", "result_not_found"),
        ("results/7/report", "result_not_found"),
        ("results/0/asset?format=ply", "format_not_available"),
    ],
)
def test_a_result_that_is_not_there(client, asset, path, code):
    task = asset.split("/")[2]
    answer = client.http.get(f"/tasks/{task}/{path}")
    assert answer.json()["code"] == code
    assert answer.status_code == answer.json()["status"]


def test_the_report_says_what_the_scorer_found(client, asset):
    report = client.http.get(asset.replace("asset", "report")).json()
    assert report["success"] is True
    assert report["score"] == 1.0
    assert report["scorer"] == "text-1"


def test_cancel_ends_an_open_task_and_leaves_an_ended_one(client):
    task = client.submit(kind="text_to_3d")
    cancelled = client.http.delete(f"/tasks/{task['id']}")
    assert cancelled.json()["task"]["error"]["code"] == "cancelled_by_client"
    assert client.http.delete(f"/tasks/{task['id']}").json() == cancelled.json()


def test_another_keys_task_looks_like_one_that_never_was(client, new_client):
    task = new_client().submit(kind="text_to_3d")
    routes = [
        ("GET", "/tasks/{}"),
        ("DELETE", "/tasks/{}"),
        ("GET", "/tasks/{}/events"),
        ("GET", "/tasks/{}/results/best/asset"),
        ("GET", "/tasks/{}/results/0/previews/0.png"),
        ("GET", "/tasks/{}/results/0/report"),
    ]
    for method, route in routes:
        answers = [client.http.request(method, route.format(i)) for i in (task["id"], "a" * 36, "nonsense")]
        assert {answer.status_code for answer in answers} == {404}, route
        assert len({answer.text for answer in answers}) == 1
    assert client.http.get("/tasks", params={"after": task["id"]}).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_payload"),
        (b"{", 400, "invalid_payload"),
        (b"[]", 400, "invalid_payload"),
        (b'{"prompt":"a","prompt":"b"}', 400, "invalid_payload"),
        (b'{"prompt":"a","seed":NaN}', 400, "invalid_payload"),
        (b"\xff\xfe", 400, "invalid_payload"),
        (b'{"prompt":"' + b"a" * 65536 + b'"}', 413, "message_too_large"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_no_request(client, body, status, code, chunked):
    content = iter([body]) if chunked else body
    answer = client.http.post("/tasks", content=content, headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_unknown_paths_and_methods_are_answered_in_the_house_form(client):
    unknown, method = client.http.get("/nowhere"), client.http.put("/tasks")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert (method.status_code, method.json()["code"]) == (405, "method_not_allowed")
    assert "POST" in method.headers["Allow"]


def test_a_full_queue_says_when_to_come_again_and_charges_nothing(client):
    answers = [client.http.post("/tasks", json={"prompt": "hello"}) for _ in range(QUEUE_MAX + 1)]
    accepted, refused = [answer for answer in answers if answer.status_code == 201], answers[-1]
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert int(refused.headers["Retry-After"]) == refused.json()["retry_after"] > 0
    assert client.http.get("/tasks").headers["RateLimit"].startswith(f'"key";r={1000 - len(accepted)};')
    for answer in accepted:
        client.http.delete(answer.headers["Location"])


def test_a_used_up_window_is_429_with_retry_after(new_client):
    small = new_client(max_requests=1, period=60)
    small.submit(kind="text_to_3d")
    refused = small.http.post("/tasks", json={"prompt": "hello"})
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert int(refused.headers["Retry-After"]) == refused.json()["retry_after"]
    assert 0 < refused.json()["retry_after"] <= 60


def test_the_openapi_page_needs_nothing_from_elsewhere(client):
    document = client.http.get("/schema/openapi.json").json()
    assert {"/tasks", "/tasks/{task_id}/events", "/worker/tasks/pull"} <= document["paths"].keys()
    prompt = document["components"]["schemas"]["Generate"]["properties"]["prompt"]
    assert prompt["type"] == "string"
    page = client.http.get("/schema/swagger").text
    assert "//" not in page.split("<script>")[0].replace("<!DOCTYPE html>", "")
    assert client.http.get("/schema/swagger-ui/swagger-ui-bundle.js").status_code == 200


def test_a_kept_connection_does_not_hold_up_the_end_of_the_node(tmp_path):
    """The node ends long before the grace that its server gives to connections in use."""
    node = LiveNode(tmp_path, scoring_processes=0, shutdown_grace=200)
    node.start()
    with httpx.Client(base_url=node.url) as kept:
        assert kept.get("/healthz").status_code == 200
        os.kill(node.pid, signal.SIGTERM)
        until(lambda: psutil.Process(node.pid).status() == psutil.STATUS_ZOMBIE, 15)
    node.stop()
