import json

import pytest
from grid_client.protocol import Auth, PromptData, TaskStatus, TaskUpdate
from pydantic import ValidationError


def test_task_status_has_exactly_the_three_values_of_the_plain_protocol() -> None:
    assert [status.value for status in TaskStatus] == ["started", "first_results", "best_results"]


def test_client_frames_have_the_documented_members() -> None:
    assert Auth(api_key="k").model_dump() == {"api_key": "k"}
    assert PromptData(prompt="p").model_dump() == {"prompt": "p", "send_first_results": False}


def test_an_update_of_the_node_is_read_with_its_extra_members() -> None:
    frame = {
        "task_id": "t",
        "seq": 3,
        "status": "best_results",
        "results": {"hotkey": "h", "assets": "cGx5", "score": 0.9, "format": "ply", "n": 0},
        "statistics": {
            "create_time": 1,
            "miners": [{"hotkey": "h", "assign_time": 1, "data_format": "ply", "score": 0.9, "submit_time": 2}],
        },
    }
    update = TaskUpdate(**json.loads(json.dumps(frame)))
    assert update.status == TaskStatus.BEST_RESULTS
    assert update.results is not None
    assert update.results.assets == "cGx5"
    assert update.statistics is not None
    assert update.statistics.miners[0].submit_time == 2


def test_started_comes_without_results() -> None:
    update = TaskUpdate(status="started", results=None, statistics=None)
    assert update.status is TaskStatus.STARTED


def test_a_fourth_status_is_not_accepted() -> None:
    with pytest.raises(ValidationError):
        TaskUpdate(status="queued")
