import pytest

from grid_node.errors import InvalidPayload
from grid_node.hosting.forms import form_payload
from grid_node.hosting.schemas import SERVE, load_serve


def payload(*pairs: tuple[str, str]) -> dict[str, object]:
    return form_payload(pairs, SERVE)


def test_lists_and_objects_are_json_text():
    made = payload(
        ("inputs", '[{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]'),
        ("architecture", '{"layers": []}'),
        ("crypto_provider", '{"id": "cp", "address": "http://cp"}'),
        ("shares", "[]"),
    )
    assert made["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert made["architecture"] == {"layers": []}
    assert made["crypto_provider"] == {"id": "cp", "address": "http://cp"}
    assert made["shares"] == []


@pytest.mark.parametrize(
    ("pairs", "tags"),
    [
        ([("tags", '["a", "b"]')], ["a", "b"]),
        ([("tags", "a")], ["a"]),
        ([("tags", "a"), ("tags", "b")], ["a", "b"]),
        ([("tags", '["a"]'), ("tags", "b")], ['["a"]', "b"]),
    ],
)
def test_tags_come_as_json_or_one_by_one(pairs, tags):
    assert payload(*pairs) == {"tags": tags}


def test_numbers_are_decimal_and_flags_are_their_words():
    made = payload(("version", "2"), ("precision", "20"), ("allow_download", "True"), ("model_id", "7"))
    assert made == {"version": 2, "precision": 20, "allow_download": "True", "model_id": "7"}
    assert load_serve({**made, "model": "x"}).allow_download is True
    assert payload(("version", "new")) == {"version": "new"}


@pytest.mark.parametrize("flag", ["true", "1", "", "yes"])
def test_other_words_are_no_flags(flag):
    with pytest.raises(InvalidPayload) as refusal:
        load_serve(payload(("model_id", "m"), ("model", "x"), ("allow_download", flag)))
    assert set(refusal.value.data["fields"]) == {"allow_download"}


@pytest.mark.parametrize(
    ("pairs", "field"),
    [
        ([("model_id", "a"), ("model_id", "b")], "model_id"),
        ([("inputs", "[")], "inputs"),
        ([("inputs", "[NaN]")], "inputs"),
        ([("tags", "[a")], "tags"),
        ([("shares", "")], "shares"),
    ],
)
def test_what_cannot_be_is_refused_by_name(pairs, field):
    with pytest.raises(InvalidPayload) as refusal:
        payload(*pairs)
    assert set(refusal.value.data["fields"]) == {field}
