"""The face of tus 1.0.0: one blueprint for each kind of upload (https://tus.io/protocols/resumable-upload)."""

from collections.abc import Callable, Iterator
from http import HTTPStatus

from flask import Blueprint, Request, Response, jsonify, request
from werkzeug.http import http_date

from grid_node.errors import (
    GridError,
    MethodNotAllowed,
    TusVersion,
    UnsupportedMediaType,
    UploadTooLarge,
)
from grid_node.http.bodies import body_chunks
from grid_node.uploads import tus
from grid_node.uploads.service import Progress, UploadService
from grid_node.uploads.target import UploadTarget

Identify = Callable[[Request], str]
"""The owner that a request speaks for; raises the error that refuses it. Called before any byte of a body."""

ROUTED = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


def uploads_blueprint(
    name: str, url_prefix: str, uploads: UploadService, identify: Identify, target: UploadTarget
) -> Blueprint:
    """tus at `url_prefix`, with creation, checksum, expiration, termination, and a status by GET."""
    blueprint = Blueprint(name, __name__, url_prefix=url_prefix)
    face = _Face(uploads, identify, target)
    options = {"provide_automatic_options": False, "strict_slashes": False}
    methods = [*ROUTED, "OPTIONS"]
    blueprint.add_url_rule("/", "collection", face.collection, methods=methods, **options)
    blueprint.add_url_rule("/<upload_id>/", "upload", face.upload, methods=methods, **options)
    blueprint.after_request(_resumable)
    return blueprint


class _Face:
    """Each method loads headers, calls the service once, and dumps headers."""

    def __init__(self, uploads: UploadService, identify: Identify, target: UploadTarget) -> None:
        self._uploads = uploads
        self._identify = identify
        self._target = target

    def collection(self) -> Response:
        method = _method()
        if method == "OPTIONS":
            return self._options()
        _require_version()
        if method != "POST":
            return _not_allowed("OPTIONS, POST")
        return self._create()

    def upload(self, upload_id: str) -> Response:
        method = _method()
        if method == "OPTIONS":
            return self._options()
        _require_version()
        actions = {"HEAD": self._head, "GET": self._status, "PATCH": self._append, "DELETE": self._terminate}
        if method not in actions:
            return _not_allowed("DELETE, GET, HEAD, OPTIONS, PATCH")
        return actions[method](upload_id)

    def _options(self) -> Response:
        answer = _empty()
        answer.headers["Tus-Version"] = tus.VERSION
        answer.headers["Tus-Extension"] = tus.EXTENSIONS
        answer.headers["Tus-Max-Size"] = str(self._target.max_bytes)
        answer.headers["Tus-Checksum-Algorithm"] = ",".join(tus.ALGORITHMS)
        return answer

    def _create(self) -> Response:
        owner = self._identify(request)
        if "Upload-Defer-Length" in request.headers:
            raise tus.invalid("Upload-Defer-Length", "The length must be known at creation.")
        length = tus.parse_length(request.headers.get("Upload-Length"), self._target.max_bytes)
        row = self._uploads.create(owner, self._target, length, request.headers.get("Upload-Metadata", ""))
        answer = _empty(HTTPStatus.CREATED)
        answer.headers["Location"] = f"{request.script_root}{request.path.rstrip('/')}/{row.id}"
        answer.headers["Upload-Expires"] = http_date(row.expires_at)
        return answer

    def _head(self, upload_id: str) -> Response:
        progress = self._uploads.find(self._identify(request), self._target, upload_id)
        answer = _progress(progress, HTTPStatus.OK)
        answer.headers["Upload-Length"] = str(progress.row.length)
        answer.headers["Cache-Control"] = "no-store"
        if progress.row.upload_metadata:
            answer.headers["Upload-Metadata"] = progress.row.upload_metadata
        return answer

    def _status(self, upload_id: str) -> Response:
        progress = self._uploads.find(self._identify(request), self._target, upload_id)
        row = progress.row
        standing = {"state": progress.state, "offset": progress.offset, "length": row.length, "sha256": row.sha256}
        told = {**dict.fromkeys(self._target.told), **row.told.get("fields", {})}
        answer = jsonify({**told, "success": True, **standing, "error": row.told.get("error")})
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def _append(self, upload_id: str) -> Response:
        owner = self._identify(request)
        if request.mimetype != tus.OFFSET_TYPE:
            raise UnsupportedMediaType(f"Content-Type must be {tus.OFFSET_TYPE}")
        offset = tus.parse_number("Upload-Offset", request.headers.get("Upload-Offset"))
        checksum = tus.parse_checksum(request.headers.get("Upload-Checksum"))
        progress = self._uploads.append(owner, self._target, upload_id, offset, _body, checksum)
        answer = _progress(progress, HTTPStatus.NO_CONTENT)
        answer.headers.update(progress.headers)
        return answer

    def _terminate(self, upload_id: str) -> Response:
        self._uploads.terminate(self._identify(request), self._target, upload_id)
        return _empty()


def _body(max_bytes: int) -> Iterator[bytes]:
    return body_chunks(request, max_bytes, too_large=UploadTooLarge)


def _method() -> str:
    return request.headers.get("X-HTTP-Method-Override", request.method).upper()


def _require_version() -> None:
    if request.headers.get("Tus-Resumable") != tus.VERSION:
        raise TusVersion


def _progress(progress: Progress, status: HTTPStatus) -> Response:
    answer = _empty(status)
    answer.headers["Upload-Offset"] = str(progress.offset)
    answer.headers["Upload-Expires"] = http_date(progress.row.expires_at)
    return answer


def _empty(status: HTTPStatus = HTTPStatus.NO_CONTENT) -> Response:
    answer = Response(status=status)
    del answer.headers["Content-Type"]
    return answer


def _not_allowed(allow: str) -> Response:
    error: GridError = MethodNotAllowed()
    answer = jsonify(error.body())
    answer.status_code = error.status
    answer.headers["Allow"] = allow
    return answer


def _resumable(answer: Response) -> Response:
    answer.headers["Tus-Resumable"] = tus.VERSION
    if answer.status_code == HTTPStatus.PRECONDITION_FAILED:
        answer.headers["Tus-Version"] = tus.VERSION
    return answer
