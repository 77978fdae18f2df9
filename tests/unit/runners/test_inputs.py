"""Inputs of predictions: coerced, or refused with every fault at once; none comes through that breaks a signature."""

import re
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_node.errors import InvalidInput, InvalidSignature
from grid_node.runners import rules
from grid_node.runners.inputs import check_generation, check_input, file_inputs
from grid_node.runners.signature import Signature, parse_signature

INTEGER, NUMBER = ["Not a valid integer."], ["Not a valid number."]
SPECIAL = ["Special numeric values (nan or infinity) are not permitted."]
NULL, REQUIRED, UNKNOWN = ["Field may not be null."], ["Missing data for required field."], ["Unknown field."]


def signature(outputs: str = "str", **inputs: Any) -> Signature:
    """Inputs as `name="type"` or `name=("type", {validation})`."""
    declared = []
    for name, one in inputs.items():
        type, validation = (one, {}) if isinstance(one, str) else one
        declared.append({"name": name, "type": type, "validation": validation})
    return parse_signature({"inputs": declared, "outputs": outputs}, 100)


def value(type: str, raw: Any, **validation: Any) -> Any:
    return check_input(signature(a=(type, validation)), {"a": raw})["a"]


def faults(declared: Signature, raw: Any) -> dict[str, list[str]]:
    with pytest.raises(InvalidInput) as caught:
        check_input(declared, raw)
    assert (caught.value.code, caught.value.status) == ("invalid_input", 422)
    return dict(caught.value.data["fields"])


def fault(type: str, raw: Any, **validation: Any) -> list[str]:
    """The texts for the one input that is wrong."""
    return faults(signature(a=(type, validation)), {"a": raw})["a"]


SEED = signature(
    prompt="str",
    seed="int",
    steps=("int", {"default": "50", "ge": "0", "le": "1000"}),
    guidance_scale=("float", {"default": "5.0", "ge": "0", "le": "20"}),
)


def test_defaults_are_filled_and_strings_become_numbers() -> None:
    assert check_input(SEED, {"seed": "7", "prompt": "a cat"}) == {
        "prompt": "a cat",
        "seed": 7,
        "steps": 50,
        "guidance_scale": 5.0,
    }


def test_all_bad_fields_are_told_at_once() -> None:
    assert faults(SEED, {"seed": 5.7, "steps": 5000, "guidance_scale": -1, "sampler": "k"}) == {
        "prompt": REQUIRED,
        "seed": INTEGER,
        "steps": ["Must be greater than or equal to 0 and less than or equal to 1000."],
        "guidance_scale": ["Must be greater than or equal to 0.0 and less than or equal to 20.0."],
        "sampler": UNKNOWN,
    }


@pytest.mark.parametrize("raw", [None, [], "text", 7, True])
def test_an_input_is_an_object(raw: Any) -> None:
    assert faults(SEED, raw) == {"_schema": ["Invalid input type."]}


@pytest.mark.parametrize(
    ("raw", "number"),
    [(5, 5), (5.0, 5), (-0.0, 0), ("50", 50), ("+50", 50), ("-7", -7), ("007", 7), (2**63 - 1, 2**63 - 1),
     ("-9223372036854775808", -(2**63)), (float(2**62), 2**62)],
)  # fmt: skip
def test_integers_that_are_taken(raw: Any, number: int) -> None:
    found = value("int", raw)
    assert (found, type(found)) == (number, int)


@pytest.mark.parametrize(
    "raw",
    [5.7, True, False, "", " 5", "5 ", "5.0", "1_000", "0x10", "1e3", "٥", "nan", "--5", "five",
     "9223372036854775808", 2**63, -(2**63) - 1, 10**400, "1" * 400, 1e30, 1e-9, [5], {"a": 5}, float("nan"),
     float("inf"), "5\n"],
)  # fmt: skip
def test_integers_that_are_refused(raw: Any) -> None:
    assert fault("int", raw) == INTEGER


