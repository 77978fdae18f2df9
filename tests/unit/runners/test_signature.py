"""Signatures of models: what is refused at registration, with every fault at once, and what is kept."""

import copy
import json
from hashlib import sha256
from typing import Any

import pytest

from grid_node.errors import InvalidSignature
from grid_node.runners.signature import Signature, parse_signature, signature_of

SEED: dict[str, Any] = {
    "inputs": [
        {"name": "prompt", "type": "str", "validation": {"description": "this is a prompt"}},
        {"name": "seed", "type": "int", "validation": {"description": "seed"}},
        {
            "name": "steps",
            "type": "int",
            "validation": {"default": "50", "description": "steps", "ge": "0", "le": "1000"},
        },
        {
            "name": "guidance_scale",
            "type": "float",
            "validation": {"default": "5.0", "description": "guidance_scale", "ge": "0", "le": "20"},
        },
    ],
    "outputs": "list[Path]",
}


def one(type: str = "str", outputs: str = "str", **validation: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "a", "type": type, "validation": validation}], "outputs": outputs}


def parsed(document: Any) -> Signature:
    return parse_signature(document, 100)


def faults(document: Any, most: int = 100) -> dict[str, list[str]]:
    with pytest.raises(InvalidSignature) as caught:
        parse_signature(document, most)
    assert (caught.value.code, caught.value.status) == ("invalid_signature", 422)
    return dict(caught.value.data["fields"])


def rule_faults(type: str = "str", **validation: Any) -> dict[str, list[str]]:
    return {path.removeprefix("inputs.0.validation."): why for path, why in faults(one(type, **validation)).items()}


def test_the_numbers_of_a_signature_are_coerced_by_the_type_of_their_input() -> None:
    prompt, seed, steps, scale = parsed(SEED).inputs
    assert [one.required for one in (prompt, seed, steps, scale)] == [True, True, False, False]
    assert (steps.default, steps.rules.ge, steps.rules.le) == (50, 0, 1000)
    assert (scale.default, scale.rules.ge, scale.rules.le) == (5.0, 0.0, 20.0)
    assert isinstance(scale.rules.le, float)
    assert (prompt.description, parsed(SEED).outputs) == ("this is a prompt", "list[Path]")


def test_the_version_is_the_digest_of_the_canonical_inputs_and_outputs() -> None:
    canonical = json.dumps(SEED, sort_keys=True, separators=(",", ":"))
    version = parsed(SEED).version
    assert version == sha256(canonical.encode()).hexdigest()
    other_order = {
        "outputs": SEED["outputs"],
        "name": "m",
        "inputs": [dict(reversed(i.items())) for i in SEED["inputs"]],
    }
    assert parsed(other_order).version == version
    changed = copy.deepcopy(SEED)
    changed["inputs"][2]["validation"]["le"] = "999"
    assert parsed(changed).version != version


@pytest.mark.parametrize("default", [2**63 - 1, 2**53, -(2**63), 1.5, 1e300, -0.0])
def test_every_number_has_a_version(default: Any) -> None:
    document = one("float", default=default)
    assert len(parsed(document).version) == 64
    assert parsed(copy.deepcopy(document)).version == parsed(document).version


def test_integers_that_floats_cannot_tell_apart_have_versions_of_their_own() -> None:
    assert parsed(one("int", default=2**53)).version != parsed(one("int", default=2**53 + 1)).version


def test_a_signature_comes_back_from_storage_with_its_unknown_keys() -> None:
    document = one("int", default="3", ge="1", deprecated=True, widget={"kind": "slider"})
    document["inputs"][0]["group"] = "more"
    before = parsed(document | {"name": "ignored", "generation": {}})
    assert signature_of(before.text) == before
    assert json.loads(before.text) == {"inputs": document["inputs"], "outputs": "str"}


def test_nul_and_surrogates_are_kept_in_a_form_that_every_database_can_hold() -> None:
    text = parsed(one(description="a\0b \U0001f600 é")).text
    assert text.isascii()
    assert "\0" not in text


def test_missing_or_empty_validation_is_no_rule() -> None:
    for document in ({"name": "a", "type": "str"}, {"name": "a", "type": "str", "validation": None}):
        (only,) = parsed({"inputs": [document], "outputs": "str"}).inputs
        assert (only.required, only.has_default) == (True, False)


def test_a_rule_of_null_is_none() -> None:
    (only,) = parsed(one("int", ge=None, le=None, choices=None, regex=None, description=None)).inputs
    assert only == parsed(one("int")).inputs[0]


def test_a_model_may_have_no_inputs() -> None:
    assert parsed({"inputs": [], "outputs": "Any"}).inputs == ()


