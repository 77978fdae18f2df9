"""The answer that carries a blob."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.contract.uploads.app import create_app
from tests.stores import call

CONTENT = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
ETAG = f'"{DIGEST}"'
URL = f"/files/{DIGEST}"
SIZE = len(CONTENT)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    app = create_app(tmp_path, call)
    app.extensions["blobs"].put(CONTENT)
    yield app.test_client()
    app.extensions["store"].close()


def test_a_whole_answer_names_its_bytes(client: FlaskClient) -> None:
    answer = client.get(URL)
    assert (answer.status_code, answer.data) == (200, CONTENT)
    assert answer.headers["ETag"] == ETAG
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Length"] == str(SIZE)
    assert answer.headers["Content-Disposition"] == f"attachment; filename={DIGEST[:8]}.ply"


def test_head_has_the_headers_of_get_and_no_body(client: FlaskClient) -> None:
    head, whole = client.head(URL), client.get(URL)
    assert head.data == b""
    assert head.status_code == 200
    same = ("ETag", "Accept-Ranges", "Content-Length", "Content-Disposition", "Content-Type")
    assert [head.headers[name] for name in same] == [whole.headers[name] for name in same]


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [("bytes=100-199", 100, 200), ("bytes=-1", SIZE - 1, SIZE), ("bytes=300000-", 300_000, SIZE)],
)
def test_a_single_range_is_206(client: FlaskClient, header: str, start: int, end: int) -> None:
    answer = client.get(URL, headers={"Range": header})
    assert (answer.status_code, answer.data) == (206, CONTENT[start:end])
    assert answer.headers["Content-Length"] == str(end - start)
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["ETag"] == ETAG


@pytest.mark.parametrize("header", [f"bytes={SIZE}-", "bytes=-0", "bytes=0-1,5-6"])
def test_an_unsatisfiable_or_multiple_range_is_416(client: FlaskClient, header: str) -> None:
    answer = client.get(URL, headers={"Range": header})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert answer.json["code"] == "range_not_satisfiable"


@pytest.mark.parametrize("header", ["bytes=5-2", "lines=0-1", "bytes=x"])
def test_a_meaningless_range_is_ignored(client: FlaskClient, header: str) -> None:
    assert client.get(URL, headers={"Range": header}).status_code == 200


@pytest.mark.parametrize(
    ("condition", "status"),
    [(ETAG, 206), ('"old"', 200), (f"W/{ETAG}", 200), ("Fri, 15 Jan 2027 09:00:00 GMT", 200), (DIGEST, 200)],
)
def test_if_range_holds_only_for_the_same_strong_etag(client: FlaskClient, condition: str, status: int) -> None:
    answer = client.get(URL, headers={"Range": "bytes=0-9", "If-Range": condition})
    assert answer.status_code == status
    assert answer.data == (CONTENT[:10] if status == 206 else CONTENT)


@pytest.mark.parametrize("known", [ETAG, f"W/{ETAG}", f'"other", {ETAG}', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_the_reader_has_is_304(client: FlaskClient, known: str, method: str) -> None:
    answer = client.open(URL, method=method, headers={"If-None-Match": known, "Range": "bytes=0-1"})
    assert (answer.status_code, answer.data) == (304, b"")
    assert answer.headers["ETag"] == ETAG


def test_another_etag_is_no_match(client: FlaskClient) -> None:
    assert client.get(URL, headers={"If-None-Match": '"other"'}).status_code == 200


def test_an_unknown_blob_is_404(client: FlaskClient) -> None:
    assert client.get("/files/" + "0" * 64).json["code"] == "not_found"


def test_an_empty_blob_is_an_empty_answer(client: FlaskClient) -> None:
    client.application.extensions["blobs"].put(b"")
    answer = client.get("/files/" + hashlib.sha256(b"").hexdigest())
    assert (answer.status_code, answer.data, answer.headers["Content-Length"]) == (200, b"", "0")
