"""The raw WebSocket `/ws/generate`: one key, one prompt, its updates, one close code.

Two (green) threads serve a connection: one reads, one writes updates and the assets in them. What ends the
conversation is decided once; a client that is gone leaves an abandoned task.
"""

import logging
import threading
from typing import Any

from grid_node.errors import FormatNotAvailable, GridError, NotFound, ResultExpired, ServerFull
from grid_node.fields import load
from grid_node.generation.lifecycle import task_stream
from grid_node.generation.requests import FRAME, new_task
from grid_node.generation.schemas import ResumeSchema
from grid_node.generation.selection import ENDED
from grid_node.generation.tasks import StoredFile
from grid_node.http import socket_messages as messages
from grid_node.http.connections import Connections, Held
from grid_node.http.following import Follower
from grid_node.http.results import pieces_of
from grid_node.http.socket_messages import Closing
from grid_node.identity.service import Caller
from grid_node.services import Services
from grid_node.streams.service import Entry
from grid_node.wire.outbox import ConnectionClosed
from grid_node.wire.websocket import WebSocket

log = logging.getLogger(__name__)

RESUME = ResumeSchema()

PING = 25.0
"""Seconds of silence after which a ping is sent; after twice that the peer counts as gone."""
LOOK = 60.0
"""Seconds after which a writer that heard nothing looks by itself."""
LIMITED = 1.0
"""Seconds that a key without room for a task has to say that it only resumes one."""


class GenerateSockets:
    """The raw sockets of this process."""

    def __init__(self, services: Services, connections: Connections) -> None:
        self.services = services
        self.connections = connections
        self._pending = 0

    def serve(self, environ: dict[str, Any], address: str) -> None:
        """The whole life of a connection whose upgrade was checked."""
        settings = self.services.settings
        socket = WebSocket.accept(
            environ, max_bytes=messages.TRANSPORT_MAX, stall_seconds=settings.public_api_ws_stall, ping_seconds=PING
        )
        conversation = _Conversation(self, socket)
        self.connections.add(conversation.held)
        self._pending += 1
        try:
            caller = conversation.guarded(lambda: self._authenticated(conversation, address))
        finally:
            self._pending -= 1
        try:
            if caller is not None:
                conversation.guarded(lambda: conversation.run(caller))
        finally:
            self.connections.discard(conversation.held)

    def _authenticated(self, conversation: "_Conversation", address: str) -> Caller:
        if self._pending > self.services.settings.public_api_ws_pending_max:
            raise ServerFull(retry_after=1)
        key = messages.key_of(conversation.receive())
        caller = self.services.keys.authenticate(key, address, "client")
        conversation.held.key_id = caller.key_id
        return caller