@pytest.mark.parametrize("type", ["str", "int", "float", "bool", "Path", "File"])
@pytest.mark.parametrize("form", ["{}", "list[{}]", "Optional[{}]", "Optional[list[{}]]"])
def test_types_that_are_taken(type: str, form: str) -> None:
    (only,) = parsed(one(form.format(type), outputs=form.format(type))).inputs
    assert only.type.base == type
    assert (only.type.is_list, only.required) == ("list" in form, "Optional" not in form)


@pytest.mark.parametrize(
    "type",
    ["string", "List[str]", "list", "list[]", "list[list[str]]", "list[Optional[str]]", "Optional[Optional[str]]",
     "dict", "Any", "str | None", " str", "STR", "list[str", "Optional[list[str]", "Iterator[str]", "str\n", ""],
)  # fmt: skip
def test_types_that_are_refused(type: str) -> None:
    assert faults(one(type)) == {
        "inputs.0.type": ["Must be one of: str, int, float, bool, Path, File, list[T], Optional[T]."]
    }


@pytest.mark.parametrize(
    "outputs",
    ["dict", "Any", "str", "Optional[Path]", "Iterator[Path]", "Iterator[str]", "ConcatenateIterator[str]",
     "list[File]", "Optional[list[str]]"],
)  # fmt: skip
def test_outputs_that_are_taken(outputs: str) -> None:
    assert parsed(one(outputs=outputs)).outputs == outputs


@pytest.mark.parametrize(
    "outputs", ["ConcatenateIterator[int]", "Iterator", "Iterator[Iterator[str]]", "object", "", 7]
)
def test_outputs_that_are_refused(outputs: Any) -> None:
    assert list(faults(one(outputs=outputs))) == ["outputs"]


def test_all_that_is_wrong_is_told_at_once() -> None:
    document = {
        "inputs": [
            {"name": "a", "type": "int", "validation": {"le": "many", "ge": "1.5", "default": "x"}},
            {"name": "a", "type": "str", "validation": {"regex": "("}},
            {"name": "1st", "type": "image", "validation": {}},
            {"name": "b", "type": "str", "validation": []},
            {},
            "prompt",
        ],
    }
    assert faults(document) == {
        "inputs.0.validation.le": ["Not a valid integer."],
        "inputs.0.validation.ge": ["Not a valid integer."],
        "inputs.0.validation.default": ["Not a valid integer."],
        "inputs.1.name": ["Duplicate name."],
        "inputs.1.validation.regex": ["Not a valid pattern."],
        "inputs.2.name": ["String does not match expected pattern."],
        "inputs.2.type": ["Must be one of: str, int, float, bool, Path, File, list[T], Optional[T]."],
        "inputs.3.validation": ["Not a valid mapping type."],
        "inputs.4.name": ["Missing data for required field."],
        "inputs.4.type": ["Missing data for required field."],
        "inputs.5": ["Not a valid mapping type."],
        "outputs": ["Missing data for required field."],
    }


@pytest.mark.parametrize("document", [None, [], "text", 7])
def test_a_signature_is_an_object(document: Any) -> None:
    assert faults(document) == {"_schema": ["Invalid input type."]}


@pytest.mark.parametrize(
    ("inputs", "text"),
    [(None, "Missing data for required field."), ({}, "Not a valid list."), ("[]", "Not a valid list."),
     ([{}] * 4, "Longer than maximum length 3.")],
)  # fmt: skip
def test_inputs_are_a_list_of_bounded_length(inputs: Any, text: str) -> None:
    assert faults({"inputs": inputs, "outputs": "str"}, most=3) == {"inputs": [text]}


@pytest.mark.parametrize("name", ["", "a b", "a-b", "é", "a" * 65, "9a", "a\n", "a\0"])
def test_names_are_those_of_variables(name: str) -> None:
    document = {"inputs": [{"name": name, "type": "str"}], "outputs": "str"}
    assert faults(document) == {"inputs.0.name": ["String does not match expected pattern."]}


