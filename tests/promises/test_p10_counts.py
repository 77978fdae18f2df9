"""P10: what health says of sockets is true, and a peer that is gone is found."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import httpx
import pytest
from bittensor_wallet import Keypair

from tests.miners import NAMESPACE, Miner, RawMiner, base, node_hotkey
from tests.nodes import LiveNode, until
from tests.promises.conftest import started
from tests.proxy import DOWN, UP, Proxy

BEAT = 0.5
TIMEOUT = 3.0
SEED = 20261121
STEPS = 200


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    """Its heart beats quickly."""
    with started(
        tmp_path_factory.mktemp("counts"), websocket_heartbeat_interval=BEAT, websocket_connection_timeout=TIMEOUT
    ) as live:
        yield live


def health(node: LiveNode) -> dict[str, Any]:
    answer = httpx.get(f"{node.url}/ws/health")
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


def counts(node: LiveNode) -> tuple[int, int, int]:
    now = health(node)
    return now["connections"], now["active_connections"], now["pending"]


@pytest.fixture
def raw(node: LiveNode, hotkey: Keypair) -> Iterator[RawMiner]:
    with closing(RawMiner(node, hotkey)) as opened:
        assert opened.enter()["success"]
        yield opened


def test_p10_health_names_the_node_and_counts_who_is_there(
    node: LiveNode, new_hotkey: Callable[[], Keypair], hotkey: Keypair
) -> None:
    assert counts(node) == (0, 0, 0)
    with closing(RawMiner(node, hotkey)) as raw:
        assert counts(node) == (0, 0, 1)
        raw.enter()
        assert counts(node) == (1, 1, 0)
        body = health(node)
    assert (body["status"], body["node_hotkey"]) == ("online", node_hotkey(node))
    assert body["uptime"] > 0
    until(lambda: counts(node) == (0, 0, 0))


def test_p10_a_frozen_peer_leaves_both_counts(
    node: LiveNode, proxy: Proxy, hotkey: Keypair, connect: Callable[..., Miner]
) -> None:
    """Nothing is heard of it any more, neither life nor an end."""
    connect(hotkey, url=proxy.url)
    assert counts(node) == (1, 1, 0)
    proxy.lose(UP, DOWN)
    until(lambda: counts(node)[:2] == (1, 0))
    until(lambda: counts(node)[:2] == (0, 0))


def test_p10_a_peer_that_only_answers_transport_pings_is_inactive_and_then_closed(
    node: LiveNode, raw: RawMiner
) -> None:
    assert counts(node) == (1, 1, 0)
    until(lambda: counts(node) == (1, 0, 0))
    raw.wire.send("3")  # a pong of the transport
    closing = raw.wait_for("closing")
    assert (closing["code"], closing["reason"], closing["error"]) == (4408, "stale", "Connection timeout")
    raw.read_to_the_end()
    assert counts(node) == (0, 0, 0)


def test_p10_a_peer_that_sends_heartbeats_stays_and_each_is_answered(node: LiveNode, raw: RawMiner) -> None:
    """For longer than a silent one would: by the node's own heartbeats, which say how long that is."""
    for number in range(1, int(TIMEOUT / BEAT) + 4):
        theirs = raw.wait_for("heartbeat", number)
        assert theirs["message_type"] == "heartbeat"
        assert (len(theirs["epoch"]), theirs["seq"] >= 1) == (16, True)
        answer = raw.call("heartbeat", base(raw.keypair, "heartbeat"))
        assert answer["message_type"] == "heartbeat"
    assert counts(node) == (1, 1, 0)
    assert raw.predict()["success"]


def test_p10_counts_are_those_of_the_sockets_after_two_hundred_random_comings_and_goings(
    node: LiveNode, new_hotkey: Callable[[], Keypair]
) -> None:
    dice = random.Random(SEED)
    hotkeys = [new_hotkey() for _ in range(12)]
    with ExitStack() as stack:
        there: dict[int, RawMiner] = {}

        def beat() -> None:
            for miner in there.values():
                miner.wire.send(f"42{NAMESPACE},{json.dumps(['heartbeat', base(miner.keypair, 'heartbeat')])}")

        def come(number: int) -> None:
            """Also where it is there already: then the new socket takes its place."""
            made = stack.enter_context(closing(RawMiner(node, hotkeys[number])))
            assert made.enter()["success"]
            old, there[number] = there.get(number), made
            if old is not None:
                assert old.wait_for("closing")["code"] == 4409
                old.read_to_the_end()

        def go(number: int) -> None:
            gone = there.pop(number, None)
            if gone is not None:
                if dice.random() < 0.5:
                    gone.wire.send(f"41{NAMESPACE},")
                gone.close()

        for step in range(STEPS):
            dice.choice([come, come, go])(dice.randrange(len(hotkeys)))
            if step % 10 == 0:
                beat()
        beat()
        until(lambda: health(node)["connections"] == len(there))
        for miner in there.values():
            assert miner.predict()["success"]
        assert counts(node) == (len(there), len(there), 0)
    until(lambda: counts(node) == (0, 0, 0))
