"""Files of workers: Cog's `put_file_to_signed_endpoint()` sends them here, and whoever knows a key reads them."""

from typing import Any

import flask
from flask import Flask, Request, Response, jsonify, request
from flask_smorest import Blueprint
from werkzeug.routing import BaseConverter

from grid_node.errors import (
    FileNotFound,
    FileTooLarge,
    NotFound,
    RunnerMethodNotAllowed,
    UploadEndedEarly,
    UploadTimeout,
)
from grid_node.http.bodies import announced_length, body_chunks
from grid_node.http.documents import ERRORS, answers
from grid_node.http.errors import error_answer
from grid_node.http.files import blob_answer
from grid_node.http.runner_door import RunnerDoor, transient
from grid_node.runners.files import Stored
from grid_node.runners.ids import PREDICTION_ID
from grid_node.services import Services

INLINE_POLICY = "sandbox; default-src 'none'"
"""What a browser shows of a file runs nothing and loads nothing."""
_KEY: dict[str, Any] = {"security": [{"key": []}]}
_OTHERS = ["GET", "POST", "PATCH", "DELETE", "OPTIONS"]
_BYTES = {"description": "The bytes.", "content": {"application/octet-stream": {}}}


class _AnyName(BaseConverter):
    """Whatever follows: workers do not quote the names of their files, which hold slashes, line ends, or nothing."""

    regex = "(?s:.*)"
    part_isolating = False
    weight = 300


class RunnerFileRoutes:
    """`PUT /pc/client-api/upload/{file_name}` and `/pc/client-api/files/{key}`."""

    def __init__(self, services: Services, door: RunnerDoor) -> None:
        self._files = services.running.files
        self._blobs = services.blobs
        self._settings = services.settings
        self._door = door

    def blueprint(self) -> Blueprint:
        made = Blueprint("runner_files", __name__, url_prefix="/pc/client-api", description="Files of workers.")
        made.record(lambda state: _add_converter(state.app))
        put: Any = made.doc(**_KEY, responses={**answers(201), **ERRORS})(self.upload)
        put.provide_automatic_options = False
        made.add_url_rule("/upload/<any_name:file_name>", "upload", put, methods=["PUT"])
        made.add_url_rule("/upload", "upload_nameless", put, methods=["PUT"], defaults={"file_name": ""})
        flask.Blueprint.add_url_rule(made, "/upload/<any_name:file_name>", "no_upload", _only_put, methods=_OTHERS)
        get = made.doc(responses={"200": _BYTES, **ERRORS})(self.file)
        made.add_url_rule("/files/<key>", "file", get, methods=["GET"])
        return made

    def upload(self, file_name: str) -> Response:
        """Store a file of a worker; 201, or 200 if the same was sent before. `Location` says where it is."""
        with transient():
            caller = self._door.runner(request, basic=True)
            said = _prediction_id(request)
            new = self._files.named(caller.owner, file_name, said, request.headers.get("Content-Type"))
            self._files.check(new, announced_length(request))
            pieces = body_chunks(
                request,
                self._settings.upload_max_bytes,
                too_large=FileTooLarge,
                incomplete=UploadEndedEarly,
                stalled=UploadTimeout,
                stall=self._settings.upload_idle_timeout_s,
            )
            return self._stored(self._files.receive(new, pieces))

    def file(self, key: str) -> Response:
        """The bytes of a file, whole or in part. Asks for no key: the address is one."""
        file = self._files.open_key(key)
        try:
            answer = blob_answer(
                request,
                self._blobs,
                file.sha256,
                filename=file.filename,
                content_type=file.sniffed or file.content_type,
                inline=file.sniffed is not None,
            )
        except NotFound:
            raise FileNotFound() from None
        answer.headers["Content-Security-Policy"] = INLINE_POLICY
        answer.headers["Cache-Control"] = "private, no-cache, no-transform"
        return answer

    def _stored(self, stored: Stored) -> Response:
        file = stored.file
        url = self._files.url_of(file)
        told = ("key", "size", "sha256", "content_type", "filename", "index", "prediction_id")
        answer = jsonify(url=url, **{name: getattr(file, name) for name in told})
        answer.status_code = 201 if stored.is_new else 200
        answer.headers["Location"] = url
        return answer


def _add_converter(app: Flask) -> None:
    app.url_map.converters["any_name"] = _AnyName


def _only_put(file_name: str) -> Response:
    answer = error_answer(RunnerMethodNotAllowed())
    answer.headers["Allow"] = "PUT"
    return answer


def _prediction_id(request: Request) -> str | None:
    """What the worker says that the file is for; nothing, if that can be no id."""
    said = request.headers.get("X-Prediction-ID", "")
    try:
        said = said.encode("latin-1").decode()
    except UnicodeError:
        pass
    return said if PREDICTION_ID.fullmatch(said) else None