@pytest.mark.parametrize(
    ("type", "validation", "expected"),
    [
        ("int", {"ge": "5", "le": "4"}, {"ge": ["Must be less than or equal to 4."]}),
        ("float", {"ge": 5, "le": "4"}, {"ge": ["Must be less than or equal to 4.0."]}),
        ("str", {"min_length": "5", "max_length": 4}, {"min_length": ["Must be less than or equal to 4."]}),
        ("str", {"min_length": -1}, {"min_length": ["Must be greater than or equal to 0."]}),
        ("str", {"ge": "1"}, {"ge": ["Does not apply to str."]}),
        ("bool", {"le": 1}, {"le": ["Does not apply to bool."]}),
        ("int", {"regex": "a"}, {"regex": ["Does not apply to int."]}),
        ("int", {"min_length": 1}, {"min_length": ["Does not apply to int."]}),
        ("Path", {"max_length": 1}, {"max_length": ["Does not apply to Path."]}),
        ("float", {"le": "nan"}, {"le": ["Special numeric values (nan or infinity) are not permitted."]}),
        ("int", {"le": True}, {"le": ["Not a valid integer."]}),
        ("int", {"description": 5}, {"description": ["Not a valid string."]}),
        ("str", {"regex": 5}, {"regex": ["Not a valid string."]}),
        ("str", {"regex": "a" * 513}, {"regex": ["Longer than maximum length 512."]}),
        ("str", {"choices": []}, {"choices": ["Length must be between 1 and 1000."]}),
        ("int", {"choices": list(range(1001))}, {"choices": ["Length must be between 1 and 1000."]}),
        ("str", {"choices": "a, b"}, {"choices": ["Not a valid list."]}),
        ("int", {"choices": '{"a": 1}'}, {"choices": ["Not a valid list."]}),
        ("int", {"choices": [1, "2", "two"]}, {"choices.2": ["Not a valid integer."]}),
        ("int", {"choices": [None]}, {"choices.0": ["Field may not be null."]}),
    ],
)  # fmt: skip
def test_rules_that_are_refused(type: str, validation: dict[str, Any], expected: dict[str, list[str]]) -> None:
    assert rule_faults(type, **validation) == expected


@pytest.mark.parametrize("pattern", ["(", "[", "a{2,1}", "(?P<a>", "\\p{nothing}", "*", "(?<name", "\\"])
def test_a_pattern_that_does_not_compile_is_refused(pattern: str) -> None:
    assert rule_faults(regex=pattern) == {"regex": ["Not a valid pattern."]}


@pytest.mark.parametrize(
    ("type", "validation", "text"),
    [
        ("int", {"default": "5", "le": "4"}, "Must be less than or equal to 4."),
        ("str", {"default": "c", "choices": '["a", "b"]'}, "Must be one of: a, b."),
        ("str", {"default": "abc", "regex": "^z"}, "String does not match expected pattern."),
        ("str", {"default": 7}, "Not a valid string."),
        ("bool", {"default": "perhaps"}, "Not a valid boolean."),
        ("Path", {"default": "/etc/passwd"}, "Not a valid URL."),
        ("list[int]", {"default": "1, 2"}, "Not a valid list."),
        ("list[int]", {"default": 1}, "Not a valid list."),
    ],
)
def test_a_default_that_breaks_its_own_rules_is_refused(type: str, validation: dict[str, Any], text: str) -> None:
    assert rule_faults(type, **validation) == {"default": [text]}


def test_each_item_of_a_default_obeys_the_rules() -> None:
    assert rule_faults("list[int]", default="[1, 20, 3]", le=9) == {"default.1": ["Must be less than or equal to 9."]}


@pytest.mark.parametrize(
    ("type", "default", "value"),
    [
        ("int", "-7", -7),
        ("float", 3, 3.0),
        ("bool", "True", True),
        ("bool", "0", False),
        ("str", "", ""),
        ("list[int]", '[1, "2"]', [1, 2]),
        ("list[str]", ["a"], ["a"]),
        ("Path", "HTTPS://example.org/a.png", "https://example.org/a.png"),
        ("int", None, None),
    ],
)
def test_defaults_are_coerced(type: str, default: Any, value: Any) -> None:
    (only,) = parsed(one(type, default=default)).inputs
    assert (only.default, only.required, only.has_default) == (value, False, True)


@pytest.mark.parametrize("choices", [["1", 2, 3.0], '["1", 2, 3.0]'])
def test_choices_may_be_a_list_or_the_text_of_one(choices: Any) -> None:
    (only,) = parsed(one("int", choices=choices)).inputs
    assert list(only.rules.choices or ()) == [1, 2, 3]


class Endless:
    """A pattern whose search never ends."""

    def __init__(self) -> None:
        self.searches = 0

    def search(self, _text: str, timeout: float) -> None:
        self.searches += 1
        raise TimeoutError


def test_patterns_without_end_are_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = Endless()
    monkeypatch.setattr("grid_node.runners.signature.compiled", lambda _text: endless)
    validation = {"regex": "^(a|aa)+$", "default": "a"}
    inputs = [{"name": f"a{index}", "type": "str", "validation": validation} for index in range(100)]
    assert len(faults({"inputs": inputs, "outputs": "str"})) == 100
    assert endless.searches == 1
