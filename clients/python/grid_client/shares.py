"""What a share of a model is called, what it says of itself, and the token that reads it. No torch here."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from grid_client.tensor_files import ITEM_SIZES, TensorFile

HOLDERS_MIN, HOLDERS_MAX = 2, 16
PRECISION_MAX = 32
"""Bits behind the binary point."""
TOKEN_HEADER = "X-Share-Token"
_SET = re.compile(r"[0-9a-f]{32}")
_NUMBER = re.compile(r"0|[1-9][0-9]?")


class NotAShare(ValueError):
    """A file is no share, or shares do not belong together."""


def share_id(set_id: str, index: int) -> str:
    """The id of the model that a holder keeps the share as."""
    return f"share-{set_id}-{index}"


def share_token(secret: str, set_id: str, index: int) -> str:
    """What opens this share at its holder and none at another: lower hex HMAC-SHA256 of `<set>:<index>`."""
    return hmac.new(secret.encode(), f"{set_id}:{index}".encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class ShareHeader:
    """`set_id`: 32 hex digits of the whole set; `index` from 0; `precision` in bits; `dtypes`: the model's own types,
    by name of the tensor."""

    set_id: str
    index: int
    holders: int
    precision: int
    dtypes: Mapping[str, str]

    @property
    def share_id(self) -> str:
        return share_id(self.set_id, self.index)

    def metadata(self) -> dict[str, str]:
        return {
            "set": self.set_id,
            "index": str(self.index),
            "holders": str(self.holders),
            "precision": str(self.precision),
            "dtypes": json.dumps(dict(self.dtypes), ensure_ascii=False, separators=(",", ":")),
        }


def checked_set(set_id: str) -> str:
    """Raises NotAShare."""
    if not _SET.fullmatch(set_id):
        raise NotAShare("a set is named by 32 lower hex digits")
    return set_id


def header_of(file: TensorFile) -> ShareHeader:
    """What the share says of itself. Raises NotAShare."""
    said = file.metadata
    holders = _number(said, "holders", HOLDERS_MIN, HOLDERS_MAX)
    return ShareHeader(
        set_id=checked_set(said.get("set", "")),
        index=_number(said, "index", 0, holders - 1),
        holders=holders,
        precision=_number(said, "precision", 0, PRECISION_MAX),
        dtypes=_dtypes(file),
    )


def _number(said: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = said.get(name, "")
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise NotAShare(f"{name} of a share must be a number from {least} to {most}")
    return int(text)


def _dtypes(file: TensorFile) -> dict[str, str]:
    try:
        dtypes = json.loads(file.metadata.get("dtypes", ""))
    except (ValueError, RecursionError):
        raise NotAShare("dtypes of a share must be a JSON object") from None
    known = isinstance(dtypes, dict) and all(isinstance(one, str) and one in ITEM_SIZES for one in dtypes.values())
    if not known or dtypes.keys() != file.layouts.keys():
        raise NotAShare("dtypes of a share must name the type of each tensor")
    if any(layout.dtype != "I64" for layout in file.layouts.values()):
        raise NotAShare("the tensors of a share must be I64")
    return dtypes
