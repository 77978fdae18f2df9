"""Requests and answers of the Open Inference Protocol v2 over HTTP, with the binary tensor extension; no transport.

https://github.com/kserve/open-inference-protocol, "HTTP/REST", and the "Binary Tensor Data Extension" of Triton
Inference Server. Arrays in `data` are cut out of the JSON text and become bytes without standing in memory as Python
objects; what is left is small and is parsed strictly.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from grid_node.hosting.refusal import refused
from grid_node.hosting.tensors_json import BadTensor, parsed, rendered
from grid_node.wire import strict_json
from models_store.tensors import DATATYPES, INPUTS_MAX, RANK_MAX, Tensor, byte_size

FRAME_MAX = 256 * 1024
"""Bytes of a request's JSON without its arrays."""
TEXT_MAX = 1024
"""Characters of an id or of a name."""
DIMENSION_MAX = 2**31 - 1

Buffer = bytes | memoryview

_DATA = re.compile(rb'"data"[ \t\r\n]*+:[ \t\r\n]*+(?=\[)')
_UNSERVED = ("sequence_id", "classification", "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size")


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that was asked for; `binary` is None where the request as a whole says it."""

    name: str
    binary: bool | None


@dataclass(frozen=True, slots=True)
class InferRequest:
    """`wanted` is empty for all outputs; `timeout` is in seconds."""

    id: str | None
    inputs: list[Tensor]
    wanted: tuple[Wanted, ...]
    binary: bool
    timeout: float | None

    def is_binary(self, name: str) -> bool:
        """Whether the output goes out as bytes behind the JSON."""
        for one in self.wanted:
            if one.name == name and one.binary is not None:
                return one.binary
        return self.binary


# --- reading -----------------------------------------------------------------------------------------------------


def parse(body: bytes, header_length: int | None) -> InferRequest:
    """A request; `header_length` are the bytes of its JSON where tensors follow. Raises InvalidPayload."""
    if header_length is not None and not 0 < header_length <= len(body):
        raise refused("Inference-Header-Content-Length must be the length of the JSON part", "header")
    text = body if header_length is None else body[:header_length]
    frame, arrays = _cut(text)
    asked = _members(frame)
    parameters = _parameters(asked, "the request")
    return InferRequest(
        id=_request_id(asked),
        inputs=_inputs(asked, arrays, memoryview(body)[len(text) :]),
        wanted=_wanted(asked.get("outputs")),
        binary=_flag(parameters, "binary_data_output") or False,
        timeout=_timeout(parameters),
    )


def _cut(text: bytes) -> tuple[bytes, list[bytes]]:
    """The text with `[0]`, `[1]`... in place of the arrays of numbers in `data`, and these arrays.

    In JSON an unescaped `"data"` before a colon is a key. Its array of numbers ends at the last bracket before the
    next quote or brace.
    """
    frame: list[bytes] = []
    arrays: list[bytes] = []
    at = 0
    while (match := _DATA.search(text, at)) is not None:
        start = match.end()
        end = text.rfind(b"]", start, _next_mark(text, start)) + 1
        if not end or len(arrays) == INPUTS_MAX:
            raise refused("`data` must be an array of numbers, one for each input")
        frame += (text[at:start], b"[%d]" % len(arrays))
        arrays.append(text[start:end])
        at = end
    frame.append(text[at:])
    return b"".join(frame), arrays


def _next_mark(text: bytes, start: int) -> int:
    end = text.find(b'"', start)
    end = len(text) if end < 0 else end
    for mark in (b"}", b"{"):
        found = text.find(mark, start, end)
        end = end if found < 0 else found
    return end


def _members(frame: bytes) -> dict[str, Any]:
    if len(frame) > FRAME_MAX:
        raise refused(f"the JSON without its numbers is longer than {FRAME_MAX} bytes")
    try:
        asked = strict_json.loads(frame)
    except strict_json.InvalidJSON as error:
        raise refused(f"the request is not JSON: {error}") from None
    return _object(asked, "the request", ("id", "parameters", "inputs", "outputs"))


def _object(value: Any, what: str, members: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refused(f"{what} must be an object")
    for name in value:
        if name not in members:
            raise refused(f"{what} has an unknown member", name[:TEXT_MAX])
    return value


def _parameters(owner: dict[str, Any], what: str) -> dict[str, Any]:
    """Parameters that this node does not know are the client's own affair, except those that would change a result."""
    parameters = owner.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise refused(f"the parameters of {what} must be an object", "parameters")
    for name in _UNSERVED:
        if name in parameters:
            raise refused(f"this node does not serve the parameter {name}", name)
    return parameters


