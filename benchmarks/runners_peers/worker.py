"""A scripted worker that costs little: takes every prediction and remembers when each came, and where to report.

    worker.py PORT

`GET /seen` tells that of all that came since the last time it was asked. Times are of CLOCK_MONOTONIC, which all
processes of a machine share.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import Any

READY = {"status": "READY", "setup": {"status": "succeeded", "logs": ""}, "version": {"cog": "0.0.0"}}
LIMIT = 4 * 1024 * 1024
seen: dict[str, dict[str, Any]] = {}


def answer(method: str, path: str, body: bytes) -> tuple[int, Any]:
    global seen
    if method == "PUT":
        seen[path.rsplit("/", 1)[1]] = {"at": time.monotonic(), "webhook": json.loads(body).get("webhook")}
        return 202, {"status": "starting"}
    if path == "/seen":
        told, seen = seen, {}
        return 200, told
    return 200, READY if path == "/health-check" else {}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            lengths = [line.split(":")[1] for line in head.split("\r\n") if line.startswith("content-length:")]
            body = await reader.readexactly(int(lengths[0])) if lengths else b""
            method, path, _ = head.split(" ", 2)
            status, found = answer(method.upper(), path, body)
            text = json.dumps(found).encode()
            writer.write(b"HTTP/1.1 %d .\r\nContent-Type: application/json\r\n" % status)
            writer.write(b"Content-Length: %d\r\n\r\n" % len(text) + text)


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=LIMIT)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
