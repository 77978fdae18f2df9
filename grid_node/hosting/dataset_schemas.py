"""Wire messages of datasets: one schema for the event, the route and the command line."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError, fields, validate

from grid_node.errors import BadQuery, InvalidPayload
from grid_node.fields import SHA256, StrictInt, StrictText, load, no_control_characters
from grid_node.hosting.schemas import Flag, NewId, PageSchema, Strict, description_field, tags_field

TERMS_MAX = 32
TERM_MAX = 256
"""Characters of one term."""
URI_MAX = 2048
SIZE = validate.Range(0, 2**63 - 1)


class RegisterSchema(Strict):
    """`/register_dataset`. Nothing of it is fetched or checked against the data: it is a description."""

    dataset_id = NewId(required=True)
    description = description_field()
    tags = tags_field(load_default=list)
    uri = StrictText(load_default=None, validate=[validate.Length(1, URI_MAX), no_control_characters])
    sha256 = StrictText(load_default=None, validate=SHA256)
    size = StrictInt(load_default=None, validate=SIZE)
    private = Flag(load_default=False)


class DatasetSchema(Strict):
    """A dataset that should be there; an id that cannot be one is answered like one that is not."""

    dataset_id = StrictText(required=True)


class TagSchema(DatasetSchema):
    add = tags_field(load_default=list)
    remove = tags_field(load_default=list)


class Terms(fields.Field[tuple[str, ...]]):
    """What a search asks for: a string, a whole number, or up to 32 of those, each of 1 to 256 characters."""

    _TERM = StrictText(validate=validate.Length(1, TERM_MAX))

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> tuple[str, ...]:
        terms = value if isinstance(value, list) else [value]
        if len(terms) > TERMS_MAX:
            raise ValidationError(f"must be {TERMS_MAX} terms at most")
        return tuple(dict.fromkeys(self._TERM.deserialize(_as_text(term)) for term in terms))


class SearchSchema(Strict):
    query = Terms(required=True)


class NothingSchema(Strict):
    """What is asked without saying anything."""


@dataclass(frozen=True)
class NewDataset:
    """A checked `/register_dataset`."""

    dataset_id: str
    description: str = ""
    tags: tuple[str, ...] = ()
    uri: str | None = None
    sha256: str | None = None
    size: int | None = None
    private: bool = False


REGISTER = RegisterSchema()
DATASET = DatasetSchema()
TAG = TagSchema()
SEARCH = SearchSchema()
DATASETS_PAGE = PageSchema()
NOTHING = NothingSchema()


def load_dataset(payload: Any) -> NewDataset:
    """Raises InvalidPayload."""
    given = load(REGISTER, payload)
    return NewDataset(**{**given, "tags": tuple(dict.fromkeys(given["tags"]))})


def load_terms(payload: Any) -> tuple[str, ...]:
    """The terms of a search, each once. Raises BadQuery, whatever is wrong."""
    try:
        terms: tuple[str, ...] = load(SEARCH, payload)["query"]
    except InvalidPayload:
        raise BadQuery() from None
    return terms


def as_id(term: str) -> str:
    """The form in which an id is kept."""
    return unicodedata.normalize("NFC", term)


def _as_text(term: Any) -> Any:
    """A whole number as its decimal text; one too long for a term is left to be refused."""
    whole = isinstance(term, int) and not isinstance(term, bool)
    return str(term) if whole and abs(term) < 10**TERM_MAX else term
