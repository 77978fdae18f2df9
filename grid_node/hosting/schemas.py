"""Wire messages of hosted models: one schema for the event, the route, the form and the upload."""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, post_load, pre_load, validate

from grid_node.errors import ModelNotFound
from grid_node.fields import SHA256, StrictInt, StrictText, load, no_control_characters
from models_store.tensors import DATATYPES, INPUTS_MAX, RANK_MAX

ID_MAX = 64
_FORBIDDEN = re.compile(r"[/\\%?#]")
FORMATS = ("safetensors", "torchscript", "torch_export", "syft-0.9.5", "opaque", "share")
TAGS_MAX = 32
DESCRIPTION_MAX = 4096
ARCHITECTURE_MAX = 512 * 1024
"""Bytes; 4,096 layers take less."""
LATIN = ("iso-8859-1", "latin-1", "latin1")
VERSION = validate.Range(1, 2**31 - 1)
DIMENSION = validate.Range(-1, 2**31 - 1)


def checked_id(text: Any) -> str | None:
    """`text` in NFC if it can be the id of a model or dataset, else None."""
    if not isinstance(text, str) or len(text) > 4 * ID_MAX:
        return None
    name = unicodedata.normalize("NFC", text)
    whole = 1 <= len(name) <= ID_MAX and name.isprintable() and name == name.strip()
    return name if whole and not _FORBIDDEN.search(name) and name not in (".", "..") else None


def known_id(text: str) -> str:
    """For a read: what cannot be an id belongs to no model. Raises ModelNotFound."""
    name = checked_id(text)
    if name is None:
        raise ModelNotFound()
    return name


class NewId(fields.Field[str]):
    """An id in a write: 1 to 64 printable characters in NFC, none of `/ \\ % ? #`, no space around, not `.` or `..`."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        name = checked_id(value)
        if name is None:
            raise ValidationError("must be 1 to 64 printable characters, none of / \\ % ? #")
        return name


class AskedId(fields.Field[str]):
    """An id in a read: any text. What cannot be one is answered like one that is not there, see `known_id`."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError("must be a string")
        return value


class Flag(fields.Field[bool]):
    """true, false, or the strings "True" and "False" that the first clients sent."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value in ("True", "False"):
            return value == "True"
        raise ValidationError('must be true, false, "True" or "False"')


class Encoding(fields.Field[str]):
    """How bytes were made text: `iso-8859-1` or `base64`."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        word = value.lower() if isinstance(value, str) else ""
        if word in LATIN:
            return LATIN[0]
        if word == "base64":
            return word
        raise ValidationError("must be ISO-8859-1 or base64")


class VersionWish(fields.Field[int | str]):
    """`"new"`, or the number that the caller expects to be next."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int | str:
        if value == "new" or (type(value) is int and 1 <= value < 2**31):
            return value
        raise ValidationError('must be "new" or a whole number from 1')


class Object(fields.Field[dict[str, Any]]):
    """A JSON object whose members somebody else checks."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError("must be an object")
        return value


class Strict(Schema):
    class Meta:
        unknown = RAISE


WORD = validate.Length(1, 64)


def tags_field(**kwargs: Any) -> fields.List[str]:
    return fields.List(
        StrictText(validate=[WORD, no_control_characters]), validate=validate.Length(max=TAGS_MAX), **kwargs
    )


def description_field() -> StrictText:
    return StrictText(load_default="", validate=validate.Length(max=DESCRIPTION_MAX))


class TensorSchema(Strict):
    """One input or output; without a name it is `INPUT__0`, `OUTPUT__0` and so on."""

    name = StrictText(load_default=None, validate=[validate.Length(1, 128), no_control_characters])
    datatype = StrictText(required=True, validate=validate.OneOf(list(DATATYPES)))
    shape = fields.List(StrictInt(validate=DIMENSION), required=True, validate=validate.Length(max=RANK_MAX))


class ShareSchema(Strict):
    """Where one share is. `worker` is the id that searches answer, `address` the URL of that node."""

    worker = NewId(required=True)
    address = StrictText(required=True, validate=[validate.Length(1, 2048), no_control_characters])
    sha256 = StrictText(load_default=None, validate=SHA256)


class ProviderSchema(Strict):
    id = NewId(required=True)
    address = StrictText(required=True, validate=[validate.Length(1, 2048), no_control_characters])


