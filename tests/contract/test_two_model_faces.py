"""Every operation of hosted models by event and by route: the same payload gives the same body."""

import base64
import contextlib
import json
import os
import pickle
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.contract.test_two_faces import shape
from tests.crafted import framed
from tests.integration.sockets import Socket
from tests.nodes import until
from tests.text_node import HTTP

READS = ("/models", "/detailed_models_list", "/is_model_copy_allowed", "/get_model")
LONG = "x" * 65
ODD_IDS = ("", LONG, "a/b", "..", ".", "a\x07b", "a\x00b", " a", "a ", "a\\b", "a%b", "a?b", "a#b", "\u2028")


class Faces:
    """The same caller as a socket and as an HTTP client."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.event = Socket(url, **({} if key is None else {"api_key": key}))
        self.http = httpx.Client(base_url=url, headers={} if key is None else {"X-API-KEY": key}, **HTTP)

    def close(self) -> None:
        self.event.close()
        self.http.close()

    def send(self, name: str, payload: Any) -> tuple[Any, httpx.Response]:
        """Bytes travel as they are in the event, and as text in JSON."""
        return self.event.call(name, payload), self.by_route(name, payload)

    def by_route(self, name: str, payload: Any) -> httpx.Response:
        if name.startswith(READS):
            return self.http.get(name, params=payload)
        return self.http.post(name, content=json.dumps(payload, default=lambda value: value.decode("latin-1")))

    def serve(self, payload: dict[str, Any]) -> tuple[Any, httpx.Response]:
        """A model each, so that both may be new."""
        return self.event.call("/serve_model", {**payload, "model_id": unique("e")}), self.by_route(
            "/serve_model", {**payload, "model_id": unique("r")}
        )


def unique(name: str = "m") -> str:
    return f"{name}{os.urandom(6).hex()}"


def assert_same(both: tuple[Any, httpx.Response], status: int, code: str | None = None, *names: str) -> Any:
    """Equal bodies, and the members of `fields` that are wrong. Returns the ack."""
    ack, answer = both
    assert answer.status_code == status, answer.text
    assert shape(ack) == shape(answer.json())
    if code is not None:
        assert (ack["success"], ack["code"], ack["status"]) == (False, code, status)
    if names:
        assert set(ack["fields"]) == set(names)
    return ack


@pytest.fixture(scope="module")
def faces(text_node) -> Iterator[Faces]:
    made = Faces(text_node.url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def models(faces) -> dict[str, str]:
    """Ids of a model that may be downloaded, of one that may not, and of none."""
    ids = {"open": unique("é ö"), "closed": unique(), "unknown": unique()}
    for name in ("open", "closed"):
        ack = faces.event.call("/serve_model", {"model_id": ids[name], "model": b"x", "allow_download": name == "open"})
        assert ack == {"success": True, "message": f"Model saved with id: {ids[name]}"}
    return ids


# --- success -------------------------------------------------------------------------------------------------------


def test_reading(faces, models):
    assert models["open"] in assert_same(faces.send("/models", {}), 200)["models"]
    assert_same(faces.send("/models/", {"limit": 1}), 200)
    assert_same(faces.send("/models", {"after": models["open"]}), 200)
    assert_same(faces.send("/detailed_models_list", {"limit": 1000}), 200)
    assert_same(faces.send("/detailed_models_list", {"tag": "nobody has this"}), 200)


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "latin1", "base64", "BASE64"])
def test_every_byte_by_each_face_in_each_encoding(faces, encoding):
    content = bytes(range(256))
    is_base64 = encoding.lower() == "base64"
    text = base64.b64encode(content).decode() if is_base64 else content.decode("latin-1")
    for model, said in ((content, {}), (text, {"encoding": encoding})):
        model_id = unique()
        ack = faces.event.call("/serve_model", {"model_id": model_id, "model": model, "allow_download": True, **said})
        assert ack["success"], ack
        both = faces.send("/get_model", {"model_id": model_id, "encoding": encoding})
        assert assert_same(both, 200) == {"serialized_model": text}
        assert faces.event.call(f"/get_model/{model_id}") == {"serialized_model": content}
        assert faces.http.get(f"/models/{model_id}/content").content == content


@pytest.mark.parametrize("flag", [True, "True", False, "False"])
def test_flags(faces, flag):
    for ack in faces.serve({"model": b"x", "allow_download": flag}):
        told = ack.json() if isinstance(ack, httpx.Response) else ack
        model_id = told["message"].rpartition(" ")[2]
        allowed = assert_same(faces.send(f"/is_model_copy_allowed/{model_id}", {}), 200)
        assert allowed["success"] is (str(flag) == "True")


@pytest.mark.parametrize(
    ("which", "status", "code"),
    [("open", 200, None), ("closed", 403, "download_not_allowed"), ("unknown", 404, "model_not_found")],
)
def test_a_copy_by_each_spelling(faces, models, which, status, code):
    model_id = models[which]
    spelled = quote(model_id, safe="")
    asked = {"encoding": "base64"}
    bodies = [
        assert_same(both, status, code)
        for both in (
            faces.send("/get_model", {"model_id": model_id, **asked}),
            (faces.event.call(f"/get_model/{model_id}", asked), faces.by_route(f"/get_model/{spelled}", asked)),
            faces.send(f"/get_model/{spelled}/", asked),
        )
    ]
    assert bodies[0] == bodies[1] == bodies[2]
    for name in (f"/is_model_copy_allowed/{spelled}", f"/is_model_copy_allowed/{spelled}/"):
        told = assert_same(faces.send(name, {}), 200)
        assert told == ({"success": True} if code is None else {"success": False, "error": bodies[0]["error"]})
    assert told == assert_same(faces.send("/is_model_copy_allowed", {"model_id": model_id}), 200)


def test_delete_and_versions(faces):
    first, second = unique(), unique()
    for model_id in (first, second):
        for wish in ({}, {"version": "new"}, {"version": 3}):
            assert faces.event.call("/serve_model", {"model_id": model_id, "model": b"x", **wish})["success"]
    for version in (2, None, 2, None):
        wish = {} if version is None else {"version": version}
        ack = faces.event.call("/delete_model", {"model_id": first, **wish})
        assert ack == faces.by_route("/delete_model", {"model_id": second, **wish}).json()
    assert ack["code"] == "model_not_found"


# --- table 5: the request ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [None, {}, [], "text", 7, True])
@pytest.mark.parametrize("name", ["/serve_model", "/delete_model", "/run_inference", "/search-encrypted-models"])
def test_a_payload_that_is_none(faces, name, payload):
    both = faces.event.call(name, payload), faces.by_route(name, {} if payload is None else payload)
    assert_same(both, 400, "invalid_payload")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"allow_download": "true"}, "allow_download"),
        ({"allow_remote_inference": 1}, "allow_remote_inference"),
        ({"mpc": None}, "mpc"),
        ({"batchable": "yes"}, "batchable"),
        ({"encoding": "utf-8"}, "encoding"),
        ({"encoding": 7}, "encoding"),
        ({"model": "\u0100"}, "model"),
        ({"model": "YQ", "encoding": "base64"}, "model"),
        ({"model": "YQ==\n", "encoding": "base64"}, "model"),
        ({"model": "Y=Q=", "encoding": "base64"}, "model"),
        ({"model": ""}, "model"),
        ({"model": b""}, "model"),
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"model": ["x"]}, "model"),
        ({"version": 0}, "version"),
        ({"version": "2"}, "version"),
        ({"version": 1.5}, "version"),
        ({"format": "onnx"}, "format"),
        ({"sha256": "short"}, "sha256"),
        ({"tags": "a"}, "tags"),
        ({"tags": ["x" * 65]}, "tags"),
        ({"tags": ["x"] * 33}, "tags"),
        ({"description": "x" * 4097}, "description"),
        ({"inputs": [{"datatype": "BYTES", "shape": [1]}]}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"architecture": [1]}, "architecture"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"idempotency_key": "x" * 129}, "idempotency_key"),
    ],
)
def test_a_serve_that_is_none(faces, wrong, field):
    assert_same(
        faces.send("/serve_model", {"model_id": unique(), "model": "x", **wrong}), 400, "invalid_payload", field
    )


@pytest.mark.parametrize("missing", ["model_id", "model"])
def test_a_serve_without_what_it_needs(faces, missing):
    payload = {"model_id": unique(), "model": b"x"}
    del payload[missing]
    assert_same(faces.send("/serve_model", payload), 400, "invalid_payload", missing)


@pytest.mark.parametrize("odd", [*ODD_IDS, 7, None, ["a"]])
def test_an_id_that_cannot_be_is_refused_in_a_write(faces, odd):
    assert_same(faces.send("/serve_model", {"model_id": odd, "model": b"x"}), 400, "invalid_payload", "model_id")


@pytest.mark.parametrize("odd", ODD_IDS)
def test_an_id_that_cannot_be_is_not_there_in_a_read(faces, odd):
    expected = {"success": False, "error": "Model not found.", "code": "model_not_found", "status": 404}
    assert assert_same(faces.send("/get_model", {"model_id": odd}), 404) == expected
    assert assert_same(faces.send("/run_inference", {"model_id": odd, "data": [1]}), 404) == expected
    told = assert_same(faces.send("/is_model_copy_allowed", {"model_id": odd}), 200)
    assert told == {"success": False, "error": "Model not found."}


@pytest.mark.parametrize("spelled", ["a%2Fb", "%2Fa", "a%2F", "a/b", "%2541", "%00", LONG, "a//"])
def test_an_odd_id_in_the_address_is_not_there(faces, spelled):
    assert assert_same(faces.send(f"/get_model/{spelled}", {}), 404)["error"] == "Model not found."
    assert_same(faces.send(f"/is_model_copy_allowed/{spelled}", {}), 200)


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("/models", {"limit": 0}),
        ("/models", {"limit": 1001}),
        ("/models", {"colour": "red"}),
        ("/detailed_models_list", {"tag": ""}),
        ("/detailed_models_list", {"limit": -1}),
        ("/get_model", {}),
        ("/get_model/m", {"encoding": "utf-8"}),
        ("/get_model/m", {"version": 0}),
        ("/is_model_copy_allowed", {}),
    ],
)
def test_a_read_that_is_none(faces, name, query):
    assert_same(faces.send(name, query), 400, "invalid_payload")


def test_a_place_in_the_list_that_is_not_there(faces):
    assert_same(faces.send("/models", {"after": unique()}), 404, "model_not_found")


# --- table 5: the bytes --------------------------------------------------------------------------------------------


def of_two(first: list[int], second: list[int], name: str = "w") -> bytes:
    """The head of a file with tensors `v` and `name`, of four bytes each, at these places."""
    one, two = ({"dtype": "F32", "shape": [1], "data_offsets": place} for place in (first, second))
    return framed(f'{{"v": {json.dumps(one)}, "{name}": {json.dumps(two)}}}'.encode())


_HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
GOOD = framed(_HEADER) + bytes(4)


@pytest.mark.parametrize(
    "model",
    [
        b"short",
        (2**40).to_bytes(8, "little") + b"{}",
        GOOD[:-1],
        GOOD + b"x",
        of_two([0, 4], [2, 6]) + bytes(6),
        of_two([0, 4], [6, 10]) + bytes(10),
        of_two([0, 4], [4, 8], name="v") + bytes(8),
        framed(b'{"w": {"dtype": "F32", "shape": [4294967296, 4294967297], "data_offsets": [0, 4]}}') + bytes(4),
        framed(b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "w": 1}') + bytes(4),
        framed(b"[" * 100_000),
        pickle.dumps({"w": 1}),
        b"PK\x03\x04 a file of torch.save",
    ],
)
def test_bytes_that_are_no_safetensors(faces, model):
    assert_same(faces.serve({"model": model, "format": "safetensors"}), 422, "invalid_model")
    assert faces.serve({"model": model})[0]["success"], "as opaque they are kept"


@pytest.mark.parametrize("form", ["torchscript", "torch_export", "syft-0.9.5"])
def test_a_format_that_this_node_does_not_take(faces, form):
    assert_same(faces.serve({"model": b"x", "format": form}), 422, "format_not_available")


def test_what_cannot_run_is_not_served_to_run(faces):
    for form in ({"format": "opaque"}, {}):
        both = faces.serve({"model": b"x", "allow_remote_inference": True, **form})
        assert_same(both, 422, "format_not_runnable")


def test_bytes_of_another_digest(faces):
    assert_same(faces.serve({"model": b"x", "sha256": "0" * 64}), 422, "sha256_mismatch")


# --- conflicts -----------------------------------------------------------------------------------------------------


def test_an_id_that_is_taken(faces, models):
    ack = assert_same(faces.send("/serve_model", {"model_id": models["open"], "model": b"y"}), 409, "model_exists")
    assert ack["message"] == ack["error"] == "Model id already exists."


def test_of_many_serves_at_once_one_wins(text_node):
    each, model_id = 16, unique()
    payload = {"model_id": model_id, "allow_download": True}
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2 * each))
        crowd = list(pool.map(lambda _: Faces(text_node.url), range(each)))
        for one in crowd:
            stack.callback(one.close)
        ready = threading.Barrier(2 * each, timeout=20)

        def by_event(number: int) -> Any:
            ready.wait()
            return crowd[number].event.call("/serve_model", {**payload, "model": b"e%d" % number})

        def by_route(number: int) -> Any:
            ready.wait()
            return crowd[number].by_route("/serve_model", {**payload, "model": f"r{number}"}).json()

        sent = [pool.submit(send, number) for number in range(each) for send in (by_event, by_route)]
        answers = [one.result(60) for one in sent]
        winners = [place for place, answer in enumerate(answers) if answer["success"]]
        assert len(winners) == 1
        assert {answer["code"] for answer in answers if not answer["success"]} == {"model_exists"}
        number, route = divmod(winners[0], 2)
        expected = f"{'er'[route]}{number}".encode()
        assert crowd[0].http.get(f"/models/{model_id}/content").content == expected


def test_a_version_that_is_not_the_next(faces, models):
    payload = {"model_id": models["open"], "model": b"y"}
    assert_same(faces.send("/serve_model", {**payload, "version": 7}), 409, "version_conflict")
    missing = {**payload, "model_id": models["unknown"]}
    assert_same(faces.send("/serve_model", {**missing, "version": "new"}), 404, "model_not_found")


def test_an_idempotency_key_stands_for_one_request_on_both_faces(faces):
    payload = {"model_id": unique(), "model": b"x", "idempotency_key": unique()}
    assert assert_same(faces.send("/serve_model", payload), 200)["success"]
    assert_same(faces.send("/serve_model", {**payload, "model": b"y"}), 409, "idempotency_conflict")


# --- running, and encrypted models ---------------------------------------------------------------------------------


def test_running_what_may_not_run(faces, models):
    asked = {"data": [[1.0]]}
    refused = assert_same(
        faces.send("/run_inference", {"model_id": models["open"], **asked}), 403, "inference_not_allowed"
    )
    assert refused["not_allowed"] is True
    assert_same(faces.send("/run_inference", {"model_id": models["unknown"], **asked}), 404, "model_not_found")
    assert_same(faces.send("/run_inference", {"model_id": models["open"]}), 400, "invalid_payload", "data")


@pytest.fixture(scope="module")
def doubling(faces) -> str:
    """A model that doubles rows of two numbers."""
    header = {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    text = json.dumps(header).encode()
    payload = {
        "model_id": unique(),
        "model": len(text).to_bytes(8, "little") + text + struct.pack("<4f", 2, 0, 0, 2),
        "allow_remote_inference": True,
        "architecture": {"layers": [{"op": "linear", "weight": "w"}]},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    }
    ack = faces.event.call("/serve_model", payload)
    assert ack["success"], ack
    return payload["model_id"]


@pytest.mark.parametrize("data", [[[1, 2], [3, 4.5]], {"x": [[1, 2], [3, 4.5]]}])
def test_a_prediction(faces, doubling, data):
    both = faces.send("/run_inference", {"model_id": doubling, "data": data})
    assert assert_same(both, 200) == {"success": True, "prediction": [[2, 4], [6, 9]]}


@pytest.mark.parametrize(
    "data",
    [{"y": [[1, 2]]}, {"x": [[1, 2]], "y": [[1, 2]]}, [1, 2], [[[1, 2]]], [[1, 2, 3]], [[1, 2], [3]], [["a", "b"]], 7],
)
def test_data_that_does_not_fit(faces, doubling, data):
    ack = assert_same(faces.send("/run_inference", {"model_id": doubling, "data": data}), 400, "invalid_payload")
    assert any(name in ack["error"] for name in ("input x", "input y", "data")), ack


def test_a_result_that_json_has_no_word_for(faces, doubling):
    both = faces.send("/run_inference", {"model_id": doubling, "data": [[3e38, 1]]})
    assert_same(both, 422, "non_finite_output")


def test_a_search_for_what_is_not_encrypted(faces, models):
    for which in ("open", "unknown"):
        ack = assert_same(faces.send("/search-encrypted-models", {"model_id": models[which]}), 404, "model_not_found")
        assert ack["error"] == "Model ID not found!"


# --- keys ----------------------------------------------------------------------------------------------------------


def test_a_key_without_the_scope(text_node):
    faces = Faces(text_node.url, text_node.add_key("models-worker", ("worker",)))
    assert_same(faces.send("/models", {}), 403, "forbidden")
    assert_same(faces.send("/serve_model", {"model_id": unique(), "model": b"x"}), 403, "forbidden")
    faces.close()


def test_a_key_that_is_gone(text_node):
    key = text_node.add_key("models-gone")
    faces = Faces(text_node.url, key)
    assert_same(faces.send("/models", {}), 200)
    text_node.keys.remove(key)
    both: list[Any] = []

    def is_refused() -> bool:
        both[:] = faces.send("/get_model", {"model_id": "m"})
        return both[1].status_code == 401

    until(is_refused)
    assert_same((both[0], both[1]), 401, "invalid_key")
    faces.close()


def test_what_another_key_owns(text_node, faces):
    owner, other = (Faces(text_node.url, text_node.add_key(name)) for name in ("models-owner", "models-other"))
    payload = {"model_id": unique(), "model": b"x", "version": "new"}
    first = {name: value for name, value in payload.items() if name != "version"}
    assert owner.event.call("/serve_model", first)["success"]
    for them, status, code in ((other, 403, "forbidden"), (faces, 401, "missing_key")):
        assert_same(them.send("/serve_model", payload), status, code)
        assert_same(them.send("/delete_model", {"model_id": payload["model_id"]}), status, code)
    owner.close()
    other.close()
