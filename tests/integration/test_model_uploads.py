"""Models by tus on a whole node: every answer, the published client, a node that dies, memory."""

import base64
import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.nodes import LiveNode, running_node, until
from tests.tus_client import Tuspy, tuspy

__all__ = ["tuspy"]

MIB = 1024 * 1024
PIECE = "application/offset+octet-stream"
CONTENT = bytes(range(256)) * 4
SHA256 = hashlib.sha256(CONTENT).hexdigest()
DEADLINE = 30.0


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class Peer:
    """A client of one node, with or without a key."""

    def __init__(self, node: LiveNode, key: str | None = None) -> None:
        self.node = node
        self.key = key

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given = {"Tus-Resumable": "1.0.0", **({"X-API-Key": self.key} if self.key else {}), **given}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.node.port, timeout=DEADLINE)) as peer:
            peer.request(method, path, body, given)
            answer = peer.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())

    def create(self, length: int = len(CONTENT), **fields: str) -> Answer:
        return self.ask("POST", "/uploads", Upload_Length=str(length), Upload_Metadata=metadata(**fields))

    def created(self, length: int = len(CONTENT), **fields: str) -> str:
        answer = self.create(length, **fields)
        assert answer.status == 201, answer.content
        return answer.headers["Location"]

    def patch(self, url: str, offset: int, content: Any, **headers: str) -> Answer:
        return self.ask("PATCH", url, content, **{"Upload_Offset": str(offset), "Content_Type": PIECE, **headers})

    def state(self, url: str) -> dict[str, Any]:
        return self.ask("GET", url).json

    def offset(self, url: str) -> int:
        return int(self.ask("HEAD", url).headers["Upload-Offset"])

    def models(self) -> list[str]:
        return self.ask("GET", "/models").json["models"]

    def rows(self) -> list[dict[str, Any]]:
        return self.ask("GET", "/detailed_models_list").json["models"]


def metadata(**fields: str) -> str:
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in fields.items())


def blobs_of(node: LiveNode) -> set[str]:
    return {path.name for path in (node.data / "blobs").glob("??/??/*")}


def partials_of(node: LiveNode) -> list[Path]:
    return list((node.data / "uploads").iterdir())


@contextlib.contextmanager
def running(folder: Path, **settings: Any) -> Iterator[LiveNode]:
    with running_node(folder, compute_processes=0, **settings) as node:
        yield node


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    limits = {"models_max_bytes": 300 * MIB, "models_anonymous_quota_bytes": 350 * MIB}
    with running(tmp_path_factory.mktemp("node"), **limits) as made:
        yield made


@pytest.fixture(scope="module")
def anybody(node: LiveNode) -> Peer:
    return Peer(node)


@pytest.fixture(scope="module")
def owner(node: LiveNode) -> Peer:
    return Peer(node, node.add_key("owner"))


def test_the_last_piece_publishes_the_model_with_what_its_metadata_says(anybody: Peer) -> None:
    known = {"allow_download": "True", "tags": '["a", "b"]', "description": "é", "sha256": SHA256}
    url = anybody.created(model_id="whole", **known)
    assert anybody.patch(url, 0, CONTENT[:500]).headers["Upload-Offset"] == "500"
    receiving = anybody.state(url)
    assert (receiving["state"], receiving["model_id"], receiving["version"]) == ("receiving", None, None)
    done = anybody.patch(url, 500, CONTENT[500:])
    assert (done.status, done.headers["Model-Id"], done.headers["Model-Version"]) == (204, "whole", "1")
    published = anybody.state(url)
    expected = {"success": True, "state": "published", "model_id": "whole", "version": 1, "error": None}
    assert {name: published[name] for name in expected} == expected
    [row] = [row for row in anybody.rows() if row["id"] == "whole"]
    assert (row["tags"], row["description"], row["sha256"], row["size"]) == (["a", "b"], "é", SHA256, len(CONTENT))


