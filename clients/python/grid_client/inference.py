"""Requests and answers of the Open Inference Protocol v2 with binary tensors.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, and Triton's
"Binary Tensor Data Extension" for what follows the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from grid_client.arrays import INFERENCE, array_of, content, type_name
from grid_client.errors import GridError

LENGTH = "Inference-Header-Content-Length"


def request_of(inputs: Mapping[str, Any], timeout: float | None = None) -> tuple[bytes, dict[str, str]]:
    """Body and headers for arrays by name; all outputs are asked for in binary. `timeout` in seconds."""
    described, parts = [], []
    for name, value in inputs.items():
        datatype, data = INFERENCE[type_name(value)], content(value)
        parts.append(data)
        described.append(
            {
                "name": name,
                "shape": list(value.shape),
                "datatype": datatype,
                "parameters": {"binary_data_size": data.nbytes},
            }
        )
    parameters: dict[str, Any] = {"binary_data_output": True}
    if timeout is not None:
        parameters["timeout"] = max(1, int(timeout * 1e6))  # microseconds
    head = json.dumps({"parameters": parameters, "inputs": described}).encode()
    return b"".join([head, *parts]), {LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}


def outputs_of(body: bytes, head_length: str | None) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an answer by name, in its order. Raises GridError `bad_answer`."""
    try:
        length = len(body) if head_length is None else int(head_length)
        outputs = json.loads(body[:length])["outputs"]
        rest, found = memoryview(body)[length:], {}
        for output in outputs:
            size = output.get("parameters", {}).get("binary_data_size")
            if size is None:
                found[output["name"]] = _listed(output)
                continue
            found[output["name"]] = array_of(output["datatype"], output["shape"], rest[:size])
            rest = rest[size:]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise GridError("bad_answer", "the node's inference answer cannot be read") from None
    return found


def _listed(output: dict[str, Any]) -> np.ndarray[Any, Any]:
    name = {wire: own for own, wire in INFERENCE.items()}[output["datatype"]]
    return np.array(output["data"], dtype="float32" if name == "bfloat16" else name).reshape(output["shape"])
