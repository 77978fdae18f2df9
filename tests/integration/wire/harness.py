"""A real server in a process of its own, and a client that sends exactly the bytes it is told to."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grid_node.wire.frames import BINARY, CLOSE, TEXT, frame_header, xor_mask

ROOT = Path(__file__).parents[3]
MASK = b"\x11\x22\x33\x44"
WORKERS = {"eventlet": ["-k", "eventlet"], "threading": ["-k", "gthread", "--threads", "64"]}
LISTENING = re.compile(r"Listening at: http://127\.0\.0\.1:(\d+)")


class Server:
    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log
        self.url = f"http://127.0.0.1:{port}"

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/state", timeout=30) as answer:
            return json.load(answer)

    def wait_for(self, what: str, expected: Any) -> None:
        """Poll the state until the server has noticed; the test's own time limit ends a wait in vain."""
        while self.state()[what] != expected:
            pass

    def log_text(self) -> str:
        return self.log.read_text()


@contextmanager
def running(mode: str, folder: Path, **limits: Any) -> Iterator[Server]:
    """gunicorn on a free port with the application of `wire_app`."""
    log = folder / f"{mode}.log"
    environment = {**os.environ, "WIRE_MODE": mode, "WIRE_LIMITS": json.dumps(limits), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "gunicorn", *WORKERS[mode], "-w", "1", "-b", "127.0.0.1:0"]
    command += ["--graceful-timeout", "1", "--no-control-socket", "tests.integration.wire.wire_app:app"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        while not (match := LISTENING.search(log.read_text())):
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
        server = Server(int(match[1]), log)
        server.state()  # the worker answers
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def client_frame(opcode: int, payload: bytes = b"", final: bool = True, reserved: int = 0) -> bytes:
    header = bytearray(frame_header(opcode, len(payload), final))
    header[0] |= reserved
    header[1] |= 0x80
    return bytes(header) + MASK + xor_mask(payload, MASK)


class RawClient:
    """An Engine.IO WebSocket without a library in between."""

    def __init__(self, server: Server, pipelined: bytes = b"") -> None:
        self.sock = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self.buffer = b""
        self.sock.sendall(
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode()
            + pipelined
        )
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        self.head = head.decode("latin-1")

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def join(self) -> RawClient:
        """Read the open packet and join the default namespace."""
        assert self.frame()[1].startswith(b"0{")
        self.send("40")
        assert self.frame()[1].startswith(b"40{")
        return self

    def send(self, text: str) -> None:
        self.sock.sendall(client_frame(TEXT, text.encode()))

    def send_binary(self, data: bytes) -> None:
        self.sock.sendall(client_frame(BINARY, data))

    def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame; EOFError when the connection ended."""
        first, size = self._take(2)
        if size >= 126:
            size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
        return first & 0x0F, self._take(size)

    def text(self) -> str:
        """The next text message that is no Engine.IO ping."""
        while True:
            opcode, payload = self.frame()
            assert opcode == TEXT, (opcode, payload[:200])
            if payload != b"2":
                return payload.decode()

    def ack(self, event: str, expected_id: int = 1) -> Any:
        """Send the event text and return the first argument of its ack."""
        self.send(event)
        answer = self.text()
        assert answer.startswith(f"43{expected_id}["), answer
        return json.loads(answer[answer.index("[") :])[0]

    def close_code(self) -> int:
        """Read until the close frame; 1006 where the connection ends without one."""
        try:
            while True:
                opcode, payload = self.frame()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2], "big")
        except (EOFError, ConnectionError):
            return 1006

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def _more(self) -> None:
        chunk = self.sock.recv(262_144)
        if not chunk:
            raise EOFError
        self.buffer += chunk