def test_an_id_beyond_ascii_is_percent_coded_in_the_header(anybody: Peer) -> None:
    url = anybody.created(1, model_id="modèle 1")
    assert anybody.patch(url, 0, b"x").headers["Model-Id"] == "mod%C3%A8le 1"
    assert anybody.state(url)["model_id"] == "modèle 1"


@pytest.mark.parametrize(
    ("length", "fields", "status", "code"),
    [
        (1, {}, 400, "invalid_payload"),
        (1, {"model_id": "a/b"}, 400, "invalid_payload"),
        (1, {"model_id": "x", "allow_download": "true"}, 400, "invalid_payload"),
        (1, {"model_id": "x", "unknown": "1"}, 400, "invalid_payload"),
        (1, {"model_id": "x", "tags": "[1]"}, 400, "invalid_payload"),
        (1, {"model_id": "x", "tags": '["a'}, 400, "invalid_payload"),
        (1, {"model_id": "x", "model": "bytes"}, 400, "invalid_payload"),
        (0, {"model_id": "x"}, 400, "invalid_payload"),
        (300 * MIB + 1, {"model_id": "x"}, 413, "upload_too_large"),
        (1, {"model_id": "x", "format": "torchscript"}, 422, "format_not_available"),
        (1, {"model_id": "x", "format": "opaque", "allow_remote_inference": "True"}, 422, "format_not_runnable"),
        (1, {"model_id": "x", "version": "new"}, 404, "model_not_found"),
        (1, {"model_id": "x", "version": "3"}, 404, "model_not_found"),
    ],
)
def test_what_can_be_refused_before_the_bytes_is_and_has_no_location(
    anybody: Peer, length: int, fields: dict[str, str], status: int, code: str
) -> None:
    answer = anybody.create(length, **fields)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert "Location" not in answer.headers
    assert answer.headers["Tus-Resumable"] == "1.0.0"


def test_an_empty_metadata_header_names_no_model(anybody: Peer) -> None:
    assert anybody.create().json["fields"] == {"model_id": ["Missing data for required field."]}


def test_metadata_has_room_for_what_a_model_may_declare(anybody: Peer) -> None:
    tags = json.dumps([f"{number:02}" + "é" * 62 for number in range(32)], ensure_ascii=False)
    url = anybody.created(1, model_id="described", description="𝔤" * 4096, tags=tags)
    assert len(anybody.ask("HEAD", url).headers["Upload-Metadata"]) > 25_000
    assert anybody.patch(url, 0, b"x").status == 204
    assert anybody.create(1, model_id="x", architecture="[" + "1," * 23_250 + "1]").status == 400


def test_an_existing_id_is_told_before_any_byte_and_again_at_the_end(anybody: Peer) -> None:
    late = anybody.created(5, model_id="taken")
    first = anybody.created(5, model_id="taken")
    assert anybody.patch(first, 0, b"first").status == 204
    conflict = anybody.create(5, model_id="taken")
    assert (conflict.status, conflict.json["code"]) == (409, "model_exists")
    assert conflict.json["message"] == conflict.json["error"] == "Model id already exists."
    refused = anybody.patch(late, 0, b"other")
    assert (refused.status, refused.json["code"]) == (409, "model_exists")
    assert anybody.state(late)["state"] == "rejected"
    assert anybody.state(late)["error"]["code"] == "model_exists"
    digest = hashlib.sha256(b"other").hexdigest()
    assert digest not in blobs_of(anybody.node)
    assert hashlib.sha256(b"first").hexdigest() in blobs_of(anybody.node)


