"""Workers report to a real node: how they are let in, what they are answered, and what the node then shows."""

import base64
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import orjson
import pytest
import requests

from grid_node.runners.ids import webhook_token
from grid_node.secret import node_secret
from tests.faults import locked
from tests.nodes import LiveNode, running_node, until

WEBHOOK = "/pc/client-api/webhook/prediction"
LIMIT = 1_000_000
SIGNATURE = {"inputs": [{"name": "prompt", "type": "str"}], "outputs": "list[str]"}


class Reports:
    """A node with the keys of a model's owner and of a client, who are one."""

    def __init__(self, node: LiveNode) -> None:
        self.node = node
        self.key = node.add_key("owner", ("runner", "client"))
        self.model = self.post("/pc/client-api/predict_signature", json=SIGNATURE).json()["id"]

    def post(self, path: str = WEBHOOK, key: str | None = None, **given: Any) -> requests.Response:
        return requests.post(self.node.url + path, headers={"X-API-KEY": key or self.key}, timeout=30, **given)

    def run(self) -> str:
        """A prediction that waits for a worker; its id."""
        made = self.post("/v1/predictions", json={"version": self.model_name, "input": {"prompt": "a"}})
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    @property
    def model_name(self) -> str:
        account = requests.get(f"{self.node.url}/v1/account", headers={"X-API-KEY": self.key}, timeout=30).json()
        return f"{account['username']}/{self.model}"

    def shown(self, id: str) -> dict[str, Any]:
        return dict(self.get(f"/v1/predictions/{id}").json())

    def get(self, path: str) -> requests.Response:
        return requests.get(self.node.url + path, headers={"X-API-KEY": self.key}, timeout=30)

    def address(self, id: str) -> str:
        token = webhook_token(node_secret(self.node.data), id)
        return f"{self.node.url}{WEBHOOK}?token={token}"

    def by_token(self, id: str, **members: Any) -> requests.Response:
        return requests.post(self.address(id), json={"id": id, **members}, timeout=30)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reports]:
    with running_node(tmp_path_factory.mktemp("node"), webhook_in_max_bytes=LIMIT) as node:
        yield Reports(node)


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"runner:{key}".encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        lambda key: {"X-API-KEY": key},
        lambda key: {"Authorization": f"Bearer {key}"},
        lambda key: {"Authorization": basic(key)},
        lambda key: {"X-API-KEY": key, "Authorization": "Bearer wrong"},
    ],
    ids=["header", "bearer", "basic", "header-first"],
)
def test_a_key_opens_the_door_in_each_way_that_a_cog_has(reports: Reports, headers: Any) -> None:
    id = f"way-{headers.__code__.co_firstlineno}"
    for end in ("", "/"):
        answer = requests.post(
            reports.node.url + WEBHOOK + end,
            data=orjson.dumps({"id": id, "status": "processing"}),
            headers={**headers(reports.key), "Content-Type": "text/plain"},
            timeout=30,
        )
        assert (answer.status_code, answer.json()) == (200, {"success": True})
    shown = reports.shown(id)
    assert (shown["status"], shown["source"], shown["version"]) == ("processing", "external", "hidden")


def test_the_answer_wears_the_envelope_that_was_asked_for(reports: Reports) -> None:
    headers = {"X-API-KEY": reports.key, "X-Response-Envelope": "1"}
    answer = requests.post(reports.node.url + WEBHOOK, json={"id": "e"}, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"httpStatus": 200, "data": {"success": True}})


def test_a_token_reports_without_a_key_and_the_prediction_shows_it(reports: Reports) -> None:
    id = reports.run()
    assert reports.shown(id)["status"] == "starting"
    assert reports.by_token(id, status="processing", logs="one\n").status_code == 200
    assert (reports.shown(id)["status"], reports.shown(id)["logs"]) == ("processing", "one\n")
    said = {"status": "succeeded", "output": ["a"], "logs": "one\ntwo\n", "metrics": {"predict_time": 1.5}}
    assert reports.by_token(id, **said).json() == {"success": True}
    shown = reports.shown(id)
    assert {name: shown[name] for name in said} == said
    assert shown["started_at"]
    assert shown["completed_at"]
    events = reports.get(f"/v1/predictions/{id}/events").json()
    assert '"one\\ntwo\\n"' in json.dumps(events)


def refused(answer: requests.Response) -> tuple[int, str, str]:
    said = answer.json()
    assert said["success"] is False
    return answer.status_code, said["code"], said["error"]


