"""What a client gives a model, checked against the model's signature before a worker sees it.

Workers of some versions check nothing, so whatever comes out of here must not break the signature.
"""

from collections.abc import Collection
from typing import Any

from grid_node.errors import InvalidInput, InvalidSignature
from grid_node.runners import coercion
from grid_node.runners.coercion import NotValid
from grid_node.runners.rules import Patience
from grid_node.runners.signature import Fields, Signature, checked

_GENERATION = ("prompt_input", "inputs", "output_index", "task_kind")


def check_input(signature: Signature, given: Any) -> dict[str, Any]:
    """The input for the worker: coerced, defaults filled. Raises InvalidInput with every field that is wrong.

    Where a signature has patterns this may take some tenths of a second; it is pure, and may run in another thread.
    """
    if not isinstance(given, dict):
        raise InvalidInput(fields={"_schema": ["Invalid input type."]})
    problems: Fields = {}
    values = _given(signature, given, problems)
    for one in signature.inputs:
        if one.required and one.name not in given:
            problems[one.name] = [coercion.REQUIRED]
    if problems:
        raise InvalidInput(fields=problems)
    return _filled(signature, values)


def file_inputs(signature: Signature) -> frozenset[str]:
    """Names of the inputs whose values are URLs of files, or lists of such."""
    return frozenset(one.name for one in signature.inputs if one.type.is_file)


def check_generation(signature: Signature, given: Any, task_kinds: Collection[str] = ()) -> dict[str, Any]:
    """How the model does tasks of others: `{"prompt_input", "inputs", "output_index"}`, coerced.

    With `task_kind`, one of `task_kinds`, if it was given. Raises InvalidSignature; its fields start with `generation`.
    """
    problems: Fields = {}
    if not isinstance(given, dict):
        raise InvalidSignature(fields={"generation": [coercion.NOT_MAPPING]})
    problems |= {key: [coercion.UNKNOWN] for key in given if key not in _GENERATION}
    prompt = _prompt_input(signature, given.get("prompt_input"), problems)
    inputs = _constant_inputs(signature, given.get("inputs"), prompt, problems)
    index = _output_index(given.get("output_index"), problems)
    kind = _task_kind(given.get("task_kind"), task_kinds, problems)
    if problems:
        raise InvalidSignature(fields={f"generation.{path}": texts for path, texts in problems.items()})
    return {"prompt_input": prompt, "inputs": inputs, "output_index": index, **kind}


def _given(signature: Signature, given: dict[str, Any], problems: Fields, path: str = "") -> dict[str, Any]:
    """The values that were given, coerced."""
    patience = Patience()
    declared = {one.name: one for one in signature.inputs}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in declared:
            values[name] = checked(declared[name], value, path + name, problems, patience)
        else:
            problems[path + name] = [coercion.UNKNOWN]
    return values


def _filled(signature: Signature, values: dict[str, Any]) -> dict[str, Any]:
    """With defaults, in the order of the signature.

    Null goes to the worker only where the type is Optional: otherwise it stands for the worker's own default, which
    workers take nothing for, for they refuse null.
    """
    filled: dict[str, Any] = {}
    for one in signature.inputs:
        value = values.get(one.name, one.default)
        if value is not None or (one.type.is_optional and one.name in values):
            filled[one.name] = value
    return filled


def _prompt_input(signature: Signature, given: Any, problems: Fields) -> str:
    texts = [one.name for one in signature.inputs if one.type.base == "str" and not one.type.is_list]
    if given is None:
        problems["prompt_input"] = [coercion.REQUIRED]
    elif given not in texts:
        problems["prompt_input"] = [f"Must be one of: {', '.join(texts)}."]
    return str(given)


def _constant_inputs(signature: Signature, given: Any, prompt: str, problems: Fields) -> dict[str, Any]:
    """The inputs that are the same for each task. The prompt is the task's own."""
    if given is not None and not isinstance(given, dict):
        problems["inputs"] = [coercion.NOT_MAPPING]
        return {}
    values = _given(signature, given or {}, problems, "inputs.")
    if prompt in values:
        problems[f"inputs.{prompt}"] = [coercion.UNKNOWN]
    for one in signature.inputs:
        if one.required and one.name not in values and one.name != prompt:
            problems[f"inputs.{one.name}"] = [coercion.REQUIRED]
    return values


def _output_index(given: Any, problems: Fields) -> int:
    if given is None:
        return 0
    try:
        index = coercion.integer(given)
    except NotValid as error:
        problems["output_index"] = error.texts
        return 0
    if index < 0:
        problems["output_index"] = ["Must be greater than or equal to 0."]
    return index


def _task_kind(given: Any, known: Collection[str], problems: Fields) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, str):
        problems["task_kind"] = ["Not a valid string."]
    elif given not in known:
        problems["task_kind"] = [f"Must be one of: {', '.join(sorted(known))}."]
    return {"task_kind": given}
