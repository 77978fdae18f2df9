"""Events of clients: load, call, dump."""

from functools import partial
from typing import Any

from events.connection import ClientSession, ClientSessions
from events.publisher import Publisher
from grid_node.fields import load
from grid_node.generation.lifecycle import task_stream
from grid_node.generation.requests import new_task
from grid_node.generation.schemas import ListSchema, ResumeSchema, StatusSchema, TaskIdSchema
from grid_node.generation.selection import ENDED
from grid_node.services import Services
from grid_node.streams.service import Entry, Subscription
from grid_node.wire.events import Events

STATUS = StatusSchema()
TASK_ID = TaskIdSchema()
RESUME = ResumeSchema()
LIST = ListSchema()


class GenerationEvents:
    """`generate`, `task_status`, `cancel_task`, `resume`, `tasks`; pushes `task_update`."""

    def __init__(self, services: Services, sessions: ClientSessions, publisher: Publisher) -> None:
        self._services = services
        self._tasks = services.tasks
        self._sessions = sessions
        self._publisher = publisher

    def register(self, events: Events) -> None:
        events.on("generate", self.generate, waits=True)
        events.on("task_status", self.task_status, waits=True)
        events.on("cancel_task", self.cancel_task, waits=True)
        events.on("resume", self.resume)
        events.on("tasks", self.tasks)

    def generate(self, sid: str, payload: Any) -> dict[str, Any]:
        session = self._sessions.keyed(sid)
        new = new_task(payload, self._services.settings, self._services.kinds)
        accepted = self._tasks.submit(str(session.key_id), new, partial(self._subscribe, session))
        if accepted.duplicate:
            self._follow(session, accepted.task["id"], accepted.task["seq"]).catch_up()
        return accepted.body()

    def task_status(self, sid: str, payload: Any) -> dict[str, Any]:
        key_id = self._key(sid)
        given = load(STATUS, payload)
        task = self._tasks.status(key_id, given["task_id"], given["after_seq"], given["wait_s"])
        return {"success": True, "task": task}

    def cancel_task(self, sid: str, payload: Any) -> dict[str, Any]:
        key_id = self._key(sid)
        return {"success": True, "task": self._tasks.cancel(key_id, load(TASK_ID, payload)["task_id"])}

    def resume(self, sid: str, payload: Any) -> dict[str, Any]:
        key_id = self._key(sid)
        given = load(RESUME, payload)
        task, entries = self._tasks.resume(key_id, given["task_id"], given["after_seq"])
        last = entries[-1].seq if entries else given["after_seq"]
        self._follow(self._sessions.keyed(sid), task["id"], last).catch_up()
        return {"success": True, "task": task, "updates": [entry.body for entry in entries], "recovered": True}

    def tasks(self, sid: str, payload: Any) -> dict[str, Any]:
        key_id = self._key(sid)
        return self._tasks.page(key_id, **load(LIST, payload))

    def _key(self, sid: str) -> str:
        """The socket's key, still in force and with the scope; raises MissingKey, InvalidKey, Forbidden."""
        key_id = str(self._sessions.keyed(sid).key_id)
        self._services.check_key(key_id, "client")
        return key_id

    def _follow(self, session: ClientSession, task_id: str, after: int) -> Subscription:
        """From now on the socket gets every update of the task above `after`."""
        deliver = partial(self._deliver, session)
        subscription = self._services.streams.subscribe(task_stream(task_id), after, deliver)
        session.follow(subscription)
        return subscription

    def _subscribe(self, session: ClientSession, task_id: str) -> None:
        """Right after the commit: update 1 is in the ack, later ones are pushed."""
        self._follow(session, task_id, 1)

    def _deliver(self, session: ClientSession, entry: Entry) -> None:
        self._publisher.task_update(session.sid, entry)
        if entry.body["status"] in ENDED:
            session.drop(entry.stream)
