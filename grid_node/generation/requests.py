"""From a checked message to the service's argument; what depends on the node's settings is decided here."""

from collections.abc import Collection
from typing import Any

from marshmallow import Schema

from grid_node.errors import InvalidPayload
from grid_node.fields import load
from grid_node.generation.schemas import FrameSchema, GenerateSchema, check_prompt_length
from grid_node.generation.tasks import NewTask
from grid_node.settings import Settings

GENERATE = GenerateSchema()
FRAME = FrameSchema()


def new_task(payload: Any, settings: Settings, kinds: Collection[str], schema: Schema = GENERATE) -> NewTask:
    """The task that a client's message asks for. Raises PromptTooLong, InvalidPayload."""
    if isinstance(payload, dict):
        check_prompt_length(payload.get("prompt"), settings.public_api_prompt_max)
    given = load(schema, payload)
    if given["kind"] not in kinds:
        raise InvalidPayload(fields={"kind": [f"must be one of {', '.join(sorted(kinds))}"]})
    deadline_s = given["deadline_s"] or settings.public_api_task_timeout
    if deadline_s > settings.public_api_deadline_max:
        raise InvalidPayload(fields={"deadline_s": [f"must be at most {settings.public_api_deadline_max:g}"]})
    return NewTask(
        prompt=given["prompt"],
        kind=given["kind"],
        send_first_results=given["send_first_results"],
        copies=given["copies"] or settings.public_api_copies,
        deadline_s=deadline_s,
        seed=given["seed"],
        idempotency_key=given["idempotency_key"],
    )
