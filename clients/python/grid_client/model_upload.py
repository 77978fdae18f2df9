"""Sending a large model by tus 1.0.0 (https://tus.io/protocols/resumable-upload), resumed after a break."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from grid_client.backoff import Backoff
from grid_client.errors import DeadlineExceeded, GridError
from grid_client.transfer import Http, Progress

CHUNK = 8 * 1024 * 1024
TUS = {"Tus-Resumable": "1.0.0"}
LOST = frozenset({"offset_mismatch", "upload_busy", "checksum_mismatch"})
"""Refusals after which the node is asked how much it has."""
GONE = frozenset({404, 410})


class Content(Protocol):
    """The bytes of a model, wherever they are."""

    @property
    def size(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    def read(self, offset: int, length: int, /) -> bytes: ...


class ModelUpload:
    """One model on its way. `resume` names a small file that lets a later call go on where this one was cut."""

    def __init__(
        self,
        http: Http,
        model: Content,
        fields: Mapping[str, Any],
        *,
        deadline: float,
        progress: Progress,
        resume: Path | None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        chunk: int = CHUNK,
    ) -> None:
        """`deadline` is on `clock`."""
        self._http = http
        self._model = model
        self._fields = fields
        self._deadline = deadline
        self._progress = progress
        self._resume = resume
        self._sleep = sleep
        self._clock = clock
        self._chunk = chunk

    def send(self) -> int:
        """Returns the version that the model became. Raises what the node says of the model."""
        location, offset = self._begun() or (self._created(), 0)
        version = self._appended(location, offset)
        if version is None:
            version = self._published(location)
        if self._resume is not None:
            self._resume.unlink(missing_ok=True)
        return version

    # --- where it goes on

    def _begun(self) -> tuple[str, int] | None:
        """The upload of an earlier call and how much of it is there."""
        if self._resume is None or not self._resume.exists():
            return None
        noted = _noted(self._resume)
        if noted.get("sha256") != self._model.sha256 or noted.get("fields") != _plain(self._fields):
            return None
        try:
            return noted["location"], self._offset(noted["location"])
        except GridError as error:
            if error.status in GONE:
                return None
            raise

    def _created(self) -> str:
        # a key without a value stands alone: a header line may not end in a space
        metadata = ",".join(f"{name} {_coded(text)}".strip() for name, text in _plain(self._fields).items())
        headers = {**TUS, "Upload-Length": str(self._model.size), "Upload-Metadata": metadata}
        answer = self._http.retried(
            lambda: self._http.request("POST", "uploads", body=b"", headers=headers), self._deadline
        )
        location = answer.headers.get("Location")
        if not location:
            raise GridError("bad_answer", "the node made no upload", status=answer.status_code)
        whole = urljoin(str(answer.request.url), location)
        if self._resume is not None:
            noted = {"location": whole, "sha256": self._model.sha256, "fields": _plain(self._fields)}
            self._resume.write_text(json.dumps(noted))
        return whole

    def _offset(self, location: str) -> int:
        answer = self._http.retried(lambda: self._http.request("HEAD", location, headers=TUS), self._deadline)
        return _number(answer.headers.get("Upload-Offset", ""), self._model.size)

    # --- the bytes

    def _appended(self, location: str, offset: int) -> int | None:
        """Send the rest. The version, if the last answer told it."""
        backoff, version = Backoff(), None
        self._progress(offset, self._model.size)
        while offset < self._model.size:
            try:
                offset, version = self._append(location, offset)
                backoff.reset()
            except GridError as error:
                if not error.retryable and error.code not in LOST:
                    raise
                self._pause(backoff.next(error.retry_after))
                offset = self._offset(location)
            self._progress(offset, self._model.size)
        return version

    def _append(self, location: str, offset: int) -> tuple[int, int | None]:
        headers = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        piece = self._model.read(offset, self._chunk)
        answer = self._http.request("PATCH", location, body=piece, headers=headers)
        version = answer.headers.get("Model-Version", "")
        reached = _number(answer.headers.get("Upload-Offset", ""), self._model.size)
        return reached, int(version) if version.isdecimal() else None

    # --- what became of it

    def _published(self, location: str) -> int:
        """The node is still checking, or its answer was lost."""
        backoff = Backoff(cap=5.0)
        path = urlsplit(location).path
        while True:
            said = self._http.retried(lambda: self._http.json("GET", path, headers=TUS), self._deadline)
            if said.get("state") == "published":
                return _number(str(said.get("version")), 2**31)
            if said.get("state") == "rejected":
                raise GridError.from_body(said.get("error"), 422)
            self._pause(backoff.next())

    def _pause(self, seconds: float) -> None:
        if self._clock() + seconds >= self._deadline:
            raise DeadlineExceeded("the upload took too long")
        self._sleep(seconds)


def _noted(file: Path) -> dict[str, Any]:
    """What an earlier call wrote down; nothing if it was cut while writing."""
    try:
        noted = json.loads(file.read_text())
    except ValueError:
        return {}
    return noted if isinstance(noted, dict) else {}


def _plain(fields: Mapping[str, Any]) -> dict[str, str]:
    """Every field as the text that a form or Upload-Metadata has for it."""
    return {name: _text(value) for name, value in fields.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "True" if value else "False"
    return value if isinstance(value, str) else json.dumps(value)


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _number(text: str, most: int) -> int:
    if not text.isdecimal() or int(text) > most:
        raise GridError("bad_answer", "the node gave no valid number")
    return int(text)
