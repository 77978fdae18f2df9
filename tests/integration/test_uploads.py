"""Uploads and files through real servers: cut connections, kill -9, the published tus client, memory."""

import base64
import contextlib
import hashlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.tus_client import Tuspy, tuspy

__all__ = ["tuspy"]

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT = "/worker/uploads"
PIECE = "application/offset+octet-stream"
MIB = 1024 * 1024
CONTENT = random.Random(7).randbytes(5 * MIB)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIXTY = len(CONTENT) * 6 // 10
DEADLINE = 30.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does; the test fails when it never does."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "the server did not get there"
        time.sleep(0.01)


class Server:
    """The tests' app in a process of its own; it can be killed and started again on the same folder."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.contract.uploads.serve"]
        self.log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [*command, self.kind, str(self.folder), str(self.port)],
            cwd=REPOSITORY,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        until(self._answers)

    def kill(self) -> None:
        """kill -9 to the server and its workers, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def workers(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return root.children(recursive=True) or [root]

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        with contextlib.suppress(OSError):
            return self.ask("GET", "/ready").status == 200
        return False

    def ask(self, method: str, path: str, body=None, **headers: str) -> "Answer":
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)) as peer:
            peer.request(method, path, body, tus(**headers))
            answer = peer.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())

    def create(self, length: int = len(CONTENT)) -> str:
        return self.ask("POST", ROOT, Upload_Length=str(length)).headers["Location"]

    def offset(self, url: str) -> int:
        return int(self.ask("HEAD", url).headers["Upload-Offset"])

    def patch(self, url: str, offset: int, content: bytes) -> "Answer":
        return self.ask("PATCH", url, content, Upload_Offset=str(offset), Content_Type=PIECE)

    @contextlib.contextmanager
    def sending(self, method: str, path: str, length: int, content: bytes, **headers: str) -> Iterator[socket.socket]:
        """A request that announced `length` bytes and has sent `content` of them."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in tus(**headers).items()]
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as peer:
            peer.sendall("\r\n".join([*lines, "", ""]).encode() + content)
            yield peer


class Answer:
    def __init__(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.status = status
        self.headers = headers
        self.content = content


def tus(**headers: str) -> dict[str, str]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"Tus-Resumable": "1.0.0", "X-Owner": "5Owner", **given}


@contextlib.contextmanager
def serving(kind: str, folder: Path) -> Iterator[Server]:
    server = Server(kind, folder)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module", params=["eventlet", "threads"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it alive."""
    with serving(request.param, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(params=["eventlet", "threads"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, to be killed."""
    with serving(request.param, tmp_path) as made:
        yield made


def is_whole(server: Server, url: str) -> bool:
    status = server.ask("GET", url).content
    return b'"state":"stored"' in status.replace(b" ", b"") and SHA256.encode() in status


def test_an_upload_cut_at_sixty_percent_goes_on_from_there(shared: Server) -> None:
    url = shared.create()
    with shared.sending("PATCH", url, len(CONTENT), CONTENT[:SIXTY], Upload_Offset="0", Content_Type=PIECE) as peer:
        peer.shutdown(socket.SHUT_WR)
        assert b" 400 " in peer.recv(4096)
    assert shared.offset(url) == SIXTY
    assert shared.patch(url, SIXTY, CONTENT[SIXTY:]).status == 204
    assert is_whole(shared, url)


def test_a_second_patch_at_the_same_time_is_busy(shared: Server) -> None:
    url = shared.create()
    headers = {"Upload_Offset": "0", "Content_Type": PIECE}
    with shared.sending("PATCH", url, len(CONTENT), CONTENT[:MIB], **headers) as peer:
        until(lambda: shared.offset(url) > 0)
        second = shared.patch(url, shared.offset(url), b"x")
        assert (second.status, b"upload_busy" in second.content) == (409, True)
        peer.sendall(CONTENT[MIB:])
        assert b" 204 " in peer.recv(4096)
    assert is_whole(shared, url)


def test_a_chunked_body_comes_whole_and_is_counted(shared: Server) -> None:
    def pieces(content: bytes) -> Iterator[bytes]:
        yield from (content[at : at + 50_000] for at in range(0, len(content), 50_000))

    answer = shared.ask("POST", "/raw", pieces(CONTENT))
    assert (answer.status, SHA256.encode() in answer.content) == (200, True)
    url = shared.create()
    headers = {"Upload_Offset": "0", "Content_Type": PIECE}
    assert shared.ask("PATCH", url, pieces(CONTENT), **headers).status == 204
    assert is_whole(shared, url)
    too_much = shared.ask("POST", "/small", pieces(b"x" * 1025))
    assert (too_much.status, b"message_too_large" in too_much.content) == (413, True)
    assert shared.ask("POST", "/small", pieces(b"x" * 1024)).status == 200


def test_a_short_body_is_incomplete_and_leaves_nothing(shared: Server) -> None:
    with shared.sending("POST", "/raw", len(CONTENT), CONTENT[:SIXTY]) as peer:
        peer.shutdown(socket.SHUT_WR)
        answer = peer.recv(4096)
    assert b" 400 " in answer
    assert list((shared.folder / "blobs" / "tmp").iterdir()) == []


@pytest.mark.parametrize("shared", ["eventlet"], indirect=True)
def test_requests_one_behind_the_other_on_one_connection_keep_their_bodies(shared: Server) -> None:
    first, second = CONTENT[:MIB], CONTENT[MIB : 2 * MIB]
    head = f"POST /raw HTTP/1.1\r\nHost: x\r\nContent-Length: {MIB}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", shared.port), timeout=DEADLINE) as peer:
        sending = threading.Thread(target=peer.sendall, args=(head.encode() + first + head.encode() + second,))
        sending.start()
        answers = b""
        while answers.count(b"sha256") < 2:
            answers += peer.recv(4096)
        sending.join(DEADLINE)
    for content in (first, second):
        assert hashlib.sha256(content).hexdigest().encode() in answers


def test_a_broken_chunk_is_incomplete(shared: Server) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), timeout=DEADLINE) as peer:
        peer.sendall(b"POST /raw HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
        peer.shutdown(socket.SHUT_WR)
        assert b" 400 " in peer.recv(4096)


def test_a_body_announced_above_the_limit_is_refused_before_it_is_read(shared: Server) -> None:
    with shared.sending("POST", "/raw", 10**12, b"x") as peer:
        assert b" 413 " in peer.recv(4096)


def test_a_sender_that_stalls_is_given_up(shared: Server) -> None:
    with shared.sending("POST", "/impatient", 1000, b"x") as peer:
        answer = peer.recv(4096)
    assert b" 400 " in answer


def test_a_reader_that_stalls_is_cut(shared: Server) -> None:
    big = CONTENT * 4
    shared.ask("POST", "/raw", big)
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", shared.port))
        peer.sendall(f"GET /impatient/{hashlib.sha256(big).hexdigest()} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        mine = peer.getsockname()[1]
        until(lambda: mine not in served_ports(shared))
    assert shared.ask("GET", "/ready").status == 200


def served_ports(server: Server) -> set[int]:
    """Ports of the peers that the server still talks to."""
    open_sockets = [held for worker in server.workers() for held in worker.net_connections("tcp")]
    return {held.raddr.port for held in open_sockets if held.raddr}


def test_a_file_is_served_whole_by_range_and_by_head(shared: Server) -> None:
    shared.ask("POST", "/raw", CONTENT)
    url = f"/files/{SHA256}"
    whole = shared.ask("GET", url)
    assert (whole.status, whole.content == CONTENT) == (200, True)
    part = shared.ask("GET", url, Range=f"bytes={MIB}-{2 * MIB}")
    assert (part.status, part.content == CONTENT[MIB : 2 * MIB + 1]) == (206, True)
    head = shared.ask("HEAD", url)
    assert (head.status, head.headers["Content-Length"], head.content) == (200, str(len(CONTENT)), b"")


def test_after_kill_9_at_sixty_percent_only_the_rest_is_sent(server: Server) -> None:
    """Each server keeps what it wrote; at most one piece on its way through memory is lost."""
    url = server.create()
    headers = {"Upload_Offset": "0", "Content_Type": PIECE}
    with server.sending("PATCH", url, len(CONTENT), CONTENT[:SIXTY], **headers):
        until(lambda: server.offset(url) > SIXTY - MIB // 2)
        server.kill()
    server.start()
    offset = server.offset(url)
    assert SIXTY - MIB // 2 < offset <= SIXTY
    assert server.patch(url, offset, CONTENT[offset:]).status == 204
    assert is_whole(server, url)


def test_after_kill_9_an_unverified_piece_does_not_count(server: Server) -> None:
    url = server.create()
    server.patch(url, 0, CONTENT[:MIB])
    digest = base64.b64encode(hashlib.sha256(CONTENT[MIB:]).digest()).decode()
    headers = {"Upload_Offset": str(MIB), "Content_Type": PIECE, "Upload_Checksum": f"sha256 {digest}"}
    file = server.folder / "uploads" / url.rsplit("/", 1)[-1]
    with server.sending("PATCH", url, len(CONTENT) - MIB, CONTENT[MIB:SIXTY], **headers):
        until(lambda: file.stat().st_size > 2 * MIB)
        server.kill()
    server.start()
    assert server.offset(url) == MIB
    assert server.patch(url, MIB, CONTENT[MIB:]).status == 204
    assert is_whole(server, url)


# --- the published client


@pytest.mark.parametrize(("server", "checksum"), [("eventlet", "yes"), ("threads", "no")], indirect=["server"])
def test_tuspy_goes_on_after_the_server_was_killed_at_sixty_percent(
    server: Server, tuspy: Tuspy, tmp_path: Path, checksum: str
) -> None:
    file = tmp_path / "asset.ply"
    file.write_bytes(CONTENT)
    endpoint = f"http://127.0.0.1:{server.port}{ROOT}"
    known = {"checksum": checksum == "yes", "headers": '{"X-Owner": "5Owner"}'}
    began, url = tuspy.upload(endpoint, file, stop_at=3 * MIB, **known)
    assert began == 0
    server.kill()
    server.start()
    assert tuspy.upload(endpoint, file, url=url, **known) == (3 * MIB, url)
    assert is_whole(server, ROOT + "/" + url.rsplit("/", 1)[-1])


# --- memory


def peak_memory(process: psutil.Process) -> int:
    """Largest resident set since the last reset, in bytes (Linux)."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_two_hundred_megabytes_in_and_out_do_not_grow_the_server(tmp_path: Path) -> None:
    size, piece = 200 * MIB, random.Random(8).randbytes(MIB)
    with serving("eventlet", tmp_path) as server:
        server.ask("POST", "/raw", CONTENT)
        server.ask("GET", f"/files/{SHA256}")
        [worker] = server.workers()
        Path(f"/proc/{worker.pid}/clear_refs").write_text("5")
        before = peak_memory(worker)

        url = server.create(size)
        body = (piece for _ in range(size // MIB))
        headers = {"Upload_Offset": "0", "Content_Type": PIECE, "Content_Length": str(size)}
        assert server.ask("PATCH", url, body, **headers).status == 204
        digest = hashlib.sha256(piece * (size // MIB)).hexdigest()
        received = 0
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as peer:
            peer.request("GET", f"/files/{digest}")
            answer = peer.getresponse()
            while part := answer.read(MIB):
                received += len(part)
        assert received == size
        assert peak_memory(worker) - before < 32 * MIB
