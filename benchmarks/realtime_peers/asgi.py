"""python-socketio's asyncio server, for uvicorn."""

import socketio

server = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(server)


@server.event
async def echo(sid, payload):
    return payload
