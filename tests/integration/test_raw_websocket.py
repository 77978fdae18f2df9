"""The raw WebSocket against a real server: its frames, and every row of its table of close codes."""

import asyncio
import base64
import hashlib
import json
import random
from typing import Any

import aiohttp
import pytest

from grid_node.clock import SystemClock
from grid_node.database import DirectStore, make_engine
from grid_node.generation.lifecycle import Lifecycle, task_stream
from grid_node.generation.verdicts import Verdicts
from grid_node.settings import Settings
from grid_node.streams.service import Streams
from tests.nodes import until
from tests.text_node import GRACE, PENDING_MAX, QUEUE_MAX

WAIT = 30


@pytest.fixture
def node(text_node):
    return text_node


@pytest.fixture
def new_client(new_text_client):
    return new_text_client


@pytest.fixture
def client(new_client):
    return new_client()


@pytest.fixture
def new_worker(new_text_worker):
    return new_text_worker


@pytest.fixture
def worker(new_worker):
    return new_worker()


class Raw:
    """One raw connection; `frames` are read until the close."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []

    async def say(self, *messages: Any) -> None:
        for message in messages:
            await self.socket.send_str(message if isinstance(message, str) else json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        frame = json.loads(await asyncio.wait_for(self.socket.receive_str(), WAIT))
        self.frames.append(frame)
        return frame

    async def closed(self) -> tuple[int, str]:
        """Code and reason, after every frame before them."""
        while True:
            message = await asyncio.wait_for(self.socket.receive(), WAIT)
            if message.type is aiohttp.WSMsgType.TEXT:
                self.frames.append(json.loads(message.data))
            elif message.type is aiohttp.WSMsgType.CLOSE:
                return int(message.data), str(message.extra)
            else:
                return int(self.socket.close_code or 1006), str(message.extra)


def converse(node, scenario, path="/ws/generate", **options):
    """Run `scenario(raw)` on a connection of its own."""

    async def run():
        options.setdefault("autoclose", False)
        async with aiohttp.ClientSession() as session, session.ws_connect(node.url + path, **options) as socket:
            return await scenario(Raw(socket))

    return asyncio.run(run())


def close_after(node, *messages):
    """How the node ends a connection on which these messages are sent at once."""

    async def scenario(raw):
        await raw.say(*messages)
        return await raw.closed()

    return converse(node, scenario)


def prompt(**members):
    return {"prompt": "say hello", "kind": "text", "copies": 1, **members}


# --- what it is for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws/generate", "/ws/generate/"])
def test_started_and_best_results_then_1000(node, client, worker, path):
    async def scenario(raw):
        await raw.say({"api_key": client.key}, prompt())
        await asyncio.to_thread(worker.serve, "hello")
        return await raw.closed(), raw.frames

    (code, reason), (started, best) = converse(node, scenario, path)
    assert (code, reason) == (1000, "")
    assert (started["status"], started["results"], started["statistics"]) == ("started", None, None)
    assert best["status"] == "best_results"
    assert base64.b64decode(best["results"]["assets"], validate=True) == b"hello"
    assert best["results"]["sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert set(best) == {"status", "results", "statistics", "task_id", "seq"}
    assert set(best["results"]) == {"hotkey", "score", "assets", "n", "format", "size", "sha256", "url"}
    assert [miner["data_format"] for miner in best["statistics"]["miners"]] == ["text"]


def test_extended_clients_hear_every_status(node, client, worker):
    async def scenario(raw):
        await raw.say({"api_key": client.key}, prompt(extended=True, send_first_results=True))
        await asyncio.to_thread(worker.serve)
        return await raw.closed(), [frame["status"] for frame in raw.frames]

    end, statuses = converse(node, scenario)
    assert end == (1000, "")
    assert statuses == ["queued", "started", "first_results", "best_results"]


def test_unknown_members_are_ignored(node, client, worker):
    async def scenario(raw):
        await raw.say({"api_key": client.key, "app": "x"}, prompt(colour="red"))
        await asyncio.to_thread(worker.serve)
        return await raw.closed()

    assert converse(node, scenario) == (1000, "")


def test_a_lost_connection_is_resumed_and_misses_nothing(node, client, worker):
    async def lost(raw):
        await raw.say({"api_key": client.key}, prompt())
        lease = await asyncio.to_thread(worker.pull)
        return (await raw.hear())["task_id"], lease

    async def resumed(raw):
        await raw.say({"api_key": client.key}, {"resume": {"task_id": task_id, "after_seq": 2}})
        await asyncio.to_thread(worker.hand_in, lease)
        return await raw.closed(), [frame["seq"] for frame in raw.frames]

    task_id, lease = converse(node, lost)
    assert converse(node, resumed) == ((1000, ""), [3])


def test_an_ended_task_is_told_again(node, client, worker):
    task = client.submit()
    worker.serve()
    last = client.ended(task["id"])["seq"]
    assert close_after(node, {"api_key": client.key}, {"resume": {"task_id": task["id"]}}) == (1000, "")
    assert close_after(node, {"api_key": client.key}, {"resume": {"task_id": task["id"], "after_seq": last}})[0] == 1000


def test_a_client_that_stays_away_has_its_task_cancelled(node, client, worker):
    async def leave(raw):
        await raw.say({"api_key": client.key}, prompt())
        await asyncio.to_thread(worker.pull)
        return (await raw.hear())["task_id"]

    task_id = converse(node, leave)
    until(lambda: listed(client, task_id)["status"] == "cancelled")
    assert listed(client, task_id)["error"]["code"] == "client_gone"


def test_a_client_that_reads_its_task_elsewhere_has_not_gone(node, client, worker):
    async def leave(raw):
        await raw.say({"api_key": client.key}, prompt())
        lease = await asyncio.to_thread(worker.pull)
        return (await raw.hear())["task_id"], lease

    task_id, lease = converse(node, leave)
    task = client.task(task_id, after_seq=2, wait_s=2 * GRACE)
    assert task["status"] == "started"
    worker.hand_in(lease)
    assert client.ended(task_id)["status"] == "best_results"


def listed(client, task_id):
    """The task as the list has it; looking at a list is no sign of life."""
    return next(task for task in client.http.get("/tasks").json()["tasks"] if task["id"] == task_id)


def test_plain_http_is_told_to_upgrade(node, client):
    answer = client.http.get("/ws/generate/")
    assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required")
    assert answer.headers["Upgrade"] == "websocket"


# --- how it ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scopes", [None, ("worker",)])
def test_4003_for_a_key_that_does_not_open_the_door(node, scopes):
    key = "no-such-key-000000" if scopes is None else node.add_key("other", scopes)
    assert close_after(node, {"api_key": key}, prompt()) == (4003, "Invalid API Key")


def test_4003_while_it_waits_when_its_key_is_removed(node, new_client):
    owner = new_client()

    async def scenario(raw):
        await raw.say({"api_key": owner.key}, prompt(kind="text_to_3d", extended=True))
        await raw.hear()
        await asyncio.to_thread(node.keys.remove, owner.key)
        return await raw.closed()

    assert converse(node, scenario) == (4003, "Invalid API Key")


def test_4404_when_nobody_can_do_it(node, client, new_worker):
    async def scenario(raw):
        await raw.say({"api_key": client.key}, prompt(extended=True))
        for one in (new_worker(), new_worker(), new_worker()):
            await asyncio.to_thread(one.serve, "say hello")  # the prompt itself is no answer
        return await raw.closed(), raw.frames[-1]

    end, last = converse(node, scenario)
    assert end == (4404, "Generation failed")
    assert (last["status"], last["error"]["code"], last["error"]["rejected"]) == ("failed", "all_workers_failed", 3)


def test_4404_after_a_cancel(node, client):
    async def scenario(raw):
        await raw.say({"api_key": client.key}, prompt(kind="text_to_3d", extended=True))
        await raw.hear()
        await raw.say({"cancel": True})
        return await raw.closed(), raw.frames[-1]

    end, last = converse(node, scenario)
    assert end == (4404, "Generation cancelled")
    assert last["error"]["code"] == "cancelled_by_client"


@pytest.mark.parametrize("task_id", ["0" * 36, "nonsense"])
def test_4404_for_a_task_that_is_not_there(node, client, task_id):
    assert close_after(node, {"api_key": client.key}, {"resume": {"task_id": task_id}}) == (4404, "Task not found")


def test_4404_for_another_keys_task(node, client, new_client):
    task = new_client().submit(kind="text_to_3d")
    end = close_after(node, {"api_key": client.key}, {"resume": {"task_id": task["id"]}})
    assert end == (4404, "Task not found")


def test_4429_right_after_the_key_when_its_window_is_used_up(node, new_client):
    small = new_client(max_requests=1)
    small.submit(kind="text_to_3d")
    assert close_after(node, {"api_key": small.key}) == (4429, "Too Many Requests")
    assert close_after(node, {"api_key": small.key}, prompt()) == (4429, "Too Many Requests")


def test_a_key_without_room_may_still_resume(node, new_client, worker):
    small = new_client(max_requests=1)
    task = small.submit()
    worker.serve()
    small.ended(task["id"])
    assert close_after(node, {"api_key": small.key}, {"resume": {"task_id": task["id"]}})[0] == 1000


def test_4429_for_too_many_unfinished_tasks(node, new_client):
    busy = new_client(max_concurrent=1)
    busy.submit(kind="text_to_3d")

    async def scenario(raw):
        await raw.say({"api_key": busy.key}, prompt(extended=True))
        return await raw.closed(), raw.frames

    end, (refusal,) = converse(node, scenario)
    assert end == (4429, "Too Many Requests")
    assert refusal["status"] == "failed"
    assert refusal["error"]["code"] == "too_many_active_tasks"
    assert refusal["error"]["retry_after"] > 0


def test_4500_when_scoring_fails(node, client, worker):
    """Another process of the node finds that scoring is broken, and says so in the task's stream."""

    async def scenario(raw):
        await raw.say({"api_key": client.key}, prompt())
        await asyncio.to_thread(worker.pull)
        started = await raw.hear()
        await asyncio.to_thread(fail_scoring, node, started["task_id"], started["seq"] + 1)
        return await raw.closed()

    assert converse(node, scenario) == (4500, "Internal Server Error")


