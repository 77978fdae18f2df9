"""200 MB in and out: the node by tus and by multipart beside PUT and GET of nginx. Raw sockets, one for each transfer.

The client sends with sendfile and receives into memory made beforehand, so that it costs as little as it can; digests
are compared after the clock has stopped. Before each transfer everything dirty goes to the disk, or one peer would
wait for what the other left behind.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from models_peers.servers import Server, forget_peak, rss_bytes

MB = 1_000_000
WAIT_SECONDS = 120.0


class Transfer:
    """One file of random tensors, and what it takes to move it."""

    def __init__(self, folder: Path, size: int) -> None:
        self.file = folder / "model.safetensors"
        self.size = write_safetensors(self.file, size)
        with self.file.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self._into = bytearray(self.size)
        self._served = 0

    # --- nginx ----------------------------------------------------------------------------------------------------

    def nginx(self, server: Server) -> dict[str, float]:
        os.sync()
        put = self._timed(lambda: self._send(server.port, "PUT", "/model", {}))
        get = self._timed(lambda: self._fetch(server.port, "/model"))
        exchange(server.port, "DELETE", "/model", {})
        return {"up_mb_s": put, "down_mb_s": get}

    # --- the node -------------------------------------------------------------------------------------------------

    def node(self, server: Server) -> dict[str, float]:
        """MB/s, and by how many MB the web process grew at most meanwhile."""
        figures: dict[str, float] = {}
        moves = {"tus": self.tus, "multipart": self._multipart, "down": self._download}
        for name, move in moves.items():
            os.sync()
            before = rss_bytes(server.pid)
            forget_peak(server.pid)
            figures[f"{name}_mb_s"] = self._timed(lambda move=move: move(server.port))  # type: ignore[misc]
            figures[f"{name}_rss_mb"] = max(0, rss_bytes(server.pid, "VmHWM") - before) / MB
        return figures

    def warm(self, server: Server, folder: Path) -> None:
        """Each way once with a small file: what is loaded at first use is not growth by a transfer."""
        folder.mkdir()
        Transfer(folder, MB).node(server)

    def tus(self, port: int) -> None:
        """The whole file in one PATCH."""
        described = {"model_id": self._next_id(), "allow_download": "True"}
        pairs = [f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in described.items()]
        headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(self.size), "Upload-Metadata": ",".join(pairs)}
        head, _ = exchange(port, "POST", "/uploads", headers, expected=201)
        path = head["location"].partition(f":{port}")[2] or head["location"]
        patch = {
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": "0",
            "Content-Type": "application/offset+octet-stream",
        }
        self._send(port, "PATCH", path, patch, expected=204)

    def _multipart(self, port: int) -> None:
        line = "benchmark-boundary-5d4c1f"
        part = "Content-Disposition: form-data; name="
        fields = {"model_id": self._next_id(), "allow_download": "True"}
        before = "".join(f'--{line}\r\n{part}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
        before += f'--{line}\r\n{part}"model"; filename="m"\r\nContent-Type: application/octet-stream\r\n\r\n'
        headers = {"Content-Type": f"multipart/form-data; boundary={line}"}
        self._send(port, "POST", "/serve_model", headers, before.encode(), f"\r\n--{line}--\r\n".encode(), 200)

    def _download(self, port: int) -> None:
        self._fetch(port, f"/models/{self._last_id()}/content")

    def _next_id(self) -> str:
        self._served += 1
        return self._last_id()

    def _last_id(self) -> str:
        return f"{self.file.parent.name}-{self._served}"

    # --- moving ---------------------------------------------------------------------------------------------------

    def _timed(self, move: Callable[[], None]) -> float:
        """MB/s. What came in is compared after the clock."""
        self._into[:64] = bytes(64)
        began = time.perf_counter()
        move()
        took = time.perf_counter() - began
        if self._into[:64] != bytes(64) and hashlib.sha256(self._into).hexdigest() != self.sha256:
            raise AssertionError("other bytes came back")
        return self.size / MB / took

    def _send(
        self,
        port: int,
        method: str,
        path: str,
        headers: dict[str, str],
        before: bytes = b"",
        after: bytes = b"",
        expected: int = 201,
    ) -> None:
        length = {"Content-Length": str(len(before) + self.size + len(after))}
        with connected(port) as sock, self.file.open("rb") as file:
            sock.sendall(head_bytes(method, path, {**headers, **length}) + before)
            sock.sendfile(file)
            sock.sendall(after)
            read_answer(sock, expected)

    def _fetch(self, port: int, path: str) -> None:
        with connected(port) as sock:
            sock.sendall(head_bytes("GET", path, {"Connection": "close"}))
            head, rest = read_head(sock)
            assert status_of(head) == 200, head
            self._into[: len(rest)] = rest
            came, view = len(rest), memoryview(self._into)
            while came < self.size and (got := sock.recv_into(view[came:])):
                came += got
            assert came == self.size, f"{came} of {self.size} bytes"


def write_safetensors(file: Path, size: int) -> int:
    """One FP32 tensor of random bits, about `size` bytes; returns the bytes of the file."""
    count = size // 4
    header = json.dumps({"weight": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    header += b" " * (-len(header) % 8)
    with file.open("wb") as output:
        output.write(len(header).to_bytes(8, "little") + header)
        left = 4 * count
        while left:
            left -= output.write(os.urandom(min(MB, left)))
    return file.stat().st_size


def connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def head_bytes(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """The answer's head and what came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            raise AssertionError(f"the server ended the connection: {data[:500]!r}")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def status_of(head: bytes) -> int:
    return int(head[9:12])


def read_answer(sock: socket.socket, expected: int) -> tuple[dict[str, str], bytes]:
    """Headers by their names in small letters, and the body."""
    head, body = read_head(sock)
    lines = head.decode("latin-1").split("\r\n")[1:]
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)) and (more := sock.recv(65536)):
        body += more
    if status_of(head) != expected and not (expected == 201 and status_of(head) == 204):
        raise AssertionError(f"{head!r}{body[:500]!r}")
    return headers, body


def exchange(
    port: int, method: str, path: str, headers: dict[str, str], expected: int = 204
) -> tuple[dict[str, str], bytes]:
    """A request without a body."""
    length = {"Content-Length": "0"} if method in {"POST", "PUT", "PATCH"} else {}
    with connected(port) as sock:
        sock.sendall(head_bytes(method, path, {**headers, **length}))
        return read_answer(sock, expected)
