"""`/pc/client-api` and the namespace `/pc` on a running node: what model owners do, and what nobody else may."""

import base64
import json
import re
import socket
import sqlite3

import pytest
import requests
import socketio

from tests.cloudflare import DOMAIN, cloudflare, settings_of
from tests.integration.sockets import Socket
from tests.nodes import running_node
from tests.registrar import SEED

BASE = "/pc/client-api"
SIGNATURES = f"{BASE}/predict_signature"
ENVELOPE = {"X-Response-Envelope": "1"}


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pc")
    with running_node(folder, errand_threads=0, signature_max_bytes=20_000) as live:
        yield live


@pytest.fixture(scope="module")
def key(node):
    return node.add_key("anna", ("runner",))


class Owner:
    """Asks with a key, by `X-API-KEY`."""

    def __init__(self, node, key):
        self.url = node.url
        self.key = {"X-API-KEY": key}

    def ask(self, method, path, headers=(), **given):
        return requests.request(method, self.url + path, headers={**self.key, **dict(headers)}, timeout=30, **given)

    def register(self, **members):
        answer = self.ask("POST", SIGNATURES, json={**SEED, **members})
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def owner(node, key):
    return Owner(node, key)


@pytest.fixture(scope="module")
def stranger(node):
    return Owner(node, node.add_key("bert", ("runner",)))


@pytest.fixture(scope="module")
def events(node, key):
    made = Socket(node.url, "/pc", key=key)
    yield made
    made.close()


# --- the table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_seed_s_signature_is_registered(owner, slash):
    answer = owner.ask("POST", SIGNATURES + slash, json=SEED)

    assert answer.status_code == 200
    made = answer.json()
    assert set(made) == {"id", "credential", "config"}
    assert re.fullmatch("m-[a-z2-7]{20}", made["id"])
    said = json.loads(base64.b64decode(made["credential"]["token"]))
    assert said["s"] == made["credential"]["TunnelSecret"]
    assert len(base64.b64decode(said["s"])) == 32
    assert re.fullmatch("[0-9a-f]{32}", said["a"])
    assert made["config"]["ingress"][0]["hostname"] == f"{made['id']}.runners.localhost"


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_new_document_has_the_same_answer(owner, method):
    made = owner.register()

    answer = owner.ask(method, f"{SIGNATURES}/{made['id']}/", json={**SEED, "outputs": "str"})

    assert (answer.status_code, answer.json()) == (200, made)
    assert owner.ask("GET", f"{SIGNATURES}/{made['id']}").json()["outputs"] == "str"


@pytest.mark.parametrize("content_type", ["application/json", "application/merge-patch+json"])
def test_a_patch_by_its_etag_counts_once(owner, content_type):
    made = owner.register()
    path = f"{SIGNATURES}/{made['id']}"
    headers = {"If-Match": owner.ask("GET", path).headers["ETag"], "Content-Type": content_type}

    first = owner.ask("PATCH", path, data=json.dumps({"visibility": "public"}), headers=headers)
    second = owner.ask("PATCH", path, data=json.dumps({"visibility": "private"}), headers=headers)

    assert (first.status_code, first.json()) == (200, made)
    assert (second.status_code, second.json()["code"]) == (412, "version_conflict")
    assert second.json()["error"] == "The model was changed meanwhile."
    assert owner.ask("GET", path).json()["visibility"] == "public"


def test_the_credential_is_only_told_when_it_is_asked_for(owner):
    made = owner.register()
    path = f"{SIGNATURES}/{made['id']}"

    assert set(owner.ask("GET", path).json()["credential"]) == {"AccountTag", "TunnelID", "TunnelName"}
    assert owner.ask("GET", path, params={"include": "credential"}).json()["credential"] == made["credential"]
    assert owner.ask("GET", path, params={"include": "x"}).status_code == 400


