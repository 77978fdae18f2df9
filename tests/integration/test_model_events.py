"""The seven operations as Socket.IO events of a real node, and what goes wrong with them."""

import base64
import contextlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import socketio

from grid_node.identity.service import NewKey
from tests.integration.sockets import Socket
from tests.nodes import LiveNode, running_node

ALL_BYTES = bytes(range(256))
NOT_FOUND = {"success": False, "error": "Model not found."}


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with running_node(tmp_path_factory.mktemp("models"), compute_processes=0) as started:
        yield started


@pytest.fixture
def socket(node):
    opened = Socket(node.url)
    yield opened
    for name in opened.call("/models")["models"]:
        opened.call("/delete_model", {"model_id": name})
    opened.close()


def serve(socket, model_id="m1", model=ALL_BYTES, **fields):
    return socket.call("/serve_model", {"model_id": model_id, "model": model, **fields})


def test_a_model_is_served_listed_and_fetched(socket):
    assert socket.call("/models") == {"success": True, "models": []}
    assert serve(socket, allow_download=True) == {"success": True, "message": "Model saved with id: m1"}
    assert socket.call("/models/") == socket.call("/models", {}) == {"success": True, "models": ["m1"]}
    assert socket.call("/get_model/m1") == {"serialized_model": ALL_BYTES}


@pytest.mark.parametrize("event", ["/get_model/m1", "/get_model/m1/", "/get_model", "/get_model/"])
@pytest.mark.parametrize("encoding", [None, "base64", "ISO-8859-1", "Latin1"])
def test_bytes_come_as_they_are_or_as_text(socket, event, encoding):
    serve(socket, allow_download=True)
    payload = {} if event.count("m1") else {"model_id": "m1"}
    got = socket.call(event, {**payload, "encoding": encoding} if encoding else payload)["serialized_model"]
    texts = {None: ALL_BYTES, "base64": base64.b64encode(ALL_BYTES).decode()}
    assert got == texts.get(encoding, ALL_BYTES.decode("iso-8859-1"))


@pytest.mark.parametrize("name", ["/is_model_copy_allowed/{}", "/is_model_copy_allowed/{}/", "/is_model_copy_allowed"])
def test_whether_a_copy_is_allowed_by_each_spelling(socket, name):
    serve(socket, "open", allow_download="True")
    serve(socket, "closed", allow_download="False")

    def ask(model_id):
        if "{}" in name:
            return socket.call(name.format(model_id))
        return socket.call(name, {"model_id": model_id})

    assert ask("open") == {"success": True}
    assert ask("closed") == {"success": False, "error": "You're not allowed to download this model."}
    assert ask("none") == NOT_FOUND


def test_a_refused_download_has_the_texts_of_the_protocol(socket):
    serve(socket)
    refused = socket.call("/get_model/m1")
    assert refused["error"] == "You're not allowed to download this model."
    assert (refused["status"], refused["code"]) == (403, "download_not_allowed")
    assert socket.call("/get_model/m2") == {**NOT_FOUND, "code": "model_not_found", "status": 404}


@pytest.mark.parametrize("spelled", ["na%C3%AFve model", "na\u00efve%20model", "na\u00efve model"])
def test_an_id_in_a_name_is_decoded_once(socket, spelled):
    serve(socket, "na\u00efve model", allow_download=True)
    assert socket.call(f"/get_model/{spelled}")["serialized_model"] == ALL_BYTES
    assert socket.call("/get_model/na%25C3%25AFve model")["status"] == 404


@pytest.mark.parametrize(
    "model_id", ["", "x" * 65, "a/b", "..", ".", " a", "a ", "a\nb", "a\u2028b", "a%b", "a?b", "a#b"]
)
def test_a_malformed_id_is_refused_in_a_write_and_not_found_in_a_read(socket, model_id):
    refused = serve(socket, model_id)
    assert (refused["status"], list(refused["fields"])) == (400, ["model_id"])
    assert socket.call("/delete_model", {"model_id": model_id})["status"] == 400
    assert socket.call("/get_model", {"model_id": model_id})["status"] == 404
    assert socket.call("/is_model_copy_allowed", {"model_id": model_id}) == NOT_FOUND


@pytest.mark.parametrize("model_id", ["x" * 64, "\U0001f916", "Gr\u00f6\u00dfe 1", "a.b-c_d", "..."])
def test_any_printable_text_is_an_id(socket, model_id):
    assert serve(socket, model_id, allow_download=True)["success"] is True
    assert socket.call("/models")["models"] == [model_id]
    assert socket.call("/get_model", {"model_id": model_id})["serialized_model"] == ALL_BYTES


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model_id": None}, "model_id"),
        ({"model": b""}, "model"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"model": "\u0100"}, "model"),
        ({"model": "YQ", "encoding": "base64"}, "model"),
        ({"model": "Y Q==", "encoding": "base64"}, "model"),
        ({"encoding": "utf-8"}, "encoding"),
        ({"allow_download": "true"}, "allow_download"),
        ({"allow_download": 1}, "allow_download"),
        ({"allow_download": None}, "allow_download"),
        ({"allow_remote_inference": "yes"}, "allow_remote_inference"),
        ({"tags": ["a"] * 33}, "tags"),
        ({"tags": [""]}, "tags"),
        ({"description": "x" * 4097}, "description"),
        ({"description": "\0"}, "description"),
        ({"format": "pickle"}, "format"),
        ({"sha256": "abc"}, "sha256"),
        ({"version": 0}, "version"),
        ({"version": "newest"}, "version"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [{"datatype": "BYTES", "shape": [1]}]}, "inputs"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_bad_field_is_named_and_nothing_is_stored(socket, fields, named):
    refused = serve(socket, **fields)
    assert (refused["status"], refused["code"], list(refused["fields"])) == (400, "invalid_payload", [named])
    assert refused["error"] == "Invalid payload format"
    assert socket.call("/models")["models"] == []


