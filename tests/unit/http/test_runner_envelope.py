import pytest
from flask import Flask, Response, jsonify, request

from grid_node.http.runner_envelope import register_envelope

BASE = "/pc/client-api/"


@pytest.fixture(scope="module")
def client():
    app = Flask("envelopes")
    register_envelope(app)
    answers = {
        "made": lambda: (jsonify({"ä": 1}), 201, {"Location": "/x"}),
        "refused": lambda: (jsonify({"code": "gone"}), 410),
        "list": lambda: jsonify([1, 2]),
        "text": lambda: Response("{}", content_type="text/plain"),
        "file": lambda: Response(iter([b'{"a"', b": 1}"]), content_type="application/json"),
        "nothing": lambda: Response(status=304, content_type="application/json"),
    }
    app.add_url_rule("/<path:address>", "any", lambda address: answers[request.path.rpartition("/")[2]]())
    return app.test_client()


def asked(client, path, header="1"):
    return client.get(path, headers={"X-Response-Envelope": header})


@pytest.mark.parametrize(
    ("name", "status", "data"), [("made", 201, {"ä": 1}), ("refused", 410, {"code": "gone"}), ("list", 200, [1, 2])]
)
def test_json_is_wrapped_with_its_status(client, name, status, data):
    answer = asked(client, BASE + name)

    assert answer.status_code == status
    assert answer.json == {"httpStatus": status, "data": data}
    assert answer.content_length == len(answer.data)
    assert "X-Response-Envelope" in answer.headers["Vary"]


def test_what_stands_in_other_headers_stays(client):
    assert asked(client, f"{BASE}made").headers["Location"] == "/x"


@pytest.mark.parametrize(("name", "body"), [("text", b"{}"), ("file", b'{"a": 1}'), ("nothing", b"")])
def test_what_is_no_answer_of_the_node_itself_stays_as_it_is(client, name, body):
    assert asked(client, BASE + name).data == body


@pytest.mark.parametrize("path", ["/v1/list", "/pc/list", "/x/pc/client-api/list"])
def test_other_addresses_know_no_envelope(client, path):
    assert asked(client, path).json == [1, 2]


@pytest.mark.parametrize("header", ["0", "true", ""])
def test_who_does_not_ask_gets_the_bare_answer(client, header):
    assert asked(client, f"{BASE}list", header).json == [1, 2]