def test_a_model_is_deleted(owner):
    path = f"{SIGNATURES}/{owner.register()['id']}"

    answer = owner.ask("DELETE", path, params={"force": "true"})

    assert (answer.status_code, answer.json()) == (200, {"id": path.rpartition("/")[2], "deleted": True})
    gone = owner.ask("GET", path)
    assert (gone.status_code, gone.json()["code"], gone.json()["error"]) == (404, "model_not_found", "Model not found.")
    assert owner.ask("DELETE", path, params={"force": "perhaps"}).status_code == 400


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_models_are_listed_by_query_or_body(node, method):
    owner = Owner(node, node.add_key("carl", ("runner",)))
    ids = {owner.register()["id"] for _ in range(3)}

    first = owner.ask(method, f"{BASE}/models", params={"limit": 2}).json()
    rest = owner.ask("POST", f"{BASE}/models/", json={"limit": 2, "cursor": first["next"]}).json()

    assert {model["model_id"] for model in first["models"] + rest["models"]} == ids
    assert rest["next"] is None
    assert len(owner.ask(method, f"{BASE}/models").json()["models"]) == 3


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"limit": 0}, 400, "invalid_payload"),
        ({"limit": 501}, 400, "invalid_payload"),
        ({"limit": "x"}, 400, "invalid_payload"),
        ({"cursor": "x"}, 400, "bad_cursor"),
        ({"unknown": "x"}, 400, "invalid_payload"),
    ],
)
def test_a_page_that_cannot_be_is_refused(owner, query, status, code):
    answer = owner.ask("GET", f"{BASE}/models", params=query)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_request_that_is_sent_again_makes_no_second_model(owner):
    headers = {"Idempotency-Key": "once"}
    first = owner.ask("POST", SIGNATURES, json=SEED, headers=headers)
    again = owner.ask("POST", SIGNATURES, json=SEED, headers=headers)
    other = owner.ask("POST", SIGNATURES, json={**SEED, "name": "x"}, headers=headers)

    assert first.json() == again.json()
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert other.json()["error"] == "Idempotency-Key was used with another body."
    assert owner.ask("POST", SIGNATURES, json=SEED, headers={"Idempotency-Key": "x" * 129}).status_code == 400


# --- addresses that were replaced -----------------------------------------------------------------------------------


def test_the_old_address_of_a_registration_still_takes_json_and_names_the_new_one(owner):
    answer = owner.ask("POST", f"{BASE}/upload/file", json=SEED)

    assert (answer.status_code, set(answer.json())) == (200, {"id", "credential", "config"})
    assert answer.headers["Deprecation"] == "true"
    assert answer.headers["Link"] == '</pc/client-api/predict_signature>; rel="successor-version"'


@pytest.mark.parametrize(
    ("method", "path", "use"),
    [
        ("GET", "upload/credential", SIGNATURES),
        ("POST", "upload/credential/", SIGNATURES),
        ("GET", "upload/file", SIGNATURES),
        ("POST", "upload/file", SIGNATURES),
        ("GET", "upload/output/7", f"{BASE}/upload/{{file_name}}"),
        ("POST", "upload/output/7", f"{BASE}/upload/{{file_name}}"),
        ("GET", "upload/progress/7", f"{BASE}/webhook/prediction"),
        ("POST", "upload/progress/7", f"{BASE}/webhook/prediction"),
    ],
)
def test_an_address_that_was_replaced_says_what_by(owner, method, path, use):
    answer = owner.ask(method, f"{BASE}/{path}", data="inputs: []", headers={"Content-Type": "application/yaml"})

    assert answer.status_code == 410
    body = answer.json()
    assert (body["code"], body["error"], body["use"]) == ("gone", "This endpoint was replaced.", use)


