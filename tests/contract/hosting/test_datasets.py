"""Datasets on every kind of store: who sees what, and what a search finds."""

import threading
from typing import Any

import pytest

from grid_node.clock import ManualClock
from grid_node.database import Store
from grid_node.errors import (
    BadQuery,
    DatasetExists,
    DatasetNotFound,
    Forbidden,
    GridError,
    InvalidPayload,
    MissingKey,
    QuotaExceeded,
)
from grid_node.fields import load
from grid_node.hosting.dataset_schemas import TAG, load_dataset, load_terms
from grid_node.hosting.datasets import Datasets
from grid_node.hosting.rights import ModelCaller
from grid_node.settings import Settings
from tests.models import ADMIN, ANN, ANYBODY, BEN


class Catalogue:
    """Datasets as a face would call them."""

    def __init__(self, store: Store, **settings: Any) -> None:
        self.store = store
        self.service = Datasets(store, ManualClock(), Settings.load({}, **settings))

    def register(self, dataset_id: Any = "d1", by: ModelCaller = ANYBODY, **fields: Any) -> dict[str, Any]:
        return self.service.register(by, load_dataset({"dataset_id": dataset_id, **fields}))

    def tag(self, dataset_id: str = "d1", by: ModelCaller = ANYBODY, **fields: Any) -> Any:
        return self.service.tag(by, **load(TAG, {"dataset_id": dataset_id, **fields}))["tags"]

    def search(self, query: Any, by: ModelCaller = ANYBODY) -> bool:
        found = self.service.search(by, load_terms({"query": query}))
        assert list(found) == ["content"]
        return bool(found["content"])

    def ids(self, by: ModelCaller = ANYBODY, **page: Any) -> list[str]:
        return [one["id"] for one in self.service.page(by, **page)["datasets"]]


@pytest.fixture
def catalogue(store: Store) -> Catalogue:
    return Catalogue(store)


def test_a_registered_dataset_is_described_as_it_was_registered(catalogue: Catalogue) -> None:
    answer = catalogue.register(
        "digits", description="hand-written", tags=["b", "a", "b"], uri="s3://x/y", sha256="0" * 64, size=12
    )
    assert answer == {"success": True, "message": "Dataset saved with id: digits"}
    assert catalogue.service.page(ANYBODY)["datasets"] == [
        {
            "id": "digits",
            "description": "hand-written",
            "tags": ["a", "b"],
            "uri": "s3://x/y",
            "sha256": "0" * 64,
            "size": 12,
            "private": False,
            "created_at": "2027-01-15T08:00:00.000Z",
        }
    ]


def test_an_id_that_is_taken_stays_what_it_was(catalogue: Catalogue) -> None:
    catalogue.register(description="first")
    with pytest.raises(DatasetExists) as refused:
        catalogue.register(description="second")
    body = refused.value.body()
    assert (body["status"], body["code"]) == (409, "dataset_exists")
    assert body["error"] == body["message"] == "Dataset id already exists."
    assert catalogue.service.page(ANYBODY)["datasets"][0]["description"] == "first"


def test_of_many_that_register_one_id_at_once_one_succeeds(catalogue: Catalogue) -> None:
    outcomes: list[str] = []

    def register() -> None:
        try:
            catalogue.register(tags=["t"])
            outcomes.append("saved")
        except GridError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=register) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["dataset_exists"] * 7 + ["saved"]
    assert catalogue.ids() == ["d1"]


def test_tags_are_added_and_removed_and_answered_sorted(catalogue: Catalogue) -> None:
    catalogue.register(tags=["b"])
    assert catalogue.tag(add=["a", "b", "C"]) == ["C", "a", "b"]
    assert catalogue.tag(remove=["b", "never there"]) == ["C", "a"]
    assert catalogue.service.tags(ANYBODY) == ["C", "a"]


def test_a_dataset_never_has_more_tags_than_it_could_be_registered_with(catalogue: Catalogue) -> None:
    catalogue.register(tags=[f"t{n}" for n in range(32)])
    with pytest.raises(InvalidPayload):
        catalogue.tag(add=["one more"])
    assert len(catalogue.service.tags(ANYBODY)) == 32
    assert "one more" in catalogue.tag(add=["one more"], remove=["t0"])


def test_a_tag_cannot_be_added_and_removed_at_once(catalogue: Catalogue) -> None:
    catalogue.register()
    with pytest.raises(InvalidPayload):
        catalogue.tag(add=["a"], remove=["a"])


