"""The miner's client at a real node: a private grid, a rate limit, a node that is killed, a node that shuts down."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from grid_client.predictions import PredictionClient
from grid_client.receipts import verify_receipt

from tests.miners import allow, new_keypair, node_hotkey, prediction_body, put_games
from tests.nodes import LiveNode, running_node, until

WAIT = 60.0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with running_node(tmp_path_factory.mktemp("clients"), prediction_rate=20, prediction_burst=20) as live:
        put_games(live)
        yield live


def test_a_private_grids_miner_gets_signed_receipts_by_socket_and_by_http(node: LiveNode, tmp_path: Path) -> None:
    key = node.add_key("miner", ("worker",))
    body = prediction_body()
    documents = []
    for number, enabled in enumerate((False, True)):
        outbox = tmp_path / f"{number}.db"
        with PredictionClient(
            node.url, None, node_hotkey(node), outbox, api_key=key, websocket_enabled=enabled
        ) as client:
            documents.append(client.wait(client.submit(body), WAIT).document)
            until(lambda client=client: "nfl-17" in client.games)
            assert client.status()["transport"] == ("websocket" if enabled else "http")
    assert documents[0] == documents[1]
    verify_receipt(documents[0], node_hotkey(node), body)


def test_a_rate_limit_is_waited_out_and_nothing_is_lost_or_doubled(node: LiveNode, tmp_path: Path) -> None:
    keypair = new_keypair()
    allow(node, keypair)
    with PredictionClient(node.url, keypair, node_hotkey(node), tmp_path / "o.db") as client:
        ids = [client.submit(prediction_body()) for _ in range(40)]
        assert sorted(client.wait(each, WAIT).seq for each in ids) == list(range(1, 41))


def test_a_node_that_is_killed_or_shut_down_gets_everything_later_and_once(node: LiveNode, tmp_path: Path) -> None:
    keypair = new_keypair()
    allow(node, keypair)
    with PredictionClient(
        node.url, keypair, node_hotkey(node), tmp_path / "o.db", reconnect_base_interval=0.2, http_fallback_after=1
    ) as client:
        first = client.wait(client.submit(prediction_body()), WAIT)
        node.kill()
        second = client.submit(prediction_body())
        node.start()
        assert client.wait(second, WAIT).seq == first.seq + 1
        node.terminate()
        third = client.submit(prediction_body())
        node.start()
        assert client.wait(third, WAIT).seq == first.seq + 2
        assert client.status()["outbox"]["accepted"] == 3
        assert client.status()["bad_signatures"] == 0
