"""The body of a stream of updates, over every store."""

from functools import partial

import pytest

from grid_node.clock import ManualClock
from grid_node.http import run_stream
from grid_node.http.connections import Connections
from grid_node.http.following import Follower
from grid_node.http.run_stream import RunStream
from grid_node.runners.removal import remove_records
from grid_node.runners.run_events import ended_meanwhile
from tests.booth import Booth
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]


@pytest.fixture
def booth(store):
    made = Booth(store, ManualClock())
    made.model()
    return made


@pytest.fixture
def follow(booth, monkeypatch):
    """A stream that grows impatient at once; every one is closed with the test."""
    monkeypatch.setattr(run_stream, "PING_EVERY", 0.01)
    made, connections = [], Connections()

    def stream(prediction, after=0, ended=None):
        follower = Follower(booth.streams, prediction.stream, after)
        ended = ended or partial(ended_meanwhile, booth.store, prediction)
        made.append(RunStream({}, prediction, follower, connections, 30.0, ended))
        return made[-1]

    yield stream
    assert connections.count()["sse"] == len(made)
    for one in made:
        one.close()
        assert not booth.streams.followed(one._prediction.stream)
    assert connections.count()["sse"] == 0


def test_silence_is_filled_with_comments_until_something_happens(booth, follow):
    made = booth.report(booth.run(), state="processing")
    pieces = iter(follow(made))
    assert [next(pieces) for _ in range(3)] == [b": updates follow\n\n", b": ping\n\n", b": ping\n\n"]
    booth.report(made, logs="1\n", logs_length=2)
    told = next(pieces)
    assert told == f"id: {made.epoch}:1\nevent: logs\ndata: 1\ndata: \n\n".encode()
    booth.report(made, state="succeeded", logs="1\n", logs_length=2)
    assert list(pieces) == [f"id: {made.epoch}:2\nevent: done\ndata: {{}}\n\n".encode()]


def test_what_is_told_between_two_looks_is_told_once(booth, follow):
    made = booth.report(booth.run(), state="processing", output=["a"])
    pieces = iter(follow(made))
    next(pieces)
    assert b"data: a\n" in next(pieces)
    made = booth.report(made, output=["a", "b"])
    booth.report(made, state="succeeded", output=["a", "b", "c"])
    assert [piece.split(b"data: ")[1] for piece in pieces] == [b"b\n\n", b"c\n\n", b"{}\n\n"]


def test_a_reader_whose_updates_were_removed_hears_the_end_all_the_same(booth, follow):
    made = booth.report(booth.run(), state="processing", output=["a"])
    pieces = iter(follow(made, 1))
    next(pieces)
    ended = booth.report(made, state="failed", error="oom")
    booth.report(booth.run(), state="canceled")  # a newer entry, so that none of these must stay
    booth.store.write(lambda tx: remove_records(tx, ended))
    assert list(pieces) == [f'id: {made.epoch}:{ended.seq}\nevent: done\ndata: {{"reason":"error"}}\n\n'.encode()]


def test_an_end_that_comes_while_it_is_asked_for_is_told_whole(booth, follow):
    made = booth.report(booth.run(), state="processing")
    pieces = iter(follow(made, ended=lambda: booth.report(made, state="succeeded", output=["late"])))
    next(pieces)
    assert [piece.split(b"data: ")[1] for piece in pieces] == [b"late\n\n", b"{}\n\n"]


def test_a_stream_that_is_told_to_end_ends(booth, follow):
    stream = follow(booth.run())
    pieces = iter(stream)
    next(pieces)
    stream._held.end(1001, "Server Shutdown")
    assert list(pieces) == []
