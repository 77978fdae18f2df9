"""Files of workers and clients on a running node: every odd body and name, and the published client's `files`."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import random
import socket
import subprocess
from pathlib import Path

import pytest
import requests

from tests.faults import locked
from tests.nodes import ROOT, running_node, until

PYTHON = Path(os.environ.get("GRID_TEST_REPLICATE_PYTHON") or ROOT / ".venv-replicate" / "bin" / "python")
MIB = 1024 * 1024
LIMIT = 12 * MIB
CONTENT = random.Random(7).randbytes(10 * MIB)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
UPLOAD = "/pc/client-api/upload/"
FILES = "/pc/client-api/files/"
PUBLIC = "https://grid.example/base"


class Worker:
    """Speaks to the node as a Cog worker does, or worse."""

    def __init__(self, node):
        self.node = node
        self.runner, self.client = node.add_key("worker", ("runner",)), node.add_key("client", ("client",))

    def put(self, name="x.bin", content=b"bytes", key=None, **headers):
        """The name as it is given, whatever that does to the address."""
        given = {"X-API-KEY": key or self.runner, **{name.replace("_", "-"): value for name, value in headers.items()}}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.node.port, timeout=30)) as peer:
            peer.request("PUT", UPLOAD + name, content, given, encode_chunked="Transfer-Encoding" in given)
            return Answer(peer.getresponse())

    def get(self, url, **headers):
        """Where the answer says that the file is, on this machine."""
        assert url.startswith(PUBLIC + FILES)
        return requests.get(self.node.url + url.removeprefix(PUBLIC), headers=headers, timeout=30)

    def say(self, *pieces, shut=False, whole=True):
        """Raw bytes; then what comes back, the head at least. `shut`: nothing more is sent."""
        with socket.create_connection(("127.0.0.1", self.node.port), timeout=30) as peer:
            for piece in pieces:
                peer.sendall(piece)
            if shut:
                peer.shutdown(socket.SHUT_WR)
            if not whole:
                return None
            answer = http.client.HTTPResponse(peer)
            answer.begin()
            return Answer(answer)

    def head(self, *headers, name="x.bin", key=True):
        lines = [f"PUT {UPLOAD}{name} HTTP/1.1", "Host: x", *headers, *([f"X-API-KEY: {self.runner}"] if key else [])]
        return "\r\n".join([*lines, "", ""]).encode()

    def blobs(self):
        folder = self.node.data / "blobs"
        return {path.name for path in folder.rglob("*") if path.is_file()}


class Answer:
    def __init__(self, answer):
        self.status, self.headers = answer.status, answer.headers
        self.text = answer.read().decode()

    @property
    def json(self):
        return json.loads(self.text)

    @property
    def refusal(self):
        return self.status, self.json["code"], self.json["error"]


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    limits = {
        "upload_max_bytes": LIMIT,
        "upload_idle_timeout_s": 1,
        "upload_per_prediction_files": 2,
        "lock_timeout": 0.5,
    }
    with running_node(tmp_path_factory.mktemp("files"), public_base_url=PUBLIC + "/", **limits) as node:
        yield Worker(node)


# --- as Cog sends


def test_an_upload_says_what_was_stored_and_where(worker) -> None:
    answer = worker.put("7_0_out.png", PNG, X_Prediction_ID="7", Content_Type="image/png")
    assert answer.status == 201
    url = answer.headers["Location"]
    assert answer.json == {
        "url": url,
        "key": url.removeprefix(PUBLIC + FILES),
        "size": len(PNG),
        "sha256": hashlib.sha256(PNG).hexdigest(),
        "content_type": "image/png",
        "filename": "out.png",
        "index": 0,
        "prediction_id": "7",
    }
    assert worker.get(url).content == PNG


def test_the_same_twice_is_one_file_and_other_bytes_are_two(worker) -> None:
    first, again, other = (worker.put("image.png", content) for content in (b"one", b"one", b"two"))
    assert [answer.status for answer in (first, again, other)] == [201, 200, 201]
    assert first.headers["Location"] == again.headers["Location"] != other.headers["Location"]
    assert [worker.get(one.headers["Location"]).content for one in (first, other)] == [b"one", b"two"]


def test_every_way_to_show_a_key_counts_x_api_key_first(worker) -> None:
    key = worker.runner
    basic = base64.b64encode(f"runner:{key}".encode()).decode()
    ways = (
        {"X-API-KEY": key, "Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"Basic {basic}"},
    )
    for number, headers in enumerate(ways):
        answer = requests.put(f"{worker.node.url}{UPLOAD}way{number}", data=b"x", headers=headers, timeout=30)
        assert answer.status_code == 201


def test_ten_mib_in_chunks_arrive_whole(worker) -> None:
    pieces = (CONTENT[start : start + 70_000] for start in range(0, len(CONTENT), 70_000))
    answer = worker.put("big.bin", pieces, Transfer_Encoding="chunked")
    assert answer.status == 201
    assert answer.json["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert worker.get(answer.headers["Location"]).content == CONTENT


def test_an_empty_file_comes_with_a_length_in_chunks_or_with_neither(worker) -> None:
    said = [("Content-Length: 0", b""), ("Transfer-Encoding: chunked", b"0\r\n\r\n"), ("Accept: */*", b"")]
    for number, (header, body) in enumerate(said):
        answer = worker.say(worker.head(header, "Connection: close", name=f"empty{number}") + body)
        assert (answer.status, answer.json["size"]) == (201, 0)
        assert worker.get(answer.headers["Location"]).content == b""


# --- names


@pytest.mark.parametrize(
    ("name", "filename"),
    [
        ("file", "file"),
        ("credential", "credential"),
        ("output/x.png", "x.png"),
        ("progress/7", "7"),
        ("..", "file"),
        ("%2e%2e", "file"),
        ("../../x", "x"),
        ("..%5c..%5cwin.ini", "win.ini"),
        ("%2e%2e%2f%2e%2e%2fpasswd", "passwd"),
        ("%00x", "x"),
        ("a%0d%0ab", "ab"),
        (".htaccess", ".htaccess"),
        ("n" * 300, "n" * 255),
        ("%ff%fe.png", "\ufffd\ufffd.png"),
        ("a%20b", "a b"),
        ("q?x.png", "q"),
        ("p%2Fx.png", "x.png"),
        ("", "file"),
        ("/", "file"),
        ("None_3_x.png", "x.png"),
        ("%E5%9B%BE.png", "图.png"),
        ("x%22;y=%25.txt", 'x";y=%.txt'),
        ("<script>.html", "<script>.html"),
    ],
)
def test_every_name_is_stored_and_comes_back(worker, name, filename) -> None:
    content = b"<html>" + name.encode()
    answer = worker.put(name, content)
    assert answer.status == 201
    assert answer.json["filename"] == filename
    shown = worker.get(answer.headers["Location"])
    assert shown.content == content
    assert shown.headers["Content-Disposition"].startswith("attachment; filename=")


def test_a_name_that_is_not_quoted_at_all_is_stored(worker) -> None:
    head = worker.head("Content-Length: 1", "Connection: close", name="RAW").replace(b"RAW", b"\xff\xe5\x9b\xbe.png")
    answer = worker.say(head + b"x")
    assert answer.status == 201
    assert worker.get(answer.headers["Location"]).content == b"x"


def test_nothing_was_written_but_blobs(worker) -> None:
    answer = worker.put("../../../evil.txt", b"evil bytes")
    folder = worker.node.data
    assert list(folder.parent.rglob("*evil*")) == []
    found = [path for path in folder.rglob("*") if path.is_file() and path.name == answer.json["sha256"]]
    assert [path.read_bytes() for path in found] == [b"evil bytes"]
    assert (folder / "blobs") in found[0].parents


# --- refused


def test_only_put_uploads(worker) -> None:
    for method in ("POST", "GET", "DELETE", "PATCH"):
        answer = requests.request(method, f"{worker.node.url}{UPLOAD}x.png", timeout=30)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "PUT")
        assert (answer.json()["code"], answer.json()["error"]) == ("method_not_allowed", "Method not allowed.")


def test_who_may_not_upload_is_told_before_a_byte_is_read(worker) -> None:
    announced = "Content-Length: 1000000"
    answer = worker.say(worker.head(announced, key=False))
    assert answer.refusal == (401, "missing_key", "API key is missing.")
    answer = worker.say(worker.head(announced, "X-API-KEY: wrong", key=False))
    assert answer.refusal == (401, "invalid_key", "API key is not valid.")
    answer = worker.say(worker.head(announced, f"X-API-KEY: {worker.client}", key=False))
    assert answer.refusal == (403, "wrong_scope", "API key lacks the scope runner.")


TOO_LARGE = (413, "file_too_large", f"File is larger than {LIMIT} bytes.")


def test_too_large_by_its_length_or_by_count_is_refused_and_leaves_nothing(worker) -> None:
    before = worker.blobs()
    assert worker.put("large", bytes(LIMIT + 1)).refusal == TOO_LARGE
    pieces = (bytes(70_000) for _ in range(LIMIT // 70_000 + 1))
    assert worker.put("large", pieces, Transfer_Encoding="chunked").refusal == TOO_LARGE
    assert worker.blobs() == before
    assert worker.put("large", bytes(LIMIT)).status == 201


def test_a_sender_that_looks_for_an_answer_only_at_the_end_reads_the_refusal(worker) -> None:
    body = bytes(60 * MIB)
    for headers in (["Connection: close"], ["Accept: */*"]):
        answer = worker.say(worker.head(f"Content-Length: {len(body)}", *headers), body)
        assert answer.refusal == TOO_LARGE
    answer = worker.say(worker.head(f"Content-Length: {len(body)}", key=False), body)
    assert answer.status == 401


def test_after_a_refused_body_the_connection_serves_the_next_request(worker) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", worker.node.port, timeout=30)) as peer:
        for _ in range(2):
            peer.request("PUT", UPLOAD + "x", bytes(3 * MIB), {})
            answer = peer.getresponse()
            assert (answer.status, json.loads(answer.read())["code"]) == (401, "missing_key")


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("Content-Length: 1000", b"ten bytes."),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\nnonsense\r\n"),
        ("Transfer-Encoding: chunked", b"5\r\nhel"),
    ],
)
def test_a_body_that_ends_early_is_refused_and_leaves_nothing(worker, header, body) -> None:
    before = worker.blobs()
    answer = worker.say(worker.head(header, "Connection: close") + body, shut=True)
    assert answer.refusal == (400, "body_incomplete", "Body ended early.")
    assert worker.blobs() == before


def test_a_connection_that_is_cut_leaves_nothing(worker) -> None:
    before = worker.blobs()
    worker.say(worker.head("Content-Length: 1000000"), CONTENT[:500_000], whole=False)
    until(lambda: worker.blobs() == before)
    assert worker.put("after.bin", b"after").status in {200, 201}


@pytest.mark.parametrize(
    ("header", "body"), [("Content-Length: 1000", b"ten bytes."), ("Transfer-Encoding: chunked", b"5\r\nhello\r\n")]
)
def test_a_sender_that_falls_silent_is_given_up(worker, header, body) -> None:
    before = worker.blobs()
    answer = worker.say(worker.head(header) + body)
    assert answer.refusal == (408, "upload_timeout", "Upload stalled.")
    assert worker.blobs() == before


def test_a_prediction_has_a_quota(worker) -> None:
    for index in range(2):
        assert worker.put(f"q_{index}_x", X_Prediction_ID="q").status == 201
    answer = worker.put("q_2_x", X_Prediction_ID="q")
    assert answer.refusal == (413, "quota_exceeded", "Upload quota exceeded.")
    assert (answer.json["used"], answer.json["limit"]) == (2, 2)


def test_while_the_database_is_locked_a_worker_is_asked_to_try_again(worker) -> None:
    before = worker.blobs()
    with locked(worker.node):
        answer = worker.put("locked.bin", b"locked")
    assert answer.refusal == (503, "try_again", "Temporarily unavailable.")
    assert int(answer.headers["Retry-After"]) == answer.json["retry_after"] == 1
    assert worker.put("locked.bin", b"locked").status == 201
    assert len(worker.blobs() - before) == 1


def test_an_answer_comes_in_an_envelope_where_one_is_asked_for(worker) -> None:
    answer = worker.put("enveloped", X_Response_Envelope="1")
    assert (answer.json["httpStatus"], answer.json["data"]["filename"]) == (answer.status, "enveloped")


# --- served


def test_only_what_a_browser_may_show_is_shown_where_it_stands(worker) -> None:
    png, html = (
        worker.put("%E5%9B%BE%201.png", PNG, Content_Type="text/html"),
        worker.put("page.png", b"<html><script>"),
    )
    shown, kept = (worker.get(answer.headers["Location"]) for answer in (png, html))
    assert shown.headers["Content-Type"] == "image/png"
    assert shown.headers["Content-Disposition"] == "inline; filename=\" 1.png\"; filename*=UTF-8''%E5%9B%BE%201.png"
    assert kept.headers["Content-Disposition"] == "attachment; filename=page.png"
    for answer in (shown, kept):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"


def test_a_file_is_read_in_part_by_condition_and_by_head(worker) -> None:
    stored = worker.put("part.bin", CONTENT[:1000])
    url, etag = stored.headers["Location"], f'"{stored.json["sha256"]}"'
    part = worker.get(url, Range="bytes=10-19")
    assert (part.status_code, part.content, part.headers["ETag"]) == (206, CONTENT[10:20], etag)
    assert part.headers["Content-Range"] == "bytes 10-19/1000"
    assert worker.get(url, **{"If-None-Match": etag}).status_code == 304
    assert worker.get(url, Range="bytes=1000-").status_code == 416
    head = requests.head(worker.node.url + url.removeprefix(PUBLIC), timeout=30)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "1000", b"")


@pytest.mark.parametrize("key", ["a" * 32, "a" * 32 + ".png", "x", "%2e%2e", "%00"])
def test_a_key_that_is_none_is_not_found(worker, key) -> None:
    answer = requests.get(worker.node.url + FILES + key, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")
    assert answer.json()["error"] == "File not found."


# --- files of clients


CALLS = """
import io, json, sys
from replicate.client import Client
from replicate.exceptions import ReplicateError
client = Client(api_token=sys.argv[2], base_url=sys.argv[1])
def shown(file): return json.loads(file.json())
told = {}
named = io.BytesIO(b"content"); named.name = "naïve.png"
told["made"] = shown(client.files.create(named, metadata={"purpose": "test"}))
told["other"] = shown(client.files.create(io.BytesIO(b""), filename="empty.txt", content_type="text/x-odd"))
told["got"] = shown(client.files.get(told["made"]["id"]))
told["listed"] = [file.id for file in client.files.list()]
told["deleted"] = client.files.delete(told["made"]["id"])
told["left"] = [file.id for file in client.files.list()]
try: client.files.get(told["made"]["id"])
except ReplicateError as error: told["gone"] = [error.status, error.title, error.detail]
print(json.dumps(told))
"""


def test_the_published_client_keeps_its_files_here(worker) -> None:
    if not PYTHON.exists():
        pytest.skip("no environment with replicate (GRID_TEST_REPLICATE_PYTHON)")
    key = worker.node.add_key("replicate")
    command = [str(PYTHON), "-c", CALLS, worker.node.url, key]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    made, other = told["made"], told["other"]
    assert (made["name"], made["content_type"], made["size"]) == ("naïve.png", "image/png", 7)
    assert made["metadata"] == {"purpose": "test"}
    assert made["checksums"] == {"sha256": hashlib.sha256(b"content").hexdigest()}
    assert made["urls"]["get"] == PUBLIC + FILES + made["id"]
    assert (other["name"], other["content_type"], other["size"]) == ("empty.txt", "text/x-odd", 0)
    assert told["got"] == made
    assert told["listed"] == [other["id"], made["id"]]
    assert (told["deleted"], told["left"]) == (True, [other["id"]])
    assert told["gone"] == [404, "File not found.", "File not found."]
    assert worker.get(other["urls"]["get"]).content == b""


def form(worker, *parts, key=None, **headers):
    given = {"Authorization": f"Bearer {key or worker.client}", **headers}
    return requests.post(f"{worker.node.url}/v1/files", files=parts or None, headers=given, timeout=30)


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ([("metadata", (None, "{}"))], "content"),
        ([("content", ("a", b"x")), ("metadata", (None, "[]"))], "metadata"),
        ([("content", ("a", b"x")), ("metadata", (None, "{"))], "metadata"),
        ([("content", ("a", b"x")), ("metadata", (None, b'{"a":"\xff"}'))], "metadata"),
        ([("content", ("a", b"x")), ("metadata", (None, "x" * 65537))], "metadata"),
        ([("content", ("a", b"x")), ("content", ("b", b"y"))], "content"),
    ],
)
def test_a_form_that_is_no_file_is_refused(worker, parts, field) -> None:
    before = worker.blobs()
    answer = form(worker, *parts)
    assert (answer.status_code, list(answer.json()["fields"])) == (400, [field])
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert worker.blobs() == before


def test_a_file_of_a_client_has_the_same_limit(worker) -> None:
    before = worker.blobs()
    answer = form(worker, ("content", ("a", bytes(LIMIT + 1))))
    assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (413, "file_too_large", LIMIT)
    answer = form(worker, ("content", ("a", bytes(LIMIT + MIB))))
    assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (413, "file_too_large", LIMIT)
    assert worker.blobs() == before


def test_a_file_of_a_client_takes_a_form_and_the_right_key(worker) -> None:
    answer = requests.post(f"{worker.node.url}/v1/files", data=b"{}", headers={"X-API-KEY": worker.client}, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    answer = form(worker, ("content", ("a", b"x")), key=worker.runner)
    assert (answer.status_code, answer.json()["error"]) == (403, "API key lacks the scope client.")


def test_a_file_of_somebody_else_is_none(worker) -> None:
    made = form(worker, ("content", ("a.txt", b"mine"))).json()
    theirs = {"Authorization": f"Bearer {worker.node.add_key('other')}"}
    address = f"{worker.node.url}/v1/files/{made['id']}"
    for method in ("GET", "DELETE"):
        answer = requests.request(method, address, headers=theirs, timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")
    listed = requests.get(f"{worker.node.url}/v1/files", headers=theirs, timeout=30).json()
    assert listed == {"previous": None, "next": None, "results": []}
    assert worker.get(made["urls"]["get"]).content == b"mine"
