"""Compute without processes, for tests of what stands in front of it."""

import struct
from dataclasses import dataclass, field

from models_store.tensors import Signature, Tensor, TensorSpec

TWO = Signature(
    (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("n", "INT64", (-1,))),
    (TensorSpec("double", "FP32", (-1, 2)), TensorSpec("count", "INT64", (-1,))),
)


@dataclass
class Doubling:
    """Every output is the input at its place, doubled. `asked` and `timeouts` note what came."""

    signature: Signature = TWO
    asked: list = field(default_factory=list)
    timeouts: list = field(default_factory=list)
    states: dict = field(default_factory=dict)
    infinite: bool = False

    def describe(self, *_args):
        return self.signature

    def infer(self, model, inputs, timeout):
        self.asked.append(model)
        self.timeouts.append(timeout)
        return [self._doubled(tensor, spec) for tensor, spec in zip(inputs, model.signature.outputs, strict=True)]

    def _doubled(self, tensor, spec):
        code = {"FP32": "f", "INT64": "q"}[tensor.datatype]
        form = f"<{len(tensor.data) // struct.calcsize(code)}{code}"
        values = [float("inf") if self.infinite else value * 2 for value in struct.unpack(form, tensor.data)]
        return Tensor(spec.name, spec.datatype, tensor.shape, struct.pack(form, *values))

    def state(self, key):
        return self.states.get(key, "unloaded")

    def forget(self, key):
        pass
