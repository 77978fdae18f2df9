"""Hosted models over HTTP, by a running node: JSON, forms, files, and what is none of them."""

import base64
import contextlib
import http.client
import io
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from scripts import reference
from tests.integration.sockets import Socket
from tests.nodes import LiveNode, until
from tests.text_node import HTTP

EVERY_BYTE = bytes(range(256))
INLINE_MAX = 8 * 1024 * 1024


@pytest.fixture
def http_client(node) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, **HTTP) as made:
        yield made


@pytest.fixture
def new_id(request) -> Callable[[str], str]:
    """Ids that no other test has."""
    place = f"{request.node.name[:40]}-{os.urandom(4).hex()}".replace("/", "-")
    return lambda name="m": "".join(character if character.isalnum() else "-" for character in f"{place}-{name}")


@pytest.fixture
def serve(http_client, new_id) -> Callable[..., str]:
    """Serves a model by JSON and returns its id."""

    def make(content: bytes = EVERY_BYTE, **fields: Any) -> str:
        body = {"model_id": new_id(str(time.monotonic_ns())), "allow_download": True, **fields}
        answer = http_client.post("/serve_model", json={"model": content.decode("latin-1"), **body})
        assert answer.status_code == 200, answer.text
        return body["model_id"]

    return make


def raw_get(node: LiveNode, target: str) -> tuple[int, bytes]:
    """GET with the target as it stands: a client library would tidy it."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)) as peer:
        peer.putrequest("GET", target, skip_accept_encoding=True)
        peer.putheader("Connection", "close")
        peer.endheaders()
        answer = peer.getresponse()
        assert answer.headers["Content-Type"] == "application/json"
        return answer.status, answer.read()


def bytes_of(client: httpx.Client, model_id: str) -> tuple[bytes, bytes, bytes]:
    """The model by JSON in both encodings, and as it is."""
    latin = client.get(f"/get_model/{model_id}").json()["serialized_model"]
    text = client.get(f"/get_model/{model_id}", params={"encoding": "base64"}).json()["serialized_model"]
    return latin.encode("latin-1"), base64.b64decode(text), client.get(f"/models/{model_id}/content").content


def unnamed(node: LiveNode) -> list[Path]:
    """Bytes on the disk that have no name yet."""
    return list((node.data / "blobs" / "tmp").iterdir())


def error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert (body["success"], body["code"], body["status"]) == (False, code, status)
    return body


# --- the same bytes, however they come -----------------------------------------------------------------------------


def test_every_byte_survives_each_way_in(http_client, new_id):
    ways = {
        "latin": {"json": {"model": EVERY_BYTE.decode("latin-1")}},
        "alias": {"json": {"model": EVERY_BYTE.decode("latin-1"), "encoding": "Latin-1"}},
        "base64": {"json": {"model": base64.b64encode(EVERY_BYTE).decode(), "encoding": "base64"}},
        "form": {"data": {"model": EVERY_BYTE.decode("latin-1")}},
        "form64": {"data": {"model": base64.b64encode(EVERY_BYTE).decode(), "encoding": "base64"}},
        "file": {"files": {"model": ("m.bin", EVERY_BYTE)}},
        "part": {"files": {"model": (None, EVERY_BYTE.decode("latin-1"))}},
    }
    for way, sent in ways.items():
        members = {"model_id": new_id(way), "allow_download": "True"}
        kind = "json" if "json" in sent else "data"
        answer = http_client.post("/serve_model", **{**sent, kind: {**sent.get(kind, {}), **members}})
        assert answer.json() == {"success": True, "message": f"Model saved with id: {members['model_id']}"}, way
        assert bytes_of(http_client, members["model_id"]) == (EVERY_BYTE,) * 3, way


def test_a_file_is_taken_as_it_is_whatever_the_encoding_says(http_client, new_id):
    fields = {"model_id": new_id(), "allow_download": "True", "encoding": "base64"}
    assert http_client.post("/serve_model", data=fields, files={"model": b"not base64"}).status_code == 200
    assert http_client.get(f"/models/{fields['model_id']}/content").content == b"not base64"


def test_the_old_address_and_one_slash_behind_are_good(http_client, new_id):
    for number, path in enumerate(("/serve-model/", "/serve-model", "/serve_model/")):
        answer = http_client.post(
            path, json={"model_id": new_id(str(number)), "model": "x"}, headers={"Prefer": "respond-async"}
        )
        assert (answer.status_code, answer.json()["success"]) == (200, True)
    assert http_client.get("/models/").json() == http_client.get("/models").json()


def test_the_answer_names_digest_and_version(http_client, serve):
    model_id = serve()
    again = {"model_id": model_id, "model": "x", "version": "new", "allow_download": True}
    answer = http_client.post("/serve_model", json=again)
    assert answer.headers["Model-Version"] == "2"
    assert answer.headers["ETag"] == http_client.head(f"/models/{model_id}/versions/2/content").headers["ETag"]
    assert http_client.get(f"/models/{model_id}/versions/1/content").content == EVERY_BYTE


def test_the_largest_inline_model_goes_both_ways_and_one_byte_more_does_not(http_client, new_id):
    largest = os.urandom(INLINE_MAX)
    fields = {"model_id": new_id(), "model": largest.decode("latin-1"), "allow_download": True}
    assert http_client.post("/serve_model", json=fields).status_code == 200
    assert bytes_of(http_client, fields["model_id"]) == (largest,) * 3
    for changes in (
        {"model": fields["model"] + "x"},
        {"model": base64.b64encode(largest + b"xxx").decode(), "encoding": "base64"},
    ):
        refused = error(
            http_client.post("/serve_model", json={**fields, "model_id": new_id("2"), **changes}),
            413,
            "message_too_large",
        )
        assert (refused["limit"], refused["upload_url"]) == (INLINE_MAX, "/uploads")


def test_a_model_too_large_for_json_tells_where_its_bytes_are(http_client, new_id):
    content = os.urandom(INLINE_MAX + 1)
    fields = {"model_id": new_id("é ü"), "allow_download": "True"}
    assert http_client.post("/serve_model", data=fields, files={"model": content}).status_code == 200
    refused = error(http_client.get(f"/get_model/{fields['model_id']}"), 413, "model_too_large")
    assert (refused["size"], refused["limit"]) == (INLINE_MAX + 1, INLINE_MAX)
    assert http_client.get(refused["download_url"]).content == content


def test_an_id_may_have_any_letters(http_client, new_id):
    model_id = new_id("x") + " é€😀.{}"
    http_client.post("/serve_model", json={"model_id": model_id, "model": "x", "allow_download": True})
    path = f"/get_model/{httpx.URL(path='/' + model_id).raw_path.decode()[1:]}"
    assert http_client.get(path).json() == {"serialized_model": "x"}
    assert http_client.get("/get_model", params={"model_id": model_id}).json() == {"serialized_model": "x"}
    assert model_id in http_client.get("/models").json()["models"]


# --- lists, versions, rights ---------------------------------------------------------------------------------------


def test_lists_are_in_order_of_serving_and_forget_what_is_deleted(http_client, serve):
    ids = [serve(tags=["listed"], description=f"number {number}") for number in range(3)]
    listed = http_client.get("/models").json()["models"]
    assert [one for one in listed if one in ids] == ids
    http_client.post("/delete_model", json={"model_id": ids[1]})
    listed = http_client.get("/models").json()["models"]
    assert [one for one in listed if one in ids] == [ids[0], ids[2]]
    page = http_client.get("/models", params={"limit": 1, "after": ids[0]}).json()
    assert page == {"success": True, "models": [ids[2]], "next": None}
    described = http_client.get("/detailed_models_list", params={"tag": "listed"}).json()["models"]
    assert [one["description"] for one in described if one["id"] in ids] == ["number 0", "number 2"]
    assert (described[0]["model_size"], described[0]["size"]) == ("0.256KB", 256)


def test_an_id_is_served_once_and_a_version_never_again(http_client, serve):
    model_id = serve(b"first")
    refused = error(http_client.post("/serve_model", json={"model_id": model_id, "model": "2"}), 409, "model_exists")
    assert refused["message"] == refused["error"] == "Model id already exists."
    assert http_client.get(f"/models/{model_id}/content").content == b"first"
    http_client.post("/delete_model", json={"model_id": model_id})
    error(http_client.get(f"/models/{model_id}/content"), 404, "model_not_found")
    again = {"model_id": model_id, "model": "3", "allow_download": True}
    assert http_client.post("/serve_model", json=again).headers["Model-Version"] == "2"


def test_what_is_not_to_be_copied_is_not(http_client, serve, new_id):
    secret, unknown = serve(allow_download=False), new_id("unknown")
    assert http_client.get(f"/is_model_copy_allowed/{serve()}").json() == {"success": True}
    for model_id, text, status, code in (
        (secret, "You're not allowed to download this model.", 403, "download_not_allowed"),
        (unknown, "Model not found.", 404, "model_not_found"),
    ):
        told = http_client.get(f"/is_model_copy_allowed/{model_id}")
        assert (told.status_code, told.json()) == (200, {"success": False, "error": text})
        assert http_client.get("/is_model_copy_allowed", params={"model_id": model_id}).json() == told.json()
        for path in (f"/get_model/{model_id}", f"/models/{model_id}/content", f"/models/{model_id}/versions/1/content"):
            assert error(http_client.get(path), status, code)["error"] == text


@pytest.mark.parametrize(("flag", "status"), [(True, 200), ("True", 200), (False, 200), ("False", 200)])
def test_flags_that_are_flags(http_client, new_id, flag, status):
    fields = {"model_id": new_id(), "model": "x", "allow_download": flag}
    assert http_client.post("/serve_model", json=fields).status_code == status
    allowed = http_client.get(f"/is_model_copy_allowed/{fields['model_id']}").json()["success"]
    assert allowed is (str(flag) == "True")


@pytest.mark.parametrize("flag", ["true", "false", 1, 0, None, "", []])
def test_flags_that_are_none(http_client, new_id, flag):
    fields = {"model_id": new_id(), "model": "x", "allow_download": flag}
    assert set(error(http_client.post("/serve_model", json=fields), 400, "invalid_payload")["fields"]) == {
        "allow_download"
    }


def test_a_sender_that_leaves_finds_its_model_and_its_answer(node, http_client, new_id):
    body = json.dumps({"model_id": (model_id := new_id()), "model": "x", "idempotency_key": model_id}).encode()
    head = f"POST /serve_model HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", node.port), 20) as peer:
        peer.sendall(head.encode() + body)
    until(lambda: model_id in http_client.get("/models").json()["models"])
    again = http_client.post("/serve_model", content=body)
    assert (again.status_code, again.json()) == (200, {"success": True, "message": f"Model saved with id: {model_id}"})


def test_an_idempotency_key_in_the_header_stands_for_the_first_answer(http_client, new_id):
    fields, headers = {"model_id": new_id()}, {"Idempotency-Key": new_id("key")}

    def post(content: bytes, **changes: Any) -> httpx.Response:
        return http_client.post("/serve_model", data={**fields, **changes}, files={"model": content}, headers=headers)

    first, again = post(b"x"), post(b"x")
    assert (first.json(), first.headers["ETag"]) == (again.json(), again.headers["ETag"])
    assert first.status_code == again.status_code == 200
    error(post(b"y"), 409, "idempotency_conflict")
    error(post(b"x", idempotency_key="another"), 400, "invalid_payload")


# --- forms ---------------------------------------------------------------------------------------------------------


def test_a_form_carries_lists_as_json_and_tags_one_by_one(http_client, new_id):
    signature = json.dumps([{"name": "x", "datatype": "FP32", "shape": [-1, 3]}])
    fields = {"model_id": new_id(), "tags": ["a b", "é"], "inputs": signature, "description": "a & b=c+d%"}
    assert http_client.post("/serve_model", data=fields, files={"model": b"x"}).status_code == 200
    assert http_client.post("/serve_model", data={**fields, "model_id": new_id("2"), "model": "x"}).status_code == 200
    for described in http_client.get("/detailed_models_list", params={"tag": "é"}).json()["models"]:
        assert (described["tags"], described["description"]) == (["a b", "é"], "a & b=c+d%")


@pytest.mark.parametrize(
    ("fields", "files", "wrong"),
    [
        ({}, {}, "model"),
        ({}, {"model": b""}, "model"),
        ({}, {"other": b"x"}, "other"),
        ({}, {"tags": b"x"}, "tags"),
        ({"model": "x"}, {"model": b"x"}, "model"),
        ({"allow_download": "true"}, {"model": b"x"}, "allow_download"),
        ({"colour": "red"}, {"model": b"x"}, "colour"),
        ({"inputs": "[", "model": "x"}, {}, "inputs"),
        ({"description": ["a", "b"]}, {"model": b"x"}, "description"),
    ],
)
def test_forms_that_are_refused_leave_nothing(node, http_client, new_id, fields, files, wrong):
    parts = [("model_id", (None, new_id()))]
    for name, value in fields.items():
        parts += [(name, (None, one)) for one in (value if isinstance(value, list) else [value])]
    parts += [(name, ("f", content)) for name, content in files.items()]
    refused = error(http_client.post("/serve_model", files=parts), 400, "invalid_payload")
    assert set(refused["fields"]) == {wrong}
    assert unnamed(node) == []


def test_two_files_are_one_too_many(http_client, new_id):
    parts = [("model_id", (None, new_id())), ("model", ("f", b"x")), ("model", ("f", b"x"))]
    assert set(error(http_client.post("/serve_model", files=parts), 400, "invalid_payload")["fields"]) == {"model"}


def test_bad_text_in_a_form_is_named(http_client):
    answer = http_client.post(
        "/serve_model",
        content=b"model_id=m&description=%FF&model=x",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert error(answer, 400, "invalid_payload")["fields"] == {"description": ["must be UTF-8"]}
    many = "&".join(f"f{number}=1" for number in range(200))
    answer = http_client.post(
        "/serve_model", content=many, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    error(answer, 400, "invalid_payload")


def test_texts_of_a_form_are_bounded_together(node, http_client, new_id):
    parts = [("model_id", (None, new_id())), *((f"f{n}", (None, "x" * 3_000_000)) for n in range(7))]
    refused = error(http_client.post("/serve_model", files=parts), 413, "message_too_large")
    assert (refused["limit"], refused["upload_url"]) == (INLINE_MAX, "/uploads")
    form = b"model_id=m&model=" + b"%C3%BF" * (INLINE_MAX + 200_000)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    error(http_client.post("/serve_model", content=form, headers=headers), 413, "message_too_large")
    assert unnamed(node) == []


def test_more_than_the_largest_model_is_refused_by_its_announced_length(node):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)) as peer:
        peer.putrequest("POST", "/serve_model")
        peer.putheader("Content-Type", "multipart/form-data; boundary=edge")
        peer.putheader("Content-Length", str(11 * 1024**3))
        peer.endheaders(b"--edge\r\n")
        answer = peer.getresponse()
        body = json.loads(answer.read())
    assert (answer.status, body["code"], body["limit"]) == (413, "upload_too_large", 10 * 1024**3)


@pytest.mark.parametrize("body", [b"", b"--edge--", b"--edge\r\n\r\n", b"no form at all"])
def test_a_form_that_is_none_is_told_so_in_json(http_client, body):
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    error(http_client.post("/serve_model", content=body, headers=headers), 400, "invalid_payload")


def test_a_form_cut_short_leaves_nothing(node, http_client, new_id):
    head = b'--edge\r\nContent-Disposition: form-data; name="model"; filename="m"\r\n\r\n'
    model_id = new_id()
    request = (
        b"POST /serve_model HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=edge\r\n"
        b"Content-Length: 5000000\r\n\r\n"
        b'--edge\r\nContent-Disposition: form-data; name="model_id"\r\n\r\n%b\r\n' % model_id.encode()
    )
    with socket.create_connection(("127.0.0.1", node.port)) as peer:
        peer.sendall(request + head + os.urandom(1_000_000))
        until(lambda: unnamed(node))
    until(lambda: not unnamed(node))
    error(http_client.get(f"/models/{model_id}/content"), 404, "model_not_found")


def test_a_file_larger_than_any_piece_arrives_whole(http_client, new_id):
    content = os.urandom(5_000_011)
    fields = {"model_id": new_id(), "allow_download": "True"}
    assert (
        http_client.post("/serve_model", data=fields, files={"model": io.BytesIO(content)}).headers["Model-Version"]
        == "1"
    )
    assert http_client.get(f"/models/{fields['model_id']}/content").content == content


# --- what is none --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"{", b'{"model_id": NaN}', b'{"model": "x", "model": "y"}'])
def test_a_body_that_is_none(http_client, body):
    for path in ("/serve_model", "/delete_model", "/run_inference"):
        error(http_client.post(path, content=body), 400, "invalid_payload")


@pytest.mark.parametrize(
    "target", ["a%2Fb", "a/b", "..", "%2e%2e", "%00", "%0A", "%20m", "m%20", "%2Fm", "m%2F", "%25", "x" * 65]
)
def test_an_id_that_cannot_be_is_simply_not_there(node, target):
    expected = {"success": False, "error": "Model not found.", "code": "model_not_found", "status": 404}
    for path in (f"/get_model/{target}", f"/models/{target}/content", f"/models/{target}/versions/1/content"):
        status, body = raw_get(node, path)
        assert (status, json.loads(body)) == (404, expected), path
    status, body = raw_get(node, f"/is_model_copy_allowed/{target}")
    assert (status, json.loads(body)) == (200, {"success": False, "error": "Model not found."})


@pytest.mark.parametrize("version", ["0", "-1", "x", "1.0", "99999999999999999999", "%31x"])
def test_a_version_that_cannot_be_is_not_there(node, serve, version):
    status, body = raw_get(node, f"/models/{serve()}/versions/{version}/content")
    assert (status, json.loads(body)["code"]) == (404, "model_not_found")


def test_an_id_is_decoded_once(node, http_client, new_id):
    http_client.post("/serve_model", json={"model_id": new_id() + "A", "model": "x", "allow_download": True})
    assert raw_get(node, f"/get_model/{new_id()}%41")[0] == 200
    assert raw_get(node, f"/get_model/{new_id()}%2541")[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/models", "GET, HEAD, OPTIONS"),
        ("GET", "/serve_model", "OPTIONS, POST"),
        ("DELETE", "/delete_model", "OPTIONS, POST"),
        ("POST", "/get_model/m", "GET, HEAD, OPTIONS"),
        ("PUT", "/models/m/content", "GET, HEAD, OPTIONS"),
        ("GET", "/search-encrypted-models", "OPTIONS, POST"),
    ],
)
def test_another_method_is_told_which_are_good(http_client, method, path, allow):
    answer = http_client.request(method, path)
    error(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == allow


def test_the_id_is_given_once(http_client):
    error(http_client.get("/get_model/m", params={"model_id": "m"}), 400, "invalid_payload")
    error(http_client.get("/get_model"), 400, "invalid_payload")
    error(http_client.get("/get_model/m", params={"colour": "red"}), 400, "invalid_payload")
    error(http_client.get("/get_model/m", params={"encoding": "utf-8"}), 400, "invalid_payload")


# --- keys ----------------------------------------------------------------------------------------------------------


def test_a_key_that_is_given_must_be_good(http_client, serve):
    model_id = serve()
    for path in ("/models", f"/get_model/{model_id}", f"/models/{model_id}/content"):
        error(http_client.get(path, headers={"X-API-KEY": "wrong"}), 401, "invalid_key")


def test_what_a_key_served_only_that_key_changes(node, http_client, new_id):
    owner, other = ({"X-API-KEY": node.add_key(name)} for name in ("owner", "other"))
    admin = {"Authorization": f"Bearer {node.add_key('admin', ('client', 'models:admin'))}"}
    fields = {"model_id": new_id(), "model": "x", "allow_download": True}
    http_client.post("/serve_model", json=fields, headers=owner)
    for headers, status, code in ((other, 403, "forbidden"), ({}, 401, "missing_key")):
        error(http_client.post("/delete_model", json={"model_id": fields["model_id"]}, headers=headers), status, code)
        error(http_client.post("/serve_model", json={**fields, "version": "new"}, headers=headers), status, code)
    assert http_client.post("/serve_model", json={**fields, "version": 2}, headers=owner).status_code == 200
    deleted = http_client.post("/delete_model", json={"model_id": fields["model_id"]}, headers=admin)
    assert deleted.json() == {"success": True, "message": "Model deleted with success!"}


@pytest.fixture(scope="module")
def closed_node(tmp_path_factory) -> Iterator[LiveNode]:
    node = LiveNode(tmp_path_factory.mktemp("closed"), scoring_processes=0, models_auth="all", compute_processes=0)
    node.start()
    try:
        yield node
    finally:
        node.discard()


def test_a_fresh_node_has_no_models(closed_node):
    headers = {"X-API-KEY": closed_node.add_key("first")}
    answer = httpx.get(f"{closed_node.url}/models", headers=headers)
    assert answer.json() == {"success": True, "models": []}


OPEN = {
    "/health",
    "/healthz",
    "/readyz",
    "/metrics",
    "/ws/health",
    "/v2/health/live",
    "/v2/health/ready",
    "/pc/client-api/files/1",
}
ELSEWHERE = ("/schema", "/static/", "/ws/generate", "/api/v1/")
"""Texts that are the same for everybody, the door that asks for its key behind the upgrade, and the chain, which API
keys do not open."""
NAMED = {path: {"model_id": "m"} for path in ("/get_model", "/is_model_copy_allowed")}


def test_a_closed_node_asks_everybody_for_a_key(closed_node, http_rules):
    upload = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    with httpx.Client(base_url=closed_node.url, headers=upload, **HTTP) as client:
        answers = {rule: client.request(*rule, params=NAMED.get(rule[1])).status_code for rule in http_rules}
    allowed = {rule: status for rule, status in answers.items() if status != 405}
    assert len(allowed) > 40
    assert {rule for rule, status in allowed.items() if status != 401} == set()


@pytest.fixture(scope="module")
def http_rules() -> set[tuple[str, str]]:
    """Method and address of every route but those that are open to all."""
    with reference.example_app() as app:
        rules = {
            (method, re.sub("<[^>]+>", "1", rule.rule))
            for rule in app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        }
    assert {path for _, path in rules} >= OPEN
    return {rule for rule in rules if rule[1] not in OPEN and not rule[1].startswith(ELSEWHERE)}


def test_a_closed_node_is_open_to_a_key(closed_node):
    headers = {"X-API-KEY": closed_node.add_key("somebody")}
    with httpx.Client(base_url=closed_node.url, headers=headers, **HTTP) as client:
        assert client.post("/serve_model", json={"model_id": "m", "model": "x"}).status_code == 200
        assert client.get("/models").json()["models"] == ["m"]
        assert all(httpx.get(f"{closed_node.url}/v2/health/{one}").status_code == 200 for one in ("live", "ready"))


def test_a_closed_node_asks_every_event_for_a_key(closed_node):
    names = [name for name in reference.EVENTS["/"] if name.startswith("/")]
    assert len(names) > 12
    with contextlib.closing(Socket(closed_node.url)) as socket:
        answers = {name: socket.call(name, {"model_id": "m"}) for name in names}
    assert {name for name, answer in answers.items() if answer["code"] != "missing_key"} == set()


# --- size ----------------------------------------------------------------------------------------------------------


def test_a_model_of_alexnets_size_costs_no_memory(node, http_client, new_id, tmp_path):
    file, size = tmp_path / "alexnet", 244_408_911
    with file.open("wb") as opened:
        opened.truncate(size)
    fields = {"model_id": new_id(), "allow_download": "True"}
    web = max(psutil.Process(node.pid).children(), key=lambda process: process.memory_info().rss)
    before, most, done = web.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.01):
            most = max(most, web.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with file.open("rb") as opened:
            assert http_client.post("/serve_model", data=fields, files={"model": opened}).status_code == 200
        with http_client.stream("GET", f"/models/{fields['model_id']}/content") as answer:
            assert sum(len(piece) for piece in answer.iter_bytes()) == size
    finally:
        done.set()
        watcher.join()
    assert most - before < 32 * 1024 * 1024
    assert most > 0
