"""tus 1.0.0 header by header: every answer that the protocol and the house prescribe."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from grid_node.clock import ManualClock
from tests.contract.uploads.app import create_app
from tests.stores import call

ROOT = "/worker/uploads"
MAX_BYTES = 1000
PIECE = "application/offset+octet-stream"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def client(tmp_path: Path, clock: ManualClock) -> Iterator[FlaskClient]:
    app = create_app(tmp_path, call, clock=clock, max_bytes=MAX_BYTES)
    yield app.test_client()
    app.extensions["store"].close()


def tus(**headers: str) -> dict[str, str]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"Tus-Resumable": "1.0.0", "X-Owner": "5Owner", **given}


def create(client: FlaskClient, length: int = 10, **headers: str) -> str:
    answer = client.post(ROOT, headers=tus(Upload_Length=str(length), **headers))
    assert answer.status_code == 201
    return answer.headers["Location"]


def patch(client: FlaskClient, url: str, offset: object, content: bytes, **headers: str):
    given = tus(Upload_Offset=str(offset), Content_Type=PIECE, **headers)
    return client.patch(url, data=content, headers=given)


def test_options_tells_what_is_offered_without_version_or_identity(client: FlaskClient) -> None:
    for url in (ROOT, ROOT + "/", ROOT + "/any"):
        answer = client.options(url)
        assert (answer.status_code, answer.data) == (204, b"")
        assert answer.headers["Tus-Version"] == "1.0.0"
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert answer.headers["Tus-Extension"] == "creation,checksum,expiration,termination"
        assert answer.headers["Tus-Max-Size"] == str(MAX_BYTES)
        assert answer.headers["Tus-Checksum-Algorithm"] == "sha1,sha256"


def test_an_upload_from_creation_to_status(client: FlaskClient) -> None:
    url = create(client, Upload_Metadata="lease_id TDE=")
    assert url.startswith(ROOT + "/")
    first = patch(client, url, 0, b"01234")
    assert (first.status_code, first.headers["Upload-Offset"]) == (204, "5")
    assert "Upload-Expires" in first.headers
    head = client.head(url, headers=tus())
    assert head.status_code == 200
    assert head.headers["Upload-Offset"] == "5"
    assert head.headers["Upload-Length"] == "10"
    assert head.headers["Upload-Metadata"] == "lease_id TDE="
    assert head.headers["Cache-Control"] == "no-store"
    assert client.get(url, headers=tus()).json["state"] == "receiving"
    assert patch(client, url, 5, b"56789").headers["Upload-Offset"] == "10"
    assert client.get(url, headers=tus()).json == {
        "success": True,
        "state": "stored",
        "offset": 10,
        "length": 10,
        "size": 10,
        "sha256": hashlib.sha256(b"0123456789").hexdigest(),
        "error": None,
    }


def test_creation_says_when_the_upload_expires(client: FlaskClient, clock: ManualClock) -> None:
    answer = client.post(ROOT, headers=tus(Upload_Length="1"))
    assert answer.headers["Upload-Expires"] == "Fri, 15 Jan 2027 09:00:00 GMT"
    clock.advance(3600)
    gone = client.head(answer.headers["Location"], headers=tus())
    assert gone.status_code == 410
    assert client.get(answer.headers["Location"], headers=tus()).json["code"] == "upload_expired"


@pytest.mark.parametrize("slash", ["", "/"])
def test_one_trailing_slash_is_tolerated_without_a_redirect(client: FlaskClient, slash: str) -> None:
    url = client.post(ROOT + slash, headers=tus(Upload_Length="3")).headers["Location"]
    assert patch(client, url + slash, 0, b"abc").status_code == 204
    assert client.head(url + slash, headers=tus()).headers["Upload-Offset"] == "3"


@pytest.mark.parametrize("version", [None, "", "0.2.2", "1.0.1"])
def test_a_wrong_version_is_412_with_the_right_one(client: FlaskClient, version: str | None) -> None:
    url = create(client)
    headers = tus(Upload_Length="1", Upload_Offset="0", Content_Type=PIECE)
    headers = {name: value for name, value in headers.items() if name != "Tus-Resumable"}
    if version is not None:
        headers["Tus-Resumable"] = version
    for method, path in (("POST", ROOT), ("HEAD", url), ("PATCH", url), ("DELETE", url), ("GET", url)):
        answer = client.open(path, method=method, headers=headers)
        assert answer.status_code == 412
        assert answer.headers["Tus-Version"] == "1.0.0"
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 400, "invalid_payload"),
        ({"Upload-Length": "0"}, 400, "invalid_payload"),
        ({"Upload-Length": "-1"}, 400, "invalid_payload"),
        ({"Upload-Length": "1.5"}, 400, "invalid_payload"),
        ({"Upload-Length": "NaN"}, 400, "invalid_payload"),
        ({"Upload-Length": "9" * 30}, 400, "invalid_payload"),
        ({"Upload-Defer-Length": "1"}, 400, "invalid_payload"),
        ({"Upload-Length": "5", "Upload-Defer-Length": "1"}, 400, "invalid_payload"),
        ({"Upload-Length": str(MAX_BYTES + 1)}, 413, "upload_too_large"),
        ({"Upload-Length": "5", "Upload-Metadata": "a !"}, 400, "invalid_payload"),
    ],
)
def test_a_bad_creation_is_refused_and_never_has_a_location(
    client: FlaskClient, headers: dict[str, str], status: int, code: str
) -> None:
    answer = client.post(ROOT, headers={**tus(), **headers})
    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert "Location" not in answer.headers


def test_an_empty_metadata_header_is_none(client: FlaskClient) -> None:
    assert "Upload-Metadata" not in client.head(create(client, Upload_Metadata=""), headers=tus()).headers


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "application/octet-stream"}, 415, "unsupported_media_type"),
        ({"Content-Type": ""}, 415, "unsupported_media_type"),
        ({"Upload-Offset": ""}, 400, "invalid_payload"),
        ({"Upload-Offset": "-1"}, 400, "invalid_payload"),
        ({"Upload-Offset": "1"}, 409, "offset_mismatch"),
        ({"Upload-Checksum": "md5 YQ=="}, 400, "invalid_payload"),
        ({"Upload-Checksum": "sha1 YQ=="}, 400, "invalid_payload"),
        ({"Upload-Checksum": "sha1 " + base64.b64encode(bytes(20)).decode()}, 460, "checksum_mismatch"),
        ({"X-Owner": "5Other"}, 404, "upload_not_found"),
    ],
)
def test_a_bad_piece_is_refused_and_leaves_the_offset(
    client: FlaskClient, headers: dict[str, str], status: int, code: str
) -> None:
    url = create(client)
    given = {**tus(Upload_Offset="0", Content_Type=PIECE), **headers}
    answer = client.patch(url, data=b"01234", headers=given)
    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert client.head(url, headers=tus()).headers["Upload-Offset"] == "0"


def test_a_piece_beyond_the_announced_length_is_refused(client: FlaskClient) -> None:
    url = create(client, length=4)
    answer = patch(client, url, 0, b"01234")
    assert (answer.status_code, answer.json["code"]) == (413, "upload_too_large")
    assert client.head(url, headers=tus()).headers["Upload-Offset"] == "0"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_right_checksum_is_accepted(client: FlaskClient, algorithm: str) -> None:
    url = create(client, length=5)
    digest = base64.b64encode(hashlib.new(algorithm, b"01234").digest()).decode()
    answer = patch(client, url, 0, b"01234", Upload_Checksum=f"{algorithm} {digest}")
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, "5")


def test_the_method_can_be_overridden(client: FlaskClient) -> None:
    url = create(client, length=3)
    headers = tus(Upload_Offset="0", Content_Type=PIECE, X_HTTP_Method_Override="PATCH")
    assert client.post(url, data=b"abc", headers=headers).status_code == 204
    gone = client.post(url, headers=tus(X_HTTP_Method_Override="DELETE"))
    assert gone.status_code == 204


def test_delete_makes_the_upload_unknown(client: FlaskClient) -> None:
    url = create(client)
    assert client.delete(url, headers=tus()).status_code == 204
    for method in ("HEAD", "GET", "DELETE"):
        assert client.open(url, method=method, headers=tus()).status_code == 404


def test_another_owner_sees_the_same_404_as_for_an_unknown_id(client: FlaskClient) -> None:
    url = create(client)
    others = client.get(url, headers=tus(X_Owner="5Other"))
    unknown = client.get(f"{ROOT}/{'0' * 32}", headers=tus())
    assert (others.status_code, others.data) == (unknown.status_code, unknown.data) == (404, others.data)
    assert others.json["code"] == "upload_not_found"


def test_without_identity_nothing_is_told(client: FlaskClient) -> None:
    url = create(client)
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "5"}
    for method, path in (("POST", ROOT), ("HEAD", url), ("PATCH", url), ("DELETE", url), ("GET", url)):
        assert client.open(path, method=method, headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("path", "allow"), [(ROOT, "OPTIONS, POST"), (ROOT + "/x", "DELETE, GET, HEAD, OPTIONS, PATCH")]
)
def test_another_method_is_405_with_allow(client: FlaskClient, path: str, allow: str) -> None:
    answer = client.put(path, headers=tus())
    assert (answer.status_code, answer.headers["Allow"]) == (405, allow)
    assert answer.json["code"] == "method_not_allowed"