def test_a_wrong_checksum_of_a_piece_is_460_and_leaves_the_offset(anybody: Peer) -> None:
    url = anybody.created(model_id="checked")
    assert anybody.patch(url, 0, CONTENT[:100]).status == 204
    wrong = base64.b64encode(hashlib.sha1(b"other").digest()).decode()
    refused = anybody.patch(url, 100, CONTENT[100:], Upload_Checksum=f"sha1 {wrong}")
    assert (refused.status, refused.json["code"], anybody.offset(url)) == (460, "checksum_mismatch", 100)
    right = base64.b64encode(hashlib.sha1(CONTENT[100:]).digest()).decode()
    assert anybody.patch(url, 100, CONTENT[100:], Upload_Checksum=f"sha1 {right}").status == 204
    assert "checked" in anybody.models()


def test_a_wrong_digest_of_the_whole_is_422_and_leaves_no_model_and_no_bytes(anybody: Peer) -> None:
    content = b"not what was announced"
    url = anybody.created(len(content), model_id="mistaken", sha256=SHA256)
    refused = anybody.patch(url, 0, content)
    assert (refused.status, refused.json["code"]) == (422, "sha256_mismatch")
    assert anybody.state(url)["state"] == "rejected"
    assert "mistaken" not in anybody.models()
    assert hashlib.sha256(content).hexdigest() not in blobs_of(anybody.node)
    assert partials_of(anybody.node) == []


def test_the_words_of_the_protocol_are_refused_one_by_one(anybody: Peer) -> None:
    url = anybody.created(model_id="words")
    found = [
        anybody.ask("HEAD", url, Tus_Resumable="0.2.2"),
        anybody.patch(url, 0, b"x", Content_Type="application/octet-stream"),
        anybody.patch(url, 7, b"x"),
        anybody.patch(url, 0, b"x", Upload_Checksum="md5 YQ=="),
        anybody.ask("POST", "/uploads", Upload_Defer_Length="1", Upload_Metadata=metadata(model_id="x")),
        anybody.ask("PUT", url),
    ]
    assert [answer.status for answer in found] == [412, 415, 409, 400, 400, 405]
    assert found[0].headers["Tus-Version"] == "1.0.0"
    assert found[2].json["code"] == "offset_mismatch"
    offered = anybody.ask("OPTIONS", "/uploads")
    assert (offered.status, offered.headers["Tus-Max-Size"]) == (204, str(300 * MIB))
    assert offered.headers["Tus-Extension"] == "creation,checksum,expiration,termination"
    assert offered.headers["Tus-Checksum-Algorithm"] == "sha1,sha256"


def test_the_method_can_be_overridden_and_a_slash_is_tolerated(anybody: Peer) -> None:
    url = anybody.created(3, model_id="overridden") + "/"
    headers = {"Upload_Offset": "0", "Content_Type": PIECE, "X_HTTP_Method_Override": "PATCH"}
    assert anybody.ask("POST", url, b"abc", **headers).headers["Model-Id"] == "overridden"


def test_an_upload_exists_for_its_key_alone(node: LiveNode, owner: Peer, anybody: Peer) -> None:
    url = owner.created(model_id="owned")
    for other in (anybody, Peer(node, node.add_key("other"))):
        answers = [other.ask("GET", url), other.patch(url, 0, b"x"), other.ask("DELETE", url)]
        assert [(one.status, one.json["code"]) for one in answers] == [(404, "upload_not_found")] * 3
    assert owner.patch(url, 0, CONTENT).status == 204
    assert anybody.ask("HEAD", anybody.created(model_id="mine")).status == 200


def test_a_terminated_upload_is_gone(anybody: Peer) -> None:
    url = anybody.created(model_id="dropped")
    anybody.patch(url, 0, CONTENT[:10])
    assert anybody.ask("DELETE", url).status == 204
    assert [anybody.ask(method, url).status for method in ("HEAD", "GET", "DELETE")] == [404] * 3
    assert url.rsplit("/", 1)[-1] not in {path.name for path in partials_of(anybody.node)}


