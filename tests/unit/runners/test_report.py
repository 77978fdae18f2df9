"""What workers say is read strictly in its form and leniently in its content."""

import json

import pytest

from grid_node.errors import InvalidWebhook, RunnerInvalidJson
from grid_node.runners.report import ERROR_MAX, id_of, mapped_texts, read_report
from tests.unit.runners.reports import body, report

SEED = (
    b'{"input":{"prompt":"a photo of sprite","seed":76551,"steps":50,"guidance_scale":5.0},"output":null,"id":"7",'
    b'"created_at":"2024-12-06T00:20:04.185000+00:00","started_at":"2024-12-23T22:52:01.460145+00:00","logs":"",'
    b'"status":"processing"}'
)


def test_the_seed_s_report_is_read_whole() -> None:
    read = read_report(SEED)
    assert (read.id, read.status, read.logs, read.output) == ("7", "processing", "", None)
    assert read.input == {"prompt": "a photo of sprite", "seed": 76551, "steps": 50, "guidance_scale": 5.0}
    assert read.times == {
        "created_at": "2024-12-06T00:20:04.185000+00:00",
        "started_at": "2024-12-23T22:52:01.460145+00:00",
    }
    assert read.extra == {}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"id":NaN}',
        b'{"id":"a","id":"a"}',
        b'{"id":"\xff"}',
        b"[" * 65 + b"]" * 65,
        b'{"id":1e999}',
        rb'{"id":"a","logs":"\ud800' + b'\xff"}',
    ],
    ids=["empty", "cut", "nan", "twice", "not-utf8", "deep", "infinite", "not-utf8-and-half"],
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(RunnerInvalidJson):
        read_report(raw)


@pytest.mark.parametrize(
    "document",
    [[], "x", 7, None, {}, {"id": None}, {"id": ""}, {"id": "a" * 129}, {"id": True}, {"id": 1.5}, {"id": "a\nb"},
     {"id": "a\0"}, {"id": ["a"]}],
    ids=str,
)  # fmt: skip
def test_what_names_no_prediction_is_refused(document) -> None:
    with pytest.raises(InvalidWebhook) as refused:
        read_report(json.dumps(document).encode())
    assert refused.value.body()["fields"]


@pytest.mark.parametrize(
    ("given", "id"), [(7, "7"), (-1, "-1"), ("7", "7"), ("a/b ü", "a/b ü"), ("x" * 128, "x" * 128)]
)
def test_ids_are_text_and_whole_numbers_become_it(given, id: str) -> None:
    assert report(id=given).id == id


def test_half_characters_and_nul_are_left_out() -> None:
    raw = rb'{"id":"p1","logs":"a\u0000b\ud83dc\udc0c \ud83d\udc0c \\ud83d","output":["\ud800x"],"status":"processing"}'
    read = read_report(raw)
    assert read.logs == "abc \U0001f40c \\ud83d"
    assert read.output == ["x"]


def test_numbers_that_our_json_cannot_hold_become_text() -> None:
    read = report(output=1)
    assert read.output == 1
    huge = read_report(b'{"id":"p1","output":[1%s,18446744073709551615,{"a":-9223372036854775809}]}' % (b"0" * 400))
    assert huge.output == ["1" + "0" * 400, 18446744073709551615, {"a": "-9223372036854775809"}]


def test_members_of_another_kind_than_expected_are_not_taken() -> None:
    read = report(logs=["a"], input="x", metrics=[1], status=7, created_at=5, started_at="yesterday", error={"a": 1})
    assert (read.logs, read.input, read.metrics, read.status, read.said, read.times) == (None, None, {}, None, None, {})
    assert read.error == '{"a": 1}'


def test_an_unknown_status_is_said_but_is_no_state() -> None:
    read = report(status="x" * 40)
    assert (read.status, read.said) == (None, "x" * 32)


def test_an_error_has_a_limit() -> None:
    assert len(report(error="e" * (ERROR_MAX + 1)).error or "") == ERROR_MAX


def test_an_address_with_a_token_is_not_kept() -> None:
    read = report(webhook="http://node/pc/client-api/webhook/prediction?token=secret", webhook_events_filter=[], x=1)
    assert read.extra == {"x": 1}


@pytest.mark.parametrize(
    ("raw", "id"),
    [
        (SEED, "7"),
        (b'{"output": {"id": "no", "x": [{"id": "no"}]}, "id" : 42}', "42"),
        (b'{"logs": "\\"id\\":\\"no\\"", "id":"yes"}', "yes"),
        (b'{"a":["id",":","no"],"b":"id","id":"yes"}', "yes"),
        (b'{"logs":"' + b"x" * 3_000_000 + b'","id":"yes"}', "yes"),
        (body(output=list(range(100_000)), id="yes"), "yes"),
    ],
    ids=["seed", "nested", "in-text", "in-list", "long-text", "many"],
)
def test_the_id_of_a_large_body_is_found_without_parsing_it(raw: bytes, id: str) -> None:
    assert id_of(raw) == id


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b'{"id"', b'{"id":', b'{"id":{}}', b'{"id":null}', b'{"x":{"id":"a"}}', b'"id"']
)
def test_a_large_body_without_an_id_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidWebhook):
        id_of(raw)


def test_texts_are_replaced_wherever_they_are_values() -> None:
    given = {"a": ["x", {"x": "x"}], "b": 1, "c": None}
    assert mapped_texts(given, str.upper) == {"a": ["X", {"x": "X"}], "b": 1, "c": None}
