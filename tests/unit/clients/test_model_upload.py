"""An upload of a model over a connection that breaks, to a node that is slow or refuses."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from grid_client.errors import ConnectionLost, DeadlineExceeded, GridError
from grid_client.model_bytes import ModelBytes
from grid_client.model_upload import ModelUpload

CONTENT = bytes(range(256))
CHUNK = 100


@dataclass
class ScriptedNode:
    """Takes an upload; `troubles` happen to the next PATCHes, one each, before or after their bytes were taken."""

    troubles: list[Any] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    tells_version: bool = True
    taken: bytearray = field(default_factory=bytearray)
    asked: list[str] = field(default_factory=list)
    metadata: str = ""
    gone: bool = False

    def request(self, method: str, path: str, *, body: bytes | None = None, headers: Any = None) -> httpx.Response:
        assert headers["Tus-Resumable"] == "1.0.0"
        self.asked.append(method)
        answer: Callable[..., httpx.Response] = getattr(self, method.lower())
        return answer(path, body, headers)

    def post(self, path: str, body: Any, headers: Any) -> httpx.Response:
        self.metadata = headers["Upload-Metadata"]
        self.taken.clear()
        self.gone = False
        return _answer(path, 201, Location="/uploads/abc")

    def head(self, path: str, body: Any, headers: Any) -> httpx.Response:
        if self.gone:
            raise GridError("http_410", status=410)
        return _answer(path, 200, **{"Upload-Offset": str(len(self.taken))})

    def patch(self, path: str, body: bytes, headers: Any) -> httpx.Response:
        trouble = self.troubles.pop(0) if self.troubles else None
        if isinstance(trouble, GridError):
            raise trouble
        if int(headers["Upload-Offset"]) != len(self.taken):
            raise GridError("offset_mismatch", status=409)
        self.taken += body
        if trouble == "answer lost":
            raise ConnectionLost
        whole = len(self.taken) == len(CONTENT)
        told = {"Model-Version": "7"} if whole and self.tells_version else {}
        return _answer(path, 204, **{"Upload-Offset": str(len(self.taken)), **told})

    def json(self, method: str, path: str, *, headers: Any) -> dict[str, Any]:
        assert (method, path, headers) == ("GET", "/uploads/abc", {"Tus-Resumable": "1.0.0"})
        self.asked.append(method)
        return self.states.pop(0)

    def retried(self, attempt: Callable[[], Any], deadline: float) -> Any:
        return attempt()


def _answer(path: str, status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers=headers, request=httpx.Request("POST", f"http://node.example/{path}"))


@dataclass
class Time:
    now: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def send(node: ScriptedNode, resume: Path | None = None, seconds: float = 600.0, **fields: Any) -> int:
    time = Time()
    http: Any = node
    return ModelUpload(
        http,
        ModelBytes(io.BytesIO(CONTENT)),
        {"model_id": "m1", **fields},
        deadline=seconds,
        progress=lambda done, total: None,
        resume=resume,
        sleep=time.sleep,
        clock=lambda: time.now,
        chunk=CHUNK,
    ).send()


def test_an_upload_is_sent_in_pieces_and_tells_its_version() -> None:
    node = ScriptedNode()
    assert send(node, allow_download=True, tags=["a"], version="new") == 7
    assert bytes(node.taken) == CONTENT
    assert node.asked == ["POST", "PATCH", "PATCH", "PATCH"]
    assert "model_id bTE=" in node.metadata
    assert "allow_download VHJ1ZQ==" in node.metadata  # True
    assert "tags WyJhIl0=" in node.metadata  # ["a"]


@pytest.mark.parametrize("trouble", [ConnectionLost(), "answer lost", GridError("upload_busy", status=409)])
def test_after_a_break_the_node_is_asked_how_much_it_has(trouble: Any) -> None:
    node = ScriptedNode([None, trouble])
    assert send(node) == 7
    assert bytes(node.taken) == CONTENT
    assert node.asked.count("HEAD") == 1


def test_a_last_answer_that_was_lost_is_asked_for() -> None:
    node = ScriptedNode([None, None, "answer lost"], [{"state": "published", "version": 3}])
    assert send(node) == 3


def test_a_check_that_takes_long_is_waited_for() -> None:
    states = [{"state": "checking"}, {"state": "checking"}, {"state": "published", "version": 2}]
    node = ScriptedNode(states=states, tells_version=False)
    assert send(node) == 2


def test_what_the_check_found_is_raised() -> None:
    error = {"success": False, "code": "invalid_model", "error": "no", "status": 422}
    node = ScriptedNode(states=[{"state": "rejected", "error": error}], tells_version=False)
    with pytest.raises(GridError) as refused:
        send(node)
    assert (refused.value.code, refused.value.status) == ("invalid_model", 422)


def test_a_refusal_is_not_tried_again() -> None:
    node = ScriptedNode([GridError("model_exists", status=409)])
    with pytest.raises(GridError, match="model_exists"):
        send(node)
    assert node.asked == ["POST", "PATCH"]


def test_it_ends_at_its_deadline() -> None:
    node = ScriptedNode([ConnectionLost()] * 100)
    with pytest.raises(DeadlineExceeded):
        send(node, seconds=5.0)


def test_a_later_call_goes_on_with_the_rest(tmp_path: Path) -> None:
    note = tmp_path / "note"
    node = ScriptedNode([None, GridError("forbidden", status=403)])
    with pytest.raises(GridError):
        send(node, note)
    node.asked.clear()
    assert send(node, note) == 7
    assert node.asked == ["HEAD", "PATCH", "PATCH"]
    assert bytes(node.taken) == CONTENT
    assert not note.exists()


@pytest.mark.parametrize("change", ["gone", "other bytes", "other fields", "no json"])
def test_a_note_of_something_else_begins_anew(tmp_path: Path, change: str) -> None:
    note = tmp_path / "note"
    node = ScriptedNode([None, GridError("forbidden", status=403)])
    with pytest.raises(GridError):
        send(node, note)
    noted = json.loads(note.read_text())
    node.gone = change == "gone"
    if change == "other bytes":
        note.write_text(json.dumps({**noted, "sha256": "0" * 64}))
    elif change == "no json":
        note.write_text("{")
    node.asked.clear()
    fields = {"tags": ["other"]} if change == "other fields" else {}
    assert send(node, note, **fields) == 7
    assert "POST" in node.asked
    assert bytes(node.taken) == CONTENT
