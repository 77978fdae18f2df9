"""The JavaScript miner on Node against a running node, and against one that forges what it sends."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from grid_client.receipts import verify_receipt

from tests.e2e.test_js_client import example, run
from tests.miners import (
    Bookmaker,
    RawMiner,
    allow,
    game,
    new_keypair,
    node_hotkey,
    prediction_body,
    put_games,
)
from tests.nodes import LiveNode, running_node, until
from tests.programs import Program
from tests.proxy import proxied
from tests.unit.clients.prediction_node import PredictionNode, delta, packed, snapshot
from tests.unit.clients.serving import serving

__all__ = ["example"]

WINDOW = 4
"""Updates that the node sends ahead of what was acknowledged."""
LIMITS = {
    "websocket_heartbeat_interval": 1,
    "websocket_connection_timeout": 3,
    "websocket_send_window": WINDOW,
    "games_compress_min_bytes": 1000,
    "prediction_max_batch": 2,
}
Start = Callable[..., "Running"]


class Running(Program):
    """The example while it runs."""

    def __init__(self, command: list[str], url: str, key: str, folder: Path, *predictions: dict[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        file = folder / "predictions.list"
        file.write_text(json.dumps(predictions))
        self.folder = folder
        super().__init__([*command, url, str(file), str(folder)], key)

    def receipt(self, prediction_id: str) -> dict[str, Any]:
        receipt: dict[str, Any] = json.loads((self.folder / f"{prediction_id}.json").read_text())
        return receipt

    def interrupted(self) -> int:
        """Its exit code after Ctrl-C."""
        self.interrupt()
        return self.end()[0]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with running_node(tmp_path_factory.mktemp("node"), **LIMITS) as made:
        put_games(made, *(game(name) for name in ("nfl-17", "nfl-18", "nfl-19", "nfl-20")))
        yield made


@pytest.fixture(scope="module")
def miner_example(example: list[str]) -> list[str]:
    return [example[0], str(Path(example[1]).with_name("predictions.mjs"))]


@pytest.fixture
def start(miner_example: list[str], node: LiveNode, tmp_path: Path) -> Iterator[Start]:
    """Starts miners of one key."""
    key = node.add_key("javascript", ["worker"])
    with contextlib.ExitStack() as stack:

        def begin(*predictions: dict[str, Any], url: str = node.url, key: str = key) -> Running:
            made = Running(miner_example, url, key, tmp_path / "receipts", *predictions)
            stack.callback(made.close)
            return made

        yield begin


def change(node: LiveNode, odds: str) -> None:
    """New odds, as an operator's program sets them."""
    key = node.add_key("bookmaker", ["admin"])
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.put(f"{node.url}/games/nfl-17", json={"team_b_odds": odds}, headers=headers)
    assert answer.status_code == 200, answer.text


def updated(line: str) -> tuple[int, Any]:
    """Seq and games of an update that was printed."""
    seq, _, games = line.partition(" ")
    return int(seq), json.loads(games)


def test_every_prediction_gets_its_receipt_alone_or_in_a_batch(start: Start, node: LiveNode) -> None:
    bodies = [prediction_body(game_id="nfl-18") for _ in range(5)]
    bodies[3]["wager"] = "0.10"
    bodies.append({**bodies[0], "wager": "2.00"})
    miner = start(*bodies)
    assert f"to {node_hotkey(node)}, last_seq 0, recovered null" in miner.wait_for("CONNECTED")
    codes = ["successful", "successful", "successful", "invalid_wager", "successful"]
    for seq, (body, code) in enumerate(zip(bodies, codes, strict=False), 1):
        assert miner.wait_for("RECEIPT") == f"{body['prediction_id']} {code} seq {seq}"
        receipt = miner.receipt(body["prediction_id"])
        verify_receipt(receipt, node_hotkey(node), body)
        assert receipt["success"] == (code == "successful")
    assert miner.wait_for("REFUSED").startswith(f"{bodies[0]['prediction_id']} duplicate_prediction:")
    assert miner.wait_for("AGAIN") == f"{bodies[0]['prediction_id']} true"
    assert miner.interrupted() == 0


def test_a_miner_that_starts_anew_gets_the_receipts_that_it_had(start: Start) -> None:
    body = prediction_body(game_id="nfl-18")
    receipts = []
    for _ in range(2):
        miner = start(body)
        assert miner.wait_for("AGAIN") == f"{body['prediction_id']} true"
        receipts.append(miner.receipt(body["prediction_id"]))
        assert miner.interrupted() == 0
    assert receipts[0] == receipts[1]


def test_updates_come_in_order_through_a_small_window_and_after_a_cut(start: Start, node: LiveNode) -> None:
    with proxied(node.port) as line:
        miner = start(url=line.url)
        miner.wait_for("CONNECTED")
        miner.lines.clear()
        games, _, seq = miner.wait_for("SNAPSHOT").partition(" games, seq ")
        assert int(games) == 4
        change(node, "2.2000")
        at = int(seq) + 1
        assert updated(miner.wait_for("UPDATE")) == (at, {"nfl-17": {"team_b_odds": "2.2000"} | stamp(node)})
        odds = Bookmaker(node).append(3 * WINDOW)
        got = [updated(miner.wait_for("UPDATE")) for _ in odds]
        assert got == [(at + number, {"nfl-17": {"team_b_odds": one}}) for number, one in enumerate(odds, 1)]
        assert {text.split()[0] for text in miner.lines} == {"SNAPSHOT", "UPDATE"}  # over one connection
        line.cut()
        assert miner.wait_for("lost:")
        more = Bookmaker(node).append(3)
        assert miner.wait_for("CONNECTED").endswith("recovered true")
        at += len(odds)
        got = [updated(miner.wait_for("UPDATE")) for _ in more]
        assert got == [(at + number, {"nfl-17": {"team_b_odds": one}}) for number, one in enumerate(more, 1)]
        assert miner.interrupted() == 0


