import contextlib
from pathlib import Path
from urllib.parse import urlencode

import pytest
from flask import Request
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from grid_node.blobs.local import LocalBlobs
from grid_node.errors import AssetTooLarge, BodyIncomplete, InvalidPayload, MessageTooLarge, UploadTooLarge
from grid_node.hosting.schemas import load_serve
from grid_node.http import model_forms
from grid_node.http.model_forms import check_inline, sent_model
from grid_node.settings import Settings
from tests.models import call

SETTINGS = Settings.load({}, models_inline_max=1000, models_max_bytes=5000)
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=edge"


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path, call)


def request(body: bytes, content_type: str, length: int | None = None) -> Request:
    environ = EnvironBuilder(method="POST", data=body, content_type=content_type).get_environ()
    return Request({**environ, "CONTENT_LENGTH": str(len(body) if length is None else length)})


def part(name: str, content: bytes, file: bool = False) -> bytes:
    told = b'; filename="f"' if file else b""
    return b'--edge\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name.encode(), told, content)


def payload_of(blobs: LocalBlobs, body: bytes, content_type: str) -> object:
    with sent_model(request(body, content_type), blobs, SETTINGS) as sent:
        return sent.payload


@given(st.binary(max_size=300), st.text(max_size=20), st.integers(4, 40))
def test_a_form_is_read_alike_in_slices_of_any_length(content, description, length):
    fields = {"model_id": "m", "model": content.decode("latin-1"), "description": description}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_forms, "SLICE", length)
        assert payload_of(None, urlencode(fields).encode(), FORM) == fields


@pytest.mark.parametrize("body", [b"model_id=%ff", b"%ff=1", b"model_id=%c3"])
def test_a_form_that_is_no_utf_8_is_refused(blobs, body):
    with pytest.raises(InvalidPayload):
        payload_of(blobs, body, FORM)


@pytest.mark.parametrize("content_type", ["application/json", "", "text/plain", FORM])
def test_json_is_json_whatever_it_says_it_is(blobs, content_type):
    assert payload_of(blobs, b'{"model": "a&b=c"}', content_type) == {"model": "a&b=c"}


def test_what_is_no_escape_stays_as_it_is(blobs):
    assert payload_of(blobs, b"model=100%&model_id=a%zzb&&", FORM) == {"model": "100%", "model_id": "a%zzb"}


def test_others_run_while_a_form_is_read(blobs, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(model_forms.time, "sleep", pauses.append)
    settings = Settings.load({}, models_inline_max=10**6)
    with sent_model(request(b"model=" + b"x" * 10**6, FORM), blobs, settings) as sent:
        assert sent.payload == {"model": "x" * 10**6}
    assert len(pauses) > 10


def test_the_bytes_of_a_file_have_a_name_once_they_are_committed(blobs, tmp_path):
    body = part("model_id", b"m") + part("model", b"content", file=True) + part("tags", b'["a"]') + b"--edge--"
    with sent_model(request(body, MULTIPART), blobs, SETTINGS) as sent:
        assert sent.payload == {"model_id": "m", "tags": ["a"]}
        blob = sent.writer.commit()
    assert b"".join(blobs.open(blob.sha256)) == b"content"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_bytes_that_nobody_commits_are_gone(blobs, tmp_path):
    body = part("model", b"content", file=True) + b"--edge--"
    with sent_model(request(body, MULTIPART), blobs, SETTINGS):
        assert len(list((tmp_path / "tmp").iterdir())) == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("body", "length", "error"),
    [
        (part("model", b"x" * 5001, file=True) + b"--edge--", None, UploadTooLarge),
        (part("model", b"x" * 4000, file=True)[:-2], None, InvalidPayload),
        (part("model", b"x" * 4000, file=True), 9000, BodyIncomplete),
        (part("model", b"", file=True), 10**12, UploadTooLarge),
        (part("model", b"x", file=True) + part("model", b"x") + b"--edge--", None, InvalidPayload),
    ],
)
def test_whatever_goes_wrong_leaves_nothing(blobs, tmp_path, body, length, error):
    with pytest.raises(error) as refusal, sent_model(request(body, MULTIPART, length), blobs, SETTINGS):
        pass
    assert not isinstance(refusal.value, AssetTooLarge)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_all_texts_of_a_form_together_are_bounded(blobs):
    many = b"".join(part(f"f{number}", b"x" * 2**16) for number in range(20)) + b"--edge--"
    settings = Settings.load({}, models_inline_max=1000)
    with pytest.raises(MessageTooLarge) as refusal, sent_model(request(many, MULTIPART), blobs, settings):
        pass
    assert refusal.value.data == {"limit": 1000, "upload_url": "/uploads"}


@pytest.mark.parametrize(
    ("model", "encoding", "fits"),
    [
        ("x" * 1000, "latin1", True),
        ("x" * 1001, "latin1", False),
        ("A" * 1334 + "==", "base64", True),
        ("A" * 1335 + "=", "base64", False),
    ],
)
def test_the_limit_is_of_bytes_not_of_characters(model, encoding, fits):
    wanted = load_serve({"model_id": "m", "model": model, "encoding": encoding})
    with contextlib.nullcontext() if fits else pytest.raises(MessageTooLarge):
        check_inline(wanted, 1000)
