"""A hostile peer on a real socket is told why and cut, and the server's memory does not notice."""

import struct
import zlib

import pytest

from grid_node.wire.frames import BINARY, CONTINUATION, TEXT
from tests.integration.wire.harness import MASK, RawClient, client_frame

MIB = 1024 * 1024
MALFORMED = ["9", "4", "4x", "42[", '42["echo",NaN]', "45-", "45999-[]", '42/none,["a"]', "430[1]", "4" * 80]


def growth_kib(server, attack) -> int:
    before = server.state()["rss_kib"]
    attack()
    return server.state()["rss_kib"] - before


def pour(client: RawClient, size: int) -> None:
    """Send `size` bytes, or as many as the server takes."""
    try:
        for _ in range(size // 65536):
            client.sock.sendall(bytes(65536))
    except OSError:
        pass


@pytest.mark.parametrize("joined", [False, True])
def test_a_frame_above_the_limit_closes_with_1009_by_its_header_alone(server, joined):
    with RawClient(server) as client:
        if joined:
            client.join()
        size = 8 * MIB + 1 if joined else 64 * 1024 + 1
        client.sock.sendall(bytes((0x82, 0xFF)) + struct.pack("!Q", size) + MASK)
        assert client.close_code() == 1009


def test_300_mb_behind_such_a_header_leave_memory_as_it_was(server):
    def attack() -> None:
        with RawClient(server) as client:
            client.join()
            client.sock.sendall(bytes((0x82, 0xFF)) + struct.pack("!Q", 300 * MIB) + MASK)
            pour(client, 300 * MIB)

    assert growth_kib(server, attack) < 16 * 1024


def test_a_message_of_3_mib_passes_the_transport_and_is_answered_413(server):
    with RawClient(server) as client:
        client.join()
        answer = client.ack('421["echo","' + "x" * 3 * MIB + '"]')
        assert (answer["status"], answer["code"], answer["limit"]) == (413, "message_too_large", MIB)
        assert client.ack('421["echo",7]') == {"payload": 7}


def test_compression_is_not_negotiated_and_a_deflate_bomb_is_refused_unread(server):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(200 * MIB)) + packer.flush(zlib.Z_SYNC_FLUSH)

    def attack() -> None:
        with RawClient(server) as client:
            assert "extensions" not in client.head.lower()
            client.sock.sendall(client_frame(TEXT, bomb[:60_000], reserved=0x40))
            assert client.close_code() == 1002

    assert growth_kib(server, attack) < 16 * 1024


def test_fragments_are_limited_by_their_sum(server):
    def attack() -> None:
        with RawClient(server) as client:
            client.join()
            try:
                client.sock.sendall(client_frame(BINARY, bytes(65536), final=False))
                for _ in range(140):
                    client.sock.sendall(client_frame(CONTINUATION, bytes(65536), final=False))
            except OSError:
                pass  # cut while we were still sending
            assert client.close_code() == 1009

    assert growth_kib(server, attack) < 40 * 1024


@pytest.mark.parametrize(
    ("bytes_sent", "code"),
    [
        (b"\x81\x03abc", 1002),
        (client_frame(3, b"x"), 1002),
        (client_frame(TEXT, b"\xff"), 1007),
        (client_frame(9, b"x" * 126), 1002),
    ],
    ids=["unmasked", "unknown opcode", "not UTF-8", "long ping"],
)
def test_a_frame_that_breaks_the_rfc_closes_with_its_code(server, bytes_sent, code):
    with RawClient(server) as client:
        client.join()
        client.sock.sendall(bytes_sent)
        assert client.close_code() == code


def test_100_000_malformed_messages_leave_no_trace(server):
    malformed = b"".join(client_frame(TEXT, text.encode()) for text in MALFORMED * 10)

    def attack() -> None:
        for _ in range(1000):
            with RawClient(server) as client:
                client.join()
                client.sock.sendall(malformed)
                assert client.close_code() in {1008, 1006}

    tracebacks = server.log_text().count("Traceback")
    assert growth_kib(server, attack) < 50 * 1024
    assert server.state()["counts"]["malformed"] >= 100_000
    assert server.log_text().count("Traceback") == tracebacks


def test_attachments_without_end_are_refused(server):
    with RawClient(server) as client:
        client.join()
        client.send('459999-["echo",{"_placeholder":true,"num":0}]')
        assert client.ack('421["echo",1]') == {"payload": 1}


def test_attachments_above_one_message_are_dropped_and_answered_413(server):
    with RawClient(server) as client:
        client.join()
        client.send('452-1["echo",{"a":{"_placeholder":true,"num":0},"b":{"_placeholder":true,"num":1}}]')
        client.send_binary(bytes(900_000))
        client.send_binary(bytes(900_000))
        assert '"code":"message_too_large"' in client.text()
        assert client.ack('421["echo",1]') == {"payload": 1}


@pytest.mark.parametrize("number", ["9", "-1", '"0"', "1.5", "null"])
def test_a_placeholder_for_nothing_is_answered(server, number):
    with RawClient(server) as client:
        client.join()
        client.send('451-1["echo",{"_placeholder":true,"num":' + number + "}]")
        client.send_binary(b"x")
        assert '"code":"invalid_message"' in client.text()
        assert client.ack('421["echo",1]') == {"payload": 1}


def test_a_reader_that_never_reads_is_cut_and_others_are_served(server):
    with RawClient(server) as idle, RawClient(server) as other:
        idle.join()
        other.join()
        idle.send('42["flood",{"times":2000,"size":50000}]')
        assert other.ack('421["echo",1]') == {"payload": 1}
        server.wait_for("sessions", 1)
        assert other.ack('421["echo",2]') == {"payload": 2}


def test_a_reader_that_stalls_below_the_backlog_is_cut_by_the_clock(server):
    with RawClient(server) as idle:
        idle.join()
        idle.send('42["flood",{"times":120,"size":60000}]')
        server.wait_for("sessions", 0)


def test_the_65th_unanswered_event_is_answered_429(server):
    with RawClient(server) as client:
        client.join()
        for number in range(1, 65):
            client.send(f'42{number}["hold"]')
        assert client.ack('42100["hold"]', 100)["code"] == "too_many_in_flight"
        client.ack('42101["let_go"]', 101)
        assert sorted(client.text() for _ in range(64)) == sorted(f'43{n}[{{"held":true}}]' for n in range(1, 65))


def test_connections_above_the_limit_are_answered_503(tight_server):
    clients = [RawClient(tight_server).join() for _ in range(6)]
    with RawClient(tight_server) as refused:
        assert " 503 " in refused.head
    for client in clients:
        client.sock.close()
    tight_server.wait_for("sessions", 0)
    RawClient(tight_server).join().sock.close()


def test_transports_that_join_nothing_are_few_and_cut(tight_server):
    strangers = [RawClient(tight_server) for _ in range(3)]
    with RawClient(tight_server) as refused:
        assert " 503 " in refused.head
    assert [stranger.close_code() for stranger in strangers] == [1006] * 3
    for stranger in strangers:
        stranger.sock.close()
    tight_server.wait_for("pending", 0)


def test_messages_behind_the_one_that_ended_the_session_are_not_handled(server):
    with RawClient(server) as client:
        client.join()
        client.sock.sendall(client_frame(TEXT, b"9") * 100 + client_frame(TEXT, b'421["let_go"]'))
        opcode, _payload = client.frame()
        assert opcode == 8
