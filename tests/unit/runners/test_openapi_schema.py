"""The schema of a version: what Cog itself writes, so that clients of Cog's models understand it."""

from typing import Any

import pytest

from grid_node.runners.openapi_schema import openapi_schema
from grid_node.runners.signature import parse_signature


def schemas(outputs: str = "str", *inputs: dict[str, Any]) -> dict[str, Any]:
    document = openapi_schema(parse_signature({"inputs": list(inputs), "outputs": outputs}, 100))
    found: dict[str, Any] = document["components"]["schemas"]
    return found


def test_inputs_have_their_order_their_bounds_and_their_defaults() -> None:
    steps = {"default": "50", "ge": "0", "le": "1000", "description": "how many", "widget": "slider"}
    prompt = {"min_length": 1, "max_length": "9", "regex": "^a"}
    found = schemas(
        "str",
        {"name": "prompt", "type": "str", "validation": prompt},
        {"name": "inference_steps", "type": "int", "validation": steps},
        {"name": "picture", "type": "Optional[Path]"},
        {"name": "words", "type": "list[str]", "validation": {"default": None}},
    )["Input"]
    assert found == {
        "title": "Input",
        "type": "object",
        "required": ["prompt"],
        "properties": {
            "prompt": {
                "title": "Prompt",
                "x-order": 0,
                "type": "string",
                "minLength": 1,
                "maxLength": 9,
                "pattern": "^a",
            },
            "inference_steps": {
                "title": "Inference Steps",
                "x-order": 1,
                "type": "integer",
                "minimum": 0,
                "maximum": 1000,
                "default": 50,
                "description": "how many",
            },
            "picture": {"title": "Picture", "x-order": 2, "type": "string", "format": "uri", "nullable": True},
            "words": {"title": "Words", "x-order": 3, "type": "array", "items": {"type": "string"}},
        },
    }


def test_choices_are_an_enumeration_of_their_own_that_hides_no_other_schema() -> None:
    found = schemas(
        "str",
        {"name": "size", "type": "int", "validation": {"choices": "[1, 2]", "default": "2"}},
        {"name": "Output", "type": "list[str]", "validation": {"choices": ["a"]}},
    )
    assert found["size"] == {"title": "size", "type": "integer", "enum": [1, 2], "description": "An enumeration."}
    assert found["Input"]["properties"]["size"]["allOf"] == [{"$ref": "#/components/schemas/size"}]
    assert found["Output"] == {"title": "Output", "type": "string"}
    assert found["Input"]["properties"]["Output"]["items"] == {
        "allOf": [{"$ref": "#/components/schemas/Output_choices"}]
    }


@pytest.mark.parametrize(
    ("outputs", "schema"),
    [
        ("Path", {"type": "string", "format": "uri"}),
        ("float", {"type": "number"}),
        ("dict", {"type": "object"}),
        ("Any", {}),
        ("Optional[bool]", {"type": "boolean", "nullable": True}),
        ("list[Path]", {"type": "array", "items": {"type": "string", "format": "uri"}}),
        ("Iterator[int]", {"type": "array", "items": {"type": "integer"}, "x-cog-array-type": "iterator"}),
        (
            "ConcatenateIterator[str]",
            {
                "type": "array",
                "items": {"type": "string"},
                "x-cog-array-type": "iterator",
                "x-cog-array-display": "concatenate",
            },
        ),
    ],
)
def test_only_iterators_say_that_they_are_iterators(outputs: str, schema: dict[str, Any]) -> None:
    assert schemas(outputs)["Output"] == {"title": "Output", **schema}
