"""What hosting asks of the compute processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from models_store.tensors import Signature, Tensor


@dataclass(frozen=True)
class Runnable:
    """One version of a model as a compute process needs it.

    `key` names the version for good (`<number>/<version>`): another key never has its bytes changed under it. `open`
    gives the local file with the bytes; it is called only when the process has to load them. `format` is
    `safetensors` (with an architecture), `torchscript` or `torch_export`.
    """

    key: str
    format: str
    size: int
    """Bytes of the file."""
    architecture: dict[str, Any] | None
    signature: Signature
    file: Callable[[], Path]


class Compute(Protocol):
    """Runs models in processes of their own.

    Every call ends within its deadline. Errors are those of `grid_node.errors`: InvalidModel, FormatNotRunnable,
    InferenceFailed, InferenceTimeout, QueueFull, ComputeUnavailable, ModelNotReady.
    """

    def describe(
        self,
        file: Path,
        format: str,
        architecture: dict[str, Any] | None,
        inputs: Sequence[dict[str, Any]] | None,
        outputs: Sequence[dict[str, Any]] | None,
        batchable: bool,
    ) -> Signature:
        """Check at serve time that the file can be run, and complete its signature.

        `inputs` and `outputs` are what the request declared (each member may lack its name), or None. A state dict
        with an architecture is built on torch's meta device: shapes are checked, nothing is computed. Raises
        InvalidModel when they do not fit together or inputs are needed and not declared.
        """

    def infer(self, model: Runnable, inputs: Sequence[Tensor], timeout: float) -> list[Tensor]:
        """All outputs, in the order of the signature. `inputs` were checked against it, in its order.

        `timeout` in seconds counts loading and waiting too. A request of a process that dies is given to its
        successor once.
        """

    def state(self, key: str) -> str:
        """`unloaded`, `loading`, `ready` or `failed`, in this node's processes."""

    def forget(self, key: str) -> None:
        """The version was deleted: what waits for it fails with ModelNotFound, its memory is freed."""
