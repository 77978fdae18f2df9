"""A WebSocket that ends instead of taking a message of any size: websocket-client has no limit of its own."""

from __future__ import annotations

from typing import Any

import websocket
from websocket._abnf import ABNF, continuous_frame, frame_buffer


class BoundedWebSocket(websocket.WebSocket):
    """`limit` is in bytes, for one message in however many fragments."""

    def __init__(self, *, limit: int, **options: Any) -> None:
        super().__init__(**options)
        is_lenient = bool(options.get("skip_utf8_validation"))
        self.frame_buffer = _Frames(self._recv, is_lenient)
        self.frame_buffer.limit = limit
        self.cont_frame = _Fragments(bool(options.get("fire_cont_frame")), is_lenient)
        self.cont_frame.limit = limit


class _Frames(frame_buffer):
    limit = 0

    def recv_strict(self, bufsize: int) -> bytes:
        if bufsize > self.limit:
            raise websocket.WebSocketProtocolException("a frame is too large")
        received: bytes = super().recv_strict(bufsize)
        return received


class _Fragments(continuous_frame):
    limit = 0

    def add(self, frame: ABNF) -> None:
        if self.cont_data and len(self.cont_data[1]) + len(frame.data) > self.limit:
            raise websocket.WebSocketProtocolException("a message is too large")
        super().add(frame)