@dataclass(frozen=True)
class ServeRequest:
    """A checked `/serve_model`, except for the bytes."""

    model_id: str
    encoding: str = LATIN[0]
    model: bytes | str | None = None
    allow_download: bool = False
    allow_remote_inference: bool = False
    mpc: bool = False
    format: str | None = None
    sha256: str | None = None
    version: int | str | None = None
    tags: tuple[str, ...] = ()
    description: str = ""
    inputs: tuple[dict[str, Any], ...] | None = None
    outputs: tuple[dict[str, Any], ...] | None = None
    batchable: bool = True
    architecture: dict[str, Any] | None = None
    shares: tuple[dict[str, Any], ...] | None = None
    set: str | None = None
    crypto_provider: dict[str, Any] | None = None
    precision: int = 16
    share_token: str | None = None
    share_token_sha256: str | None = None
    idempotency_key: str | None = None


def _is_short(architecture: dict[str, Any]) -> None:
    if len(json.dumps(architecture)) > ARCHITECTURE_MAX:
        raise ValidationError(f"must not be longer than {ARCHITECTURE_MAX} bytes of JSON")


_PLACES = validate.Length(2, 16)
_IO = validate.Length(1, INPUTS_MAX)


class ServeSchema(Strict):
    """`/serve_model`. `model` is left out where the bytes come another way."""

    model_id = NewId(required=True)
    encoding = Encoding()
    model = fields.Raw()
    allow_download = Flag()
    allow_remote_inference = Flag()
    mpc = Flag()
    format = StrictText(validate=validate.OneOf(FORMATS))
    sha256 = StrictText(validate=SHA256)
    version = VersionWish()
    tags = tags_field()
    description = description_field()
    inputs = fields.List(fields.Nested(TensorSchema), validate=_IO)
    outputs = fields.List(fields.Nested(TensorSchema), validate=_IO)
    batchable = Flag()
    architecture = Object(validate=_is_short)
    shares = fields.List(fields.Nested(ShareSchema), validate=_PLACES)
    set = StrictText(validate=validate.Regexp(r"^[0-9a-f]{32}\Z", error="must be 32 lower hex digits"))
    crypto_provider = fields.Nested(ProviderSchema)
    precision = StrictInt(validate=validate.Range(0, 32))
    share_token = StrictText(validate=validate.Length(32, 128))
    share_token_sha256 = StrictText(validate=SHA256)
    idempotency_key = StrictText(validate=[validate.Length(1, 128), no_control_characters])

    @pre_load
    def _check_model(self, data: Any, **_kwargs: Any) -> Any:
        model = data.get("model", b"?") if isinstance(data, Mapping) else b"?"
        if not isinstance(model, bytes | str):
            raise ValidationError("must be bytes or a string", "model")
        if not model:
            raise ValidationError("must have at least one byte", "model")
        return data

    @post_load
    def _request(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
        return {**data, **lists}


class ReferenceSchema(Strict):
    """A model that should be there."""

    model_id = AskedId(required=True)
    version = StrictInt(load_default=None, validate=VERSION)


class DeleteSchema(Strict):
    """A write: what cannot be an id is refused."""

    model_id = NewId(required=True)
    version = StrictInt(load_default=None, validate=VERSION)


class FetchSchema(ReferenceSchema):
    encoding = Encoding(load_default=None)
    share_token = StrictText(load_default=None, validate=validate.Length(max=256))


class InferenceSchema(ReferenceSchema):
    """`data`: a nested list, an object of nested lists, or safetensors as bytes or encoded text."""

    data = fields.Raw(required=True)
    encoding = Encoding(load_default=None)


class PageSchema(Strict):
    """Everything without `limit`; with it that many from behind `after`, and `next` in the answer."""

    limit = StrictInt(load_default=None, validate=validate.Range(1, 1000))
    after = StrictText(load_default=None)


class DetailedPageSchema(PageSchema):
    tag = StrictText(load_default=None, validate=WORD)


SERVE = ServeSchema()
REFERENCE = ReferenceSchema()
DELETE = DeleteSchema()
FETCH = FetchSchema()
INFERENCE = InferenceSchema()
PAGE = PageSchema()
DETAILED_PAGE = DetailedPageSchema()


def load_serve(payload: Any) -> ServeRequest:
    """Raises InvalidPayload."""
    return ServeRequest(**load(SERVE, payload))