def test_tags_of_a_deleted_dataset_are_gone_and_its_id_is_free(catalogue: Catalogue) -> None:
    catalogue.register(tags=["only here"])
    assert catalogue.service.delete(ANYBODY, "d1") == {"success": True, "message": "Dataset deleted with success!"}
    assert catalogue.service.tags(ANYBODY) == []
    assert not catalogue.search("only here")
    catalogue.register(tags=["again"])
    assert catalogue.service.tags(ANYBODY) == ["again"]


def test_another_process_on_the_same_database_answers_the_same(catalogue: Catalogue) -> None:
    catalogue.register(tags=["t"])
    other = Catalogue(catalogue.store)
    assert other.search("t")
    assert other.service.tags(ANYBODY) == ["t"]
    other.service.delete(ANYBODY, "d1")
    assert not catalogue.search("t")


# --- search


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("mnist", True),  # an id
        ("digits", True),  # a tag
        ("hand-written", True),  # inside a description
        ("7", True),  # a tag that looks like a number
        (7, True),
        (2024, True),  # inside a description
        (-7, False),
        ("MNIST", False),
        ("Digits", False),
        ("Hand-written", False),
        ("mnis", False),  # neither ids nor tags match in part
        ("digit", False),
        (["mnist", "digits"], True),
        (["mnist", "digits", "hand", 7], True),
        (["digits", "clothes"], False),  # on two datasets
        (["mnist", "fashion"], False),
        (["clothes", "Zalando"], True),
        ([], True),
        ("%", False),
        ("_", False),
        ("*", False),
        ("' OR 1=1 --", False),
        ("café", True),
        ("a\\b", True),
    ],
)
def test_a_search_matches_one_dataset_by_id_tag_or_description(catalogue: Catalogue, query: Any, found: bool) -> None:
    catalogue.register("mnist", description="hand-written numbers, 2024", tags=["digits", "7"])
    catalogue.register("fashion", description="from Zalando; café; a\\b", tags=["clothes"])
    assert catalogue.search(query) is found


def test_an_id_is_found_in_either_unicode_form(catalogue: Catalogue) -> None:
    catalogue.register("cafe\u0301")
    assert catalogue.ids() == ["caf\u00e9"]
    assert catalogue.search("cafe\u0301")
    assert catalogue.search("caf\u00e9")


def test_an_empty_list_finds_nothing_where_there_is_nothing(catalogue: Catalogue) -> None:
    assert not catalogue.search([])
    catalogue.register(by=ANN, private=True)
    assert not catalogue.search([])
    assert catalogue.search([], by=ANN)


def test_a_search_looks_at_every_row_however_many_there_are(catalogue: Catalogue) -> None:
    for n in range(300):
        catalogue.register(f"d{n}", description=f"number {n}.")
    for n in range(0, 300, 3):
        catalogue.service.delete(ANYBODY, f"d{n}")
    assert catalogue.search("number 299.")
    assert catalogue.search(["number 299.", "d299"])
    assert not catalogue.search("number 297.")
    assert not catalogue.search(["number 298.", "d299"])


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "text",
        [],
        {},
        {"query": None},
        {"query": ""},
        {"query": 1.5},
        {"query": True},
        {"query": {"tag": "a"}},
        {"query": ["a", ""]},
        {"query": ["a", None]},
        {"query": [["a"]]},
        {"query": ["a"] * 33},
        {"query": "a" * 257},
        {"query": 10**300},
        {"query": "a\0b"},
        {"query": "\ud800"},
        {"query": "a", "more": 1},
    ],
)
def test_what_is_no_search_is_refused_with_an_empty_object(payload: Any) -> None:
    with pytest.raises(BadQuery) as refused:
        load_terms(payload)
    assert refused.value.status == 400
    assert refused.value.body() == {}


def test_the_longest_search_is_taken(catalogue: Catalogue) -> None:
    catalogue.register(description="x" * 4096)
    assert catalogue.search([f"{'x' * (224 + n)}" for n in range(32)])
    assert not catalogue.search(int("1" * 256))


# --- private datasets


def test_a_private_dataset_exists_for_its_owner_alone(catalogue: Catalogue) -> None:
    catalogue.register("secret", by=ANN, private=True, tags=["hidden"], description="a plan")
    assert catalogue.ids(by=ANN) == ["secret"]
    assert catalogue.service.tags(ANN) == ["hidden"]
    assert all(catalogue.search(term, by=ANN) for term in ("secret", "hidden", "plan"))
    for other in (BEN, ANYBODY, ADMIN):
        assert catalogue.ids(by=other) == []
        assert catalogue.service.tags(other) == []
        assert not any(catalogue.search(term, by=other) for term in ("secret", "hidden", "plan"))


