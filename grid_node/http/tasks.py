"""Routes of clients: load, call, dump, over the same schemas and service as the events."""

from collections.abc import Callable
from typing import Any

from flask import Response, g, jsonify, request
from flask_smorest import Blueprint

from grid_node.fields import load
from grid_node.generation.lifecycle import task_stream
from grid_node.generation.requests import new_task
from grid_node.generation.schemas import GenerateSchema, ListSchema, ResumeSchema, StatusSchema
from grid_node.generation.selection import ENDED
from grid_node.http.auth import Doorkeeper
from grid_node.http.connections import Connections
from grid_node.http.documents import ERRORS, answers, body_of, header, query_of
from grid_node.http.following import Follower
from grid_node.http.payloads import json_payload, query_payload, with_idempotency_key
from grid_node.http.results import file_answer, wanted_format
from grid_node.http.sse import TaskStream
from grid_node.services import Services

Rule = tuple[str, Callable[..., Response], str, dict[str, Any], int]
"""Address, view, method, what the OpenAPI document says of its input, status of success."""

STATUS = StatusSchema()
RESUME = ResumeSchema()
LIST = ListSchema()


class TaskRoutes:
    """`/tasks` and everything below it."""

    def __init__(self, services: Services, doorkeeper: Doorkeeper, connections: Connections) -> None:
        self._services = services
        self._tasks = services.tasks
        self._doorkeeper = doorkeeper
        self._connections = connections

    def blueprint(self) -> Blueprint:
        made = Blueprint("tasks", __name__, description="Generation tasks of the holder of an API key.")
        result = "/tasks/<task_id>/results/<which>"
        rules: tuple[Rule, ...] = (
            (
                "/tasks",
                self.create,
                "POST",
                {"parameters": [header("Idempotency-Key")], **body_of(GenerateSchema)},
                201,
            ),
            ("/tasks", self.page, "GET", query_of(ListSchema), 200),
            ("/tasks/<task_id>", self.status, "GET", query_of(StatusSchema, without=("task_id",)), 200),
            ("/tasks/<task_id>", self.cancel, "DELETE", {}, 200),
            ("/tasks/<task_id>/events", self.events, "GET", query_of(ResumeSchema, without=("task_id",)), 200),
            (f"{result}/asset", self.asset, "GET", {}, 200),
            (f"{result}/previews/<name>.png", self.preview, "GET", {}, 200),
            (f"{result}/report", self.report, "GET", {}, 200),
        )
        for rule, view, method, documents, status in rules:
            documented = made.doc(**documents, responses={**answers(status), **ERRORS}, security=[{"key": []}])
            made.add_url_rule(rule, view.__name__, documented(view), methods=[method])
        return made

    def create(self) -> Response:
        """Accept a task, durably. A replay by idempotency key answers 200 with the task as it stands."""
        caller = self._doorkeeper.client(request)
        new = new_task(
            with_idempotency_key(request, json_payload(request)), self._services.settings, self._services.kinds
        )
        accepted = self._tasks.submit(caller.key_id, new)
        g.window = accepted.window
        answer = jsonify(accepted.body())
        answer.status_code = 200 if accepted.duplicate else 201
        answer.headers["Location"] = f"{request.script_root}/tasks/{accepted.task['id']}"
        return answer

    def page(self) -> Response:
        """The key's own tasks, newest first."""
        caller = self._doorkeeper.client(request)
        return jsonify(self._tasks.page(caller.key_id, **load(LIST, query_payload(request, LIST))))

    def status(self, task_id: str) -> Response:
        """The task; with `wait_s` once it has an update above `after_seq`, or after that many seconds."""
        caller = self._doorkeeper.client(request)
        given = load(STATUS, {**query_payload(request, STATUS), "task_id": task_id})
        task = self._tasks.status(caller.key_id, task_id, given["after_seq"], given["wait_s"])
        return jsonify(success=True, task=task)

    def cancel(self, task_id: str) -> Response:
        """End an open task; an ended one is returned as it is."""
        caller = self._doorkeeper.client(request)
        return jsonify(success=True, task=self._tasks.cancel(caller.key_id, task_id))

    def events(self, task_id: str) -> Response:
        """The task's updates as server-sent events, from `Last-Event-ID` or `after_seq` on; 204 after the last."""
        caller = self._doorkeeper.client(request)
        given = load(RESUME, {**_last_seen(), "task_id": task_id})
        after = given["after_seq"]
        task, updates = self._tasks.resume(caller.key_id, task_id, after)
        if task["status"] in ENDED and not updates:
            return Response(status=204)
        answer = Response(mimetype="text/event-stream")
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["X-Accel-Buffering"] = "no"
        if request.method == "GET":
            answer.response = self._stream(task_id, after, caller.key_id)
        return answer

    def _stream(self, task_id: str, after: int, key_id: str) -> TaskStream:
        follower = Follower(self._services.streams, task_stream(task_id), after)
        stall = self._services.settings.public_api_ws_stall
        return TaskStream(request.environ, follower, self._connections, key_id, stall)

    def asset(self, task_id: str, which: str) -> Response:
        """The bytes of result n, `first` or `best`; `?format=` names another form that was made of them."""
        return self._file(task_id, which, wanted_format(request))

    def preview(self, task_id: str, which: str, name: str) -> Response:
        """Preview 0 to 7, or `grid`, as PNG."""
        return self._file(task_id, which, f"previews/{name}.png")

    def report(self, task_id: str, which: str) -> Response:
        """What the scorer found."""
        caller = self._doorkeeper.client(request)
        return jsonify({"success": True, **self._tasks.report(caller.key_id, task_id, which)})

    def _file(self, task_id: str, which: str, name: str | None) -> Response:
        caller = self._doorkeeper.client(request)
        file = self._tasks.result_file(caller.key_id, task_id, which, name)
        return file_answer(request, self._services.blobs, file, task_id, which)


def _last_seen() -> dict[str, Any]:
    """A browser that reconnects says where it was by header; the address still has what it began with."""
    payload = query_payload(request, RESUME)
    last = request.headers.get("Last-Event-ID", "").strip()
    if not last:
        return payload
    return {**payload, "after_seq": int(last) if last.isdecimal() and len(last) < 19 else last}
