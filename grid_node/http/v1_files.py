"""Files of clients, as Replicate's API has them: inputs that a worker reads without a key."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from flask import Request, Response, jsonify, request
from flask_smorest import Blueprint

from grid_node.errors import FileTooLarge, InvalidPayload, UnsupportedMediaType, UploadEndedEarly, UploadTimeout
from grid_node.http.bodies import body_chunks
from grid_node.http.documents import ERRORS, answers
from grid_node.http.multipart import Event, MultipartReader, PartHead, boundary_of
from grid_node.http.runner_door import RunnerDoor, transient
from grid_node.runners.file_rows import INPUT
from grid_node.runners.files import NewFile, RunnerFiles, Stored
from grid_node.runners.incoming import Incoming
from grid_node.runners.naming import clean_name
from grid_node.services import Services
from grid_node.settings import Settings
from grid_node.wire.strict_json import InvalidJSON, loads

TEXT_MAX = 64 * 1024
"""Bytes of all text parts together."""
FRAME_MAX = 128 * 1024
"""Bytes that a form takes beside its parts."""
_CONTENT, _METADATA = "content", "metadata"
_KEY: dict[str, Any] = {"security": [{"key": []}]}
_PART = {"type": "string", "format": "binary"}
_FORM = {
    "requestBody": {
        "content": {
            "multipart/form-data": {
                "schema": {"properties": {_CONTENT: _PART, _METADATA: {"type": "string"}}, "required": [_CONTENT]}
            }
        }
    }
}
_CURSOR = {"parameters": [{"in": "query", "name": "cursor", "schema": {"type": "string"}}]}


class V1FileRoutes:
    """`/v1/files`."""

    def __init__(self, services: Services, door: RunnerDoor) -> None:
        self._files: RunnerFiles = services.running.files
        self._settings = services.settings
        self._door = door

    def blueprint(self) -> Blueprint:
        made = Blueprint("client_files", __name__, url_prefix="/v1", description="Files of clients.")
        rules: tuple[tuple[str, Callable[..., Response], str, dict[str, Any], dict[str, Any]], ...] = (
            ("/files", self.create, "POST", answers(201), _FORM),
            ("/files", self.page, "GET", answers(200), _CURSOR),
            ("/files/<file_id>", self.get, "GET", answers(200), {}),
            ("/files/<file_id>", self.delete, "DELETE", {"204": {"description": "It is gone."}}, {}),
        )
        for rule, view, method, good, documents in rules:
            documented = made.doc(**_KEY, **documents, responses={**good, **ERRORS})
            made.add_url_rule(rule, view.__name__, documented(view), methods=[method])
        return made

    def create(self) -> Response:
        """Store a file: part `content`, and text part `metadata` with a JSON object."""
        with transient():
            caller = self._door.client(request)
            if request.mimetype != "multipart/form-data":
                raise UnsupportedMediaType("Content-Type must be multipart/form-data.")
            with ExitStack() as stack:
                form = _Form(self._files, stack)
                form.read(_events(request, self._settings))
                stored = form.keep(caller.owner)
        answer = jsonify(self._files.view(stored.file))
        answer.status_code = 201
        return answer

    def page(self) -> Response:
        """The key's files, newest first, 100 a page."""
        page = self._files.input_page(self._door.client(request).owner, request.args.get("cursor"))
        following = None if page.next is None else f"{self._settings.public_url}/v1/files?cursor={page.next}"
        return jsonify(previous=None, next=following, results=[self._files.view(file) for file in page.files])

    def get(self, file_id: str) -> Response:
        """What is known of a file."""
        return jsonify(self._files.view(self._files.input_file(self._door.client(request).owner, file_id)))

    def delete(self, file_id: str) -> Response:
        """Remove a file."""
        self._files.delete_input(self._door.client(request).owner, file_id)
        return Response(status=204)


class _Form:
    """The parts of a form: the file goes to the disk as it comes."""

    def __init__(self, files: RunnerFiles, stack: ExitStack) -> None:
        self._files = files
        self._stack = stack
        self._content: Incoming | None = None
        self._content_head = self._head = PartHead("", False)
        self._into: Incoming | None = None
        self._texts: dict[str, bytes] = {}
        self._text_left = TEXT_MAX

    def read(self, events: Iterator[Event]) -> None:
        for event in events:
            if isinstance(event, PartHead):
                self._begin(event)
            elif isinstance(event, bytes):
                self._add(event)

    def keep(self, owner: str) -> Stored:
        """Raises InvalidPayload, and what RunnerFiles.keep does."""
        if self._content is None:
            raise _wrong(_CONTENT, "Missing data for required field.")
        filename = self._text("filename") or self._content_head.filename
        content_type = self._text("type") or self._content_head.content_type
        return self._files.keep(
            NewFile(
                owner=owner,
                kind=INPUT,
                filename=clean_name(filename),
                content_type=content_type,
                about=self._metadata(),
            ),
            self._content,
        )

    def _begin(self, head: PartHead) -> None:
        """Parts that nobody asked for are read and left."""
        self._head, self._into = head, None
        if head.name != _CONTENT:
            self._texts[head.name] = b""
            return
        if self._content is not None:
            raise _wrong(_CONTENT, "given twice")
        self._content_head = head
        self._content = self._into = self._stack.enter_context(self._files.incoming())

    def _add(self, piece: bytes) -> None:
        if self._into is not None:
            self._into.write(piece)
            return
        self._text_left -= len(piece)
        if self._text_left < 0:
            raise _wrong(self._head.name, f"longer than {TEXT_MAX} bytes")
        self._texts[self._head.name] += piece

    def _text(self, name: str) -> str:
        try:
            return self._texts.get(name, b"").decode()
        except UnicodeDecodeError:
            raise _wrong(name, "must be UTF-8") from None

    def _metadata(self) -> dict[str, Any]:
        try:
            about = loads(self._text(_METADATA) or "{}")
        except InvalidJSON:
            about = None
        if not isinstance(about, dict):
            raise _wrong(_METADATA, "must be a JSON object")
        return about


def _events(request: Request, settings: Settings) -> Iterator[Event]:
    """The parts of the body; as much as one file and the texts beside it."""
    reader = MultipartReader(boundary_of(request.headers.get("Content-Type", "")))
    limit = settings.upload_max_bytes
    pieces = body_chunks(
        request,
        limit + TEXT_MAX + FRAME_MAX,
        too_large=lambda **_longest: FileTooLarge(limit=limit),
        incomplete=UploadEndedEarly,
        stalled=UploadTimeout,
        stall=settings.upload_idle_timeout_s,
    )
    for piece in pieces:
        yield from reader.feed(piece)
    reader.finish()


def _wrong(field: str, problem: str) -> InvalidPayload:
    return InvalidPayload(fields={field: [problem]})