@pytest.mark.parametrize(
    ("raw", "number"),
    [(5, 5.0), (5.7, 5.7), ("5.7", 5.7), (".5", 0.5), ("5.", 5.0), ("-1e-3", -0.001), ("+2E2", 200.0),
     (10**300, 1e300)],
)  # fmt: skip
def test_numbers_that_are_taken(raw: Any, number: float) -> None:
    found = value("float", raw)
    assert (found, type(found)) == (number, float)


@pytest.mark.parametrize("raw", ["nan", "NaN", "inf", "-Infinity", "1e999", "-1e999", float("nan"), float("-inf")])
def test_numbers_that_are_none(raw: Any) -> None:
    assert fault("float", raw) == SPECIAL


@pytest.mark.parametrize(
    "raw",
    [True, False, "", "5,7", "1_0", " 5", "5 ", "0x1", "٥", "five", ".", "e5", 10**400, [1.0], {}, "1.0\n", "9" * 500],
)
def test_numbers_that_are_refused(raw: Any) -> None:
    assert fault("float", raw) == NUMBER


@pytest.mark.parametrize(
    ("raw", "truth"),
    [(True, True), (False, False), (1, True), (0, False), ("true", True), ("false", False), ("1", True), ("0", False)],
)  # fmt: skip
def test_booleans_that_are_taken(raw: Any, truth: bool) -> None:
    assert value("bool", raw) is truth


@pytest.mark.parametrize("raw", [2, -1, 0.5, 1.0, "yes", "on", "t", "", "TRUE ", [], {}])
def test_booleans_that_are_refused(raw: Any) -> None:
    assert fault("bool", raw) == ["Not a valid boolean."]


@pytest.mark.parametrize("raw", [5, 5.5, True, [], {}, ["a"], "a\ud800"])
def test_texts_are_strings_only(raw: Any) -> None:
    assert fault("str", raw) == ["Not a valid string."]


def test_texts_come_through_as_they_are() -> None:
    for text in ("", " a ", "é\U0001f600", "5", "line\nbreak"):
        assert value("str", text) == text


@pytest.mark.parametrize("type", ["Path", "File"])
@pytest.mark.parametrize(
    "url",
    ["http://example.org", "https://example.org:8443/a%20b.png?x=1#y", "http://[::1]/a", "http://127.0.0.1:5000/pc/a",
     "data:text/plain;base64,aGk=", "data:,hi", "https://example.org/" + "a" * 8000],
)  # fmt: skip
def test_files_are_urls(type: str, url: str) -> None:
    assert value(type, url) == url


def test_the_scheme_of_a_url_is_told_to_workers_in_lower_case() -> None:
    assert value("Path", "HTTPS://Example.org/A") == "https://Example.org/A"
    assert value("Path", "Data:,A") == "data:,A"


@pytest.mark.parametrize(
    "url",
    ["", "a.png", "/etc/passwd", "file:///etc/passwd", "ftp://example.org/a", "http://", "http:///a",
     "https:example.org", "http://a b/", "http://a/\n", "http://[::1", "http://a:99999/", "http://a:0/", "http://a:x/",
     "javascript:alert(1)", "data:", "data:text/plain", "data:a b,c", "http://a\\b", " http://a",
     "https://e/" + "a" * 9000, 5, True, ["http://a"]],
)  # fmt: skip
def test_what_is_no_url_of_a_file_is_refused(url: Any) -> None:
    assert fault("Path", url) == ["Not a valid URL."]


