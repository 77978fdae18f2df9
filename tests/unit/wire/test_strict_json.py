"""Strict JSON refuses what two readers could take differently, and keeps everything else as it was."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.wire import strict_json
from grid_node.wire.strict_json import InvalidJSON

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBER = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[Infinity]",
        "[-Infinity]",
        "[1e400]",
        "[-1E400]",
        "[" + "9" * 400 + ".0]",
        '{"a":1,"a":2}',
        '[{"x":{"a":1,"a":1}}]',
        r'["\ud800"]',
        r'["\udc00\ud800"]',
        r'{"\udfff":1}',
        "[" * 65 + "]" * 65,
        "[" * 100_000,
        '{"a":' * 65 + "1" + "}" * 65,
        "",
        "{",
        "[1,]",
        "[1] 2",
        "['a']",
        '["\n"]',
        '["unterminated',
        "9" * 5000,
        "\ufeff[]",
    ],
)
def test_is_refused(text):
    with pytest.raises(InvalidJSON):
        strict_json.loads(text)


def test_bytes_that_are_not_utf8_are_refused():
    with pytest.raises(InvalidJSON):
        strict_json.loads(b'["\xff"]')


def test_the_reason_holds_nothing_of_the_text():
    with pytest.raises(InvalidJSON) as error:
        strict_json.loads('{"secret-key":1,"secret-key":2}')
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 64 + "]" * 64,
        '["' + "[{" * 100 + '"]',
        r'["\\\"[[[["]' + " " * 5,
        r'["\ud83d\ude00"]',
        '["😀", 1.5e300, -0.0]',
        "[" + ",".join(["[]"] * 500) + "]",
    ],
)
def test_is_read_as_the_standard_library_reads_it(text):
    assert strict_json.loads(text) == json.loads(text)


@given(PLAIN)
def test_what_was_written_is_read_back(value):
    assert strict_json.loads(strict_json.dumps(value)) == value


@given(st.text(alphabet='[]{}",\\a1: ', max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        value = strict_json.loads(text)
    except InvalidJSON:
        return
    assert value == json.loads(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_we_never_write_what_we_refuse(value):
    with pytest.raises(ValueError):
        strict_json.dumps(value)


@given(PLAIN)
def test_the_quick_reader_gives_what_the_strict_one_gives(value):
    for text in (orjson.dumps(value).decode() if _fits(value) else "null", json.dumps(value), strict_json.dumps(value)):
        quick = strict_json._shortest(text)
        assert quick is strict_json._NOT_SHORTEST or repr(quick) == repr(strict_json._decoder.decode(text))


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":1}', "[-0]", "[1e2]", "[1.50]", "[ 1]", r'["\u0041"]', "[NaN]", "[1e400]", "[" + "9" * 30 + "]"],
)
def test_what_is_not_in_its_shortest_form_is_left_to_the_strict_reader(text):
    assert strict_json._shortest(text) is strict_json._NOT_SHORTEST


def _fits(value):
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return False
    return True
