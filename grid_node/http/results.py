"""The files of a result: its asset, what was made from it, and the scorer's report."""

from collections.abc import Iterator

from flask import Request, Response

from grid_node.blobs.store import Blobs
from grid_node.errors import InvalidPayload
from grid_node.generation.tasks import StoredFile
from grid_node.http.files import blob_answer

TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "text": "text/plain; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "json": "application/json",
}


class _Inline:
    """Bytes that live in their row, with what an answer asks of a store of blobs."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def size(self, _sha256: str) -> int:
        return len(self._content)

    def open(self, _sha256: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        end = len(self._content) if length is None else offset + length
        return iter((self._content[offset:end],))

    def open_checked(self, sha256: str, _piece: int = 0) -> Iterator[bytes]:
        """The database vouches for its rows."""
        return self.open(sha256)


def file_answer(request: Request, blobs: Blobs, file: StoredFile, task_id: str, which: str) -> Response:
    """GET and HEAD of a stored file, conditional and by range, wherever its bytes are."""
    suffix = file.name.rpartition(".")[2]
    return blob_answer(
        request,
        blobs if file.inline is None else _Inline(file.inline),  # type: ignore[arg-type]
        file.sha256,
        filename=f"{task_id}-{which}-{file.name}",
        content_type=TYPES.get(suffix, "application/octet-stream"),
    )


def wanted_format(request: Request) -> str | None:
    """The file name that `?format=` asks for, None for the form that the worker sent."""
    unknown = request.args.keys() - {"format"}
    if unknown:
        raise InvalidPayload(fields={name: ["Unknown field."] for name in sorted(unknown)})
    form = request.args.get("format")
    return None if form is None else f"asset.{form}"


def pieces_of(blobs: Blobs, file: StoredFile) -> Iterator[bytes]:
    """The bytes of a stored file; raises NotFound."""
    return iter((file.inline,)) if file.inline is not None else blobs.open(file.sha256)
