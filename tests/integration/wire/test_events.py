"""Every event is answered, over every transport, and in both modes of the server."""

import asyncio
import hashlib
import json
import urllib.error
import urllib.request

import aiohttp
import pytest
import requests
import socketio

from tests.integration.wire.harness import RawClient, client_frame


@pytest.fixture(params=[["websocket"], ["polling"], None], ids=["websocket", "polling", "upgrade"])
def client(request, server):
    with requests.Session() as http, socketio.SimpleClient(http_session=http) as simple:
        simple.connect(server.url, transports=request.param)
        yield simple


def test_an_answer_of_the_handler_is_the_ack(client):
    assert client.call("echo", {"a": [1, 2.5, "ß", None]}) == {"payload": {"a": [1, 2.5, "ß", None]}}
    assert client.call("echo_later", "text") == {"payload": "text"}


def test_no_argument_and_null_are_an_empty_object(client):
    assert client.call("echo") == {"payload": {}}
    assert client.call("echo", None) == {"payload": {}}


def test_bytes_come_back_as_bytes(client):
    assert client.call("echo", {"deep": [b"one", {"b": b"two"}]}) == {"payload": {"deep": [b"one", {"b": b"two"}]}}


def test_an_unknown_event_and_a_second_argument_are_answered(client):
    assert client.call("nobody", 1)["code"] == "unknown_event"
    assert client.call("echo", (1, 2))["code"] == "invalid_message"


def test_a_fault_of_ours_is_answered_without_its_text(client):
    answer = client.call("broken")
    assert answer["code"] == "internal_error"
    assert "secret" not in json.dumps(answer)


def test_large_events_pass(client):
    if client.client.transport() == "websocket":
        assert client.call("echo", "x" * 900_000, timeout=30)["payload"] == "x" * 900_000


BAD_JSON = [
    '["echo",NaN]',
    '["echo",1e400]',
    '["echo",{"a":1,"a":2}]',
    r'["echo","\ud800"]',
    "[" * 70 + "]" * 70,
    '["echo"',
    "",
]


@pytest.mark.parametrize("body", BAD_JSON)
def test_bad_json_is_answered_with_its_ack_id(server, body):
    with RawClient(server) as client:
        client.join()
        assert client.ack("4277" + body, 77)["code"] == "invalid_json"


@pytest.mark.parametrize("body", ["{}", "[]", "[1]", '"echo"', "null"])
def test_json_that_is_no_event_is_answered_with_its_ack_id(server, body):
    with RawClient(server) as client:
        client.join()
        assert client.ack("4277" + body, 77)["code"] == "invalid_message"


@pytest.mark.parametrize("name", ["connect", "disconnect", "*", "__class__"])
def test_reserved_names_are_unknown_events(server, name):
    with RawClient(server) as client:
        client.join()
        assert client.ack(f'421["{name}"]')["code"] == "unknown_event"


def test_a_refused_connect_carries_the_error_body(server):
    with RawClient(server) as client:
        client.frame()
        client.send('40{"api_key":"wrong"}')
        refusal = json.loads(client.text()[2:])
        assert refusal["message"] == refusal["data"]["error"]
        assert refusal["data"]["code"] == "invalid_key"


def test_events_in_front_of_a_close_in_the_same_packet_are_handled(server):
    with RawClient(server) as client:
        client.join()
        client.sock.sendall(client_frame(1, b'421["echo",1]') + client_frame(1, b'422["echo",2]') + client_frame(8))
        assert [client.text(), client.text()] == ['431[{"payload":1}]', '432[{"payload":2}]']
        assert client.close_code() == 1000


def test_a_polling_body_that_is_no_payload_ends_the_session_quietly(server):
    tracebacks = server.log_text().count("Traceback")
    for body in (b"\xff\xfe", b"b!!!", b"4\x1e" * 40):
        opened = urllib.request.urlopen(f"{server.url}/socket.io/?EIO=4&transport=polling", timeout=10).read()
        sid = json.loads(opened[1:])["sid"]
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{server.url}/socket.io/?EIO=4&transport=polling&sid={sid}", data=body, timeout=10)
        error.value.close()
        assert error.value.code == 400
    assert server.log_text().count("Traceback") == tracebacks


def test_a_60_mb_message_in_fragments_arrives_whole(server):
    pieces = 320

    async def receive() -> bytes:
        address = f"{server.url}/raw?{pieces}"
        async with aiohttp.ClientSession() as http, http.ws_connect(address, max_msg_size=100_000_000) as ws:
            return (await ws.receive_str()).encode()

    expected = hashlib.sha256(b"".join(bytes([97 + n % 26]) * 196_608 for n in range(pieces))).hexdigest()
    assert hashlib.sha256(asyncio.run(receive())).hexdigest() == expected


def test_a_plain_request_on_a_raw_path_is_told_to_upgrade(server):
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{server.url}/raw", timeout=10)
    error.value.close()
    assert error.value.code == 426


def test_frames_in_the_same_packet_as_the_request_are_read(server):
    with RawClient(server, pipelined=client_frame(1, b"40") + client_frame(1, b'421["echo",1]')) as client:
        assert [client.text()[:2], client.text()[:2]] == ["0{", "40"]
        assert client.text() == '431[{"payload":1}]'
