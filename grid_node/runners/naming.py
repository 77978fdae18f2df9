"""What the name of an uploaded file tells: `{prediction}_{index}_{name}`. It is metadata only, and never a path."""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from grid_node.runners.ids import PREDICTION_ID

NAME_MAX = 255
"""Bytes of a file's name that are kept."""
LABEL_MAX = 64
NAMELESS = "file"
"""Name of what has none after cleaning."""
ID_MAX = 128

_SEPARATORS = re.compile(r"[/\\]")
_INDEX = re.compile(r"([0-9]{1,6})_")
_EXTENSION = re.compile(r"\.[a-z0-9]{1,10}")
_KEPT_EXTENSION = 32
"""Most bytes of an extension that stays when a name is cut."""
_BREAKING = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that make a name read as another."""


@dataclass(frozen=True)
class UploadName:
    """`index` or `label` says which item of the output it is."""

    prediction_id: str | None
    index: int | None
    label: str | None
    filename: str


def parse_upload_name(file_name: str, prediction_id: str | None, known_ids: Collection[str]) -> UploadName:
    """`prediction_id` as the sender says it. `known_ids`: those of `possible_ids` that name one of its predictions."""
    if prediction_id is not None:
        fitting, found = (prediction_id if file_name.startswith(f"{prediction_id}_") else None), prediction_id
    elif file_name.startswith("None_"):
        fitting, found = "None", None
    else:
        fitting = found = max((id for id in known_ids if file_name.startswith(f"{id}_")), key=len, default=None)
    if fitting is None:
        return UploadName(found, None, None, clean_name(file_name))
    return UploadName(found, *_item(file_name[len(fitting) + 1 :], labels=found is not None))


def possible_ids(file_name: str) -> list[str]:
    """Every beginning of the name that could be a prediction's id."""
    head = file_name[: ID_MAX + 1]
    ids = (head[:at] for at, letter in enumerate(head) if letter == "_")
    return [id for id in ids if PREDICTION_ID.fullmatch(id)]


def clean_name(name: str) -> str:
    """The last segment of a path that is not empty, in NFC, without what could harm a path, a header or a reader."""
    segment = next((part for part in reversed(_SEPARATORS.split(name)) if part), "")
    kept = "".join(letter for letter in segment if unicodedata.category(letter) not in _BREAKING)
    composed = "".join(letter for letter in unicodedata.normalize("NFC", kept) if letter not in _BIDI).strip()
    return NAMELESS if not composed.strip(".") else _shortened(composed)


def extension_of(name: str) -> str:
    """`.png`: in small letters, with its dot, as it may stand in an address; empty if there is none like that."""
    stem, dot, extension = name.rpartition(".")
    extension = f"{dot}{extension}".lower()
    return extension if stem and _EXTENSION.fullmatch(extension) else ""


def _item(rest: str, labels: bool) -> tuple[int | None, str | None, str]:
    """Index or label, and the name, of what follows the id."""
    index = _INDEX.match(rest)
    if index:
        return int(index[1]), None, clean_name(rest[index.end() :])
    label, line, name = rest.partition("_")
    if not labels or not line or not PREDICTION_ID.fullmatch(label[: LABEL_MAX + 1]) or len(label) > LABEL_MAX:
        return None, None, clean_name(rest)
    return None, label, clean_name(name)


def _shortened(name: str) -> str:
    """At most NAME_MAX bytes; a short extension stays."""
    if len(name.encode()) <= NAME_MAX:
        return name
    stem, dot, extension = name.rpartition(".")
    tail = f"{dot}{extension}" if stem and len(extension.encode()) < _KEPT_EXTENSION else ""
    head = name.encode()[: NAME_MAX - len(tail.encode())].decode(errors="ignore")
    return head + tail