class _Conversation:
    """One connection from its first frame to its close."""

    def __init__(self, sockets: GenerateSockets, socket: WebSocket) -> None:
        self._services = sockets.services
        self._socket = socket
        self.held = Held(None, "websocket", self.end)
        self._follower: Follower | None = None
        self._extended = False
        self._asset_format = "ply"
        self._ended = False

    def guarded(self, step: Any) -> Any:
        """Take a step; whatever it raises ends the connection with the code that says so."""
        try:
            return step()
        except Closing as closing:
            self.end(closing.code, closing.reason)
        except ConnectionClosed:
            pass
        except GridError as error:
            self._refuse(error)
        except Exception:
            log.exception("a raw socket failed")
            self.end(*messages.OUR_FAULT)
        return None

    def end(self, code: int, reason: str) -> None:
        """Say goodbye. The task, if there is one, lives on."""
        self._ended = True
        self._socket.close(code, reason)

    def _refuse(self, error: GridError) -> None:
        self._services.metrics.errors.labels(error.code).inc()
        if self._extended:
            try:
                self._socket.send_text(messages.refusal_text(error))
            except ConnectionClosed:
                return
        self.end(*messages.close_of(error))

    # --- the handshake ------------------------------------------------------------------------------------------

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """The next frame. Raises Closing when it does not come in time."""
        try:
            message = self._socket.recv(seconds or self._services.settings.public_api_ws_handshake)
        except TimeoutError:
            raise Closing(*messages.TIMEOUT) from None
        return messages.frame_of(message)

    def run(self, caller: Caller) -> None:
        frame = self._second_frame(caller)
        self._extended = frame.get("extended") is True
        task_id, after = self._begin(caller, frame)
        try:
            with Follower(self._services.streams, task_stream(task_id), after) as self._follower:
                self._converse(caller.key_id, task_id, self._follower)
        finally:
            if not self._ended:
                self.guarded(lambda: self._services.tasks.abandon(caller.key_id, task_id))

    def _second_frame(self, caller: Caller) -> dict[str, Any]:
        """A key without room for a task is told so before it says what it wants, unless it comes to resume one."""
        try:
            self._services.tasks.check(caller)
        except GridError as refusal:
            frame = self._frame_within(LIMITED)
            if frame is None or "resume" not in frame:
                self._extended = frame is not None and frame.get("extended") is True
                raise refusal from None
            return frame
        return self.receive()

    def _frame_within(self, seconds: float) -> dict[str, Any] | None:
        try:
            return self.receive(seconds)
        except Closing:
            return None

    def _begin(self, caller: Caller, frame: dict[str, Any]) -> tuple[str, int]:
        """The task of this conversation, and the seq after which it is told."""
        return self._resume(caller, frame["resume"]) if "resume" in frame else (self._submit(caller, frame), 0)

    def _submit(self, caller: Caller, frame: dict[str, Any]) -> str:
        grid = self._services
        new = new_task(frame, grid.settings, grid.kinds, FRAME)
        self._asset_format = frame.get("asset_format") or "ply"
        task_id: str = grid.tasks.submit(caller.key_id, new).task["id"]
        return task_id

    def _resume(self, caller: Caller, wanted: Any) -> tuple[str, int]:
        given = load(RESUME, wanted)
        task, updates = self._services.tasks.resume(caller.key_id, given["task_id"], given["after_seq"])
        if task["status"] in ENDED and not updates:
            raise Closing(*messages.close_of_end(task["status"], task["error"]))
        return given["task_id"], given["after_seq"]

    # --- reading and writing ------------------------------------------------------------------------------------

    def _converse(self, key_id: str, task_id: str, follower: Follower) -> None:
        writer = threading.Thread(target=self.guarded, args=(lambda: self._write(key_id, follower),), daemon=True)
        writer.start()
        self.guarded(lambda: self._read(key_id, task_id))
        follower.stop()
        writer.join()

    def _read(self, key_id: str, task_id: str) -> None:
        """After the prompt a client says nothing but `cancel`. Runs until the connection ends."""
        while True:
            frame = messages.frame_of(self._socket.recv())
            if frame.get("cancel") is not True:
                raise Closing(*messages.BAD_MESSAGE)
            self._services.tasks.cancel(key_id, task_id)

    def _write(self, key_id: str, follower: Follower) -> None:
        """Every update that this client understands, then the close that fits the last one."""
        while not follower.stopped:
            for entry in follower.wait(LOOK):
                self._send(key_id, entry)
                if entry.body["status"] in ENDED:
                    raise Closing(*messages.close_of_end(entry.body["status"], entry.body.get("error")))

    def _send(self, key_id: str, entry: Entry) -> None:
        body = entry.body
        if body["status"] not in messages.PLAIN_STATUSES and not self._extended:
            return
        update = messages.update_of(body)
        if "results" not in body:
            self._socket.send_text(messages.text_of(update))
            return
        file = self._asset(key_id, body)
        results = messages.results_of(body, file)
        if file is None:
            self._socket.send_text(messages.text_of({**update, "results": {**results, "assets": None}}))
            return
        self._socket.send_fragments(messages.fragments_of(update, results, pieces_of(self._services.blobs, file)))

    def _asset(self, key_id: str, body: dict[str, Any]) -> StoredFile | None:
        """The result in the form asked for, or as the worker sent it; None when it is past its time."""
        find = self._services.tasks.result_file
        which = str(body["results"]["n"])
        try:
            try:
                return find(key_id, body["task_id"], which, f"asset.{self._asset_format}")
            except FormatNotAvailable:
                return find(key_id, body["task_id"], which)
        except (ResultExpired, NotFound):
            return None
