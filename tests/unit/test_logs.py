"""One JSON object a line, with what is bound at that moment."""

import json
import logging

from grid_node import logs


def test_a_line_is_one_json_object_with_the_bound_ids() -> None:
    record = logging.LogRecord("grid_node.x", logging.WARNING, "x.py", 1, "lost %d of\n%d", (1, 2), None)

    with logs.bound(task_id="t-1"):
        line = logs.json_formatter().format(record)

    said = json.loads(line)
    assert "\n" not in line
    assert said["event"] == "lost 1 of\n2"
    assert (said["level"], said["logger"], said["task_id"]) == ("warning", "grid_node.x", "t-1")


def test_a_binding_ends_with_its_block() -> None:
    record = logging.LogRecord("grid_node.x", logging.INFO, "x.py", 1, "later", (), None)
    with logs.bound(task_id="t-1"):
        pass

    assert "task_id" not in json.loads(logs.json_formatter().format(record))


def test_a_traceback_stays_on_the_line() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        record = logging.LogRecord("grid_node.x", logging.ERROR, "x.py", 1, "no", (), (ValueError, error, None))

    line = logs.json_formatter().format(record)

    assert "\n" not in line
    assert "ValueError: why" in json.loads(line)["exception"]
