"""Frames of the raw WebSocket, without a socket."""

import base64
import json

import pytest

from grid_node.errors import (
    ChecksumMismatch,
    Forbidden,
    GridError,
    InvalidKey,
    InvalidPayload,
    MessageTooLarge,
    PromptTooLong,
    QueueFull,
    RateLimited,
    StoreFull,
    StoreUnavailable,
    TaskNotFound,
    TooManyBadKeys,
)
from grid_node.http.socket_messages import FRAME_MAX, SLICE, close_of, close_of_end, fragments_of, frame_of

UPDATE = {"status": "best_results", "results": None, "statistics": {"miners": []}, "task_id": "t", "seq": 3}
RESULTS = {"hotkey": 'a "quoted" one', "score": 0.5}


@pytest.mark.parametrize("size", [0, 1, 2, 3, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE + 2])
@pytest.mark.parametrize("piece", [1 << 20, 65_537])
def test_fragments_are_one_json_object_whatever_the_pieces(size: int, piece: int) -> None:
    asset = bytes(range(256)) * (size // 256 + 1)
    asset = asset[:size]
    pieces = iter([asset[start : start + piece] for start in range(0, size, piece)])
    frame = json.loads(b"".join(fragments_of(UPDATE, RESULTS, pieces)))
    assert base64.b64decode(frame["results"].pop("assets"), validate=True) == asset
    assert frame == {**UPDATE, "results": RESULTS}


def test_no_fragment_is_larger_than_a_slice_in_base64() -> None:
    pieces = iter([bytes(256 * 1024)] * 8)
    assert max(map(len, fragments_of(UPDATE, RESULTS, pieces))) == SLICE * 4 // 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidKey(), 4003),
        (Forbidden(), 4003),
        (InvalidPayload(), 4400),
        (TaskNotFound(), 4404),
        (PromptTooLong(), 4413),
        (MessageTooLarge(), 4413),
        (RateLimited(), 4429),
        (TooManyBadKeys(), 4429),
        (QueueFull(), 4503),
        (StoreUnavailable(), 4503),
        (StoreFull(), 4503),
        (GridError(), 4500),
        (ChecksumMismatch(), 4500),
    ],
)
def test_every_refusal_has_its_close_code(error: GridError, code: int) -> None:
    assert close_of(error)[0] == code


@pytest.mark.parametrize(
    ("status", "code", "close"),
    [
        ("best_results", None, (1000, "")),
        ("failed", "no_worker", (4404, "Generation failed")),
        ("failed", "all_workers_failed", (4404, "Generation failed")),
        ("failed", "scoring_unavailable", (4500, "Internal Server Error")),
        ("cancelled", "cancelled_by_client", (4404, "Generation cancelled")),
        ("cancelled", "client_gone", (4404, "Generation cancelled")),
        ("cancelled", "key_removed", (4003, "Invalid API Key")),
    ],
)
def test_every_end_has_its_close_code(status: str, code: str | None, close: tuple[int, str]) -> None:
    assert close_of_end(status, {"code": code} if code else None) == close


def test_a_frame_is_measured_in_bytes() -> None:
    wide = json.dumps({"prompt": "é" * (FRAME_MAX // 2)}, ensure_ascii=False)
    assert len(wide) < FRAME_MAX
    with pytest.raises(MessageTooLarge):
        frame_of(wide)


@pytest.mark.parametrize("message", ["[]", "7", "null", "{", '{"a":1,"a":2}', '{"a":NaN}', b"{}"])
def test_what_is_no_object_is_no_frame(message: str | bytes) -> None:
    with pytest.raises(InvalidPayload):
        frame_of(message)
