"""The bytes of a model as they are: whole, in part, and only if they changed (RFC 9110, sections 13 to 15)."""

import base64
import hashlib
import os
from collections.abc import Iterator

import httpx
import pytest

from tests.text_node import HTTP

CONTENT = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def client(text_node) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=text_node.url, **HTTP) as made:
        yield made


@pytest.fixture(scope="module")
def path(client) -> str:
    """Version 1 of a model of which there is a second."""
    model_id = f"content-{os.urandom(4).hex()}"
    for content, wish in ((CONTENT, {}), (b"another", {"version": "new"})):
        fields = {"model_id": model_id, "allow_download": "True", **wish}
        assert client.post("/serve_model", data=fields, files={"model": content}).status_code == 200
    return f"/models/{model_id}/versions/1/content"


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


ETAG = f'"{digest_of(CONTENT)}"'
OLD = f'"{digest_of(b"another")}"'


def test_the_head_tells_everything_and_sends_nothing(client, path):
    for answer, body in ((client.get(path), CONTENT), (client.head(path), b"")):
        assert (answer.status_code, answer.content) == (200, body)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Length"] == str(len(CONTENT))
        assert answer.headers["ETag"] == ETAG
        assert answer.headers["Accept-Ranges"] == "bytes"
        digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
        assert answer.headers["Repr-Digest"] == f"sha-256=:{digest}:"
        assert answer.headers["Model-Version"] == "1"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_without_a_version_the_newest_is_sent(client, path):
    answer = client.get(path.replace("/versions/1", ""))
    assert (answer.content, answer.headers["Model-Version"], answer.headers["ETag"]) == (b"another", "2", OLD)


def test_it_is_never_compressed(client, path):
    answer = client.get(path, headers={"Accept-Encoding": "gzip, deflate, br, zstd"})
    assert "Content-Encoding" not in answer.headers
    assert answer.content == CONTENT


@pytest.mark.parametrize(
    ("headers", "status", "start", "end"),
    [
        ({"Range": "bytes=100-199"}, 206, 100, 200),
        ({"Range": "bytes=-1"}, 206, 1023, 1024),
        ({"Range": "bytes=0-"}, 206, 0, 1024),
        ({"Range": "bytes=1000-9999"}, 206, 1000, 1024),
        ({"Range": "bytes=-9999"}, 206, 0, 1024),
        ({"Range": "bytes=0-0"}, 206, 0, 1),
        ({"Range": "bytes=100-199", "If-Range": OLD}, 200, 0, 1024),
        ({"Range": "bytes=100-199", "If-Range": ETAG}, 206, 100, 200),
        ({"Range": "bytes=100-199", "If-Range": f"W/{ETAG}"}, 200, 0, 1024),
        ({"Range": "pages=1-2"}, 200, 0, 1024),
        ({"Range": "bytes=5-2"}, 200, 0, 1024),
    ],
)
def test_a_part_is_sent(client, path, headers, status, start, end):
    answer = client.get(path, headers=headers)
    assert (answer.status_code, answer.content) == (status, CONTENT[start:end])
    assert answer.headers["ETag"] == ETAG
    assert answer.headers["Repr-Digest"] == client.head(path).headers["Repr-Digest"]
    assert answer.headers.get("Content-Range") == (f"bytes {start}-{end - 1}/1024" if status == 206 else None)


@pytest.mark.parametrize("wanted", ["bytes=1024-", "bytes=5000-6000", "bytes=-0", "bytes=0-1,5-6", "bytes=0-,-1"])
def test_a_part_that_is_not_there(client, path, wanted):
    answer = client.get(path, headers={"Range": wanted})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == "bytes */1024"
    assert "Repr-Digest" not in answer.headers


@pytest.mark.parametrize("known", [ETAG, f"W/{ETAG}", f"{OLD}, {ETAG}", "*"])
def test_what_the_caller_has_is_not_sent_again(client, path, known):
    for send in (client.get, client.head):
        answer = send(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        assert (answer.headers["ETag"], answer.headers["Model-Version"]) == (ETAG, "1")
    assert client.get(path, headers={"If-None-Match": OLD}).content == CONTENT


def test_the_proposed_name_is_plain_whatever_the_id(client):
    model_id = f'é "x"; {os.urandom(4).hex()}'
    fields = {"model_id": model_id, "allow_download": True, "model": "x", "format": "opaque"}
    client.post("/serve_model", json=fields)
    answer = client.get(httpx.URL(client.base_url, path=f"/models/{model_id}/content"))
    name = answer.headers["Content-Disposition"]
    assert name.isascii()
    assert name.startswith("attachment; filename=_x_")
    assert name.endswith("-1.bin")


def test_a_download_outlives_the_deletion_of_the_model(client):
    model_id, content = f"large-{os.urandom(4).hex()}", os.urandom(20_000_000)
    fields = {"model_id": model_id, "allow_download": "True"}
    assert client.post("/serve_model", data=fields, files={"model": content}).status_code == 200
    with client.stream("GET", f"/models/{model_id}/content") as answer:
        pieces = answer.iter_bytes(65536)
        received = next(pieces)
        client.post("/delete_model", json={"model_id": model_id})
        assert client.get(f"/models/{model_id}/content").status_code == 404
        received += b"".join(pieces)
    assert digest_of(received) == answer.headers["ETag"].strip('"')