def fail_scoring(node, task_id, seq):
    store = DirectStore(make_engine(f"sqlite:///{node.data / 'grid.db'}"))
    error = {"code": "scoring_unavailable", "error": "Scoring is not available"}
    body = {"task_id": task_id, "seq": seq, "status": "failed", "at": "", "error": error}
    store.write(lambda tx: Streams(store).append(tx, task_stream(task_id), seq, SystemClock().now(), body))
    store.close()


@pytest.mark.parametrize(
    "frame",
    [
        "{",
        "[]",
        '"prompt"',
        "{}",
        '{"prompt":""}',
        '{"prompt":"  "}',
        '{"prompt":7}',
        '{"prompt":"a","kind":"nonsense"}',
        '{"prompt":"a","copies":0}',
        '{"prompt":"a","copies":9}',
        '{"prompt":"a","deadline_s":5}',
        '{"prompt":"a","seed":NaN}',
        '{"prompt":"a","prompt":"b"}',
        '{"prompt":"a\\u0007"}',
        '{"prompt":"a","asset_format":"exe"}',
        '{"resume":7}',
        '{"resume":{"task_id":"x","after_seq":-1}}',
    ],
)
def test_4400_for_a_second_frame_that_is_no_request(node, client, frame):
    assert close_after(node, {"api_key": client.key}, frame) == (4400, "Bad Message")


