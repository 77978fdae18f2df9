"""How a run is asked for by HTTP and answered: body, headers, the wait for its end."""

import re
from typing import Any

import orjson
from flask import Request, Response, request

from grid_node.errors import BodyTooLarge, InvalidPrefer, RunnerInvalidJson
from grid_node.http.bodies import body_chunks
from grid_node.http.json_answers import json_answer
from grid_node.http.runner_door import RunnerDoor
from grid_node.runners.prediction import Prediction
from grid_node.runners.run_requests import BESIDE_INPUT, new_run
from grid_node.services import Services
from grid_node.wire import strict_json

WAIT_MAX = 60
"""Most seconds that an answer is kept back; a plain `wait` means so many."""
_WAIT = re.compile(r"wait(\s*=\s*(?P<quote>\"?)(?P<seconds>[^\"]*)(?P=quote))?", re.IGNORECASE)


class Runs:
    """Accepts predictions for the two routes that make them."""

    def __init__(self, services: Services, door: RunnerDoor) -> None:
        self._services = services
        self._door = door

    def create(self, model: tuple[str, str] | None = None) -> Response:
        """201 with the prediction; after a wait that ran out 202. `model`: account and name in the address."""
        arrived = self._services.clock.steady()
        caller = self._door.client(request)
        seconds = wait_of(request.headers.getlist("Prefer"))
        new = new_run(
            json_of(request, self._services.settings.input_max_bytes + BESIDE_INPUT),
            model=model,
            cancel_after=request.headers.get("Cancel-After"),
            idempotency_key=request.headers.get("Idempotency-Key"),
        )
        runs = self._services.running.predictions
        made = runs.create(caller, new)
        if seconds is not None:
            made = runs.wait(caller, made.id, seconds - (self._services.clock.steady() - arrived))
        return self._created(made, waited=seconds is not None)

    def _created(self, made: Prediction, *, waited: bool) -> Response:
        view = self._services.running.predictions.view(made)
        if waited and not made.ended:
            view["status"] = "starting"  # the client takes any other word for the end
        answer = told(view)
        answer.status_code = 202 if waited and not made.ended else 201
        answer.headers["Location"] = view["urls"]["get"]
        return answer


def told(view: Any) -> Response:
    """As JSON. Outputs may have many megabytes."""
    return json_answer(request, orjson.dumps(view))


def json_of(asked: Request, max_bytes: int) -> Any:
    """The body, whatever type it says it has. Raises BodyTooLarge, RunnerInvalidJson."""
    body = b"".join(body_chunks(asked, max_bytes, too_large=BodyTooLarge))
    try:
        return strict_json.loads(body)
    except strict_json.InvalidJSON as error:
        raise RunnerInvalidJson(reason=str(error)) from None


def wait_of(headers: list[str]) -> int | None:
    """Seconds that the header Prefer (RFC 7240) asks to wait, None if it does not. Raises InvalidPrefer.

    Other preferences are not looked at; `respond-async` asks for what is done anyway.
    """
    for preference in (part.partition(";")[0].strip() for header in headers for part in header.split(",")):
        match = _WAIT.fullmatch(preference)
        if match is not None:
            return _seconds(match["seconds"])
    return None


def _seconds(text: str | None) -> int:
    if text is None:
        return WAIT_MAX
    if not re.fullmatch(r"[0-9]{1,4}", text.strip()) or not 1 <= int(text) <= WAIT_MAX:
        raise InvalidPrefer()
    return int(text)