def test_who_may_not_report_is_told_so_before_the_body_is_read(reports: Reports) -> None:
    client = reports.node.add_key("client", ("client",))
    url = reports.node.url + WEBHOOK
    no_json = b"{"
    assert refused(requests.post(url, data=no_json, timeout=30)) == (401, "missing_key", "API key is missing.")
    assert refused(reports.post(key="wrong", data=no_json)) == (401, "invalid_key", "API key is not valid.")
    expected = (403, "wrong_scope", "API key lacks the scope runner.")
    assert refused(reports.post(key=client, data=no_json)) == expected
    for token in ("", "x", "a" * 26 + "." + "b" * 43):
        answer = reports.post(f"{WEBHOOK}?token={token}", data=no_json)
        assert refused(answer) == (401, "invalid_token", "Webhook token is not valid.")


def test_bad_reports_are_refused_in_words(reports: Reports) -> None:
    not_json = (400, "invalid_json", "Body is not valid JSON.")
    for raw in (b"", b"{", b'{"id":NaN}', b"[" * 65 + b"]" * 65):
        assert refused(reports.post(data=raw)) == not_json
    assert refused(reports.post(json={"status": "failed"})) == (422, "invalid_webhook", "Webhook body is not valid.")
    id = reports.run()
    answer = requests.post(reports.address(id), json={"id": "other"}, timeout=30)
    assert refused(answer) == (409, "prediction_mismatch", "Token belongs to another prediction.")
    assert reports.shown(id)["status"] == "starting"
    assert reports.post(json={"id": "odd", "status": "aborted"}).status_code == 200


def test_other_methods_are_refused(reports: Reports) -> None:
    answer = reports.get(WEBHOOK)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "OPTIONS, POST")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_report_above_the_limit_fails_the_prediction_and_the_worker_hears_it(reports: Reports, chunked: bool) -> None:
    id = reports.run()
    raw = orjson.dumps({"id": id, "status": "succeeded", "logs": "x" * (LIMIT + 100_000)})
    data = iter([raw[:500_000], raw[500_000:]]) if chunked else raw
    answer = requests.post(reports.address(id), data=data, timeout=30)
    assert refused(answer) == (413, "body_too_large", f"Body is larger than {LIMIT} bytes.")
    shown = reports.shown(id)
    assert (shown["status"], shown["error"]) == ("failed", f"The runner's result is larger than {LIMIT} bytes.")


def test_a_body_that_ends_early_is_refused(reports: Reports) -> None:
    id = reports.run()
    with closing(http.client.HTTPConnection("127.0.0.1", reports.node.port, timeout=30)) as peer:
        peer.putrequest("POST", reports.address(id).removeprefix(reports.node.url))
        peer.putheader("Content-Length", "1000")
        peer.endheaders(b'{"id":"x"}')
        assert peer.sock is not None
        peer.sock.shutdown(1)
        answer = peer.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (400, "body_incomplete")


@pytest.mark.parametrize("with_key", [False, True])
def test_a_large_report_is_merged_by_the_errands_process(reports: Reports, with_key: bool) -> None:
    id = reports.run()
    said = {"logs": "x" * 600_000, "status": "succeeded", "output": ["a"]}
    answer = reports.post(json={**said, "id": id}) if with_key else reports.by_token(id, **said)
    assert answer.status_code == 200
    until(lambda: reports.shown(id)["status"] == "succeeded")
    assert len(reports.shown(id)["logs"]) == 600_000


def test_many_reports_at_once_lose_nothing(reports: Reports) -> None:
    id, statuses = reports.run(), list[int]()

    def post(turn: int) -> None:
        said = {"status": "processing", "output": ["a"] * turn, "logs": "x" * turn}
        statuses.append(reports.by_token(id, **said).status_code)

    threads = [threading.Thread(target=post, args=(turn,)) for turn in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    shown = reports.shown(id)
    assert (statuses, shown["output"], shown["logs"]) == ([200] * 20, ["a"] * 19, "x" * 19)


def test_a_database_that_is_locked_for_long_means_send_again(reports: Reports) -> None:
    id = reports.run()
    with locked(reports.node):
        answer = reports.by_token(id, status="succeeded", output=["a"])
    assert refused(answer) == (503, "try_again", "Temporarily unavailable.")
    assert answer.json()["retry_after"] == int(answer.headers["Retry-After"]) >= 1
    assert reports.by_token(id, status="succeeded", output=["a"]).status_code == 200
    assert reports.shown(id)["status"] == "succeeded"


def test_no_token_is_in_the_log(reports: Reports) -> None:
    id = reports.run()
    reports.by_token(id, status="processing")
    with socket.create_connection(("127.0.0.1", reports.node.port), 30) as peer:
        peer.sendall(f"POST {reports.address(id).removeprefix(reports.node.url)}\r\n\r\n".encode())
        assert b"400 Bad Request" in peer.recv(1000)
    token = reports.address(id).partition("token=")[2].partition(".")[2]
    assert "token=..." in reports.node.log_text()
    assert token not in reports.node.log_text()
    assert reports.key not in reports.node.log_text()