@pytest.mark.parametrize(
    ("type", "raw", "validation", "text"),
    [
        ("int", -1, {"ge": 0}, "Must be greater than or equal to 0."),
        ("int", "5", {"le": "4"}, "Must be less than or equal to 4."),
        ("float", 21, {"le": "20"}, "Must be less than or equal to 20.0."),
        ("str", "ab", {"min_length": 3}, "Shorter than minimum length 3."),
        ("str", "abcd", {"max_length": 3}, "Longer than maximum length 3."),
        ("str", "a", {"min_length": 2, "max_length": 3}, "Length must be between 2 and 3."),
        ("str", "abcd", {"min_length": 2, "max_length": 3}, "Length must be between 2 and 3."),
        ("str", "c", {"choices": ["a", "b"]}, "Must be one of: a, b."),
        ("int", 3, {"choices": '["1", 2]'}, "Must be one of: 1, 2."),
        ("float", 3, {"choices": [1, 2.5]}, "Must be one of: 1.0, 2.5."),
        ("str", "abc", {"regex": "^b"}, "String does not match expected pattern."),
    ],
)
def test_rules_that_are_broken(type: str, raw: Any, validation: dict[str, Any], text: str) -> None:
    assert fault(type, raw, **validation) == [text]


def test_bounds_belong_to_the_range() -> None:
    assert [value("int", raw, ge=0, le=10) for raw in (0, 10)] == [0, 10]
    assert [value("str", raw, min_length=1, max_length=2) for raw in ("a", "ab")] == ["a", "ab"]


def test_each_broken_rule_is_told() -> None:
    assert fault("str", "zzz", max_length=2, regex="a", choices=["b"]) == [
        "Longer than maximum length 2.",
        "String does not match expected pattern.",
        "Must be one of: b.",
    ]


def test_a_pattern_is_searched_for_anywhere() -> None:
    assert value("str", "xxabc", regex="abc") == "xxabc"


def test_a_pattern_without_end_does_not_match_and_is_waited_for_once() -> None:
    endless: dict[str, Any] = {f"a{index}": ("str", {"regex": "^(a|aa)+$"}) for index in range(50)}
    told = faults(signature(**endless), dict.fromkeys(endless, "a" * 5000 + "!"))
    assert told == {name: ["String does not match expected pattern."] for name in endless}


def test_after_one_search_without_end_no_other_pattern_is_tried() -> None:
    patience = rules.Patience()
    endless, easy = regex.compile("^(a|aa)+$"), regex.compile("b")
    assert patience.finds(easy, "b")
    assert not patience.finds(endless, "a" * 5000 + "!")
    assert not patience.finds(easy, "b")


def test_a_text_too_long_for_a_pattern_does_not_match() -> None:
    assert value("str", "a" * 65536, regex="a") == "a" * 65536
    assert fault("str", "a" * 65537, regex="a") == ["String does not match expected pattern."]


def test_items_of_lists_are_coerced_and_obey_the_rules() -> None:
    assert value("list[int]", ["1", 2.0, 3]) == [1, 2, 3]
    assert value("list[int]", []) == []
    assert faults(signature(a=("list[int]", {"le": 9})), {"a": [1, "x", None, 10]}) == {
        "a.1": INTEGER,
        "a.2": NULL,
        "a.3": ["Must be less than or equal to 9."],
    }


@pytest.mark.parametrize("raw", ["a", "[1]", 5, {}, True])
def test_lists_are_lists(raw: Any) -> None:
    assert fault("list[int]", raw) == ["Not a valid list."]


def test_not_every_bad_item_of_a_long_list_is_told() -> None:
    assert list(faults(signature(a="list[int]"), {"a": ["x"] * 100000})) == [f"a.{index}" for index in range(10)]


def test_null_is_for_optional_inputs() -> None:
    assert fault("int", None) == NULL
    assert fault("int", None, default=5) == NULL
    assert check_input(signature(a="Optional[int]"), {"a": None}) == {"a": None}
    assert check_input(signature(a=("Optional[int]", {"default": 5})), {"a": None}) == {"a": None}


def test_an_optional_input_need_not_be_given() -> None:
    assert check_input(signature(a="Optional[int]", b="Optional[list[Path]]"), {}) == {}
    assert check_input(signature(a=("Optional[int]", {"default": 5})), {}) == {"a": 5}


