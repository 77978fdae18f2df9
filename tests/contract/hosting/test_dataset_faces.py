"""Datasets by event and by route: the same payload gives the same body, in success and in refusal."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.sockets import Socket
from tests.nodes import LiveNode, running_node

SEARCHES: list[Any] = [None, [], "text", {}, {"query": ""}, {"query": None}, {"query": 1.5}, {"query": ["a"] * 33}]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with running_node(tmp_path_factory.mktemp("node"), compute_processes=0) as made:
        yield made


class Faces:
    """One caller, both ways."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.socket = Socket(url, **({"api_key": key} if key else {}))
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=20.0)

    def close(self) -> None:
        self.socket.close()
        self.http.close()

    def post(self, name: str, payload: Any) -> tuple[Any, httpx.Response]:
        return self.socket.call(name, payload), self.http.post(name, content=json.dumps(payload))

    def get(self, name: str, **query: Any) -> tuple[Any, httpx.Response]:
        return self.socket.call(name, query), self.http.get(name, params=query)

    def refused(self, name: str, payload: Any) -> dict[str, Any]:
        """The body of both, which must be one."""
        ack, answer = self.post(name, payload)
        assert ack == answer.json()
        assert answer.status_code == ack["status"]
        return dict(ack)


@pytest.fixture
def anybody(node: LiveNode) -> Iterator[Faces]:
    faces = Faces(node.url)
    yield faces
    faces.close()


@pytest.fixture
def keyed(node: LiveNode) -> Iterator[Faces]:
    faces = Faces(node.url, node.add_key("datasets"))
    yield faces
    faces.close()


def test_a_dataset_registered_one_way_is_found_the_other(anybody: Faces) -> None:
    saved = anybody.socket.call("/register_dataset", {"dataset_id": "by event", "tags": ["event"]})
    assert saved == {"success": True, "message": "Dataset saved with id: by event"}
    answer = anybody.http.post("/register_dataset", json={"dataset_id": "by route", "tags": ["route"]})
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "message": "Dataset saved with id: by route"}
    tags, answer = anybody.get("/dataset-tags")
    assert tags == answer.json() == ["event", "route"]
    for query, found in (("event", True), (["by route", "route"], True), (["event", "route"], False)):
        ack, answer = anybody.post("/search", {"query": query})
        assert ack == answer.json() == {"content": found}
    ack, answer = anybody.get("/datasets")
    assert ack == answer.json()
    assert [one["id"] for one in ack["datasets"]] == ["by event", "by route"]
    ack, answer = anybody.get("/datasets", limit=1)
    assert ack == answer.json()
    assert ack["next"] == "by event"
    assert anybody.http.post("/tag_dataset", json={"dataset_id": "by event", "add": ["x"]}).json()["tags"] == [
        "event",
        "x",
    ]
    for dataset_id in ("by event", "by route"):
        gone = anybody.socket.call("/delete_dataset", {"dataset_id": dataset_id})
        assert gone == {"success": True, "message": "Dataset deleted with success!"}
    assert anybody.http.get("/dataset-tags").json() == []


@pytest.mark.parametrize("name", ["/dataset-tags", "/datasets"])
def test_one_slash_at_the_end_of_a_read_is_tolerated(anybody: Faces, name: str) -> None:
    ack, answer = anybody.get(name + "/")
    assert answer.status_code == 200
    assert ack == answer.json() == anybody.socket.call(name)


def test_one_slash_at_the_end_of_a_write_is_tolerated(anybody: Faces) -> None:
    for payload in ({"query": []}, {"query": "nothing"}):
        ack, answer = anybody.post("/search/", payload)
        assert ack == answer.json() == {"content": False}


@pytest.mark.parametrize("payload", SEARCHES)
def test_what_is_no_search_is_400_and_an_empty_object(anybody: Faces, payload: Any) -> None:
    ack, answer = anybody.post("/search", payload)
    assert answer.status_code == 400
    assert ack == answer.json() == {}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"query": "a", "query": "b"}', b'{"query": NaN}'])
def test_a_search_that_is_no_json_is_400_and_an_empty_object(anybody: Faces, body: bytes) -> None:
    answer = anybody.http.post("/search", content=body)
    assert (answer.status_code, answer.json()) == (400, {})


@pytest.mark.parametrize(
    ("name", "payload", "code"),
    [
        ("/register_dataset", [], "invalid_payload"),
        ("/register_dataset", {"dataset_id": "a/b"}, "invalid_payload"),
        ("/register_dataset", {"dataset_id": "d", "private": "true"}, "invalid_payload"),
        ("/register_dataset", {"dataset_id": "d", "private": True}, "missing_key"),
        ("/register_dataset", {"dataset_id": "d", "more": 1}, "invalid_payload"),
        ("/tag_dataset", {"dataset_id": "nothing", "add": ["t"]}, "dataset_not_found"),
        ("/tag_dataset", {"dataset_id": "a/b", "add": ["t"]}, "dataset_not_found"),
        ("/tag_dataset", {"add": ["t"]}, "invalid_payload"),
        ("/delete_dataset", {"dataset_id": "nothing"}, "dataset_not_found"),
        ("/delete_dataset", {"dataset_id": 7}, "invalid_payload"),
    ],
)
def test_a_refusal_has_one_body_on_both_faces(anybody: Faces, name: str, payload: Any, code: str) -> None:
    assert anybody.refused(name, payload)["code"] == code


def test_a_taken_id_is_409_with_both_texts(anybody: Faces) -> None:
    anybody.socket.call("/register_dataset", {"dataset_id": "taken"})
    body = anybody.refused("/register_dataset", {"dataset_id": "taken"})
    assert body["error"] == body["message"] == "Dataset id already exists."
    anybody.socket.call("/delete_dataset", {"dataset_id": "taken"})


def test_a_private_dataset_survives_a_restart_and_stays_private(node: LiveNode) -> None:
    owner = Faces(node.url, key := node.add_key("owner"))
    owner.socket.call("/register_dataset", {"dataset_id": "mine", "private": True, "tags": ["hidden"]})
    owner.close()
    node.restart()
    owner, other = Faces(node.url, key), Faces(node.url)
    try:
        assert owner.post("/search", {"query": "hidden"})[0] == {"content": True}
        assert owner.get("/dataset-tags")[1].json() == ["hidden"]
        assert other.post("/search", {"query": "hidden"})[0] == {"content": False}
        assert other.get("/dataset-tags")[1].json() == []
        hidden = other.refused("/delete_dataset", {"dataset_id": "mine"})
        assert hidden == other.refused("/delete_dataset", {"dataset_id": "nothing"})
        owner.socket.call("/delete_dataset", {"dataset_id": "mine"})
    finally:
        owner.close()
        other.close()


def test_a_key_that_is_wrong_opens_nothing(node: LiveNode) -> None:
    answer = httpx.get(f"{node.url}/dataset-tags", headers={"X-API-KEY": "no-such-key-000000"}, timeout=20.0)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_key")


def test_only_the_owner_changes_what_a_key_registered(anybody: Faces, keyed: Faces) -> None:
    keyed.socket.call("/register_dataset", {"dataset_id": "owned"})
    assert anybody.refused("/delete_dataset", {"dataset_id": "owned"})["code"] == "missing_key"
    assert keyed.socket.call("/tag_dataset", {"dataset_id": "owned", "add": ["t"]})["tags"] == ["t"]
    keyed.socket.call("/delete_dataset", {"dataset_id": "owned"})
