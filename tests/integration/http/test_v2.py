"""The Open Inference Protocol over the whole app, with compute that doubles."""

import gzip
import io
import json
import logging
import shutil
import struct
import zlib

import pytest

from app import create_app
from grid_node.chain.pylon import PylonSettings
from grid_node.clock import SystemClock
from grid_node.errors import InferenceTimeout
from grid_node.hosting import rows
from grid_node.hosting.rights import ModelCaller
from grid_node.identity.service import NewKey
from grid_node.settings import Settings
from models_store.tensors import Signature
from tests.doubling import TWO, Doubling
from tests.nodes import METRICS_HEADERS, METRICS_TOKEN, empty_database

ONE = Signature((TWO.inputs[0],), (TWO.outputs[0],))
BODY = {"inputs": [{"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
ANSWER = [{"name": "double", "shape": [1, 2], "datatype": "FP32", "data": [2, 4]}]
LIMIT = 300_000


class House:
    """The app in this process: `m1` in two versions and `shut`, which may not be run."""

    def __init__(self, folder, **settings):
        shutil.copy(empty_database(), folder / "grid.db")
        made = Settings.load({}, data_dir=folder, infer_max_bytes=LIMIT, scoring_processes=0, **settings)
        self.app = create_app(
            made, clock=SystemClock(), pylon=PylonSettings.load({"PYLON_METRICS_TOKEN": METRICS_TOKEN})
        )
        self.services = self.app.extensions["grid"]
        self.compute = Doubling(signature=ONE)
        self.services.hosting.inference._compute = self.compute
        for model_id, wish in (("m1", None), ("m1", "new"), ("shut", None), ("ä b", None)):
            self.add(model_id, wish)

    def add(self, model_id, wish):
        values = {
            "owner": "", "sha256": "0" * 64, "size": 5, "format": "safetensors", "allow_download": False,
            "allow_remote_inference": model_id != "shut", "mpc": False, "tags": "[]", "description": "",
            "signature": json.dumps(ONE.body()), "architecture": "{}", "created_at": 0.0,
        }  # fmt: skip
        self.services.store.write(lambda tx: rows.add(tx, ModelCaller(), model_id, wish, False, values))

    def close(self):
        self.services.bells.close()
        self.services.store.close()

    def get(self, path, **more):
        return self.app.test_client().get(path, **more)

    def post(self, path="/v2/models/m1/infer", body=BODY, **more):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.app.test_client().post(path, data=data, **more)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("house"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A node on which everything takes a key."""
    made = House(tmp_path_factory.mktemp("locked"), models_auth="all")
    made.key = made.services.keys.generate()
    made.services.keys.add(NewKey(made.key, "reader", 100, 60, ["client"]))
    yield made
    made.close()


def refusal(answer, status, code):
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.text
    assert answer.json["success"] is False
    assert answer.content_type == "application/json"
    return answer.json["error"]


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def binary(*values, size=None, **more):
    one = {
        "name": "a",
        "shape": [1, 2],
        "datatype": "FP32",
        "parameters": {"binary_data_size": size or 4 * len(values)},
    }
    head = json.dumps({"inputs": [one], **more}).encode()
    return head + floats(*values), {"Inference-Header-Content-Length": str(len(head))}


# --- infer


@pytest.mark.parametrize("path", ["/v2/models/m1/infer", "/v2/models/m1/versions/2/infer", "/v2/models/m1/infer/"])
def test_a_model_is_run(house, path):
    answer = house.post(path)
    assert answer.json == {"model_name": "m1", "model_version": "2", "outputs": ANSWER}
    assert answer.content_type == "application/json"
    assert answer.headers["X-Request-Id"]


def test_an_older_version_is_run_by_its_number(house):
    assert house.post("/v2/models/m1/versions/1/infer").json["model_version"] == "1"


def test_an_id_beyond_ascii_is_percent_decoded_once(house):
    assert house.post("/v2/models/%C3%A4%20b/infer").json["model_name"] == "ä b"
    for encoded in ("%25C3%25A4%2520b", "m1%2F", "%2Fm1", "a%2Fb", "a/b", "..", "%FF", "x" * 65):
        assert refusal(house.post(f"/v2/models/{encoded}/infer"), 404, "model_not_found") == "Model not found."


@pytest.mark.parametrize("version", ["3", "0", "01", "-1", "x", "1.0", "99999999999", "2147483648", "%31%2F", ""])
def test_a_version_that_is_none_is_not_found(house, version):
    refusal(house.post(f"/v2/models/m1/versions/{version}/infer"), 404, "model_not_found")


def test_a_model_that_may_not_be_run_says_so(house):
    answer = house.post("/v2/models/shut/infer")
    assert refusal(answer, 403, "inference_not_allowed") == "You're not allowed to run inference on this model."
    assert answer.json["not_allowed"] is True


@pytest.mark.parametrize("kind", [None, "application/json", "text/plain", "multipart/form-data"])
def test_the_content_type_does_not_matter(house, kind):
    assert house.post(content_type=kind).status_code == 200


def test_binary_goes_in_and_out(house):
    body, headers = binary(1, 2, parameters={"binary_data_output": True}, id="x")
    answer = house.post(body=body, headers=headers)
    assert answer.content_type == "application/octet-stream"
    length = int(answer.headers["Inference-Header-Content-Length"])
    assert json.loads(answer.data[:length]) == {
        "model_name": "m1",
        "model_version": "2",
        "id": "x",
        "outputs": [{"name": "double", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}],
    }
    assert answer.data[length:] == floats(2, 4)


@pytest.mark.parametrize("length", ["0", "-1", "x", "1e3", "99999", "", "1" * 20, "²"])
def test_a_header_length_that_cannot_be_is_refused(house, length):
    refusal(house.post(headers={"Inference-Header-Content-Length": length}), 400, "invalid_payload")


def test_a_refusal_names_the_input(house):
    bad = {"inputs": [{**BODY["inputs"][0], "name": "z"}]}
    assert "input a" in refusal(house.post(body=bad), 400, "invalid_payload")
    bad = {"inputs": [{**BODY["inputs"][0], "data": [1]}]}
    assert "input a" in refusal(house.post(body=bad), 400, "invalid_payload")
    for body in (b"", b"{", b"[]", b"\xff\xfe", b"null"):
        refusal(house.post(body=body), 400, "invalid_payload")


def test_the_requests_timeout_shortens_the_nodes(house):
    house.post(body={**BODY, "parameters": {"timeout": 500_000}})
    assert 0.3 < house.compute.timeouts[-1] <= 0.5
    house.post(body={**BODY, "parameters": {"timeout": 10**12}})
    assert 20 < house.compute.timeouts[-1] <= 30


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_requests_are_taken_and_answers_given(house, coding, pack):
    body, headers = binary(1, 2)
    headers |= {"Content-Encoding": coding, "Accept-Encoding": coding}
    answer = house.post(body=pack(body), headers=headers)
    assert answer.headers["Content-Encoding"] == coding
    text = gzip.decompress(answer.data) if coding == "gzip" else zlib.decompress(answer.data)
    assert json.loads(text)["outputs"] == ANSWER


def test_what_is_not_of_its_coding_is_refused(house):
    refusal(house.post(headers={"Content-Encoding": "gzip"}), 400, "invalid_payload")
    refusal(house.post(headers={"Content-Encoding": "br"}), 415, "unsupported_media_type")


def test_a_large_body_is_taken_and_one_above_the_limit_is_not(house):
    count = LIMIT // 3 // 2 * 2
    one = {"name": "a", "shape": [count // 2, 2], "datatype": "FP32", "data": [1] * count}
    body = json.dumps({"inputs": [one]}, separators=(",", ":")).encode()
    assert len(body) < LIMIT
    assert house.post(body=body).json["outputs"][0]["data"] == [2] * count
    answer = house.post(body=body + b" " * LIMIT)
    refusal(answer, 413, "inference_too_large")
    assert answer.json["limit"] == LIMIT


def test_a_bomb_is_413(house):
    refusal(
        house.post(body=gzip.compress(bytes(100 * LIMIT)), headers={"Content-Encoding": "gzip"}),
        413,
        "inference_too_large",
    )


def test_a_body_that_is_cut_is_refused(house):
    environ = {"CONTENT_LENGTH": "1000"}
    answer = house.app.test_client().post(
        "/v2/models/m1/infer", input_stream=io.BytesIO(b"{"), environ_overrides=environ
    )
    refusal(answer, 400, "body_incomplete")


def test_errors_of_the_model_keep_their_code_and_faults_tell_nothing(house, monkeypatch, caplog):
    def fail(error):
        def infer(*_args):
            raise error

        return infer

    monkeypatch.setattr(house.compute, "infer", fail(InferenceTimeout()))
    refusal(house.post(), 504, "inference_timeout")
    monkeypatch.setattr(house.compute, "infer", fail(RuntimeError("secret")))
    with caplog.at_level(logging.ERROR):
        answer = house.post()
    refusal(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert "a route failed" in caplog.text


def test_nan_is_422_in_json_and_fine_in_bytes(house, monkeypatch):
    monkeypatch.setattr(house.compute, "infinite", True)
    refusal(house.post(), 422, "non_finite_output")
    body, headers = binary(1, 2, parameters={"binary_data_output": True})
    assert house.post(body=body, headers=headers).data[-8:] == floats(float("inf"), float("inf"))


def test_only_so_many_bytes_are_in_hand(house, monkeypatch):
    big = json.dumps(BODY).encode() + b" " * (LIMIT // 2)
    monkeypatch.setattr(house.compute, "infer", lambda *args: (refused.append(house.post(body=big)), [])[1])
    refused = []
    for _ in range(3):
        house.post(body=big)
    # each request asks again from within, until the bytes in hand are too many
    assert refused[0].status_code == 503
    assert refused[0].json["code"] == "queue_full"
    assert refused[0].headers["Retry-After"] == "1"
    monkeypatch.undo()
    assert house.post(body=big).status_code == 200


def test_requests_are_measured_under_one_name(house):
    house.post()
    house.post("/v2/models/none/infer")
    text = house.get("/metrics", headers=METRICS_HEADERS).text
    assert 'grid_http_seconds_count{route="/v2/models/<name>/infer",status="200"}' in text
    assert 'grid_http_seconds_count{route="/v2/models/<name>/infer",status="404"}' in text
    assert 'grid_errors_total{code="model_not_found"}' in text


# --- everything else


def test_the_server_says_what_it_is(house):
    answer = house.get("/v2").json
    assert answer["name"] == "grid-node"
    assert answer["extensions"] == ["binary_tensor_data"]
    assert house.get("/v2/").json == answer


def test_health_is_live_and_ready(house, monkeypatch):
    assert house.get("/v2/health/live").json == {"live": True}
    assert house.get("/v2/health/ready").json == {"live": True, "ready": True}
    monkeypatch.setattr(house.services, "draining", True)
    answer = house.get("/v2/health/ready")
    refusal(answer, 503, "shutting_down")
    assert (answer.json["live"], answer.json["ready"]) == (True, False)


def test_a_model_is_described(house):
    described = {
        "name": "m1",
        "versions": ["1", "2"],
        "platform": "pytorch_safetensors",
        "inputs": [{"name": "a", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "double", "datatype": "FP32", "shape": [-1, 2]}],
    }
    for path in ("/v2/models/m1", "/v2/models/m1/", "/v2/models/m1/versions/1"):
        assert house.get(path).json == described
    refusal(house.get("/v2/models/shut"), 403, "inference_not_allowed")


def test_a_model_says_whether_it_is_ready(house, monkeypatch):
    for path in ("/v2/models/m1/ready", "/v2/models/m1/versions/2/ready", "/v2/models/m1/ready/"):
        assert house.get(path).json == {"name": "m1", "ready": True}
    refusal(house.get("/v2/models/shut/ready"), 403, "inference_not_allowed")
    for name in ("none", "a/b", "m1%2F", "m1/versions/9"):
        refusal(house.get(f"/v2/models/{name}/ready"), 404, "model_not_found")
    key = house.services.hosting.inference.describe(ModelCaller(), "m1").row.key
    monkeypatch.setattr(house.compute, "states", {key: "failed"})
    answer = house.get("/v2/models/m1/ready")
    refusal(answer, 503, "model_not_ready")
    assert answer.headers["Retry-After"] == "1"
    assert house.get("/v2/models/m1/versions/1/ready").status_code == 200


def test_the_index_lists_what_may_be_run(house, monkeypatch):
    everything = [("m1", "1", "READY"), ("m1", "2", "READY"), ("ä b", "1", "READY")]
    for body in (b"", b"{}", b'{"ready":false}'):
        found = house.post("/v2/repository/index", body).json
        assert [(one["name"], one["version"], one["state"]) for one in found] == everything
        assert all(one["reason"] == "" for one in found)
    key = house.services.hosting.inference.describe(ModelCaller(), "m1").row.key
    monkeypatch.setattr(house.compute, "states", {key: "failed"})
    assert house.post("/v2/repository/index", b"").json[1]["state"] == "UNAVAILABLE"
    assert len(house.post("/v2/repository/index", b'{"ready":true}').json) == 2
    for body in (b"[]", b"{", b'{"ready":1}', b'{"more":1}'):
        refusal(house.post("/v2/repository/index", body), 400, "invalid_payload")


@pytest.mark.parametrize(
    "path", ["/v2/x", "/v2/health", "/v2/models", "/v2/repository", "/v2/systemsharedmemory/status"]
)
def test_an_unknown_path_is_404_in_json(house, path):
    refusal(house.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/models/m1/infer", "POST"),
        ("GET", "/v2/models/m1/versions/1/infer", "POST"),
        ("DELETE", "/v2/models/m1/infer", "POST"),
        ("POST", "/v2/models/m1", "GET"),
        ("POST", "/v2/models/m1/ready", "GET"),
        ("GET", "/v2/repository/index", "POST"),
        ("POST", "/v2", "GET"),
    ],
)
def test_a_wrong_method_is_405_with_the_right_one(house, method, path, allowed):
    answer = house.app.test_client().open(path, method=method)
    refusal(answer, 405, "method_not_allowed")
    assert allowed in answer.headers["Allow"]


# --- keys


def test_with_models_auth_all_everything_but_health_takes_a_key(locked):
    refusal(locked.post(), 401, "missing_key")
    for path in ("/v2", "/v2/models/m1", "/v2/models/m1/ready"):
        refusal(locked.get(path), 401, "missing_key")
    refusal(locked.post("/v2/repository/index", b""), 401, "missing_key")
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert locked.get(path).status_code == 200


@pytest.mark.parametrize("header", ["Authorization", "X-API-KEY"])
def test_a_key_opens(locked, header):
    headers = {header: f"Bearer {locked.key}" if header == "Authorization" else locked.key}
    assert locked.post(headers=headers).status_code == 200
    assert locked.get("/v2/models/m1", headers=headers).status_code == 200


def test_a_key_that_is_given_must_be_good(house):
    refusal(house.post(headers={"X-API-KEY": "x" * 40}), 401, "invalid_key")
