"""The double on a WebSocket of loopback, in a thread with an event loop of its own."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.subtensor.chain import Block, Chain
from tests.subtensor.extrinsics import Refused
from tests.subtensor.faults import CONNECT, SUBMISSION, Fault, Faults
from tests.subtensor.pool import Watcher
from tests.subtensor.rpc import SUBSCRIBING, UNSUBSCRIBING, Node, unhex

HOST = "127.0.0.1"
START_SECONDS = 10.0
CLOSE_SECONDS = 0.2
FRAME_BYTES_MAX = 1 << 20


class FakeSubtensor:
    """A subtensor that clients take for one.

    Blocks come when a test says `chain.advance()`; every `block_seconds`, with the time of the clock; or, where it is
    `instant`, as soon as an extrinsic arrives. `calls` counts by JSON-RPC method, and a `state_call` also by the
    runtime API that it names. It listens again on the same port after `stop()` and `start()`.
    """

    def __init__(
        self,
        block_seconds: float | None = None,
        *,
        instant: bool = False,
        finality_lag: int = 0,
        chain: Chain | None = None,
        port: int = 0,
    ) -> None:
        clock = time.time if block_seconds else None
        self.chain = chain or Chain(clock, finality_lag)
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        self._called = threading.Condition()
        self.connections = 0
        """How many were opened so far."""
        self.node = Node(self.chain, self.faults)
        self._block_seconds = block_seconds
        self._instant = instant
        self._port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped: asyncio.Event | None = None
        self._listening = threading.Event()
        self._problem: BaseException | None = None
        self._number = 0

    @property
    def uri(self) -> str:
        """Known once it has started."""
        return f"ws://{HOST}:{self._port}"

    def start(self) -> "FakeSubtensor":
        """Raises OSError where it cannot listen."""
        self._listening.clear()
        self._problem = None
        self._thread = threading.Thread(target=self._run, name="fake-subtensor", daemon=True)
        self._thread.start()
        self._listening.wait(START_SECONDS)
        if self._problem:
            raise self._problem
        return self

    def stop(self) -> None:
        """Every connection is closed. A second call does nothing."""
        if self._loop and self._stopped:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopped.set)
        if self._thread:
            self._thread.join(START_SECONDS)
        self._loop = self._thread = self._stopped = None

    def __enter__(self) -> "FakeSubtensor":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_for_calls(self, method: str, times: int = 1, seconds: float = 20.0) -> bool:
        """Whether `calls[method]` came to be at least `times` before the seconds were over."""
        with self._called:
            return self._called.wait_for(lambda: self.calls[method] >= times, seconds)

    def archive(self) -> "FakeSubtensor":
        """Another node of the same chain, not started: it has faults and counts of its own."""
        return FakeSubtensor(chain=self.chain)

    # --- in the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as problem:
            self._problem = problem
        finally:
            self._listening.set()

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        options: dict[str, Any] = {"compression": None, "ping_interval": None, "max_size": FRAME_BYTES_MAX}
        options |= {"open_timeout": None, "close_timeout": CLOSE_SECONDS, "process_request": self._shake_hands}
        async with serve(self._talk, HOST, self._port, **options) as server:
            self._port = next(iter(server.sockets)).getsockname()[1]
            blocks = asyncio.create_task(self._seal()) if self._block_seconds else None
            self._listening.set()
            await self._stopped.wait()
            if blocks:
                blocks.cancel()

    async def _seal(self) -> None:
        assert self._block_seconds is not None
        while True:
            await asyncio.sleep(self._block_seconds)
            self.chain.advance()

    async def _shake_hands(self, connection: ServerConnection, _: Request) -> Response | None:
        fault = self.faults.take(CONNECT)
        kind = fault.kind if fault else ""
        if fault and kind in ("stall", "delay"):
            await self._wait(fault.value, connection)
        elif fault and kind == "error":
            return connection.respond(HTTPStatus(fault.value["code"]), fault.value["message"])
        elif kind == "drop":
            connection.transport.abort()
        return None

    async def _wait(self, seconds: float | None, connection: ServerConnection) -> None:
        """Where the server stops meanwhile, the connection ends too."""
        assert self._stopped is not None
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)
            connection.transport.abort()

    async def _talk(self, connection: ServerConnection) -> None:
        self.connections += 1
        talk = _Talk(self, connection)
        try:
            async for message in connection:
                talk.hear(message)
        except ConnectionClosed:
            pass
        finally:
            talk.end()

    def called(self, names: list[str]) -> None:
        with self._called:
            self.calls.update(names)
            self._called.notify_all()

    def subscription_id(self) -> str:
        self._number += 1
        return f"subscription{self._number:06}"

    def sealed_soon(self) -> None:
        if self._instant and self._loop:
            self._loop.call_soon(self.chain.advance, 1 + self.chain.finality_lag)


class _Talk:
    """One connection."""

    def __init__(self, node: FakeSubtensor, connection: ServerConnection) -> None:
        self._double = node
        self._connection = connection
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: dict[str, Callable[[], None]] = {}

    def hear(self, message: str | bytes) -> None:
        self._start(self._answer_all(message))

    def end(self) -> None:
        for leave in list(self._subscriptions.values()):
            leave()
        for task in self._tasks:
            task.cancel()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_all(self, message: str | bytes) -> None:
        try:
            asked = json.loads(message)
        except ValueError:
            await self._send(_failed(None, Refused(-32700, "Parse error")))
            return
        with suppress(ConnectionClosed):
            if isinstance(asked, list):
                answers = [await self._answer(one) for one in asked]
                if all(answer is not None for answer in answers):
                    await self._send(answers)
            elif (answer := await self._answer(asked)) is not None:
                await self._send(answer)

    async def _answer(self, asked: Any) -> Any:
        """What to send; None: nothing."""
        if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
            return _failed(None, Refused(-32600, "Invalid request"))
        method, params, number = asked["method"], _in_order(asked.get("params")), asked.get("id")
        names = [method, str(params[0])] if method == "state_call" and params else [method]
        self._double.called(names)
        fault = self._double.faults.take(*names)
        if fault and not await self._goes_on(fault):
            return None
        try:
            if fault and fault.kind == "error":
                return {"jsonrpc": "2.0", "id": number, "error": fault.value}
            if fault and fault.kind == "answer":
                return {"jsonrpc": "2.0", "id": number, "result": fault.value}
            result = self._result(method, params, number)
        except Refused as refused:
            return _failed(number, refused)
        if fault and fault.kind == "wrong_id":
            number = f"not {number}"
        return None if result is _SENT else {"jsonrpc": "2.0", "id": number, "result": result}

    async def _goes_on(self, fault: Fault) -> bool:
        """Whether there is an answer after the fault."""
        if fault.kind == "delay":
            await asyncio.sleep(fault.value)
        elif fault.kind == "drop":
            self._connection.transport.abort()
        elif fault.kind == "garbage":
            await self._connection.send(fault.value)
        elif fault.kind == "half_frame":
            self._connection.transport.write(b"\x81\x7e\x10\x00" + b'{"jsonrpc":"2.0",')
            self._connection.transport.close()
        return fault.kind in ("delay", "error", "answer", "wrong_id")

    def _result(self, method: str, params: list[Any], number: Any) -> Any:
        if method in UNSUBSCRIBING:
            leave = self._subscriptions.pop(str(params[0]) if params else "", None)
            if leave:
                leave()
            return leave is not None
        if method in SUBSCRIBING:
            self._subscribe(method, params, number)
            return _SENT
        result = self._double.node.answer(method, params)
        if method == "author_submitExtrinsic":
            self._double.sealed_soon()
        return result

    # --- subscriptions --------------------------------------------------------------------------------------

    def _subscribe(self, method: str, params: list[Any], number: Any) -> None:
        """The answer goes out before the first message. Raises Refused."""
        name, messages = self._double.subscription_id(), asyncio.Queue[Any]()
        loop = asyncio.get_running_loop()

        def tell(message: Any) -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(messages.put_nowait, message)

        if method == "author_submitAndWatchExtrinsic":
            self._submit(unhex(params[0] if params else None), tell)
            self._subscriptions[name] = lambda: None
        else:
            self._subscriptions[name] = self._heads(method, tell)
        self._start(self._pump(name, SUBSCRIBING[method], number, messages))

    def _submit(self, raw: bytes, tell: Watcher) -> None:
        fault = self._double.faults.take(SUBMISSION)
        kind = fault.kind if fault else ""
        chain = self._double.chain
        chain.submit(raw, None if kind == "hush" else tell, forget=kind == "forget")
        self._double.sealed_soon()

    def _heads(self, method: str, tell: Callable[[Any], None]) -> Callable[[], None]:
        chain = self._double.chain
        finalized = method == "chain_subscribeFinalizedHeads"

        def told(block: Block) -> None:
            tell(chain.finalized.header if finalized else block.header)

        chain.on_block.append(told)
        told(chain.head)
        return lambda: chain.on_block.remove(told)

    async def _pump(self, name: str, method: str, number: Any, messages: asyncio.Queue[Any]) -> None:
        with suppress(ConnectionClosed):
            await self._send({"jsonrpc": "2.0", "id": number, "result": name})
            while name in self._subscriptions:
                params = {"subscription": name, "result": await messages.get()}
                await self._send({"jsonrpc": "2.0", "method": method, "params": params})

    async def _send(self, message: Any) -> None:
        await self._connection.send(json.dumps(message))


_SENT = object()
"""The answer is under way."""


def _failed(number: Any, refused: Refused) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "error": refused.body()}


def _in_order(params: Any) -> list[Any]:
    """Parameters by name are taken in the order that they come in; clients send them as the method lists them."""
    return list(params.values()) if isinstance(params, dict) else params or []
