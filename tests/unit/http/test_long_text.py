import base64
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_node.errors import InvalidPayload
from grid_node.http import long_text
from grid_node.http.long_text import LONG, SLICE, parse_with_text

REST = 1024 * 1024
MODEL = os.urandom(2 * SLICE)


def parse(body: bytes) -> object:
    return parse_with_text(body, "model", REST)


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(
    "text", [MODEL.decode("latin-1"), base64.b64encode(MODEL).decode(), '\\"' * SLICE, "é€😀" * LONG]
)
def test_a_long_text_is_read_as_json_has_it(text, ascii_only):
    body = {"model_id": "m", "model": text, "tags": ["a\\", '"'], "n": 1.5}
    assert parse(json.dumps(body, ensure_ascii=ascii_only).encode()) == body


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet=st.sampled_from('aé€😀"\\\n\x00/'), min_size=1, max_size=9), st.integers(0, 13), st.booleans())
def test_no_character_is_cut_in_two_between_slices(unit, before, ascii_only):
    body = {"model": "x" * before + unit * (SLICE // len(unit) + 1)}
    assert parse(json.dumps(body, ensure_ascii=ascii_only).encode()) == body


def test_others_run_between_two_slices(monkeypatch):
    pauses = []
    monkeypatch.setattr(long_text.time, "sleep", pauses.append)
    parse(json.dumps({"model": "x" * (8 * SLICE)}).encode())
    assert len(pauses) >= 8


@pytest.mark.parametrize("other", [[], "text", 1, {"model": {"model": "?"}}, {"x": "?"}, {"model": "y", "tags": ["?"]}])
def test_only_the_one_member_may_be_long(other):
    body = json.dumps(other).replace("?", "x" * (SLICE + 1)) if "?" in json.dumps(other) else None
    body = body or json.dumps([other, "x" * (SLICE + 1)])
    with pytest.raises(InvalidPayload):
        parse(body.encode())


def test_two_long_texts_are_refused():
    with pytest.raises(InvalidPayload):
        parse(json.dumps({"model": "x" * SLICE, "description": "x" * SLICE}).encode())


def test_the_rest_is_bounded():
    numbers = list(range(REST // 4))
    with pytest.raises(InvalidPayload):
        parse(json.dumps({"model": "x", "inputs": numbers}).encode())
    with pytest.raises(InvalidPayload):
        parse(json.dumps({"model": "x" * SLICE, "inputs": numbers}).encode())


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "%s' % ("x" * SLICE),
        '{"model": "%s"' % ("x" * SLICE),
        '{"model": "%s\\' % ("x" * SLICE),
        '{"model": "%s\\x"}' % ("x" * SLICE),
        '{"model": "%s\\u12"}' % ("x" * SLICE),
        '{"model": "%s\n"}' % ("x" * SLICE),
        '{"model": "%s", "model": "y"}' % ("x" * SLICE),
        '{"model": "%s"}}' % ("x" * SLICE),
        '{"model": NaN, "x": "%s"}' % ("x" * SLICE),
    ],
)
def test_what_is_no_json_is_refused(body):
    with pytest.raises(InvalidPayload):
        parse(body.encode())


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\x80\x80\x80\x80\x80\x80"])
def test_what_is_no_utf_8_is_refused(bad):
    for place in (0, SLICE - 1, SLICE):
        with pytest.raises(InvalidPayload):
            parse(b'{"model": "' + b"x" * place + bad + b"x" * SLICE + b'"}')


def test_a_short_body_is_read_at_once():
    assert parse(b"") == {}
    assert parse(b'{"model": "x"}') == {"model": "x"}