@pytest.mark.parametrize("other", [BEN, ANYBODY, ADMIN])
def test_what_is_hidden_and_what_is_not_there_are_answered_alike(catalogue: Catalogue, other: ModelCaller) -> None:
    catalogue.register("secret", by=ANN, private=True)
    for dataset_id in ("secret", "nothing", "a/b", "x" * 65, ""):
        for attempt in (
            lambda name: catalogue.tag(name, by=other, add=["t"]),
            lambda name: catalogue.service.delete(other, name),
            lambda name: catalogue.service.page(other, after=name or "-"),
        ):
            with pytest.raises(DatasetNotFound) as refused:
                attempt(dataset_id)
            assert refused.value.body() == DatasetNotFound().body()
    assert catalogue.ids(by=ANN) == ["secret"]


def test_an_id_that_is_taken_in_private_is_free_for_everybody_else(catalogue: Catalogue) -> None:
    catalogue.register("x", by=ANN, private=True, description="of ann")
    catalogue.register("x", by=BEN, private=True, description="of ben")
    catalogue.register("x", description="of all")
    for caller, text in ((ANN, "of ann"), (BEN, "of ben"), (ANYBODY, "of all")):
        (seen,) = catalogue.service.page(caller)["datasets"]
        assert seen["description"] == text
    with pytest.raises(DatasetExists):
        catalogue.register("x", by=ANN)
    catalogue.service.delete(ANN, "x")
    assert catalogue.service.page(ANN)["datasets"][0]["description"] == "of all"


def test_a_private_dataset_needs_an_owner(catalogue: Catalogue) -> None:
    with pytest.raises(MissingKey):
        catalogue.register(private=True)
    assert catalogue.ids() == []


# --- owners, lists, quota


def test_only_the_owner_or_an_administrator_changes_a_dataset(catalogue: Catalogue) -> None:
    catalogue.register(by=ANN)
    with pytest.raises(Forbidden):
        catalogue.tag(by=BEN, add=["t"])
    with pytest.raises(MissingKey):
        catalogue.service.delete(ANYBODY, "d1")
    assert catalogue.tag(by=ANN, add=["t"]) == ["t"]
    catalogue.service.delete(ADMIN, "d1")
    assert catalogue.ids() == []


def test_what_was_registered_without_a_key_is_everybodys(catalogue: Catalogue) -> None:
    catalogue.register()
    assert catalogue.tag(by=BEN, add=["t"]) == ["t"]


def test_pages_join_to_the_whole_list(catalogue: Catalogue) -> None:
    for n in range(7):
        catalogue.register(f"d{n}", by=ANN, private=n % 3 == 0, tags=[f"t{n}"])
    whole = catalogue.service.page(ANN)["datasets"]
    assert [one["tags"] for one in whole] == [[f"t{n}"] for n in range(7)]
    gathered, after = [], None
    while True:
        page = catalogue.service.page(ANN, limit=3, after=after)
        gathered += page["datasets"]
        after = page["next"]
        if after is None:
            break
    assert gathered == whole
    assert catalogue.ids(by=BEN) == ["d1", "d2", "d4", "d5"]
    assert catalogue.ids(by=BEN, after="d2") == ["d4", "d5"]


def test_each_owner_has_a_quota_of_datasets(store: Store) -> None:
    catalogue = Catalogue(store, models_quota_count=2, models_anonymous_quota_count=1)
    catalogue.register("a", by=ANN)
    catalogue.register("b", by=ANN, private=True)
    with pytest.raises(QuotaExceeded) as refused:
        catalogue.register("c", by=ANN)
    assert (refused.value.data["used"], refused.value.data["limit"]) == (2, 2)
    catalogue.register("c", by=BEN)
    catalogue.register("d")
    with pytest.raises(QuotaExceeded):
        catalogue.register("e")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"dataset_id": "a/b"}, "dataset_id"),
        ({"dataset_id": ""}, "dataset_id"),
        ({"dataset_id": "x" * 65}, "dataset_id"),
        ({"dataset_id": 7}, "dataset_id"),
        ({"private": "true"}, "private"),
        ({"private": 1}, "private"),
        ({"tags": ["x" * 65]}, "tags"),
        ({"tags": [""]}, "tags"),
        ({"tags": "t"}, "tags"),
        ({"tags": ["t"] * 33}, "tags"),
        ({"description": "x" * 4097}, "description"),
        ({"uri": ""}, "uri"),
        ({"uri": "x" * 2049}, "uri"),
        ({"sha256": "0" * 63}, "sha256"),
        ({"size": -1}, "size"),
        ({"size": 2**63}, "size"),
        ({"size": "1"}, "size"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        load_dataset({"dataset_id": "d1", **fields})
    assert list(refused.value.data["fields"]) == [wrong]
