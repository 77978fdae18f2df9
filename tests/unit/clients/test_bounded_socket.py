import pytest
import websocket
from grid_client.bounded_socket import BoundedWebSocket
from websocket._abnf import ABNF


def received(frames: list[bytes], limit: int) -> str:
    """The message in these frames, as a socket with this limit reads it."""
    stream = bytearray(b"".join(frames))

    def read(size: int) -> bytes:
        piece = bytes(stream[:size])
        del stream[:size]
        return piece

    socket = BoundedWebSocket(limit=limit)
    socket.frame_buffer.recv = read
    message = socket.recv()
    assert isinstance(message, str)
    return message


def frame(text: str, opcode: int = ABNF.OPCODE_TEXT, fin: int = 1) -> bytes:
    made = ABNF(fin, 0, 0, 0, opcode, 0, text.encode())
    return bytes(made.format())


def test_messages_up_to_the_limit_arrive_whole() -> None:
    assert received([frame("x" * 1000)], 1000) == "x" * 1000
    fragments = [frame("ab", fin=0), frame("cd", ABNF.OPCODE_CONT, 0), frame("ef", ABNF.OPCODE_CONT)]
    assert received(fragments, 6) == "abcdef"


def test_a_frame_above_the_limit_is_refused_before_it_is_read() -> None:
    header = frame("x" * 70_000)[:10]
    with pytest.raises(websocket.WebSocketProtocolException, match="frame is too large"):
        received([header], 60_000)


def test_fragments_are_summed() -> None:
    fragments = [frame("ab", fin=0), frame("cd", ABNF.OPCODE_CONT, 0), frame("ef", ABNF.OPCODE_CONT)]
    with pytest.raises(websocket.WebSocketProtocolException, match="message is too large"):
        received(fragments, 5)
