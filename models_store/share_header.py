"""What the header of a share says; as a program (`python -m models_store.share_header`) for headers that are long.

Request: `{"file": fd, "header_max", "memory", "cpu_seconds"}`. Answer: `{"share_id", "set", "precision"}`. Refuses with
InvalidModel. No torch.
"""

from typing import Any

from grid_client.shares import NotAShare, header_of
from grid_client.tensor_files import DescriptorSource, NotTensors, TensorFile

from models_store import program
from models_store.errors import InvalidModel
from models_store.sandbox import confine, python_files


def described(descriptor: int, header_max: int) -> dict[str, Any]:
    """Raises InvalidModel unless the open file is a share."""
    try:
        header = header_of(TensorFile(DescriptorSource(descriptor), header_max))
    except (NotTensors, NotAShare) as error:
        raise InvalidModel(str(error)) from None
    return {"share_id": header.share_id, "set": header.set_id, "precision": header.precision}


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    confine(python_files(), request["memory"], request["cpu_seconds"], threads_ok=False)
    return described(request["file"], request["header_max"])


if __name__ == "__main__":
    program.answer(_answer)
