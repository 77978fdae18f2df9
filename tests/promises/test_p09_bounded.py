"""P9: windows and queues are bounded both ways, and whoever does not keep up is closed with a code."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import psutil
import pytest
from bittensor_wallet import Keypair

from grid_node.canonical import canonical
from tests.faults import locked
from tests.miners import (
    Bookmaker,
    Miner,
    RawMiner,
    SignedHttp,
    game,
    prediction_message,
    stored,
)
from tests.nodes import LiveNode, until
from tests.promises.conftest import started
from tests.proxy import DOWN, Proxy

MIB = 1024 * 1024
WINDOW = 8
IN_FLIGHT = 64
GAMES = 300
LOG_IN_MEMORY = 64
"""Updates that the node keeps for everybody, less what it reads ahead: soon there are as many as it ever keeps."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    """Its patience is short, and its window small."""
    with started(
        tmp_path_factory.mktemp("bounded"),
        websocket_send_window=WINDOW,
        websocket_slow_timeout=1,
        websocket_send_queue=LOG_IN_MEMORY,
        games_resume_max=LOG_IN_MEMORY,
        prediction_commit_timeout=20,
        lock_timeout=15,
    ) as live:
        yield live


@pytest.fixture(scope="module")
def books(node: LiveNode) -> Bookmaker:
    return Bookmaker(node)


@pytest.fixture
def raw(node: LiveNode, hotkey: Keypair) -> Iterator[RawMiner]:
    with closing(RawMiner(node, hotkey)) as opened:
        assert opened.enter()["success"]
        yield opened


def connections(node: LiveNode) -> int:
    count: int = httpx.get(f"{node.url}/ws/health").json()["connections"]
    return count


# --- to the miner -----------------------------------------------------------------------------------------------------


def test_p9_a_miner_that_never_acknowledges_gets_a_window_of_updates_and_then_4430(
    books: Bookmaker, hotkey: Keypair, new_hotkey: Callable[[], Keypair], connect: Callable[..., Miner]
) -> None:
    other, silent = connect(new_hotkey()), connect(hotkey, acknowledges=False)
    books.append(5 * WINDOW)
    closing = silent.closing()
    assert (closing["code"], closing["reason"], closing["error"]) == (
        4430,
        "slow_consumer",
        "Updates not acknowledged in time",
    )
    silent.gone()
    assert len(silent.updates) == WINDOW, "the window, and nothing above it"
    other.socket.wait_for("game_update", 5 * WINDOW + 1)
    assert other.predict()["success"]


def test_p9_a_miner_that_acknowledges_too_little_is_still_served_while_it_makes_progress(
    books: Bookmaker, raw: RawMiner
) -> None:
    first = raw.wait_for("game_update")
    raw.send("update_ack", {"epoch": first["epoch"], "seq": first["seq"]})
    books.append(4 * WINDOW)
    for number in range(2, 4 * WINDOW + 2):
        update = raw.wait_for("game_update", number)
        assert update["seq"] == first["seq"] + number - 1
        raw.send("update_ack", {"epoch": update["epoch"], "seq": update["seq"]})
    assert raw.predict()["success"]


def test_p9_a_miner_that_never_reads_is_cut_its_memory_freed_and_nobody_else_waits(
    node: LiveNode,
    books: Bookmaker,
    proxy: Proxy,
    hotkey: Keypair,
    new_hotkey: Callable[[], Keypair],
    connect: Callable[..., Miner],
) -> None:
    books.put(*(game(f"many-{number}") for number in range(GAMES)))
    other = connect(new_hotkey())
    (serving,) = psutil.Process(node.pid).children()

    def freeze_one() -> None:
        here = connections(node)
        miner = connect(hotkey, url=proxy.url, acknowledges=False)
        until(lambda: connections(node) == here + 1)
        proxy.stall(DOWN)
        for number in range(2 * WINDOW):
            odds = f"1.{500 + number}"
            books.put(*(game(f"many-{one}", team_a_odds=odds) for one in range(GAMES)))
            assert other.predict()["success"], "others are answered meanwhile"
        until(lambda: connections(node) == here)
        proxy.reset()
        proxy.mend()
        miner.gone()

    for _ in range(4):
        freeze_one()  # what the process needs for good, it has now, and as much of the log as it ever keeps
    before = serving.memory_info().rss
    for _ in range(2):
        freeze_one()
    assert serving.memory_info().rss - before < 5 * MIB
    assert other.is_open


def test_p9_confirmations_do_not_wait_behind_updates_that_are_not_acknowledged(
    books: Bookmaker, raw: RawMiner, hotkey: Keypair
) -> None:
    raw.wait_for("game_update")
    books.append(5 * WINDOW)
    raw.wait_for("game_update", WINDOW)
    assert raw.predict()["success"]
    assert len([name for name, _ in raw.pushed if name == "game_update"]) == WINDOW


# --- to the node ------------------------------------------------------------------------------------------------------


def test_p9_the_sixty_fifth_in_flight_is_429_and_the_others_are_answered(
    node: LiveNode, raw: RawMiner, hotkey: Keypair
) -> None:
    assert raw.predict()["success"]  # the miner's row is there: nothing below waits for anything but the commit
    with locked(node):
        sent = [raw.send("prediction", message(raw)) for _ in range(IN_FLIGHT)]
        refused = raw.call("prediction", message(raw))
        assert (refused["code"], refused["status"]) == ("too_many_in_flight", 429)
        assert not raw.answers
    answers = [raw.answer_to(number) for number in sent]
    assert [answer["seq"] for answer in answers] == list(range(2, IN_FLIGHT + 2))
    assert raw.predict()["success"]
    assert len(stored(node, hotkey)) == IN_FLIGHT + 2


def message(miner: RawMiner) -> dict[str, Any]:
    return prediction_message(miner.keypair, miner.node_hotkey)


def test_p9_three_windows_in_flight_are_a_violation(node: LiveNode, raw: RawMiner) -> None:
    with locked(node):
        for _ in range(3 * IN_FLIGHT + 1):
            raw.send("prediction", message(raw))
        closing = raw.wait_for("closing")
        assert (closing["code"], closing["reason"], closing["error"]) == (
            4429,
            "flow_violation",
            "Flow control violated",
        )
        raw.read_to_the_end()


def test_p9_messages_and_batches_have_their_limits_on_both_faces(
    node: LiveNode, miner: Miner, http: SignedHttp, hotkey: Keypair
) -> None:
    large = miner.message({"note": "x" * 16384})
    many = {"messages": [miner.message() for _ in range(65)]}
    heavy = {"messages": [miner.message({"note": "x" * 9000}) for _ in range(32)]}
    for payload, limit in ((large, 16384), (many, 64), (heavy, 262144)):
        by_event, by_route = miner.send(payload), http.post("/predictions", payload)
        assert (by_event["code"], by_event["status"], by_event["limit"]) == ("payload_too_large", 413, limit)
        assert (by_route.status_code, canonical(by_route.json())) == (413, canonical(by_event))
    assert stored(node, hotkey) == []
    assert len(miner.batch([miner.message() for _ in range(64)])["results"]) == 64


def test_p9_a_silent_crowd_before_authentication_is_bounded_for_each_address(
    node: LiveNode, hotkey: Keypair, raw: RawMiner
) -> None:
    """The seventeenth is refused; whoever is in is not disturbed."""
    first = raw.wait_for("game_update")
    raw.send("update_ack", {"epoch": first["epoch"], "seq": first["seq"]})
    with contextlib.ExitStack() as stack:
        for _ in range(16):
            stack.enter_context(closing(RawMiner(node, hotkey)))
        with pytest.raises(ConnectionRefusedError, match="server_full"):
            stack.enter_context(closing(RawMiner(node, hotkey)))
        assert raw.predict()["success"]
    until(lambda: httpx.get(f"{node.url}/ws/health").json()["pending"] == 0)