def _flag(parameters: dict[str, Any], name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise refused(f"the parameter {name} must be true or false", name)
    return value


def _timeout(parameters: dict[str, Any]) -> float | None:
    """Seconds; on the wire microseconds, and 0 for none."""
    value = parameters.get("timeout")
    if value is None or (value == 0 and type(value) is int):
        return None
    if type(value) is not int or value < 0:
        raise refused("the parameter timeout must be a whole number of microseconds", "timeout")
    return value / 1e6


def _request_id(asked: dict[str, Any]) -> str | None:
    value = asked.get("id")
    if value is not None and not (isinstance(value, str) and len(value) <= TEXT_MAX):
        raise refused(f"id must be a string of at most {TEXT_MAX} characters", "id")
    return value


def _inputs(asked: dict[str, Any], arrays: list[bytes], rest: memoryview) -> list[Tensor]:
    inputs = asked.get("inputs")
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= INPUTS_MAX:
        raise refused(f"inputs must be a list of 1 to {INPUTS_MAX} tensors", "inputs")
    reader = _Reader(arrays, rest)
    tensors = [reader.tensor(one) for one in inputs]
    reader.check_end()
    return tensors


class _Reader:
    """Hands out the arrays of the JSON and the bytes behind it, each once."""

    __slots__ = ("_arrays", "_rest", "_used")

    def __init__(self, arrays: list[bytes], rest: memoryview) -> None:
        self._arrays = arrays
        self._rest = rest
        self._used = 0

    def tensor(self, given: Any) -> Tensor:
        one = _object(given, "an input", ("name", "shape", "datatype", "parameters", "data"))
        name = _name(one, "input")
        datatype, shape = _datatype(one, name), _shape(one, name)
        size = _parameters(one, f"input {name}").get("binary_data_size")
        if size is None:
            return Tensor(name, datatype, shape, self._array(one, name, datatype, shape))
        if "data" in one:
            raise refused(f"input {name} has both data and binary_data_size", name)
        return Tensor(name, datatype, shape, self._bytes(name, size, byte_size(datatype, shape)))

    def check_end(self) -> None:
        if self._rest:
            raise refused("there are bytes left over behind the tensors")
        if self._used != len(self._arrays):
            raise refused("`data` belongs to an input")

    def _array(self, one: dict[str, Any], name: str, datatype: str, shape: tuple[int, ...]) -> Buffer:
        if datatype == "BF16":
            raise refused(f"input {name}: BF16 is taken as binary data only", name)
        if one.get("data") != [self._used] or self._used == len(self._arrays):
            raise refused(f"input {name} must have an array of numbers as data, or binary_data_size", name)
        self._used += 1
        try:
            return parsed(self._arrays[self._used - 1], datatype, shape)
        except BadTensor as error:
            raise refused(f"input {name} {error}", name) from None

    def _bytes(self, name: str, size: Any, expected: int) -> memoryview:
        if type(size) is not int or size != expected:
            raise refused(f"input {name}: binary_data_size must be {expected} for its shape and datatype", name)
        if size > len(self._rest):
            raise refused(f"input {name}: the body ends before its data", name)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _name(one: dict[str, Any], what: str) -> str:
    name = one.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= TEXT_MAX:
        raise refused(f"an {what} must have a name of 1 to {TEXT_MAX} characters", "name")
    return name


def _datatype(one: dict[str, Any], name: str) -> str:
    datatype = one.get("datatype")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise refused(f"input {name}: datatype must be one of {', '.join(DATATYPES)}", name)
    return datatype


def _shape(one: dict[str, Any], name: str) -> tuple[int, ...]:
    shape = one.get("shape")
    if not isinstance(shape, list) or len(shape) > RANK_MAX:
        raise refused(f"input {name}: shape must be a list of at most {RANK_MAX} numbers", name)
    for length in shape:
        if type(length) is not int or not 0 <= length <= DIMENSION_MAX:
            raise refused(f"input {name}: shape must hold whole numbers from 0", name)
    return tuple(shape)


def _wanted(outputs: Any) -> tuple[Wanted, ...]:
    if outputs is None:
        return ()
    if not isinstance(outputs, list) or len(outputs) > INPUTS_MAX:
        raise refused(f"outputs must be a list of at most {INPUTS_MAX} outputs", "outputs")
    wanted = []
    for given in outputs:
        one = _object(given, "an output", ("name", "parameters"))
        name = _name(one, "output")
        wanted.append(Wanted(name, _flag(_parameters(one, f"output {name}"), "binary_data")))
    if len({one.name for one in wanted}) != len(wanted):
        raise refused("an output is asked for twice", "outputs")
    return tuple(wanted)


# --- answering ---------------------------------------------------------------------------------------------------


def check_wanted(request: InferRequest, name: str, datatype: str) -> None:
    """JSON has no word for BF16: refused before the model runs."""
    if datatype == "BF16" and not request.is_binary(name):
        raise refused(f"output {name}: BF16 is given as binary data only", name)


def answer(model: str, version: int, request: InferRequest, outputs: list[Tensor]) -> tuple[int | None, list[Buffer]]:
    """The body in pieces, and the length of its JSON part where tensors follow it. Raises NonFiniteOutput."""
    head: dict[str, Any] = {"model_name": model, "model_version": str(version)}
    if request.id is not None:
        head["id"] = request.id
    text = [orjson.dumps(head)[:-1], b',"outputs":[']
    tail: list[Buffer] = []
    for number, tensor in enumerate(outputs):
        one: dict[str, Any] = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
        if request.is_binary(tensor.name):
            one["parameters"] = {"binary_data_size": len(tensor.data)}
            members = [orjson.dumps(one)]
            tail.append(tensor.data)
        else:
            members = [orjson.dumps(one)[:-1], b',"data":', *rendered(tensor), b"}"]
        text += [b",", *members] if number else members
    text.append(b"]}")
    return (sum(map(len, text)), [*text, *tail]) if tail else (None, [*text])