@pytest.mark.parametrize("payload", [[], "text", 5, True, b"bytes", [{"model_id": "m1"}]])
@pytest.mark.parametrize("event", ["/serve_model", "/get_model/m1", "/delete_model", "/detailed_models_list"])
def test_what_is_no_object_is_refused(socket, event, payload):
    refused = socket.call(event, payload)
    assert (refused["status"], refused["code"]) == (400, "invalid_payload")


def test_an_unknown_event_is_answered(socket):
    for name in ("/get_models", "/get_model2/m1", "/serve", "get_model/m1"):
        assert socket.call(name)["code"] == "unknown_event"


def test_an_event_above_the_limit_is_answered_and_the_connection_lives(socket):
    refused = serve(socket, model=b"x" * 1_100_000)
    assert (refused["status"], refused["code"]) == (413, "message_too_large")
    assert (refused["limit"], refused["upload_url"]) == (1048576, "/uploads")
    assert socket.call("/models")["models"] == []


def test_an_event_above_the_buffer_ends_the_connection_visibly(node, socket):
    assert serve(socket, model=bytes(5 * 1024 * 1024))["code"] == "message_too_large"
    opened = Socket(node.url)
    with contextlib.suppress(socketio.exceptions.SocketIOError):
        opened.call("/serve_model", {"model_id": "m1", "model": bytes(9 * 1024 * 1024)}, timeout=2)
    opened.wait_for("disconnect")
    opened.close()
    assert socket.call("/models")["models"] == []


def test_of_simultaneous_serves_one_wins(node, socket):
    sockets = [Socket(node.url) for _ in range(8)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda number: serve(sockets[number % 8], "contested", b"%d" % number), range(32)))
    for opened in sockets:
        opened.close()
    assert sorted(answer.get("status", 200) for answer in answers) == [200] + [409] * 31
    assert socket.call("/detailed_models_list")["models"][0]["versions"] == [1]


def test_a_key_must_be_good_and_owns_what_it_serves(node, socket):
    key = node.keys.generate()
    node.keys.add(NewKey(key, "ann", 10, 60))
    ann = Socket(node.url, api_key=key)
    assert serve(ann)["success"] is True
    assert socket.call("/delete_model", {"model_id": "m1"})["code"] == "missing_key"
    assert serve(socket, version="new")["code"] == "missing_key"
    assert ann.call("/delete_model", {"model_id": "m1"})["message"] == "Model deleted with success!"
    ann.close()


def test_models_survive_a_restart_and_the_client_that_sent_them(tmp_path):
    node = LiveNode(tmp_path, scoring_processes=0, compute_processes=0)
    node.start()
    try:
        first = Socket(node.url)
        serve(first, allow_download=True)
        first.close()
        node.kill()
        node.start()
        second = Socket(node.url)
        assert second.call("/get_model/m1")["serialized_model"] == ALL_BYTES
        assert serve(second, model=b"other")["status"] == 409
        by_route = httpx.post(f"{node.url}/serve_model", json={"model_id": "m1", "model": "other"}, timeout=20)
        assert (by_route.status_code, by_route.json()["code"]) == (409, "model_exists")
        assert second.call("/get_model/m1")["serialized_model"] == ALL_BYTES
        second.close()
    finally:
        node.discard()


def test_what_one_process_deletes_another_does_not_find(tmp_path):
    first = LiveNode(tmp_path / "a", scoring_processes=0, compute_processes=0)
    first.start()
    second = first.another(tmp_path / "b")
    second.start()
    try:
        here, there = Socket(first.url), Socket(second.url)
        serve(here, allow_download=True)
        assert there.call("/get_model/m1")["serialized_model"] == ALL_BYTES
        here.call("/delete_model", {"model_id": "m1"})
        assert there.call("/get_model/m1")["status"] == 404
        here.close()
        there.close()
    finally:
        second.discard()
        first.discard()


def test_where_writing_takes_a_key_reading_does_not(tmp_path):
    node = LiveNode(tmp_path, scoring_processes=0, compute_processes=0, models_auth="write")
    node.start()
    try:
        anybody = Socket(node.url)
        key = node.keys.generate()
        node.keys.add(NewKey(key, "ann", 10, 60))
        ann = Socket(node.url, api_key=key)
        assert anybody.call("/models") == {"success": True, "models": []}
        assert serve(anybody)["code"] == "missing_key"
        assert serve(ann)["success"] is True
        assert ann.call("/models")["models"] == ["m1"]
        anybody.close()
        ann.close()
    finally:
        node.discard()