@pytest.mark.parametrize("name", ["file", "credential", "output/7"])
def test_a_file_may_have_the_name_of_an_old_address(owner, name):
    answer = owner.ask("PUT", f"{BASE}/upload/{name}", data=b"bytes", headers={"X-Prediction-ID": f"of {name}"})

    assert answer.status_code == 201, answer.text
    assert answer.json()["filename"] == name.rpartition("/")[2]


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code", "error"),
    [
        (b"inputs: []", "application/yaml", 415, "unsupported_media_type", "Content-Type must be application/json."),
        (b"{}", "multipart/form-data; boundary=x", 415, "unsupported_media_type", None),
        (b"{}", None, 415, "unsupported_media_type", None),
        (b"{}", "application/merge-patch+json", 415, "unsupported_media_type", None),
        (b"inputs: []", "application/json", 400, "invalid_json", "Body is not valid JSON."),
        (b"", "application/json", 400, "invalid_json", None),
        (b"[]", "application/json; charset=utf-8", 400, "invalid_json", None),
        (b'{"inputs": NaN}', "application/json", 400, "invalid_json", None),
        (b'{"a": 1, "a": 2}', "application/json", 400, "invalid_json", None),
        (b"[" * 100 + b"]" * 100, "application/json", 400, "invalid_json", None),
        (b'{"a": "\xff"}', "application/json", 400, "invalid_json", None),
        (b"{}", "application/json", 422, "invalid_signature", "Signature is not valid."),
        (b" " * 20_001, "application/json", 413, "body_too_large", "Body is larger than 20000 bytes."),
        (b" " * 2_000_000, "application/json", 413, "body_too_large", None),
    ],
    ids=range(14),
)
def test_a_body_that_is_no_registration_is_refused(owner, body, content_type, status, code, error):
    for method, path in (("POST", SIGNATURES), ("PUT", f"{SIGNATURES}/{owner.register()['id']}")):
        answer = owner.ask(method, path, data=body, headers={"Content-Type": content_type} if content_type else {})

        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert error is None or answer.json()["error"] == error


def test_a_body_of_unknown_length_is_counted(owner):
    pieces = (b" " * 1000 for _ in range(30))

    answer = owner.ask("POST", SIGNATURES, data=pieces, headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_body_that_ends_early_is_refused(node, key):
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as peer:
        head = f"POST {SIGNATURES} HTTP/1.1\r\nHost: x\r\nX-API-KEY: {key}\r\nContent-Type: application/json\r\n"
        peer.sendall(f"{head}Content-Length: 1000\r\n\r\n{{}}".encode())
        peer.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: peer.recv(4096), b""))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Body ended early." in answer


def test_what_is_wrong_with_a_signature_is_told_by_its_path(owner):
    document = json.loads(json.dumps(SEED))
    document["inputs"][2]["validation"]["le"] = "many"

    answer = owner.ask("POST", SIGNATURES, json=document)

    assert answer.status_code == 422
    assert answer.json()["fields"] == {"inputs.2.validation.le": ["Not a valid integer."]}


def test_a_name_that_is_taken_is_refused(owner):
    owner.register(name="taken")

    answer = owner.ask("POST", SIGNATURES, json={**SEED, "name": "taken"})

    assert (answer.status_code, answer.json()["code"]) == (409, "model_name_taken")
    assert answer.json()["error"] == "Model name is already taken."


# --- who may --------------------------------------------------------------------------------------------------------

