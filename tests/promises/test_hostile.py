"""Senders that want the node for themselves, and a clock that is set: the others are served all the same."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from bittensor_wallet import Keypair

from events.miner_watch import MinerWatch
from events.miners import Flow, MinerSession, MinerSessions
from grid_node.clock import ManualClock
from grid_node.errors import ServerFull
from grid_node.identity.challenge import Challenge
from grid_node.metrics import Metrics
from grid_node.predictions.broadcast import Follower
from grid_node.predictions.turns import TURN
from grid_node.wire.frames import TEXT
from tests.integration.wire.harness import client_frame
from tests.miners import NAMESPACE, Miner, RawMiner, SignedHttp, base, keypair, prediction_message
from tests.nodes import LiveNode
from tests.promises.desk import Desk, Signing, miner_of

DEEP = ["nonsense", json.loads("[" + ",".join(["[" * 50 + "]" * 50] * 500) + "]")]


@contextmanager
def flooding(sender: RawMiner, event: list[Any]) -> Iterator[None]:
    """The sender sends this event as fast as the node takes it, and reads what comes."""
    frames = client_frame(TEXT, f"42{NAMESPACE},1{json.dumps(event)}".encode())
    blob = frames * max(1, 1_000_000 // len(frames))
    stopping = threading.Event()

    def send() -> None:
        with suppress(OSError):
            while not stopping.is_set():
                sender.wire.sock.sendall(blob)

    def read() -> None:
        with suppress(OSError):
            while sender.wire.sock.recv(1 << 20):
                pass

    threads = [threading.Thread(target=target, daemon=True) for target in (send, read)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        sender.close()
        for thread in threads:
            thread.join(30)


@pytest.mark.parametrize("kind", ["heartbeats", "unknown events", "deep JSON", "forged batches", "before it is let in"])
def test_a_socket_that_never_stops_sending_stops_nobody(
    node: LiveNode,
    miner: Miner,
    http: SignedHttp,
    new_hotkey: Callable[[], Keypair],
    closing: Callable[[Any], Any],
    kind: str,
) -> None:
    sender: RawMiner = closing(RawMiner(node, new_hotkey()))
    if kind != "before it is let in":
        assert sender.enter()["success"]
    forged = {**prediction_message(sender.keypair, sender.node_hotkey), "signature": "0x" + "ab" * 64}
    event: list[Any] = {
        "heartbeats": ["heartbeat", base(sender.keypair, "heartbeat")],
        "deep JSON": DEEP,
        "forged batches": ["prediction", {"messages": [forged] * 64}],
    }.get(kind, ["nonsense", {}])
    with flooding(sender, event):
        for _ in range(3):
            assert miner.predict()["success"]
            assert http.predict().status_code == 200
            assert httpx.get(f"{node.url}/ws/health", timeout=30).status_code == 200


def test_a_large_ack_is_no_message(miner: Miner, node: LiveNode, closing: Callable[[Any], Any]) -> None:
    """Acks are small; one that is not costs its sender a strike before anybody reads it."""
    sender: RawMiner = closing(RawMiner(node, miner.keypair))
    assert sender.enter()["success"]
    for _ in range(100):
        sender.wire.send(f"43{NAMESPACE},1[{'1,' * 140_000}1]")
    sender.read_to_the_end()
    assert "closing" not in [name for name, _ in sender.pushed]


@pytest.fixture
def desk(sqlite_store: Any) -> Iterator[Desk]:
    with ExitStack() as stack:
        made = Desk(sqlite_store, ManualClock())
        stack.callback(made.close)
        made.put_games(made.game())
        yield made


def test_a_batch_that_is_costly_to_check_lets_others_run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are what the canonical form of a message takes long for."""
    turns: list[float] = []
    monkeypatch.setattr("grid_node.predictions.turns.time.sleep", turns.append)
    anna = keypair("anna")
    costly = [{**desk.message(anna), "numbers": [1.5] * 3500, "signature": "0x" + "ab" * 64} for _ in range(15)]
    pending = desk.predictions.submit(miner_of(anna), {"messages": costly}, "websocket")
    assert pending.wait(20) is not None
    assert TURN <= 0.02, "the longest that the hub may be held"
    assert turns
    assert set(turns) == {0}


class Told:
    """A publisher that keeps what it was told to send."""

    def __init__(self) -> None:
        self.heartbeats: list[str] = []
        self.closed: list[tuple[str, int]] = []

    def heartbeat(self, sid: str, _text: str) -> None:
        self.heartbeats.append(sid)

    def hang_up(self, sid: str, closing: dict[str, Any]) -> None:
        self.closed.append((sid, closing["code"]))


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_is_set_neither_silences_the_node_nor_cuts_miners_nor_keeps_strangers(
    desk: Desk, seconds: int
) -> None:
    told, clock = Told(), desk.clock
    predicting = SimpleNamespace(log=desk.log, signer=Signing(clock))
    services = SimpleNamespace(settings=desk.settings, clock=clock, metrics=Metrics(), predicting=predicting)
    sessions = MinerSessions(10, 10)
    watch = MinerWatch(cast(Any, services), cast(Any, None), cast(Any, told), sessions)
    for sid in ("miner", "stranger"):
        challenge = Challenge({}, clock.now() + 10, [])
        session = MinerSession(sid, "", challenge, clock.steady(), Flow(1), Follower(lambda _update: True))
        sessions.add(session)
        if sid == "miner":
            session.heard_at, session.heartbeat_at = clock.steady(), clock.steady() + 60
            sessions.let_in(session, miner_of(keypair("anna")))
    watch.tick()
    assert (told.heartbeats, told.closed) == ([], [])
    clock.set_by(seconds)
    watch.tick()
    assert (told.heartbeats, told.closed) == ([], [])
    clock.advance(desk.settings.websocket_auth_timeout)
    watch.tick()
    assert (told.heartbeats, told.closed) == ([], [("stranger", 4402)])
    clock.advance(60 - desk.settings.websocket_auth_timeout)
    watch.tick()
    assert told.heartbeats == ["miner"]


def pending(sid: str, address: str) -> MinerSession:
    return MinerSession(sid, address, Challenge({}, 10.0, []), 0.0, Flow(1), Follower(lambda _update: True))


def test_a_network_of_ipv6_is_one_sender_of_sockets_that_do_not_authenticate() -> None:
    sessions = MinerSessions(100, 2)
    first = pending("1", "2001:db8::1")
    sessions.add(first)
    sessions.add(pending("2", "2001:db8::2"))
    for full in ("2001:db8::3", "2001:db8::1"):
        with pytest.raises(ServerFull):
            sessions.add(pending("3", full))
    sessions.add(pending("4", "2001:db8:0:1::1"))
    sessions.remove(first)
    sessions.add(pending("5", "2001:db8::3"))