def stamp(node: LiveNode) -> dict[str, Any]:
    """The time at which the node changed the game."""
    key = node.add_key("reader", ["admin"])
    games = httpx.get(f"{node.url}/games", headers={"Authorization": f"Bearer {key}"}).json()["games"]
    return {"last_update_date": games["nfl-17"]["last_update_date"]}


def test_heartbeats_keep_it_where_one_that_is_silent_is_cut(start: Start, node: LiveNode) -> None:
    miner = start()
    miner.wait_for("CONNECTED")
    miner.wait_for("SNAPSHOT")
    silent = new_keypair()
    allow(node, silent)
    with contextlib.closing(RawMiner(node, silent)) as other:
        assert other.enter()["success"]
        assert other.wait_for("closing")["reason"] == "stale"
    change(node, "2.4000")
    miner.wait_for("UPDATE")
    assert [line.split()[0] for line in miner.lines] == ["CONNECTED", "SNAPSHOT", "UPDATE"]
    assert miner.interrupted() == 0


def test_a_refused_key_and_wrong_usage_end_it(
    start: Start, node: LiveNode, miner_example: list[str], tmp_path: Path
) -> None:
    code, said = start(key="no-such-key-000000").end()
    assert (code, said) == (1, "predictions: invalid_key: Invalid API Key\n")
    code, said = start(key=node.add_key("client")).end()
    assert code == 1
    assert said.startswith("predictions: forbidden:")
    done = run(miner_example, node.url, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")


# --- a node that loses and lies ---------------------------------------------------------------------------------------


class KeyNode(PredictionNode):
    """Lets in whoever shows a key."""

    def welcome(self, introduction: dict[str, Any], *arguments: Any, **changes: Any) -> dict[str, Any]:
        known = {"sender_hotkey": "key:js", "client_nonce": None, **introduction}
        return super().welcome(known, *arguments, **changes)


@pytest.fixture
def other_node() -> Iterator[KeyNode]:
    with serving(KeyNode()) as made:
        assert isinstance(made, KeyNode)
        yield made


def test_a_prediction_whose_answer_was_lost_is_sent_again_and_counts_once(start: Start, other_node: KeyNode) -> None:
    def judge(message: dict[str, Any], _way: str) -> Any:
        receipt = other_node.accept(message["prediction"])
        return other_node.withheld if len(other_node.arrivals) == 1 else receipt

    other_node.judge = judge
    miner = start(prediction_body(prediction_id="a"), prediction_body(prediction_id="b"), url=other_node.url)
    until(lambda: bool(other_node.receipts))
    other_node.drop()
    assert miner.wait_for("lost:")
    assert miner.wait_for("RECEIPT") == "a successful seq 1"
    assert miner.wait_for("RECEIPT") == "b successful seq 2"
    assert [name for _, name in other_node.arrivals][:3] == ["a", "a", "b"]
    assert miner.interrupted() == 0


def with_size(size: Any) -> dict[str, Any]:
    return {**packed(delta(1, {"g1": {"team_a_odds": "1.9000"}})), "raw_size": size}


BOMB = packed({**snapshot(1, {}), "filler": "0" * (17 << 20)})


@pytest.mark.parametrize(
    "forged",
    [with_size(10), with_size(5000), with_size("many"), with_size(1 << 40), BOMB, {**BOMB, "raw_size": 1 << 20}],
    ids=["too much", "too little", "no number", "beyond the cap", "a bomb", "a hidden bomb"],
)
def test_a_compressed_update_that_is_not_what_it_says_is_refused(
    start: Start, other_node: KeyNode, forged: Any
) -> None:
    miner = start(url=other_node.url)
    miner.wait_for("SNAPSHOT")
    other_node.push(forged)
    code, said = miner.end()
    assert code == 1
    assert said.startswith("predictions: bad_update:")


def test_a_gap_is_filled_before_anything_after_it_is_applied(start: Start, other_node: KeyNode) -> None:
    miner = start(url=other_node.url)
    miner.wait_for("SNAPSHOT")
    for odds in ("2.2000", "2.3000", "2.4000"):
        other_node.change(team_b_odds=odds)
    other_node.push(other_node.updates[2])
    assert [updated(miner.wait_for("UPDATE"))[0] for _ in range(3)] == [1, 2, 3]
    assert [(one["epoch"], one["seq"]) for one in other_node.resumed] == [(other_node.epoch, 0)]
    until(lambda: bool(other_node.acked) and other_node.acked[-1]["seq"] == 3)
    assert miner.interrupted() == 0


def test_a_receipt_of_another_body_is_refused(start: Start, other_node: KeyNode) -> None:
    other_node.judge = lambda message, way: other_node.accept({**message["prediction"], "wager": "9.00"})
    code, said = start(prediction_body(prediction_id="mine"), url=other_node.url).end()
    assert (code, said) == (1, "predictions: bad_receipt: the receipt is not of mine\n")
