import os

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from grid_node.errors import InvalidPayload
from grid_node.http.multipart import HEAD_MAX, PART_END, PARTS_MAX, MultipartReader, PartHead, boundary_of

HEAD = b'--edge\r\nContent-Disposition: form-data; name="model"; filename="m.bin"\r\n\r\n'


def form(*parts: tuple[str, bytes]) -> bytes:
    body = b""
    for name, content in parts:
        body += b'--edge\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), content)
    return body + b"--edge--\r\n"


def parts_of(*pieces: bytes) -> list[tuple[str, bool, bytes]]:
    reader, found = MultipartReader("edge"), []
    for piece in pieces:
        for event in reader.feed(piece):
            if isinstance(event, PartHead):
                found.append([event.name, event.is_file, b""])
            elif event is not PART_END:
                found[-1][2] += event
    reader.finish()
    return [tuple(one) for one in found]


@given(
    st.binary(max_size=60), st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"\r\n-", b"\r\n--", b"\r\n--edg", b"--edge"])
)
def test_bytes_are_the_same_wherever_the_network_cuts_the_body(content, end):
    assume(b"\r\n--edge" not in content + end)  # that would end the part
    body = HEAD + content + end + b"\r\n--edge--\r\n"
    for cut in range(len(body)):
        assert parts_of(body[:cut], body[cut:]) == [("model", True, content + end)]


def test_a_body_may_come_byte_by_byte():
    body = form(("a", bytes(range(256))), ("b", b""))
    assert parts_of(*(body[at : at + 1] for at in range(len(body)))) == [
        ("a", False, bytes(range(256))),
        ("b", False, b""),
    ]


def test_what_stands_before_and_behind_the_form_is_no_part():
    assert parts_of(b"hello\r\n" + form(("a", b"1")) + b"bye") == [("a", False, b"1")]


def test_spaces_may_follow_the_boundary():
    assert parts_of(HEAD.replace(b"edge\r\n", b"edge \t\r\n") + b"x\r\n--edge--") == [("model", True, b"x")]


def test_names_are_utf_8_and_of_any_case_of_header():
    body = b'--edge\r\nCONTENT-DISPOSITION: form-data; name="\xc3\xa9"\r\n\r\n1\r\n--edge--'
    assert parts_of(body) == [("é", False, b"1")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        HEAD + b"content",
        HEAD + b"content\r\n--edge\r\n",
        HEAD + b"content\r\n--edgewise\r\n",
        b"x" * (HEAD_MAX + 100),
        b"--edge\r\nX: " + b"x" * (HEAD_MAX + 100),
        b"--edge" + b" " * (HEAD_MAX + 100),
        b"--edge\r\n\r\n\r\nno head\r\n--edge--",
        b'--edge\r\nContent-Disposition: form-data; filename="f"\r\n\r\n1\r\n--edge--',
        b'--edge\r\nContent-Disposition: attachment; name="f"\r\n\r\n1\r\n--edge--',
        b'--edge\r\nContent-Disposition: form-data; name="%b"\r\n\r\n1\r\n--edge--' % (b"n" * 65),
        b'--edge\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n1\r\n--edge--',
        HEAD[:-2] + b"Content-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--edge--",
        form(*((str(number), b"") for number in range(PARTS_MAX + 1))),
    ],
)
def test_what_is_no_form_is_refused(body):
    with pytest.raises(InvalidPayload) as refusal:
        parts_of(body)
    assert "_schema" in refusal.value.data["fields"]


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 71])
def test_a_boundary_that_is_none_is_refused(content_type):
    with pytest.raises(InvalidPayload):
        MultipartReader(boundary_of(content_type))


def test_no_more_than_a_piece_is_held():
    reader = MultipartReader("edge")
    list(reader.feed(HEAD))
    piece = os.urandom(64 * 1024)
    for _ in range(50):
        given = sum(len(event) for event in reader.feed(piece) if isinstance(event, bytes))
        assert given >= len(piece) - 20
