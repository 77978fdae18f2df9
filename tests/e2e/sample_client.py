# The sample client of the 404-GEN public API as published; only the import, the URL and the key are ours.
# ruff: noqa: SIM117
# fmt: off
import asyncio
import base64
import json
import sys
from pathlib import Path

from aiohttp import ClientSession, WSMsgType
from grid_client.protocol import Auth, PromptData, TaskStatus, TaskUpdate


async def main() -> None:
    async with ClientSession() as session:
        async with session.ws_connect(sys.argv[1]) as ws:
            await ws.send_json(Auth(api_key=sys.argv[2]).dict())
            await ws.send_json(PromptData(prompt="Donald Duck", send_first_results=True).dict())

            async for msg in ws:
                if msg.type == WSMsgType.TEXT:
                    update = TaskUpdate(**json.loads(msg.data))
                    if update.status == TaskStatus.STARTED:
                        print("Task started")
                    elif update.status == TaskStatus.FIRST_RESULTS:
                        print(f"First results. Score: {update.results.score}. Size: {len(update.results.assets)}")
                    elif update.status == TaskStatus.BEST_RESULTS:
                        print(f"Best results. Score: {update.results.score}. Size: {len(update.results.assets)}")
                        with Path("results.ply").open("wb") as f:
                            f.write(base64.b64decode(update.results.assets.encode("utf-8")))
                elif msg.type == WSMsgType.ERROR:
                    print(f"WebSocket connection closed with exception: {ws.exception()}")


if __name__ == "__main__":
    asyncio.run(main())
