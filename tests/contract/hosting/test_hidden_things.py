"""What happens when the same request comes twice at once, when a check makes a second file, and what nobody may see."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from grid_node.errors import GridError, InvalidModel, InvalidPayload, ModelNotFound
from tests.models import ANN, ANYBODY, BEN, DOUBLER, Shelf

SHARE = f"share-{'ab' * 16}-0"


@pytest.mark.parametrize("fields", [{}, {"version": "new"}])
def test_one_request_that_comes_twice_at_once_is_served_once(shelf: Shelf, tmp_path: Path, fields: dict) -> None:
    if fields:
        shelf.serve(ANN, model=b"first")
    answers: list[object] = []
    gate = threading.Barrier(6)

    def serve() -> None:
        other = Shelf(shelf.store, tmp_path)
        gate.wait()
        try:
            answers.append(other.serve(ANN, model=b"again", idempotency_key="once", **fields))
        except GridError as error:
            answers.append(error.code)

    threads = [threading.Thread(target=serve) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 6
    assert len(set(answers)) == 1, answers
    [row] = shelf.reading.detailed(ANN)["models"]
    assert row["versions"] == ([1, 2] if fields else [1])


class Converting:
    """A check that finds a syft file and makes another file of it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "converted"

    def check(self, *_args: Any) -> Any:
        self.file.write_bytes(b"derived")
        return SimpleNamespace(format="syft-0.9.5", derived=self.file)


@pytest.fixture
def converting(shelf: Shelf, tmp_path: Path) -> Converting:
    made: Any = Converting(tmp_path)
    shelf.serving._checks = made
    return made


def kept(shelf: Shelf) -> list[bytes]:
    """What the store of blobs holds, finished or not."""
    return sorted(path.read_bytes() for path in shelf.blobs._root.rglob("*") if path.is_file())


def test_the_derived_file_of_a_refused_model_is_gone_with_it(shelf: Shelf, converting: Converting) -> None:
    def refuse(*_args: Any) -> Any:
        raise InvalidModel(reason="no such weight")

    shelf.compute.describe = refuse  # type: ignore[method-assign]
    with pytest.raises(InvalidModel):
        shelf.serve(architecture={"layers": []})
    assert kept(shelf) == []
    assert not converting.file.exists()


def test_a_derived_file_that_finds_no_room_leaves_nothing(shelf: Shelf, converting: Converting) -> None:
    put = shelf.blobs.writer

    def writer(max_bytes: int) -> Any:
        if max_bytes > 100:
            raise GridError("no room")
        return put(max_bytes)

    shelf.blobs.writer = writer  # type: ignore[method-assign]
    with pytest.raises(GridError):
        shelf.serve()
    assert kept(shelf) == []
    assert not converting.file.exists()


def test_nobody_buries_a_derived_file_while_its_model_is_looked_at(shelf: Shelf, converting: Converting) -> None:
    def describe(*_args: Any) -> Any:
        with pytest.raises(InvalidPayload), shelf.holds.hold(shelf.blobs.put(b"derived")):
            raise InvalidPayload()  # somebody else sends the same bytes and is refused
        return DOUBLER

    shelf.compute.describe = describe  # type: ignore[method-assign]
    shelf.serve(architecture={"layers": []})
    assert kept(shelf) == [b"bytes", b"derived"]
    assert len(shelf.references([path.name for path in shelf.blobs._root.rglob("*") if path.is_file()])) == 2


def test_a_page_behind_anothers_share_does_not_tell_that_it_is_there(shelf: Shelf) -> None:
    shelf.serve(ANN, model_id="first")
    shelf.serve(ANN, model_id="second")
    shelf.serving._shared.check_share = lambda *_: {}  # type: ignore[method-assign]
    shelf.serve(ANN, model_id=SHARE, format="share")
    shelf.serve(ANN, model_id="third")
    for caller in (ANYBODY, BEN):
        with pytest.raises(ModelNotFound):
            shelf.reading.detailed(caller, limit=1, after=SHARE)
    with pytest.raises(ModelNotFound):
        shelf.reading.models(limit=1, after=SHARE)
    assert [row["id"] for row in shelf.reading.detailed(ANN, limit=1, after=SHARE)["models"]] == ["third"]


def test_a_description_of_layers_has_an_end(shelf: Shelf) -> None:
    with pytest.raises(InvalidPayload) as refused:
        shelf.serve(architecture={"layers": [{"op": "linear", "weight": "w" * 600_000}]})
    assert list(refused.value.data["fields"]) == ["architecture"]
