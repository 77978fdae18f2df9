"""A signature as the OpenAPI document that Cog would write of it; clients read the types of input and output there.

Shape after Cog 0.16 and 0.23 (`cog/command/ast_openapi_schema.py`, `cog/_adt.py`).
"""

import re
from typing import Any

from grid_node.runners.rules import Rules
from grid_node.runners.signature import Input, Signature

_JSON = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "Path": "string", "File": "string"}
_OWN = frozenset({"Input", "Output"})
_WRAPPED = re.compile(r"(?P<wrapper>\w+)\[(?P<inner>.+)\]")


def openapi_schema(signature: Signature) -> dict[str, Any]:
    """`components.schemas` has Input, Output, and an enumeration for each input with choices."""
    inputs = {one.name: _input(order, one) for order, one in enumerate(signature.inputs)}
    schema: dict[str, Any] = {"title": "Input", "type": "object", "properties": inputs}
    required = [one.name for one in signature.inputs if one.required]
    if required:
        schema["required"] = required
    choices = {_choices_name(one): _choices(one) for one in signature.inputs if one.rules.choices is not None}
    output = {"title": "Output", **_output(signature.outputs)}
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": {},
        "components": {"schemas": {"Input": schema, "Output": output, **choices}},
    }


def _input(order: int, one: Input) -> dict[str, Any]:
    item = _item(one)
    schema: dict[str, Any] = {"title": _title(one.name), "x-order": order}
    schema |= {"type": "array", "items": item} if one.type.is_list else item
    if one.description is not None:
        schema["description"] = one.description
    if one.has_default and one.default is not None:
        schema["default"] = one.default
    if one.type.is_optional:
        schema["nullable"] = True
    return schema


def _item(one: Input) -> dict[str, Any]:
    if one.rules.choices is not None:
        return {"allOf": [{"$ref": f"#/components/schemas/{_choices_name(one)}"}]}
    return _base(one.type.base) | _rules(one.rules)


def _rules(rules: Rules) -> dict[str, Any]:
    pattern = None if rules.pattern is None else rules.pattern.pattern
    words = {
        "minimum": rules.ge,
        "maximum": rules.le,
        "minLength": rules.min_length,
        "maxLength": rules.max_length,
        "pattern": pattern,
    }
    return {word: value for word, value in words.items() if value is not None}


def _choices(one: Input) -> dict[str, Any]:
    values = list(one.rules.choices or ())
    return {"title": one.name, "enum": values, **_base(one.type.base), "description": "An enumeration."}


def _choices_name(one: Input) -> str:
    return f"{one.name}_choices" if one.name in _OWN else one.name


def _output(outputs: str) -> dict[str, Any]:
    match = _WRAPPED.fullmatch(outputs)
    if match is None:
        return {"type": "object"} if outputs == "dict" else {} if outputs == "Any" else _base(outputs)
    inner = _output(match["inner"])
    if match["wrapper"] == "Optional":
        return inner | {"nullable": True}
    array = {"type": "array", "items": inner}
    if match["wrapper"] == "list":
        return array
    array["x-cog-array-type"] = "iterator"
    if match["wrapper"] == "ConcatenateIterator":
        array["x-cog-array-display"] = "concatenate"
    return array


def _base(name: str) -> dict[str, Any]:
    return {"type": _JSON[name]} | ({"format": "uri"} if name in ("Path", "File") else {})


def _title(name: str) -> str:
    return name.replace("_", " ").title()