def test_a_default_of_null_is_left_to_the_worker() -> None:
    declared = signature(a=("int", {"default": None}))
    assert check_input(declared, {}) == check_input(declared, {"a": None}) == {}
    assert check_input(declared, {"a": "3"}) == {"a": 3}


def test_the_file_inputs_are_known_by_name() -> None:
    declared = signature(a="Path", b="list[File]", c="Optional[list[Path]]", d="str", e="list[str]")
    assert file_inputs(declared) == {"a", "b", "c"}


# --- whatever comes ---------------------------------------------------------------------------------------------

EVERYTHING = signature(
    i=("int", {"ge": "-10", "le": "10", "default": "3"}),
    f=("float", {"ge": "0.5"}),
    b="bool",
    s=("str", {"min_length": 1, "max_length": "5", "regex": "^[a-z]"}),
    c=("str", {"choices": ["a", "b"], "default": "a"}),
    u=("Optional[Path]", {}),
    n=("list[int]", {"choices": "[1, 2, 3]"}),
    o="Optional[list[float]]",
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["1", "-3", "2.5", "nan", "true", "a", "b", "abc", "http://a/b", "data:,x", "1e999", "0", "10"])
)
JSON = st.recursive(
    SCALARS, lambda some: st.lists(some, max_size=4) | st.dictionaries(st.text(max_size=3), some, max_size=3)
)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "i": st.integers(-12, 12) | st.sampled_from(["5", 5.0]),
    "f": st.floats(0, 3) | st.sampled_from(["0.5", 1]),
    "b": st.booleans() | st.sampled_from([0, "1", "true"]),
    "s": st.sampled_from(["abc", "Abc", "abcdef", "z"]),
    "c": st.sampled_from(["a", "b", "c"]),
    "u": st.sampled_from([None, "http://a/b", "data:,x", "ftp://a"]),
    "n": st.lists(st.sampled_from([1, "2", 3.0, 4]), max_size=3),
    "o": st.none() | st.lists(st.floats(0, 1) | st.just("1.5"), max_size=3),
}
GIVEN = st.fixed_dictionaries(
    {name: likely | JSON for name, likely in LIKELY.items() if name in "fbsn"},
    optional={name: likely | JSON for name, likely in LIKELY.items() if name not in "fbsn"},
)


def is_integer(raw: Any) -> bool:
    return type(raw) is int and -(2**63) <= raw < 2**63


def is_number(raw: Any) -> bool:
    return type(raw) is float and abs(raw) < float("inf")


VALID = {
    "i": lambda raw: is_integer(raw) and -10 <= raw <= 10,
    "f": lambda raw: is_number(raw) and raw >= 0.5,
    "b": lambda raw: type(raw) is bool,
    "s": lambda raw: type(raw) is str and 1 <= len(raw) <= 5 and re.match("[a-z]", raw) is not None,
    "c": lambda raw: raw in ("a", "b"),
    "u": lambda raw: raw is None or (type(raw) is str and re.match(r"https?://[^/]|data:[^,]*,", raw) is not None),
    "n": lambda raw: type(raw) is list and all(type(item) is int and item in (1, 2, 3) for item in raw),
    "o": lambda raw: raw is None or (type(raw) is list and all(is_number(item) for item in raw)),
}


@settings(max_examples=400, deadline=None)
@given(GIVEN)
def test_what_comes_through_never_breaks_the_signature(raw: dict[str, Any]) -> None:
    try:
        found = check_input(EVERYTHING, raw)
    except InvalidInput:
        return
    assert set(found) >= {"i", "f", "b", "s", "c", "n"}
    assert all(VALID[name](one) for name, one in found.items())
    assert check_input(EVERYTHING, found) == found


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_json_is_an_input_or_is_refused(raw: Any) -> None:
    with pytest.raises(InvalidInput):
        check_input(EVERYTHING, raw)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_json_is_a_signature_or_is_refused(raw: Any) -> None:
    with pytest.raises(InvalidSignature):
        parse_signature(raw, 10)