def test_a_second_piece_at_the_same_time_is_busy(anybody: Peer) -> None:
    content = bytes(2 * MIB)
    url = anybody.created(len(content), model_id="busy")
    lines = [f"PATCH {url} HTTP/1.1", "Host: x", "Tus-Resumable: 1.0.0", "Upload-Offset: 0", f"Content-Type: {PIECE}"]
    with socket.create_connection(("127.0.0.1", anybody.node.port), timeout=DEADLINE) as peer:
        head = "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""])
        peer.sendall(head.encode() + content[:MIB])
        until(lambda: anybody.offset(url) > 0)
        busy = anybody.patch(url, anybody.offset(url), b"x")
        assert (busy.status, busy.json["code"]) == (409, "upload_busy")
        assert busy.json["retry_after"] >= 1
        peer.sendall(content[MIB:])
        assert b" 204 " in peer.recv(4096)
    assert "busy" in anybody.models()


def test_unfinished_uploads_are_bounded_in_number_and_bytes(node: LiveNode, anybody: Peer) -> None:
    large = anybody.created(200 * MIB, model_id="large-1")
    refused = anybody.create(200 * MIB, model_id="large-2")
    assert (refused.status, refused.json["code"]) == (403, "quota_exceeded")
    assert {"used", "limit"} <= refused.json.keys()
    anybody.ask("DELETE", large)
    peer = Peer(node, node.add_key("many"))
    assert [peer.create(1, model_id=f"many-{number}").status for number in range(17)] == [201] * 16 + [429]


def test_thirty_two_uploads_of_one_id_make_one_model(node: LiveNode) -> None:
    peers = [Peer(node, node.add_key(f"racer-{number}")) for number in range(8)]
    urls = [(peer, peer.created(4, model_id="raced")) for peer in peers for _ in range(4)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda pair: pair[0].patch(pair[1], 0, b"same").status, urls))
    assert sorted(statuses) == [204] + [409] * 31
    assert hashlib.sha256(b"same").hexdigest() in blobs_of(node)


# --- the published client, and a node that dies


def test_tuspy_goes_on_after_the_node_was_killed_at_sixty_percent(tuspy: Tuspy, tmp_path: Path) -> None:
    content = random.Random(7).randbytes(5 * MIB)
    file = tmp_path / "model.bin"
    file.write_bytes(content)
    known = {"allow_download": "True", "sha256": hashlib.sha256(content).hexdigest()}
    named = {"checked": True, "unchecked": False}
    with running(tmp_path / "node") as node:
        peer, endpoint = Peer(node), f"{node.url}/uploads"
        urls = {}
        for model_id, checksum in named.items():
            given = json.dumps({"model_id": model_id, **known})
            began, urls[model_id] = tuspy.upload(endpoint, file, stop_at=3 * MIB, checksum=checksum, metadata=given)
            assert (began, peer.models()) == (0, [])
        node.kill()
        node.restart()
        for model_id, url in urls.items():
            assert tuspy.upload(endpoint, file, url=url, checksum=named[model_id]) == (3 * MIB, url)
            assert peer.ask("GET", f"/models/{model_id}/content").content == content
        assert [(row["sha256"], row["versions"]) for row in peer.rows()] == [(known["sha256"], [1])] * 2


def test_an_upload_that_is_past_its_time_is_410(tmp_path: Path) -> None:
    with running(tmp_path, models_upload_ttl=0.5) as node:
        peer = Peer(node)
        url = peer.created(model_id="late")
        until(lambda: peer.ask("HEAD", url).status == 410)
        assert peer.patch(url, 0, CONTENT).json["code"] == "upload_expired"


def test_a_check_that_nobody_waits_for_publishes_all_the_same(tmp_path: Path) -> None:
    with running(tmp_path, models_check_timeout=0.000001) as node:
        peer = Peer(node)
        url = peer.created(model_id="unattended")
        assert peer.patch(url, 0, CONTENT).status == 204
        until(lambda: peer.state(url)["state"] == "published")
        assert (peer.models(), peer.state(url)["version"]) == (["unattended"], 1)


