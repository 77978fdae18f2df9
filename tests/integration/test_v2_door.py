"""The infer route on a running node: what only a real server and real sockets can show."""

import base64
import gzip
import http.client
import json
import socket
import struct
import threading
import time

import pytest
import requests
import torch
from safetensors.torch import save

from tests.integration.sockets import Socket
from tests.nodes import running_node

WIDTH = 4
ARCHITECTURE = {"layers": [{"op": "linear", "weight": "weight", "bias": "bias"}]}
LAYER = torch.nn.Linear(WIDTH, 2)
LIMIT = 4 * 1024 * 1024


def weights(layer=LAYER):
    return base64.b64encode(save(layer.state_dict())).decode()


def served(node, model_id="m1", **fields):
    body = {"model_id": model_id, "model": weights(), "encoding": "base64", "allow_remote_inference": True}
    answer = requests.post(f"{node.url}/serve_model", json={**body, "architecture": ARCHITECTURE, **fields}, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with running_node(tmp_path_factory.mktemp("door"), infer_max_bytes=LIMIT) as made:
        served(made)
        yield made


def asked(rows):
    one = {"name": "INPUT__0", "shape": [len(rows), WIDTH], "datatype": "FP32", "data": rows}
    return json.dumps({"inputs": [one]}).encode()


def url(node, model_id="m1"):
    return f"{node.url}/v2/models/{model_id}/infer"


def expected(rows):
    with torch.inference_mode():
        return LAYER(torch.tensor(rows, dtype=torch.float32)).flatten().tolist()


def check(answer, rows):
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == pytest.approx(expected(rows), rel=1e-5, abs=1e-6)


ROW = [[1.0, -2.0, 0.5, 3.0]]


def test_a_body_may_come_in_chunks(node):
    body = asked(ROW)
    check(requests.post(url(node), data=iter([body[:10], body[10:50], body[50:]]), timeout=30), ROW)


def test_chunks_above_the_limit_are_413(node):
    answer = requests.post(url(node), data=(b" " * 65536 for _ in range(2 * LIMIT // 65536)), timeout=30)
    assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (413, "inference_too_large", LIMIT)


def test_an_announced_size_above_the_limit_is_413_before_a_byte_is_sent(node):
    with socket.create_connection(("127.0.0.1", node.port), 20) as peer:
        head = f"POST /v2/models/m1/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT + 1}\r\n\r\n"
        peer.sendall(head.encode())
        assert peer.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_large_body_and_a_bomb_end_as_they_should(node):
    rows = [[1.0, 2.0, 3.0, 4.0]] * 20_000
    check(requests.post(url(node), data=asked(rows), timeout=60), rows)
    check(
        requests.post(url(node), data=gzip.compress(asked(rows)), headers={"Content-Encoding": "gzip"}, timeout=60),
        rows,
    )
    bomb = gzip.compress(bytes(50 * LIMIT))
    answer = requests.post(url(node), data=bomb, headers={"Content-Encoding": "gzip"}, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (413, "inference_too_large")


def test_a_kept_connection_serves_good_and_bad_requests_in_turn(node):
    with requests.Session() as session:
        for _ in range(5):
            check(session.post(url(node), data=asked(ROW), timeout=30), ROW)
            assert session.post(url(node), data=b"{", timeout=30).json()["code"] == "invalid_payload"
            assert session.post(url(node, "none"), data=asked(ROW), timeout=30).json()["code"] == "model_not_found"
            assert session.get(url(node), timeout=30).json()["code"] == "method_not_allowed"


def test_requests_sent_ahead_are_answered_in_order(node):
    bodies = [asked([[float(number)] * WIDTH]) for number in range(4)]
    with socket.create_connection(("127.0.0.1", node.port), 30) as peer:
        for body in bodies:
            peer.sendall(
                f"POST /v2/models/m1/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
        reader = peer.makefile("rb")
        for number in range(4):
            data = json.loads(_answer(reader))["outputs"][0]["data"]
            assert data == pytest.approx(expected([[float(number)] * WIDTH]), rel=1e-5, abs=1e-6)


def _answer(reader):
    length = 0
    while line := reader.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return reader.read(length)


def test_a_sender_that_leaves_in_the_middle_harms_nobody(node):
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", node.port), 20) as peer:
            peer.sendall(b"POST /v2/models/m1/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    check(requests.post(url(node), data=asked(ROW), timeout=30), ROW)


def test_many_at_a_time_get_each_their_own_answer(node):
    problems = []

    def ask(number):
        rows = [[float(number), 1.0, 2.0, 3.0]]
        try:
            with requests.Session() as session:
                for _ in range(5):
                    check(session.post(url(node), data=asked(rows), timeout=60), rows)
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            problems.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []


def test_a_deleted_model_is_404_at_once(node):
    served(node, "short")
    check(requests.post(url(node, "short"), data=asked(ROW), timeout=30), ROW)
    requests.post(f"{node.url}/delete_model", json={"model_id": "short"}, timeout=30)
    assert requests.post(url(node, "short"), data=asked(ROW), timeout=30).json()["code"] == "model_not_found"


def test_run_inference_gives_the_same_numbers(node):
    answer = requests.post(f"{node.url}/run_inference", json={"model_id": "m1", "data": ROW}, timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.json()["prediction"][0] == pytest.approx(expected(ROW), rel=1e-5, abs=1e-6)


def test_a_list_of_megabytes_is_run_and_its_answer_is_whole(node):
    rows = [[n, n + 0.5, 1, -n] for n in range(60_000)]
    for data in (rows, {"INPUT__0": rows}):
        answer = requests.post(f"{node.url}/run_inference", json={"model_id": "m1", "data": data}, timeout=60)
        assert answer.status_code == 200, answer.text[:300]
        found = answer.json()["prediction"]
        assert [len(found), *map(len, found[:2])] == [60_000, 2, 2]
        assert [*found[-2], *found[-1]] == pytest.approx(expected(rows[-2:]), rel=1e-4)
    rows[30_000] = ["x"]
    refused = requests.post(f"{node.url}/run_inference", json={"model_id": "m1", "data": rows}, timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_payload")


def test_outputs_too_large_for_an_event_are_refused_and_the_connection_lives(node):
    peer = Socket(node.url)
    small = peer.call("/run_inference", {"model_id": "m1", "data": [[0] * WIDTH] * 20_000})
    assert len(small["prediction"]) == 20_000
    served(node, "wide", model=weights(torch.nn.Linear(WIDTH, 20)))
    refused = peer.call("/run_inference", {"model_id": "wide", "data": [[0] * WIDTH] * 20_000})
    assert (refused["status"], refused["code"]) == (413, "inference_too_large")
    assert peer.call("/models")["success"]
    peer.close()


def test_raw_floats_are_taken_without_a_content_type(node):
    one = {"name": "INPUT__0", "shape": [1, WIDTH], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
    head = json.dumps({"inputs": [one], "parameters": {"binary_data_output": True}}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    body = head + struct.pack("<4f", *ROW[0])
    connection.request("POST", "/v2/models/m1/infer", body, {"Inference-Header-Content-Length": str(len(head))})
    answer = connection.getresponse()
    length, data = int(answer.headers["Inference-Header-Content-Length"]), answer.read()
    connection.close()
    assert list(struct.unpack("<2f", data[length:])) == pytest.approx(expected(ROW), rel=1e-5)


def test_a_kept_connection_does_not_hold_up_the_end(node, tmp_path):
    other = node.another(tmp_path / "other")
    other.start()
    try:
        with requests.Session() as session:
            check(session.post(url(other), data=asked(ROW), timeout=30), ROW)
            began = time.monotonic()
            other.terminate()
            assert time.monotonic() - began < 10
    finally:
        other.discard()
