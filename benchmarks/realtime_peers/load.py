"""Load for `../realtime.py`: Socket.IO over raw sockets, every frame encoded beforehand, one epoll loop.

Run as a program on a core of its own: `load.py acks PORT SOCKETS SECONDS PID` prints acks per second,
and per second of processor time of the serving process PID;
`load.py idle PORT SOCKETS` connects, prints the number of open sockets, and holds them until its stdin ends.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import sys
import time

MASK = b"\x01\x02\x03\x04"
PAYLOAD = '["echo",{"n":1,"text":"forty-eight bytes of payload in every message"}]'
ACK = b"431["
HANDSHAKE_SECONDS = 30.0
WARM_UP_SECONDS = 0.5


def masked(text: str) -> bytes:
    """One client text frame of fewer than 126 bytes."""
    data = text.encode()
    assert len(data) < 126
    return bytes((0x81, 0x80 | len(data))) + MASK + bytes(b ^ MASK[i % 4] for i, b in enumerate(data))


def frame_end(data: bytes, start: int) -> int:
    """Where the server frame at `start` ends; 0 where it is not whole."""
    if len(data) < start + 2:
        return 0
    size = data[start + 1]
    header = 2
    if size == 126:
        header, size = 4, int.from_bytes(data[start + 2 : start + 4], "big")
    end = start + header + size
    return end if len(data) >= end else 0


def read_frames(sock: socket.socket, buffer: bytes, count: int) -> bytes:
    """Read `count` whole frames; returns what is left over."""
    for _ in range(count):
        while not (end := frame_end(buffer, 0)):
            chunk = sock.recv(65536)
            if not chunk:
                raise ConnectionError("server closed the connection")
            buffer += chunk
        buffer = buffer[end:]
    return buffer


def connect(port: int) -> socket.socket:
    """Upgrade and join the default namespace."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=HANDSHAKE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(
        f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = sock.recv(65536)
        if not chunk:
            raise ConnectionError("server closed the connection")
        head += chunk
    if b" 101 " not in head.split(b"\r\n", 1)[0]:
        raise ConnectionError(head[:200].decode("latin-1"))
    rest = read_frames(sock, head.split(b"\r\n\r\n", 1)[1], 1)  # open
    sock.sendall(masked("40"))
    read_frames(sock, rest, 1)  # connected
    return sock


def cpu_seconds(process_id: str) -> float:
    """Processor time of a process so far, user and system."""
    with open(f"/proc/{process_id}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def count_acks(sockets: list[socket.socket], seconds: float, process_id: str) -> dict[str, float]:
    """Acks with one event of each socket always on its way, after a short warm-up."""
    event, pong = masked(f"421{PAYLOAD}"), masked("3")
    poll = select.epoll()
    by_fd = {sock.fileno(): sock for sock in sockets}
    for fd, sock in by_fd.items():
        sock.setblocking(False)
        poll.register(fd, select.EPOLLIN)
        sock.send(event)
    acks, started, cpu = 0, 0.0, 0.0
    starts = time.perf_counter() + WARM_UP_SECONDS
    while not started or time.perf_counter() < started + seconds:
        if not started and time.perf_counter() >= starts:
            acks, started, cpu = 0, time.perf_counter(), cpu_seconds(process_id)
        for fd, _ in poll.poll(1.0):
            data = by_fd[fd].recv(65536)
            if not data:
                raise ConnectionError("server closed the connection")
            answered = data.count(ACK)
            if answered:
                acks += answered
                by_fd[fd].send(event * answered)
            if data.startswith(b"\x81\x012"):  # Engine.IO ping
                by_fd[fd].send(pong)
    elapsed = time.perf_counter() - started
    return {"per_second": acks / elapsed, "per_cpu_second": acks / (cpu_seconds(process_id) - cpu)}


def main(arguments: list[str]) -> None:
    mode, port, count = arguments[0], int(arguments[1]), int(arguments[2])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sockets = [connect(port) for _ in range(count)]
    if mode == "acks":
        print(json.dumps(count_acks(sockets, float(arguments[3]), arguments[4])))
    else:
        print(json.dumps({"connected": len(sockets)}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
