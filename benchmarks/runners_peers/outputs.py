"""Files of workers on their way in: one at a time beside nginx, or four at once while others are served.

    outputs.py < {"port", "key", "size", "seconds", "at_once", "file"}

As a program it uploads as long as `seconds` say. Says `ready`, waits for a line, prints when each upload began and
ended. A client sends with sendfile, behind sixteen random bytes that make every file another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from models_peers.servers import Server, forget_peak, rss_bytes
from models_peers.transfers import connected, exchange, head_bytes, read_answer

MB = 1_000_000
PREFIX = 16
UPLOAD = "/pc/client-api/upload/"
CHUNK = 1 << 20


def written(file: Path, size: int) -> Path:
    """Random bytes, PREFIX short of `size`."""
    with file.open("wb") as output:
        left = size - PREFIX
        while left:
            left -= output.write(os.urandom(min(MB, left)))
    return file


class Sent:
    """One file that is sent: its first bytes are its own."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.size = file.stat().st_size + PREFIX
        self._prefix = os.urandom(PREFIX)

    def put(self, port: int, path: str, headers: dict[str, str]) -> bytes:
        """The body of the answer, which says 201. Raises AssertionError."""
        length = {"Content-Length": str(self.size)}
        with connected(port) as sock, self.file.open("rb") as file:
            sock.sendall(head_bytes("PUT", path, {**headers, **length}) + self._prefix)
            sock.sendfile(file)
            return read_answer(sock, 201)[1]

    def put_chunked(self, port: int, path: str, headers: dict[str, str]) -> bytes:
        """The same without a length."""
        with connected(port) as sock, self.file.open("rb") as file:
            sock.sendall(head_bytes("PUT", path, {**headers, "Transfer-Encoding": "chunked"}))
            sock.sendall(b"%x\r\n" % PREFIX + self._prefix + b"\r\n")
            for start in range(0, self.size - PREFIX, CHUNK):
                count = min(CHUNK, self.size - PREFIX - start)
                sock.sendall(b"%x\r\n" % count)
                sock.sendfile(file, start, count)
                sock.sendall(b"\r\n")
            sock.sendall(b"0\r\n\r\n")
            return read_answer(sock, 201)[1]

    def check(self, answer: bytes) -> None:
        digest = hashlib.sha256(self._prefix)
        with self.file.open("rb") as file:
            while piece := file.read(CHUNK):
                digest.update(piece)
        if json.loads(answer)["sha256"] != digest.hexdigest():
            raise AssertionError("other bytes were stored")


# --- one at a time ----------------------------------------------------------------------------------------------------


def to_node(server: Server, key: str, file: Path) -> dict[str, float]:
    """MB/s, and by how many MB the web process grew at most meanwhile; with a length, and chunked."""
    figures: dict[str, float] = {}
    for name, send in (("put", Sent.put), ("chunked", Sent.put_chunked)):
        sent, path = Sent(file), f"{UPLOAD}{os.urandom(4).hex()}.bin"
        os.sync()
        before = rss_bytes(server.pid)
        forget_peak(server.pid)
        began = time.perf_counter()
        answer = send(sent, server.port, path, {"X-API-KEY": key})
        took = time.perf_counter() - began
        figures[f"{name}_mb_s"] = sent.size / MB / took
        figures[f"{name}_rss_mb"] = max(0, rss_bytes(server.pid, "VmHWM") - before) / MB
        sent.check(answer)
    return figures


def to_nginx(server: Server, file: Path) -> dict[str, float]:
    """MB/s until the answer, and until the bytes are on the disk."""
    sent = Sent(file)
    os.sync()
    began = time.perf_counter()
    sent.put(server.port, "/out.bin", {})
    took = time.perf_counter() - began
    os.sync()
    durable = time.perf_counter() - began
    exchange(server.port, "DELETE", "/out.bin", {})
    return {"put_mb_s": sent.size / MB / took, "durable_mb_s": sent.size / MB / durable}


# --- several at once --------------------------------------------------------------------------------------------------


def main() -> None:
    spec: dict[str, Any] = json.loads(sys.stdin.readline())
    print("ready", flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(spec["at_once"]) as pool:
        lanes = list(pool.map(repeat, [spec] * spec["at_once"]))
    print(json.dumps({"uploads": [upload for lane in lanes for upload in lane]}))


def repeat(spec: dict[str, Any]) -> list[tuple[float, float]]:
    """When each upload began and ended."""
    uploads: list[tuple[float, float]] = []
    ends = time.monotonic() + spec["seconds"]
    while (began := time.monotonic()) < ends:
        Sent(Path(spec["file"])).put(spec["port"], f"{UPLOAD}x.bin", {"X-API-KEY": spec["key"]})
        uploads.append((began, time.monotonic()))
    return uploads


if __name__ == "__main__":
    main()
