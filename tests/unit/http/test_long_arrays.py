"""Bodies with arrays and texts of many megabytes beside a little JSON."""

import json

import pytest

from grid_node.errors import InvalidPayload
from grid_node.hosting.long_arrays import ArrayText
from grid_node.http.long_arrays import parse_with_arrays

LONG = [[n, n + 0.5] for n in range(60_000)]
SHORT = [1, 2]
MIB = 1024 * 1024


def parsed(body: object, rest_max: int = MIB):
    return parse_with_arrays(body if isinstance(body, bytes) else json.dumps(body).encode(), "data", rest_max)


def lists(value):
    """The payload with its arrays read."""
    if isinstance(value, ArrayText):
        return json.loads(value.text)
    return {name: lists(one) for name, one in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(
    "data", [LONG, {"a": LONG, "b": SHORT}, {"a": SHORT, "b": LONG, "c": LONG}, "x" * 400_000, [SHORT] * 100_000]
)
@pytest.mark.parametrize("before", [True, False])
def test_a_body_is_read_like_any_json(data, before):
    rest = {"model_id": 'a "quoted" [id]', "version": 1}
    body = {"data": data, **rest} if before else {**rest, "data": data}
    assert lists(parsed(body)) == body
    assert lists(parsed(json.dumps(body, indent=1).encode())) == body


def test_long_arrays_are_not_read_yet():
    found = parsed({"model_id": "m", "data": {"a": LONG, "b": SHORT}})
    assert isinstance(found["data"]["a"], ArrayText)
    assert found["data"]["b"] == SHORT


def test_a_small_body_is_read_at_once():
    assert parsed({"data": [SHORT]}) == {"data": [SHORT]}


TEXT = json.dumps(LONG)


@pytest.mark.parametrize(
    "body",
    [
        {"other": LONG, "data": SHORT},
        {"data": {"a": {"b": LONG}}},
        {"data": [{"a": LONG}]},
        LONG,
        b'{"data": %b, "data": %b}' % (TEXT.encode(), TEXT.encode()),
        b'{"data": %b' % TEXT.encode(),
        b'{"data": %b"}' % TEXT.encode(),
        b'{"data": %b %b}' % (TEXT.encode(), b'"x'),
        b'{"data": [%b, "x"]}' % TEXT.encode(),
        b'{"data" %b}' % TEXT.encode(),
        b'{"x": "\\x", "data": %b}' % TEXT.encode(),
    ],
)
def test_what_is_elsewhere_or_no_json_is_refused(body):
    with pytest.raises(InvalidPayload):
        parsed(body)


def test_the_rest_is_bounded():
    with pytest.raises(InvalidPayload):
        parsed({"data": LONG, "x": {str(n): n for n in range(2000)}}, rest_max=10_000)
    with pytest.raises(InvalidPayload):
        parsed(b'{"data": [' + b'"",' * 3_000_000 + b'""]}')