@pytest.mark.parametrize("frame", ["", "nonsense", "[]", "{}", '{"api_key":7}', '{"api_key":null}'])
def test_4400_for_a_first_frame_that_is_no_auth(node, frame):
    assert close_after(node, frame) == (4400, "Bad Message")


def test_4400_for_a_binary_frame(node):
    async def scenario(raw):
        await raw.socket.send_bytes(b'{"api_key":"x"}')
        return await raw.closed()

    assert converse(node, scenario) == (4400, "Bad Message")


def test_4400_for_anything_but_cancel_after_the_prompt(node, client):
    assert close_after(node, {"api_key": client.key}, prompt(kind="text_to_3d"), prompt()) == (4400, "Bad Message")


def test_4408_without_auth_and_without_a_prompt(node, client):
    assert close_after(node) == (4408, "Timeout")
    assert close_after(node, {"api_key": client.key}) == (4408, "Timeout")


def test_4413_for_a_long_prompt_and_for_a_large_frame(node, client):
    auth = {"api_key": client.key}
    assert close_after(node, auth, prompt(prompt="a" * 1025)) == (4413, "Prompt Too Long")
    assert close_after(node, auth, prompt(note="a" * 65536)) == (4413, "Message Too Large")
    assert close_after(node, "a" * 65537) == (4413, "Message Too Large")


def test_1009_from_the_transport_above_256_kib(node):
    assert close_after(node, "a" * (256 * 1024 + 1))[0] == 1009


