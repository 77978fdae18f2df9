"""Updates of predictions as server-sent events."""

import itertools

import pytest

from grid_node.errors import InvalidPrefer
from grid_node.http.run_stream import event_text
from grid_node.http.v1_runs import wait_of
from grid_node.runners.run_events import RunEvent


def decoded(text):
    """What a reader takes that splits lines wherever Python does, as httpx does."""
    fields = {}
    for line in text.decode().splitlines():
        name, _, value = line.partition(": ")
        fields.setdefault(name, []).append(value)
    assert set(fields) <= {"id", "event", "data", ""}
    return fields["event"], "\n".join(fields["data"]), fields["id"]


def test_an_event_has_id_name_and_data():
    assert event_text(RunEvent("output", "a", "18f:7")) == b"id: 18f:7\nevent: output\ndata: a\n\n"


@pytest.mark.parametrize(
    ("data", "read"),
    [
        ("", ""),
        ("a\n", "a\n"),
        ("10%\r20%\r\n30%", "10%\n20%\n30%"),
        ("a\n\nid: 9\n\nevent: done\n\n", "a\n\nid: 9\n\nevent: done\n\n"),
        ("a\u2028event: done\x85\x0c\x1eb", "a\nevent: done\n\n\nb"),
        (" a: b ", " a: b "),
    ],
)
def test_no_data_ends_a_line_or_an_event(data, read):
    assert decoded(event_text(RunEvent("logs", data, "1:1"))) == (["logs"], read, ["1:1"])


def test_every_character_that_ends_a_line_for_a_reader_is_cut_out():
    breaking = [char for char in map(chr, range(0x3000)) if len(f"a{char}b".splitlines()) > 1]
    for pair in itertools.product(breaking, repeat=2):
        text = event_text(RunEvent("logs", "a" + "".join(pair) + "b", "1:1"))
        assert all(line.startswith(("data: ", "id: ", "event: ")) or not line for line in text.decode().splitlines())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        (["respond-async"], None),
        (["wait"], 60),
        (["Wait"], 60),
        (["wait=1"], 1),
        (["wait=60"], 60),
        (['wait="5"'], 5),
        (["respond-async, wait=10"], 10),
        (["respond-async", "wait = 10; foo"], 10),
        (["return=minimal"], None),
        (["waiting=99"], None),
        (["wait=5, wait=70"], 5),
    ],
)
def test_prefer_asks_for_a_wait(headers, seconds):
    assert wait_of(headers) == seconds


@pytest.mark.parametrize(
    "text", ["wait=0", "wait=61", "wait=x", "wait=", "wait=1.5", "wait=-1", "wait=\u0661", "wait=99999"]
)
def test_a_wait_that_is_none_is_refused(text):
    with pytest.raises(InvalidPrefer):
        wait_of([text])
