"""Models and versions as clients of `/v1` see them, over every store."""

import json

import pytest
from sqlalchemy import update

from grid_node.clock import ManualClock, rfc3339
from grid_node.errors import BadCursor, ModelNotFound, UnknownVersion
from grid_node.runners import model_pages
from grid_node.runners.agents import Agent, connect, heard
from grid_node.runners.health import health_of
from grid_node.runners.model_pages import ModelCatalog
from grid_node.runners.models import models
from tests.booth import ANNA, BERT, SIGNATURE, Booth
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]


@pytest.fixture
def booth(store):
    return Booth(store, ManualClock())


@pytest.fixture
def catalog(booth):
    return ModelCatalog(booth.store, "http://grid.test")


def through(page):
    """Every page from the first one on, as lists of results."""
    found, cursor = [], None
    while True:
        one = page(cursor)
        found.append(one.results)
        if one.next is None:
            return found
        cursor = one.next


def test_a_model_says_what_clients_read(booth, catalog):
    signature = {**SIGNATURE, "description": "paints"}
    id, version = booth.model(signature=signature, cog_version="0.23.1", run_count=3)
    told = catalog.model(BERT, "anna", "paint")
    latest = told.pop("latest_version")
    assert told == {
        "url": "http://grid.test/v1/models/anna/paint",
        "id": id,
        "owner": "anna",
        "name": "paint",
        "description": "paints",
        "visibility": "public",
        "github_url": None,
        "paper_url": None,
        "license_url": None,
        "cover_image_url": None,
        "run_count": 3,
        "runner": {"status": "OFFLINE", "connected": False},
        "default_example": None,
        "created_at": rfc3339(booth.clock.now()),
    }
    assert (latest["id"], latest["cog_version"]) == (version, "0.23.1")
    assert list(latest["openapi_schema"]["components"]["schemas"]["Input"]["properties"]) == [
        "prompt",
        "steps",
        "image",
    ]
    assert catalog.model(BERT, "anna", id)["name"] == "paint"


def test_a_model_and_a_list_say_how_its_worker_is(booth, catalog):
    id, _ = booth.model()
    booth.model(name="other")
    agent = Agent(id, "1" * 32, "node-1", "grid-runner/1")
    booth.store.write(lambda tx: connect(tx, agent, 8, booth.clock.now()))
    booth.store.write(lambda tx: heard(tx, agent, health_of({"status": "READY"}), booth.clock.now()))
    ready, offline = {"status": "READY", "connected": True}, {"status": "OFFLINE", "connected": False}
    assert catalog.model(BERT, "anna", "paint")["runner"] == ready
    assert {one["name"]: one["runner"] for one in catalog.models(BERT).results} == {"paint": ready, "other": offline}


def test_a_description_that_is_no_text_is_none(booth, catalog):
    booth.model(signature={**SIGNATURE, "description": {"a": 1}})
    assert catalog.model(BERT, "anna", "paint")["description"] is None


def test_a_private_model_is_its_owners_alone(booth, catalog):
    _, version = booth.model(visibility="private")
    assert [one["name"] for one in catalog.models(ANNA).results] == ["paint"]
    assert catalog.models(BERT).results == []
    for call in (
        lambda: catalog.model(BERT, "anna", "paint"),
        lambda: catalog.versions(BERT, "anna", "paint"),
        lambda: catalog.version(BERT, "anna", "paint", version),
    ):
        with pytest.raises(ModelNotFound):
            call()


def test_models_are_listed_newest_first_without_gap_or_repeat(booth, catalog, monkeypatch):
    monkeypatch.setattr(model_pages, "PAGE", 7)
    names = []
    for number in range(23):
        booth.clock.advance(number % 2)  # some are registered at the same moment
        names.append(f"paint{number:02}")
        booth.model(name=names[-1])
    booth.model(BERT, "hidden", visibility="private")
    booth.model(ANNA, "leaving", state="deleting")
    pages = through(lambda cursor: catalog.models(ANNA, cursor))
    assert [len(page) for page in pages] == [7, 7, 7, 2]
    assert [one["name"] for page in pages for one in page] == names[::-1]


def test_a_page_of_large_signatures_ends_early(booth, catalog, monkeypatch):
    monkeypatch.setattr(model_pages, "PAGE_CHARACTERS", len(json.dumps(SIGNATURE)) + 100)
    for name in ("one", "two", "three"):
        booth.clock.advance(1)
        booth.model(name=name)
    pages = through(lambda cursor: catalog.models(ANNA, cursor))
    assert [[one["name"] for one in page] for page in pages] == [["three"], ["two"], ["one"]]


def test_versions_are_listed_newest_first_and_told_alone(booth, catalog, monkeypatch):
    monkeypatch.setattr(model_pages, "PAGE", 2)
    id, first = booth.model()
    made = [first]
    for le in range(100, 105):
        booth.clock.advance(1)
        changed = json.loads(json.dumps(SIGNATURE))
        changed["inputs"][1]["validation"]["le"] = str(le)
        made.append(booth.new_version(id, json.dumps(changed)))
    pages = through(lambda cursor: catalog.versions(BERT, "anna", "paint", cursor))
    assert [one["id"] for page in pages for one in page] == made[::-1]
    assert [len(page) for page in pages] == [2, 2, 2]
    assert catalog.model(BERT, "anna", "paint")["latest_version"]["id"] == made[-1]
    told = catalog.version(BERT, "anna", "paint", made[3])
    steps = told["openapi_schema"]["components"]["schemas"]["Input"]["properties"]["steps"]
    assert (told["id"], steps["maximum"], told["cog_version"]) == (made[3], 102, "unknown")


def test_an_unknown_version_or_cursor_is_told_as_one(booth, catalog):
    id, _ = booth.model()
    cursor = model_pages.cursor_of("models", 1.0, id)
    for version in ("f" * 64, "x", "\0"):
        with pytest.raises(UnknownVersion):
            catalog.version(BERT, "anna", "paint", version)
    for account, name in (("anna", "\0"), ("\0", "paint"), ("anna", "é" * 500)):
        with pytest.raises(ModelNotFound):
            catalog.model(BERT, account, name)
    for call in (
        lambda: catalog.models(BERT, "x"),
        lambda: catalog.versions(BERT, "anna", "paint", cursor),
    ):
        with pytest.raises(BadCursor):
            call()


def test_a_model_whose_registration_is_not_done_is_not_listed(booth, catalog):
    id, _ = booth.model(state="pending")
    assert catalog.models(ANNA).results == []
    booth.store.write(lambda tx: tx.execute(update(models).where(models.c.id == id).values(state="ready")))
    assert [one["id"] for one in catalog.models(ANNA).results] == [id]
