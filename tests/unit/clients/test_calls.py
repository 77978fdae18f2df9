"""Events of a lasting connection: what is sent again, and what is not."""

from typing import Any

import pytest
from grid_client import calls
from grid_client.backoff import Backoff
from grid_client.calls import Calls
from grid_client.errors import ConnectionLost, DeadlineExceeded, GridError

BUSY = {"success": False, "code": "store_unavailable", "error": "not now", "status": 503, "retry_after": 2}
TAKEN = {"success": False, "code": "model_exists", "error": "taken", "status": 409}


class ScriptedNode:
    """Gives these answers, one for each event, over as many connections as it takes; an exception is raised."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
        self.answers = list(answers)
        self.left: list[float] = []
        self.connections = 0
        self.now = 0.0
        monkeypatch.setattr(calls, "Session", lambda url: ScriptedSession(self))
        self.calls = Calls(
            "http://node.example",
            {},
            backoff=lambda: Backoff(uniform=lambda low, high: 0.0),
            sleep=self.sleep,
            clock=lambda: self.now,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Ended:
    def is_set(self) -> bool:
        return False


class ScriptedSession:
    def __init__(self, node: ScriptedNode) -> None:
        self._node = node
        self.ended = Ended()
        node.connections += 1

    def connect(self, auth: Any) -> None: ...

    def close(self) -> None: ...

    def ask(self, event: str, data: object, timeout: float) -> Any:
        self._node.left.append(timeout)
        answer = self._node.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_an_ack_is_returned_whatever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    node = ScriptedNode(monkeypatch, ["a", "b"], {}, {"content": False})
    assert node.calls.ask("/dataset-tags", {}, 10) == ["a", "b"]
    assert node.calls.ask("/search", {}, 10) == {}
    assert node.calls.ask("/search", {}, 10) == {"content": False}
    assert node.connections == 1


def test_a_passing_refusal_is_waited_out_as_long_as_the_node_says(monkeypatch: pytest.MonkeyPatch) -> None:
    node = ScriptedNode(monkeypatch, BUSY, {"success": True})
    assert node.calls.ask("/models", {}, 10) == {"success": True}
    assert node.left == [10.0, 8.0]


def test_a_refusal_for_good_is_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    node = ScriptedNode(monkeypatch, TAKEN)
    with pytest.raises(GridError, match="model_exists"):
        node.calls.ask("/serve_model", {}, 10)


def test_a_mute_connection_is_left_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    node = ScriptedNode(monkeypatch, DeadlineExceeded("mute"), {"success": True})
    assert node.calls.ask("/models", {}, 10) == {"success": True}
    assert node.connections == 2


def test_what_cannot_be_repeated_is_not_sent_again_when_its_answer_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    node = ScriptedNode(monkeypatch, ConnectionLost())
    with pytest.raises(ConnectionLost):
        node.calls.ask("/delete_model", {}, 10, repeatable=False)
    assert len(node.left) == 1


def test_what_cannot_be_repeated_is_sent_again_when_the_node_did_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    node = ScriptedNode(monkeypatch, BUSY, {"success": True})
    assert node.calls.ask("/delete_model", {}, 10, repeatable=False) == {"success": True}


def test_the_callers_time_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    node = ScriptedNode(monkeypatch, *[BUSY] * 10)
    with pytest.raises(GridError, match="store_unavailable"):
        node.calls.ask("/models", {}, 5)
    assert node.left == [5.0, 3.0, 1.0]