# --- damaged files


def test_a_download_of_a_damaged_model_breaks_and_is_refused_until_it_is_served_again(anybody: Peer) -> None:
    content = random.Random(9).randbytes(3 * MIB)
    digest = hashlib.sha256(content).hexdigest()

    def send(model_id: str) -> None:
        url = anybody.created(len(content), model_id=model_id, allow_download="True")
        assert anybody.patch(url, 0, content).status == 204

    send("fragile")
    path = anybody.node.data / "blobs" / digest[:2] / digest[2:4] / digest
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(b"damaged")
    with pytest.raises(http.client.IncompleteRead):
        anybody.ask("GET", "/models/fragile/content")
    for method in ("GET", "HEAD"):
        assert anybody.ask(method, "/models/fragile/content").status == 503
    refused = anybody.ask("GET", "/models/fragile/content")
    assert refused.json["code"] == "model_corrupt"
    assert refused.json["retry_after"] >= 1
    assert "grid_blobs_damaged_total 1.0" in anybody.node.metrics()
    log = anybody.node.log_text()
    assert "Traceback" not in log
    assert digest in log
    send("healed")
    assert anybody.ask("GET", "/models/fragile/content").content == content


# --- a full disk


@contextlib.contextmanager
def disk_full(node: LiveNode) -> Iterator[int]:
    """No file of the node may grow beyond this many bytes, as if the disk were full."""
    process = web_process(node)
    most = max(path.stat().st_size for path in node.data.glob("grid.db*")) + MIB
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield most
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, before)


def test_a_full_disk_is_507_and_an_upload_goes_on_when_there_is_room(node: LiveNode, anybody: Peer) -> None:
    with disk_full(node) as most:
        content = random.Random(3).randbytes(most + MIB)
        boundary = b'--b\r\nContent-Disposition: form-data; name="model"; filename="m"\r\n\r\n'
        head = b'--b\r\nContent-Disposition: form-data; name="model_id"\r\n\r\nno room\r\n' + boundary
        form = {"Content_Type": "multipart/form-data; boundary=b"}
        at_once = anybody.ask("POST", "/serve_model", head + content + b"\r\n--b--\r\n", **form)
        left = list((node.data / "blobs" / "tmp").iterdir())
        url = anybody.created(len(content), model_id="no room")
        in_pieces = anybody.patch(url, 0, content)
    for full in (at_once, in_pieces):
        assert (full.status, full.json["code"]) == (507, "store_full"), full.content
        assert full.json["retry_after"] >= 1
    assert left == []
    assert "no room" not in anybody.models()
    came = anybody.offset(url)
    assert anybody.patch(url, came, content[came:]).headers["Model-Id"] == "no room"


# --- large ones


def peak_memory(process: psutil.Process) -> int:
    """Largest resident set since the last reset, in bytes (Linux)."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def web_process(node: LiveNode) -> psutil.Process:
    return next(child for child in psutil.Process(node.pid).children() if "gunicorn" in " ".join(child.cmdline()))


def test_a_large_upload_neither_grows_the_node_nor_keeps_others_waiting(node: LiveNode, anybody: Peer) -> None:
    size, piece = 200 * MIB, random.Random(8).randbytes(MIB)
    anybody.patch(anybody.created(MIB, model_id="warm"), 0, piece)
    process = web_process(node)
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    before, url, answers = peak_memory(process), anybody.created(size, model_id="large"), []
    ended = threading.Event()

    def listen() -> None:
        while not ended.is_set():
            answers.append(anybody.models())

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        listening = pool.submit(listen)
        body = (piece for _ in range(size // MIB))
        assert anybody.patch(url, 0, body, Content_Length=str(size)).status == 204
        ended.set()
        listening.result(DEADLINE)
    assert peak_memory(process) - before < 32 * MIB
    assert len(answers) > 10, "others waited for the upload"
