"""The bytes of a model as they are, whole or in part."""

import re
from base64 import b64encode

from flask import Request, Response

from grid_node.blobs.store import Blobs
from grid_node.errors import ModelCorrupt, ModelNotFound, NotFound
from grid_node.hosting.reading import Content
from grid_node.http.files import blob_answer

SUFFIXES = {"safetensors": "safetensors", "share": "safetensors", "torchscript": "pt", "torch_export": "pt2"}
"""By format; every other is `bin`."""

_VERSION = re.compile(r"[1-9][0-9]{0,9}")
_ODD = re.compile(r"[^A-Za-z0-9._-]+")


def version_in_path(text: str | None) -> int | None:
    """The version that an address names; what is no number is the version of no model. Raises ModelNotFound."""
    if text is None:
        return None
    if not _VERSION.fullmatch(text) or int(text) >= 2**31:
        raise ModelNotFound()
    return int(text)


def content_answer(request: Request, blobs: Blobs, content: Content) -> Response:
    """GET and HEAD, conditional and by range; the digest is told twice, as ETag and as Repr-Digest (RFC 9530)."""
    row = content.row
    name = f"{_ODD.sub('_', row.id)}-{row.version}.{SUFFIXES.get(row.format, 'bin')}"
    try:
        answer = blob_answer(request, blobs, content.sha256, filename=name, content_type="application/octet-stream")
    except NotFound:
        raise ModelCorrupt(retry_after=60) from None
    answer.headers["Model-Version"] = str(row.version)
    if answer.status_code < 400:
        answer.headers["Repr-Digest"] = repr_digest(content.sha256)
        answer.headers["Cache-Control"] = "private, no-cache, no-transform"
    return answer


def repr_digest(sha256: str) -> str:
    return f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:"