def test_4503_when_the_queue_is_full(node, client):
    for _ in range(QUEUE_MAX):
        client.http.post("/tasks", json={"prompt": "hello"})
    assert close_after(node, {"api_key": client.key}, prompt()) == (4503, "Service Unavailable")
    for task in client.http.get("/tasks", params={"limit": 200}).json()["tasks"]:
        client.http.delete(f"/tasks/{task['id']}")


def test_4503_when_too_many_have_not_shown_a_key(node, client):
    async def run():
        async with aiohttp.ClientSession() as session:
            silent = [await session.ws_connect(f"{node.url}/ws/generate") for _ in range(PENDING_MAX)]
            async with session.ws_connect(f"{node.url}/ws/generate", autoclose=False) as one_more:
                end = await Raw(one_more).closed()
            for socket in silent:
                await socket.close()
            return end

    assert asyncio.run(run()) == (4503, "Service Unavailable")


def test_1001_at_the_end_of_the_node_and_the_task_lives_on(node, client, worker):
    async def scenario(raw):
        await raw.say({"api_key": client.key}, prompt())
        lease = await asyncio.to_thread(worker.pull)
        task_id = (await raw.hear())["task_id"]
        ending = asyncio.create_task(asyncio.to_thread(node.terminate))
        end = await raw.closed()
        await raw.socket.close()
        await ending
        return end, task_id, lease

    end, task_id, lease = converse(node, scenario)
    assert end == (1001, "Server Shutdown")
    node.restart()
    until(lambda: client.http.get("/healthz").status_code == 200)

    async def resumed(raw):
        await raw.say({"api_key": client.key}, {"resume": {"task_id": task_id, "after_seq": 2}})
        await asyncio.to_thread(worker.hand_in, lease)
        return await raw.closed()

    assert converse(node, resumed) == (1000, "")


# --- large assets -------------------------------------------------------------------------------------------------

LARGE = random.Random(4).randbytes(6_000_001)


@pytest.fixture
def large_task(node, client, worker):
    """A finished task whose best result is 6 MB; what its bytes are worth was another process's to say."""
    task = client.submit(kind="text_to_3d")
    lease = worker.pull(kinds=("text_to_3d",))
    query = {"format": "ply", "sha256": hashlib.sha256(LARGE).hexdigest()}
    handed_in = worker.http.post(f"/worker/leases/{lease['lease_id']}/result", params=query, content=LARGE)
    assert handed_in.json()["state"] == "scoring"
    accept(node, lease["lease_id"])
    return client.ended(task["id"])


def accept(node, lease_id):
    store = DirectStore(make_engine(f"sqlite:///{node.data / 'grid.db'}"))
    streams, settings = Streams(store), Settings.load({})
    verdicts = Verdicts(streams, Lifecycle(streams, settings), settings)
    report = {"score": 0.9, "accepted": True, "components": {}, "reasons": [], "scorer": "splat-1"}
    store.write(lambda tx: verdicts.record(tx, lease_id, report, {}, SystemClock().now()))
    store.close()


def test_a_large_asset_arrives_whole_in_one_message(node, client, large_task):
    async def scenario(raw):
        await raw.say({"api_key": client.key}, {"resume": {"task_id": large_task["id"], "after_seq": 2}})
        return await raw.closed(), raw.frames

    end, (best,) = converse(node, scenario, max_msg_size=0)
    assert end == (1000, "")
    assert base64.b64decode(best["results"]["assets"], validate=True) == LARGE


def test_a_client_that_takes_no_large_message_reads_the_asset_by_http(node, client, large_task):
    async def scenario(raw):
        await raw.say({"api_key": client.key}, {"resume": {"task_id": large_task["id"], "after_seq": 2}})
        message = await asyncio.wait_for(raw.socket.receive(), WAIT)
        return message.type, raw.socket.close_code

    assert converse(node, scenario, autoclose=True) == (aiohttp.WSMsgType.ERROR, 1009)
    part = client.http.get(large_task["results"][0]["url"], headers={"Range": "bytes=6000000-"})
    assert (part.status_code, part.content) == (206, LARGE[6_000_000:])


def test_a_form_that_was_never_made_is_sent_as_the_worker_sent_it(node, client, worker):
    async def scenario(raw):
        await raw.say({"api_key": client.key}, prompt(asset_format="spz"))
        await asyncio.to_thread(worker.serve, "hello")
        await raw.closed()
        return raw.frames[-1]["results"]

    results = converse(node, scenario)
    assert (results["format"], base64.b64decode(results["assets"])) == ("text", b"hello")
