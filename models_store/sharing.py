"""The program that splits a model into shares: `python -m models_store.sharing`.

Request: `{"file": fd, "shares": [fd, ...], "set", "precision", "memory", "cpu_seconds", "header_max"}`; the first is a
safetensors file open for reading, the others are empty files open for writing. Answer: `[{"sha256", "size"}, ...]` of
the shares. Refuses with InvalidModel, or ValueOutOfRange whose text is the name of the tensor.
"""

import hashlib
import os
from typing import Any

from grid_client import sharing
from grid_client.tensor_files import DescriptorSource, NotTensors, TensorFile

from models_store import program
from models_store.errors import InvalidModel, ValueOutOfRange
from models_store.sandbox import confine, python_files

WIDEST = 8
"""How often a share is larger than the model at the most: a bool becomes 64 bits."""


class ShareFile:
    """An open file that is written from the beginning to the end, hashed on the way."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._hashed = hashlib.sha256()
        self.size = 0

    def write(self, content: bytes, /) -> None:
        self._hashed.update(content)
        self.size += len(content)
        with memoryview(content) as rest:
            done = 0
            while done < len(rest):
                done += os.write(self._descriptor, rest[done:])

    def close(self) -> dict[str, Any]:
        """Make it durable and say what it is."""
        os.fsync(self._descriptor)
        return {"sha256": self._hashed.hexdigest(), "size": self.size}


def split(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the shares. Raises InvalidModel, ValueOutOfRange."""
    size, headers = os.fstat(request["file"]).st_size, 2 * request["header_max"]
    confine(
        read=python_files(),
        memory=request["memory"],
        cpu_seconds=request["cpu_seconds"],
        file_size=WIDEST * size + headers,
    )
    files = [ShareFile(descriptor) for descriptor in request["shares"]]
    try:
        source = TensorFile(DescriptorSource(request["file"]), request["header_max"])
        sharing.split_into(sharing.StoredTensors(source), files, request["precision"], request["set"])
    except sharing.ValueOutOfRange as error:
        raise ValueOutOfRange(error.tensor) from None
    except (NotTensors, sharing.NotShareable) as error:
        raise InvalidModel(str(error)) from None
    return [file.close() for file in files]


if __name__ == "__main__":
    sharing.torch.set_num_threads(1)
    program.answer(split)
