"""Fields that come as text, in a form or in the metadata of an upload, as the plain data that an event carries."""

import re
from collections.abc import Iterable
from typing import Any

from marshmallow import Schema, fields

from grid_node.errors import InvalidPayload
from grid_node.hosting.schemas import Object, VersionWish
from grid_node.wire import strict_json

REPEATED = "tags"
"""The one field that may be given several times, once for each of its members."""

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_JSON = (fields.List, fields.Nested, Object)


def form_payload(pairs: Iterable[tuple[str, str]], schema: Schema) -> dict[str, Any]:
    """Lists and objects are JSON text, whole numbers decimal; what is neither stays text for `schema` to judge.

    Raises InvalidPayload for JSON that is none and for a field that is given twice.
    """
    texts: dict[str, list[str]] = {}
    for name, text in pairs:
        texts.setdefault(name, []).append(text)
    return {name: _value(name, given, schema.fields.get(name)) for name, given in texts.items()}


def given_twice(name: str) -> InvalidPayload:
    return InvalidPayload(fields={name: ["must be given once"]})


def _value(name: str, texts: list[str], field: fields.Field[Any] | None) -> Any:
    if name == REPEATED and isinstance(field, fields.List) and not _is_json_list(texts):
        return texts
    if len(texts) > 1:
        raise given_twice(name)
    if isinstance(field, _JSON):
        return _json(name, texts[0])
    if isinstance(field, fields.Integer | VersionWish) and _WHOLE.fullmatch(texts[0]):
        return int(texts[0])
    return texts[0]


def _is_json_list(texts: list[str]) -> bool:
    return len(texts) == 1 and texts[0].lstrip().startswith("[")


def _json(name: str, text: str) -> Any:
    try:
        return strict_json.loads(text)
    except strict_json.InvalidJSON as error:
        raise InvalidPayload(fields={name: [str(error)]}) from None