ROUTES = [
    ("POST", SIGNATURES),
    ("PUT", f"{SIGNATURES}/ID"),
    ("POST", f"{SIGNATURES}/ID"),
    ("PATCH", f"{SIGNATURES}/ID"),
    ("GET", f"{SIGNATURES}/ID"),
    ("DELETE", f"{SIGNATURES}/ID"),
    ("GET", f"{BASE}/models"),
    ("POST", f"{BASE}/models"),
    ("GET", f"{BASE}/upload/credential"),
    ("POST", f"{BASE}/upload/file"),
    ("GET", f"{BASE}/upload/output/7"),
    ("POST", f"{BASE}/upload/progress/7"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=range(len(ROUTES)))
def test_every_route_asks_for_a_key_with_the_scope_before_it_reads_a_body(node, method, path):
    client = node.add_key("client", ("client",))

    def refusal(**headers):
        answer = requests.request(method, node.url + path, data=b"{", headers=headers, timeout=30)
        return answer.status_code, answer.json()["code"], answer.json()["error"]

    missing = (401, "missing_key", "API key is missing.")
    wrong = (403, "wrong_scope", "API key lacks the scope runner.")
    invalid = (401, "invalid_key", "API key is not valid.")
    assert refusal() == missing
    assert refusal(Authorization="Basic " + base64.b64encode(b"runner:x").decode()) == missing
    assert refusal(**{"X-API-KEY": "k" * 40}) == invalid
    assert refusal(Authorization=f"Bearer {client}") == wrong
    assert refusal(**{"X-API-KEY": client, "Authorization": "Bearer " + "k" * 40}) == wrong


def test_a_refusal_of_a_key_does_not_wait_for_the_body(node):
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as peer:
        peer.sendall(
            b"POST /pc/client-api/predict_signature HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        assert peer.recv(4096).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(("method", "path"), ROUTES[1:6], ids=range(5))
def test_a_model_of_somebody_else_is_not_found_and_stays_as_it_is(owner, stranger, method, path):
    made = owner.register(visibility="public")
    before = owner.ask("GET", f"{SIGNATURES}/{made['id']}").json()

    answer = stranger.ask(method, path.replace("ID", made["id"]), json=None if method == "GET" else SEED)

    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")
    assert owner.ask("GET", f"{SIGNATURES}/{made['id']}").json() == before


def test_models_of_others_are_not_listed(owner, stranger):
    made = owner.register(visibility="public")

    listed = stranger.ask("GET", f"{BASE}/models").json()["models"]

    assert made["id"] not in [model["model_id"] for model in listed]


@pytest.mark.parametrize("id", ["..", "%00", "m-%00", "x" * 3000, "%ff", "m-\u00e4"])
def test_an_id_that_is_none_is_not_found(owner, id):
    answer = owner.ask("GET", f"{SIGNATURES}/{id}")

    assert answer.status_code in (404, 405)


# --- the old form of answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "status"), [("/models", 200), ("/predict_signature/x", 404), ("/nothing", 404)])
def test_answers_come_in_an_envelope_if_that_is_asked_for(owner, path, status):
    plain = owner.ask("GET", BASE + path)
    wrapped = owner.ask("GET", BASE + path, headers=ENVELOPE)

    assert wrapped.status_code == plain.status_code == status
    assert wrapped.json() == {"httpStatus": status, "data": plain.json()}
    assert int(wrapped.headers["Content-Length"]) == len(wrapped.content)


def test_a_refusal_without_a_key_comes_in_an_envelope_too(node):
    answer = requests.get(f"{node.url}{BASE}/models", headers=ENVELOPE, timeout=30)

    assert answer.json()["httpStatus"] == answer.status_code == 401


def test_other_parts_of_the_node_know_no_envelope(node):
    assert "httpStatus" not in requests.get(f"{node.url}/v1/models", headers=ENVELOPE, timeout=30).json()


def test_a_file_that_is_json_is_no_answer(owner):
    stored = owner.ask("PUT", f"{BASE}/upload/a.json", data=b'{"a": 1}', headers={"Content-Type": "application/json"})

    path = stored.json()["url"].partition(BASE)[2]

    served = owner.ask("GET", BASE + path, headers=ENVELOPE)

    assert (served.status_code, served.content) == (200, b'{"a": 1}')


# --- events -----------------------------------------------------------------------------------------------------------


def test_every_event_answers_what_the_route_would(owner, events):
    made = events.call("predict_signature.create", {**SEED, "name": "by-event"})
    id = made["id"]
    path = f"{SIGNATURES}/{id}"

    assert set(made) == {"id", "credential", "config"}
    assert events.call("predict_signature.get", {"id": id}) == owner.ask("GET", path).json()
    assert events.call("predict_signature.get", {"id": id, "include": "credential"})["credential"] == made["credential"]
    assert events.call("predict_signature.update", {"id": id, **SEED, "outputs": "str"}) == made
    assert events.call("predict_signature.patch", {"id": id, "visibility": "public"}) == made
    found = owner.ask("GET", path).json()
    assert (found["name"], found["outputs"], found["visibility"]) == (id, "str", "public")
    assert events.call("models.list", {"limit": 500}) == owner.ask("GET", f"{BASE}/models?limit=500").json()
    assert events.call("predict_signature.delete", {"id": id}) == {"id": id, "deleted": True}
    assert events.call("predict_signature.get", {"id": id}) == owner.ask("GET", path).json()


@pytest.mark.parametrize(
    ("event", "payload", "code"),
    [
        ("predict_signature.create", [], "invalid_json"),
        ("predict_signature.create", {}, "invalid_signature"),
        ("predict_signature.create", {**SEED, "note": "x" * 20_001}, "body_too_large"),
        ("predict_signature.create", {**SEED, "idempotency_key": 7}, "invalid_payload"),
        ("predict_signature.create", {**SEED, "idempotency_key": ""}, "invalid_payload"),
        ("predict_signature.update", SEED, "model_not_found"),
        ("predict_signature.update", {**SEED, "id": 7}, "invalid_payload"),
        ("predict_signature.patch", {"id": "m-" + "a" * 20}, "model_not_found"),
        ("predict_signature.get", {}, "invalid_payload"),
        ("predict_signature.delete", {"id": "x", "force": "true"}, "invalid_payload"),
        ("models.list", {"limit": 0}, "invalid_payload"),
        ("models.list", {"cursor": "x"}, "bad_cursor"),
        ("predict_signature.upload", {}, "unknown_event"),
    ],
    ids=range(13),
)
def test_an_event_that_cannot_be_is_answered_with_the_error(events, event, payload, code):
    assert events.call(event, payload)["code"] == code


def test_an_event_that_is_sent_again_makes_no_second_model(events, owner):
    payload = {**SEED, "idempotency_key": "by event"}

    made = events.call("predict_signature.create", payload)

    assert events.call("predict_signature.create", payload) == made
    assert "idempotency_key" not in owner.ask("GET", f"{SIGNATURES}/{made['id']}").json()


@pytest.mark.parametrize(("scopes", "code"), [((), "missing_key"), (("client",), "wrong_scope")])
def test_a_socket_without_the_scope_is_not_let_in(node, scopes, code):
    refusals = []
    peer = socketio.Client(reconnection=False)
    peer.on("connect_error", refusals.append, namespace="/pc")
    auth = {"key": node.add_key("x", scopes)} if scopes else None

    with pytest.raises(socketio.exceptions.ConnectionError):
        peer.connect(node.url, auth=auth, namespaces=["/pc"], transports=["websocket"], wait_timeout=20)
    peer.shutdown()

    assert refusals[0]["data"]["code"] == code


def test_a_socket_ends_when_its_key_is_removed(node):
    key = node.add_key("short", ("runner",))
    peer = Socket(node.url, "/pc", key=key)
    assert peer.call("models.list", {}) == {"models": [], "next": None}

    node.keys.remove(key)

    assert peer.wait_for("closing")[0]["reason"] == "auth_failed"
    peer.close()


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_neither_the_database_nor_the_log_holds_a_secret_in_clear(node, owner, key, events):
    made = owner.register()
    owner.ask("GET", f"{SIGNATURES}/{made['id']}", params={"include": "credential"})
    with sqlite3.connect(node.data / "grid.db") as database:
        database.execute("PRAGMA wal_checkpoint(PASSIVE)")
    database.close()

    stored = b"".join(file.read_bytes() for file in node.data.rglob("*") if file.is_file())
    told = node.log_text()

    for secret in (made["credential"]["TunnelSecret"], made["credential"]["token"], key):
        assert secret.encode() not in stored
        assert secret not in told
    assert made["id"].encode() in stored
    assert f"credential of model {made['id']} was shown" in told


# --- through Cloudflare ---------------------------------------------------------------------------------------


def test_a_node_with_cloudflare_makes_and_deletes_tunnels_there(tmp_path):
    pytest.importorskip("cloudflare", reason="the extra cloudflare is not installed")
    with cloudflare() as standin, running_node(tmp_path, errand_threads=0, **settings_of(standin)) as node:
        owner = Owner(node, node.add_key("anna", ("runner",)))
        made = owner.register()
        assert made["config"]["ingress"][0]["hostname"] == f"{made['id']}.{DOMAIN}"
        assert list(standin.tunnels) == [made["credential"]["TunnelID"]]

        standin.faults = {"dns.create": ["refuse"]}
        failed = owner.ask("POST", SIGNATURES, json=SEED)
        assert (failed.status_code, failed.json()["code"]) == (502, "tunnel_provider_failed")
        assert failed.json()["error"] == "The tunnel could not be created."
        assert (len(standin.tunnels), len(standin.records)) == (1, 1)

        owner.ask("DELETE", f"{SIGNATURES}/{made['id']}")
        assert standin.is_empty
        assert "tunnel-token" not in node.log_text()
