"""The words of tus 1.0.0 as they stand in headers (https://tus.io/protocols/resumable-upload)."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grid_node.errors import InvalidPayload, UploadTooLarge

if TYPE_CHECKING:
    from hashlib import _Hash

VERSION = "1.0.0"
EXTENSIONS = "creation,checksum,expiration,termination"
OFFSET_TYPE = "application/offset+octet-stream"
ALGORITHMS = {"sha1": 20, "sha256": 32}
"""Checksum algorithms and their digest sizes in bytes."""

METADATA_MAX = 60 * 1024
"""Bytes of Upload-Metadata: room for what a model declares, and less than the 64 KiB that clients take of the line
when HEAD gives it back."""
_NUMBER = re.compile(r"[0-9]{1,15}")
_KEY = re.compile(r"[!-+\--~]{1,64}")
"""Printable ASCII without space and comma."""


@dataclass(frozen=True)
class Checksum:
    """What a piece is announced to hash to."""

    algorithm: str
    digest: bytes

    def new(self) -> "_Hash":
        return hashlib.new(self.algorithm, usedforsecurity=False)


def invalid(header: str, problem: str) -> InvalidPayload:
    return InvalidPayload(fields={header: [problem]})


def parse_number(header: str, value: str | None) -> int:
    """A whole number, zero or more. Raises InvalidPayload."""
    if value is None or not _NUMBER.fullmatch(value.strip()):
        raise invalid(header, "A whole number is required.")
    return int(value)


def parse_length(value: str | None, max_bytes: int) -> int:
    """Upload-Length. An empty upload is not offered: no PATCH would ever complete it."""
    length = parse_number("Upload-Length", value)
    if length == 0:
        raise invalid("Upload-Length", "An upload has at least one byte.")
    if length > max_bytes:
        raise UploadTooLarge(limit=max_bytes)
    return length


def parse_metadata(header: str) -> dict[str, str]:
    """Upload-Metadata: `key base64, key base64, key`. Values are UTF-8 text; raises InvalidPayload."""
    if len(header) > METADATA_MAX:
        raise invalid("Upload-Metadata", f"At most {METADATA_MAX} bytes.")
    metadata: dict[str, str] = {}
    for item in header.split(",") if header.strip() else []:
        key, _, encoded = item.strip().partition(" ")
        if not _KEY.fullmatch(key) or key in metadata:
            raise invalid("Upload-Metadata", "Each key is there once, printable ASCII without space and comma.")
        metadata[key] = _text(encoded.strip())
    return metadata


def without(header: str, keys: Iterable[str]) -> str:
    """Upload-Metadata without these keys."""
    forgotten = set(keys)
    return ",".join(item for item in header.split(",") if item.strip().partition(" ")[0] not in forgotten)


def _text(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except ValueError as error:
        raise invalid("Upload-Metadata", "A value is not base64 of UTF-8 text.") from error


def parse_checksum(header: str | None) -> Checksum | None:
    """Upload-Checksum: `algorithm base64`. Raises InvalidPayload for an algorithm that is not offered."""
    if header is None:
        return None
    algorithm, _, encoded = header.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise invalid("Upload-Checksum", f"One of {', '.join(ALGORITHMS)} is required.")
    try:
        digest = base64.b64decode(encoded.strip(), validate=True)
    except binascii.Error as error:
        raise invalid("Upload-Checksum", "Not base64.") from error
    if len(digest) != ALGORITHMS[algorithm]:
        raise invalid("Upload-Checksum", f"{algorithm} has {ALGORITHMS[algorithm]} bytes.")
    return Checksum(algorithm, digest)