RULES = st.sampled_from(["ge", "le", "default", "choices", "min_length", "max_length", "regex"])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["str", "int", "list[float]", "bool", "Path"]), st.dictionaries(RULES, JSON, max_size=3))
def test_a_default_that_was_registered_obeys_the_signature(type: str, validation: dict[str, Any]) -> None:
    try:
        declared = signature(a=(type, validation))
    except InvalidSignature:
        return
    if "default" in validation:
        filled = check_input(declared, {})
        assert check_input(declared, filled) == filled


# --- generation -------------------------------------------------------------------------------------------------


def generation_faults(declared: Signature, raw: Any) -> dict[str, list[str]]:
    with pytest.raises(InvalidSignature) as caught:
        check_generation(declared, raw)
    return dict(caught.value.data["fields"])


def test_a_model_for_tasks_names_its_prompt_and_gives_every_other_required_input() -> None:
    raw = {"prompt_input": "prompt", "inputs": {"seed": "7", "steps": 20}}
    assert check_generation(SEED, raw) == {
        "prompt_input": "prompt",
        "inputs": {"seed": 7, "steps": 20},
        "output_index": 0,
    }
    assert check_generation(SEED, raw | {"output_index": "3"})["output_index"] == 3
    assert check_generation(signature(prompt="Optional[str]"), {"prompt_input": "prompt"})["inputs"] == {}


def test_a_model_may_name_the_kind_of_its_tasks() -> None:
    raw = {"prompt_input": "prompt", "inputs": {"seed": 7}, "task_kind": "text_to_3d"}
    assert check_generation(SEED, raw, {"cog", "text_to_3d"})["task_kind"] == "text_to_3d"
    assert "task_kind" not in check_generation(SEED, raw | {"task_kind": None}, {"cog"})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("text_to_music", "Must be one of: cog, text."),
        ("", "Must be one of: cog, text."),
        ("x" * 65, "Must be one of: cog, text."),
        (["cog"], "Not a valid string."),
        (3, "Not a valid string."),
    ],
    ids=["unknown", "empty", "long", "list", "number"],
)
def test_a_kind_that_the_node_does_not_know_is_refused(kind: Any, expected: str) -> None:
    raw = {"prompt_input": "prompt", "inputs": {"seed": 7}, "task_kind": kind}
    with pytest.raises(InvalidSignature) as caught:
        check_generation(SEED, raw, {"text", "cog"})
    assert caught.value.data["fields"] == {"generation.task_kind": [expected]}


def test_all_that_is_wrong_with_generation_is_told_at_once() -> None:
    raw = {"prompt_input": "seed", "inputs": {"steps": 5000, "sampler": 1}, "output_index": -1, "copies": 3}
    assert generation_faults(SEED, raw) == {
        "generation.copies": UNKNOWN,
        "generation.prompt_input": ["Must be one of: prompt."],
        "generation.inputs.steps": ["Must be greater than or equal to 0 and less than or equal to 1000."],
        "generation.inputs.sampler": UNKNOWN,
        "generation.inputs.prompt": REQUIRED,
        "generation.output_index": ["Must be greater than or equal to 0."],
    }


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([], {"generation": ["Not a valid mapping type."]}),
        ({}, {"generation.prompt_input": REQUIRED, "generation.inputs.prompt": REQUIRED}),
        (
            {"prompt_input": ["words"], "inputs": {"prompt": ""}},
            {"generation.prompt_input": ["Must be one of: prompt."]},
        ),
        ({"prompt_input": "prompt", "inputs": []}, {"generation.inputs": ["Not a valid mapping type."]}),
        ({"prompt_input": "prompt", "inputs": {"prompt": "a"}}, {"generation.inputs.prompt": UNKNOWN}),
        ({"prompt_input": "prompt", "output_index": True}, {"generation.output_index": INTEGER}),
    ],
)
def test_generation_that_is_refused(raw: Any, expected: dict[str, list[str]]) -> None:
    assert generation_faults(signature(prompt="str", words=("list[str]", {"default": []})), raw) == expected
