"""Refusals as clients of `/v1` read them."""

import pytest

from grid_node.errors import InvalidInput, InvalidPayload, ModelNotFound, RateLimited, RunnerQueueFull
from grid_node.runners.problems import as_problems, problem


def test_a_refused_input_is_told_field_by_field():
    fields = {"steps": ["Not a valid integer."], "images.1": ["Not a valid URL.", "No."]}
    assert problem(InvalidInput(fields=fields)) == {
        "success": False,
        "error": "Input validation failed",
        "code": "invalid_input",
        "status": 422,
        "fields": fields,
        "title": "Input validation failed",
        "detail": "- input.steps: Not a valid integer.\n- input.images.1: Not a valid URL.\n- input.images.1: No.\n",
    }


def test_other_fields_are_told_by_their_path():
    error = InvalidPayload(fields={"webhook_events_filter": {0: ["Must be one of: a, b."]}})
    assert problem(error)["detail"] == "- webhook_events_filter.0: Must be one of: a, b.\n"


def test_a_refusal_without_fields_is_its_own_detail():
    told = problem(ModelNotFound())
    assert (told["title"], told["detail"]) == ("Model not found.", "Model not found.")


@pytest.mark.parametrize(("wait", "told"), [(0.2, 1), (5, 5), (5.1, 6), (30, 30), (3600, 30)])
def test_nobody_is_told_to_wait_longer_than_half_a_minute(wait, told):
    assert problem(RateLimited(retry_after=wait))["retry_after"] == told


def test_an_error_that_leaves_the_block_has_the_same_body():
    with pytest.raises(RunnerQueueFull) as caught, as_problems():
        raise RunnerQueueFull(retry_after=99)
    assert caught.value.body() == problem(RunnerQueueFull(retry_after=30))
