"""A model of 64 MiB inside one Socket.IO event, in and out again."""

from __future__ import annotations

import json
import time
from typing import Any

from lean_client import BINARY, TEXT, Closed, Connection, frame, split_frames

WAIT_SECONDS = 120.0


class EventBorne:
    """`serve_s` and `get_s`: seconds from the first byte sent to the ack, the frame made beforehand."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._served = 0

    def run(self, port: int) -> dict[str, float]:
        self._served += 1
        model_id = f"event-{self._served}"
        placeholder = {"_placeholder": True, "num": 0}
        serve = {"model_id": model_id, "model": placeholder, "format": "opaque", "allow_download": True}
        served, answer = _emit(port, "/serve_model", serve, self._content)
        assert answer[0].get("success"), answer
        got, answer = _emit(port, "/get_model", {"model_id": model_id})
        assert answer[1] == self._content, "other bytes came back"
        _emit(port, "/delete_model", {"model_id": model_id})
        return {"serve_s": served, "get_s": got}


def _emit(port: int, event: str, body: dict[str, Any], attachment: bytes | None = None) -> tuple[float, list[Any]]:
    """Seconds until the ack, and the ack with its attachments."""
    connection = Connection(port)
    sock = connection.sock
    sock.settimeout(WAIT_SECONDS)
    kind = "421" if attachment is None else "451-1"
    data = frame(TEXT, (kind + json.dumps([event, body], separators=(",", ":"))).encode())
    if attachment is not None:
        data += frame(BINARY, attachment)
    try:
        began = time.perf_counter()
        sock.sendall(data)
        ack = _ack(sock)
        return time.perf_counter() - began, ack
    finally:
        connection.close()


def _ack(sock: Any) -> list[Any]:
    """The ack's JSON, then its attachment when it has one. Raises Closed."""
    held, pieces, wanted = b"", [], 1
    found: list[Any] = []
    while len(found) < wanted:
        payloads, held = _whole_frames(sock, held, pieces)
        for payload in payloads:
            if payload.startswith(b"43"):
                found.append(json.loads(payload[payload.index(b"[") :])[0])
            elif payload.startswith(b"46"):
                wanted = 1 + int(payload[2 : payload.index(b"-")])
                found.append(json.loads(payload[payload.index(b"[") :])[0])
            elif found:
                found.append(payload)
    return found


def _whole_frames(sock: Any, held: bytes, pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    """Reads on until a frame is whole, without joining what came after each read."""
    pieces[:] = [held]
    size, wanted = len(held), 2
    while True:
        if size >= wanted:
            data = b"".join(pieces)
            payloads, rest = split_frames(data)
            if payloads:
                return payloads, rest
            pieces[:], wanted = [data], _needed(data)
        more = sock.recv(1 << 20)
        if not more:
            raise Closed("end of stream")
        pieces.append(more)
        size += len(more)


def _needed(data: bytes) -> int:
    """Bytes that the first frame of `data` has."""
    if len(data) < 2:
        return 2
    size, begin = data[1], 2
    if size > 125:
        width = 2 if size == 126 else 8
        if len(data) < begin + width:
            return begin + width
        size, begin = int.from_bytes(data[begin : begin + width], "big"), begin + width
    return begin + size
