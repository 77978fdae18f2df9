"""What `/serve_model` is sent: JSON, a form, or a form whose file part has the bytes.

Whatever it is, it becomes what an event would carry. The bytes of a file part go to the disk as they come; text is
read in slices, so that others run meanwhile.
"""

import codecs
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import Request

from grid_node.blobs.store import Blobs, BlobWriter
from grid_node.errors import AssetTooLarge, InvalidPayload, MessageTooLarge, UploadTooLarge
from grid_node.hosting.forms import form_payload, given_twice
from grid_node.hosting.schemas import SERVE, ServeRequest
from grid_node.http.bodies import body_chunks
from grid_node.http.long_text import parse_with_text
from grid_node.http.model_uploads import UPLOAD_URL
from grid_node.http.multipart import PARTS_MAX, MultipartReader, PartHead, boundary_of
from grid_node.http.payloads import json_body
from grid_node.settings import MIB, Settings

REST_MAX = MIB
"""Bytes of all fields but the model."""
ESCAPED = 6
"""Most bytes that one byte of a model takes as text: `\\u00ff` in JSON, `%C3%BF` in a form."""
SLICE = 64 * 1024
"""Bytes of a form that are decoded at once."""
NAME_MAX = 256
"""Bytes of a field's name that are looked at; no field has so long a name."""

_MODEL = "model"


@dataclass(frozen=True)
class SentModel:
    """`payload` as an event would carry it; `writer` has the bytes of a file part, still without a name."""

    payload: Any
    writer: BlobWriter | None = None


@contextmanager
def sent_model(request: Request, blobs: Blobs, settings: Settings) -> Iterator[SentModel]:
    """The body, read to its end. Bytes that nobody commits are gone when the context is left.

    Raises InvalidPayload, MessageTooLarge, UploadTooLarge, BodyIncomplete, LengthRequired, StoreFull.
    """
    with ExitStack() as stack:
        if request.mimetype == "multipart/form-data":
            yield _MultipartForm(blobs, settings, stack).read(request)
        else:
            yield SentModel(_payload(request, settings.models_inline_max))


def check_inline(request: ServeRequest, limit: int) -> None:
    """Raises MessageTooLarge for a model that was sent as text and has more than `limit` bytes."""
    text = request.model or b""
    size = len(text)
    if request.encoding == "base64" and isinstance(text, str):
        size = size // 4 * 3 - text[-2:].count("=")
    if size > limit:
        raise _too_large(limit)


def _payload(request: Request, limit: int) -> Any:
    body = json_body(request, ESCAPED * limit + REST_MAX, limit=limit, upload_url=UPLOAD_URL)
    if request.mimetype == "application/x-www-form-urlencoded" and not body.startswith(
        b"{"
    ):  # curl says so of JSON too
        return form_payload(_urlencoded(body), SERVE)
    return parse_with_text(body, _MODEL, REST_MAX)


def _too_large(limit: int) -> MessageTooLarge:
    return MessageTooLarge(limit=limit, upload_url=UPLOAD_URL)


# --- application/x-www-form-urlencoded -----------------------------------------------------------------------------


def _urlencoded(body: bytes) -> Iterator[tuple[str, str]]:
    """https://url.spec.whatwg.org/#urlencoded-parsing, but for bytes that are no UTF-8: those are refused."""
    if body.count(b"&") >= PARTS_MAX:
        raise InvalidPayload(fields={"_schema": [f"the form has more than {PARTS_MAX} fields"]})
    for field in body.split(b"&"):
        if field:
            raw_name, _, value = field.partition(b"=")
            name = _unquoted(raw_name[:NAME_MAX], "_schema")
            yield name, _unquoted(value, name)


def _unquoted(raw: bytes, field: str) -> str:
    text, start = _Text(field), 0
    while start < len(raw):
        end = _before_escape(raw, start + SLICE)
        text.add(unquote_to_bytes(raw[start:end].replace(b"+", b" ")))
        start = end
    return text.whole()


def _before_escape(raw: bytes, end: int) -> int:
    """`end`, or up to two bytes before it, so that no `%ff` is cut in two."""
    if end >= len(raw):
        return len(raw)
    escape = raw.rfind(b"%", end - 2, end)
    return end if escape < 0 else escape


class _Text:
    """UTF-8 that comes in pieces. Raises InvalidPayload naming `field` for what is none."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._pieces: list[str] = []

    def add(self, piece: bytes, final: bool = False) -> None:
        try:
            self._pieces.append(self._decoder.decode(piece, final))
        except UnicodeDecodeError:
            raise InvalidPayload(fields={self._field: ["must be UTF-8"]}) from None
        if len(piece) >= SLICE // 2:
            time.sleep(0)

    def whole(self) -> str:
        self.add(b"", final=True)
        return "".join(self._pieces)


# --- multipart/form-data -------------------------------------------------------------------------------------------


class _MultipartForm:
    """Text parts become fields, the file part `model` goes into the store."""

    def __init__(self, blobs: Blobs, settings: Settings, stack: ExitStack) -> None:
        self._blobs = blobs
        self._stack = stack
        self._inline_max = settings.models_inline_max
        self._model_max = settings.models_max_bytes
        self._text_left = 2 * self._inline_max + REST_MAX  # a byte of the model takes two bytes of UTF-8 at most
        self._pairs: list[tuple[str, str]] = []
        self._writer: BlobWriter | None = None
        self._name = ""
        self._text: _Text | None = None

    def read(self, request: Request) -> SentModel:
        reader = MultipartReader(boundary_of(request.headers.get("Content-Type", "")))
        longest = self._model_max + self._text_left + REST_MAX
        for piece in body_chunks(request, longest, too_large=self._too_large):
            for event in reader.feed(piece):
                self._take(event)
        reader.finish()
        return SentModel(self._payload(), self._writer)

    def _take(self, event: Any) -> None:
        if isinstance(event, PartHead):
            self._begin(event)
        elif isinstance(event, bytes):
            self._into()(event)
        elif self._text is not None:
            self._pairs.append((self._name, self._text.whole()))

    def _begin(self, head: PartHead) -> None:
        self._name = head.name
        self._text = None if head.is_file else _Text(head.name)
        if not head.is_file:
            return
        if head.name != _MODEL:
            problem = "must be text, not a file" if head.name in SERVE.fields else "Unknown field."
            raise InvalidPayload(fields={head.name: [problem]})
        if self._writer is not None:
            raise given_twice(_MODEL)
        self._writer = self._stack.enter_context(self._blobs.writer(self._model_max))

    def _into(self) -> Callable[[bytes], None]:
        return self._write if self._text is None else self._add_text

    def _add_text(self, piece: bytes) -> None:
        assert self._text is not None
        self._text_left -= len(piece)
        if self._text_left < 0:
            raise _too_large(self._inline_max)
        self._text.add(piece)

    def _write(self, piece: bytes) -> None:
        assert self._writer is not None
        try:
            self._writer.write(piece)
        except AssetTooLarge:
            raise self._too_large() from None

    def _too_large(self, **_limit: int) -> UploadTooLarge:
        return UploadTooLarge(limit=self._model_max)

    def _payload(self) -> dict[str, Any]:
        payload = form_payload(self._pairs, SERVE)
        if self._writer is None:
            return payload
        if _MODEL in payload:
            raise given_twice(_MODEL)
        return payload if self._writer.size else {**payload, _MODEL: b""}
