"""P5: what a miner submitted survives kill -9 of the miner, and is sent under the same id until there is a receipt."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair
from grid_client.predictions import PredictionClient
from grid_client.receipts import verify_receipt

from tests.miners import Bookmaker, SignedHttp, allow, game, node_hotkey, prediction_body, put_games, stored
from tests.nodes import ROOT, LiveNode, until
from tests.promises.doomed_miner import POINTS
from tests.proxy import DOWN, UP, Proxy

WAIT = 60.0
QUICK: dict[str, Any] = {"reconnect_base_interval": 0.1, "max_reconnect_interval": 0.5, "http_fallback_after": 0.5}


@pytest.fixture
def seed(node: LiveNode) -> str:
    made = "0x" + sha256(uuid.uuid4().bytes).hexdigest()
    allow(node, Keypair.create_from_seed(made))
    return made


@pytest.fixture
def keypair(seed: str) -> Keypair:
    return Keypair.create_from_seed(seed)


@pytest.fixture
def new_client(node: LiveNode, keypair: Keypair, tmp_path: Path) -> Iterator[Callable[..., PredictionClient]]:
    """Clients on one outbox, which have ended when the test has."""
    made: list[PredictionClient] = []

    def make(url: str = node.url, **options: Any) -> PredictionClient:
        client = PredictionClient(url, keypair, node_hotkey(node), tmp_path / "outbox.db", **{**QUICK, **options})
        made.append(client)
        return client

    yield make
    for client in made:
        client.stop()


def run_doomed(node: LiveNode, seed: str, outbox: Path, point: str, websocket_enabled: bool) -> dict[str, Any]:
    """The prediction that a miner had in hand when it died at this point."""
    prediction = prediction_body()
    given = {
        "url": node.url,
        "seed": seed,
        "node_hotkey": node_hotkey(node),
        "outbox": str(outbox),
        "prediction": prediction,
        "websocket_enabled": websocket_enabled,
    }
    command = [sys.executable, "-W", "ignore", "-m", "tests.promises.doomed_miner", point, json.dumps(given)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'clients' / 'python'}"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, timeout=WAIT, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    return prediction


@pytest.mark.parametrize("websocket_enabled", [True, False], ids=["socket", "http"])
@pytest.mark.parametrize("point", POINTS)
def test_p5_a_miner_killed_at_any_point_has_one_row_and_one_receipt_after_a_restart(
    node: LiveNode,
    keypair: Keypair,
    seed: str,
    tmp_path: Path,
    new_client: Callable[..., PredictionClient],
    point: str,
    websocket_enabled: bool,
) -> None:
    prediction = run_doomed(node, seed, tmp_path / "outbox.db", point, websocket_enabled)
    if point in POINTS[:2]:
        assert stored(node, keypair) == []

    client = new_client(websocket_enabled=websocket_enabled)
    client.start()
    receipt = client.wait(prediction["prediction_id"], WAIT)

    (row,) = stored(node, keypair)
    assert json.loads(row.receipt) == receipt.document
    verify_receipt(receipt.document, node_hotkey(node), prediction)
    outbox = client.status()["outbox"]
    assert (outbox["accepted"], sum(outbox.values())) == (1, 1)


def test_p5_an_ack_lost_on_the_way_is_fetched_under_the_same_id(
    node: LiveNode, keypair: Keypair, proxy: Proxy, new_client: Callable[..., PredictionClient]
) -> None:
    client = new_client(proxy.url)
    client.start()
    until(lambda: client.status()["transport"] == "websocket")
    proxy.lose(DOWN)
    prediction_id = client.submit(prediction_body(wager="5.00"))
    until(lambda: len(stored(node, keypair)) == 1)
    proxy.reset()
    proxy.mend()
    receipt = client.wait(prediction_id, WAIT)
    (row,) = stored(node, keypair)
    assert json.loads(row.receipt) == receipt.document
    assert receipt.document["miner_stats"]["wagered"] == "5.00"


def test_p5_through_a_line_that_delays_drops_and_resets_everything_arrives_once_and_in_order(
    node: LiveNode, keypair: Keypair, proxy: Proxy, new_client: Callable[..., PredictionClient]
) -> None:
    """The line breaks while predictions are submitted; each kind of break, one after the other."""
    client = new_client(proxy.url, ack_timeout=1.0)
    client.start()
    ids: list[str] = []

    def submit(count: int) -> None:
        ids.extend(client.submit(prediction_body()) for _ in range(count))

    proxy.delay(0.02)
    submit(10)
    for direction in (UP, DOWN, UP):
        resets = proxy.resets
        proxy.cut_after(3000, direction)
        submit(15)
        until(lambda resets=resets: proxy.resets > resets)  # type: ignore[misc]
        proxy.mend()
        client.wait(ids[-1], WAIT)
    proxy.lose(DOWN)
    submit(5)
    until(lambda: len(stored(node, keypair)) > len(ids) - 5)
    proxy.reset()
    proxy.mend()
    receipts = [client.wait(one, WAIT) for one in ids]

    rows = stored(node, keypair)
    assert [row.prediction_id for row in rows] == ids
    assert [receipt.seq for receipt in receipts] == list(range(1, len(ids) + 1))
    assert [json.loads(row.receipt) for row in rows] == [receipt.document for receipt in receipts]


def test_p6_a_socket_that_is_blocked_gives_way_to_http_and_takes_over_again_without_a_hole(
    node: LiveNode, keypair: Keypair, proxy: Proxy, new_client: Callable[..., PredictionClient]
) -> None:
    """Predictions and updates go on by HTTP at the same place; none is lost, none is there twice."""
    put_games(node, game("nfl-99"))
    books = Bookmaker(node)
    client = new_client(proxy.url)
    heard: list[int] = []
    client.on_game_update(lambda update: heard.append(update.position.seq))
    client.start()
    until(lambda: client.status()["transport"] == "websocket" and "nfl-99" in client.games)
    first = end_of(books)
    until(lambda: heard[-1:] == [first])
    heard.clear()
    ids = [client.submit(prediction_body())]
    client.wait(ids[0], WAIT)

    proxy.block_sockets()
    books.append(20, "nfl-99")
    ids.append(client.submit(prediction_body()))
    assert client.wait(ids[1], WAIT).accepted
    until(lambda: len(heard) == 20)
    assert client.status()["transport"] == "http"

    proxy.mend()
    until(lambda: client.status()["transport"] == "websocket")
    books.append(20, "nfl-99")
    ids.append(client.submit(prediction_body()))
    assert client.wait(ids[2], WAIT).accepted
    until(lambda: len(heard) == 40)
    assert heard == list(range(first + 1, first + 41))
    assert client.games["nfl-99"]["team_b_odds"] == "2.0020"
    assert [row.prediction_id for row in stored(node, keypair)] == ids


def end_of(books: Bookmaker) -> int:
    return int(books.store.read(books.log.position).seq)


def test_p6_receipts_of_both_ways_are_found_by_the_client_and_by_a_request(
    node: LiveNode, keypair: Keypair, new_client: Callable[..., PredictionClient]
) -> None:
    by_socket, by_http = new_client(), new_client(websocket_enabled=False)
    body = prediction_body()
    by_socket.start()
    receipt = by_socket.wait(by_socket.submit(body), WAIT)
    by_http.start()
    assert by_http.wait(by_http.submit(body), WAIT) == receipt
    with closing(SignedHttp(node, keypair)) as http:
        assert http.get(f"/predictions/{receipt.prediction_id}").json()["receipt"] == receipt.document
