"""Refusals that small limits show soon: their codes, their words and their statuses, on a running node."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.nodes import LiveNode, until
from tests.promises.runner_yard import BASE, SIGNATURE, SIGNATURES, Person, yard

MANY = 10**18


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    """One model an owner, one prediction that waits; files and ended predictions are closed at once."""
    settings = {"models_per_owner": 1, "runner_queue_max": 1, "file_ttl_s": 0.01, "upload_late_s": 0.01}
    with yard(tmp_path_factory.mktemp("limits"), **settings) as node:
        yield node


@pytest.fixture(scope="module")
def anna(node: LiveNode) -> Person:
    person = Person(node, "anna")
    person.register(name="painter")
    return person


def refusal(answer: requests.Response, *members: str) -> tuple[Any, ...]:
    """Status, code and words, and whatever else is asked for."""
    body = answer.json()
    assert (body["success"], body["status"]) == (False, answer.status_code)
    return answer.status_code, body["code"], body["error"], *(body[name] for name in members)


def create(anna: Person, **members: Any) -> requests.Response:
    path = f"/v1/models/{anna.account}/painter/predictions"
    return anna.ask("POST", path, json={"input": {"prompt": "a"}, **members})


def test_an_owner_has_no_more_models_than_the_limit(anna: Person) -> None:
    answer = anna.ask("POST", SIGNATURES, json={**SIGNATURE, "name": "another"})

    assert refusal(answer, "limit") == (429, "model_limit", "Too many models.", 1)
    assert "Retry-After" in answer.headers


def test_a_full_queue_says_when_to_come_again_and_what_waits_is_not_removed(anna: Person) -> None:
    waits = create(anna)
    full = create(anna)
    active = anna.ask("DELETE", f"/v1/predictions/{waits.json()['id']}")

    assert waits.status_code == 201  # nobody works on it: it waits
    assert refusal(full) == (429, "queue_full", "The model's queue is full.")
    assert 1 <= int(full.headers["Retry-After"]) <= 30
    assert refusal(active) == (409, "prediction_active", "The prediction is still active.")

    assert anna.ask("POST", f"/v1/predictions/{waits.json()['id']}/cancel").json()["status"] == "canceled"


ELSEWHERE = {
    "by http": "http://hooks.example/x",
    "by ftp": "ftp://hooks.example/x",
    "this machine": "https://127.0.0.1/x",
    "this machine by IPv6": "https://[::1]/x",
    "too long": f"https://hooks.example/{'x' * 2048}",
}


@pytest.mark.parametrize("url", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_webhooks_go_to_no_private_address_and_by_no_other_protocol(anna: Person, url: str) -> None:
    answer = create(anna, webhook=url)

    assert refusal(answer, "title") == (422, "webhook_not_allowed", *["Webhook URL is not allowed."] * 2)
    assert answer.json()["detail"] == "".join(f"- webhook: {text}\n" for text in answer.json()["fields"]["webhook"])
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_file_that_has_expired_says_so(anna: Person) -> None:
    address = anna.upload("x.png").headers["Location"]
    until(lambda: requests.get(address, timeout=20).status_code != 200)

    assert refusal(requests.get(address, timeout=20)) == (410, "file_expired", "File has expired.")


def test_an_ended_prediction_takes_no_more_files(anna: Person) -> None:
    id = create(anna).json()["id"]
    anna.ask("POST", f"/v1/predictions/{id}/cancel")
    until(lambda: anna.upload(f"{id}_0_x.png").status_code >= 400)

    assert refusal(anna.upload(f"{id}_0_x.png")) == (409, "prediction_closed", "The prediction is closed.")


def test_a_disk_that_is_nearly_full_takes_no_file(tmp_path: Path) -> None:
    with yard(tmp_path, upload_disk_floor_bytes=MANY) as node:
        anna = Person(node, "anna")
        answers = [
            anna.upload("x.png"),
            anna.ask("PUT", f"{BASE}/upload/x.png", data=iter([b"x"])),
            anna.ask("POST", "/v1/files", files={"content": b"x"}),
        ]
        assert [refusal(answer) for answer in answers] == [(507, "storage_full", "Storage is full.")] * 3
        assert [path for path in (node.data / "blobs").rglob("*") if path.is_file()] == []
