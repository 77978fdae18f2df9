"""P6: one id has one receipt, whichever way it was sent and whichever way it is asked for."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from bittensor_wallet import Keypair

from grid_node.canonical import canonical
from tests.miners import Miner, SignedHttp, prediction_message, resent, stored
from tests.nodes import LiveNode, until
from tests.proxy import DOWN, UP, Proxy


def receipt_bytes(node: LiveNode, keypair: Keypair) -> bytes:
    (row,) = stored(node, keypair)
    receipt: bytes = row.receipt.encode()
    return receipt


def test_p6_an_ack_lost_between_commit_and_miner_is_found_again_by_http(
    node: LiveNode, proxy: Proxy, connect: Callable[..., Miner], http: SignedHttp, hotkey: Keypair
) -> None:
    miner = connect(hotkey, url=proxy.url)
    message = miner.message(wager="12.00")
    proxy.lose(DOWN)
    lost = miner.send_later(message)
    until(lambda: len(stored(node, hotkey)) == 1)
    proxy.reset()
    with pytest.raises(ConnectionError):
        miner.answer_to(lost)

    again = http.post("/predictions", resent(hotkey, message))
    assert (again.status_code, again.headers["Grid-Replayed"]) == (200, "1")
    assert again.content == receipt_bytes(node, hotkey)
    looked_up = http.get(f"/predictions/{message['prediction']['prediction_id']}").json()
    assert (looked_up["state"], looked_up["settlement"]) == ("accepted", None)
    assert canonical(looked_up["receipt"]) == again.content
    by_socket = connect(hotkey).send(resent(hotkey, message))
    assert canonical(by_socket) == again.content
    assert by_socket["miner_stats"]["wagered"] == "12.00"


def test_p6_an_http_answer_that_is_lost_is_found_again_by_the_socket(
    node: LiveNode, proxy: Proxy, connect: Callable[..., Miner], http: SignedHttp, hotkey: Keypair, closing: Any
) -> None:
    message = prediction_message(hotkey, http.node_hotkey)
    through: SignedHttp = closing(SignedHttp(node, hotkey, url=proxy.url))
    proxy.lose(DOWN)
    failures: list[Exception] = []

    def post() -> None:
        try:
            through.post("/predictions", message)
        except Exception as error:  # noqa: BLE001 - whatever the client makes of a cut line
            failures.append(error)

    poster = threading.Thread(target=post)
    poster.start()
    until(lambda: len(stored(node, hotkey)) == 1)
    proxy.reset()
    poster.join(30)
    assert len(failures) == 1

    assert canonical(connect(hotkey).send(resent(hotkey, message))) == receipt_bytes(node, hotkey)


def test_p6_a_batch_cut_in_the_middle_of_its_ack_is_sent_again_by_http_item_for_item(
    node: LiveNode, proxy: Proxy, connect: Callable[..., Miner], http: SignedHttp, hotkey: Keypair
) -> None:
    miner = connect(hotkey, url=proxy.url, acknowledges=False)
    miner.socket.wait_for("game_update")  # nothing else comes down the line now
    messages = [miner.message() for _ in range(20)]
    proxy.cut_after(500, DOWN)
    lost = miner.send_later({"messages": messages})
    with pytest.raises(ConnectionError):
        miner.answer_to(lost)
    until(lambda: len(stored(node, hotkey)) == 20)

    singles = [http.post("/predictions", resent(hotkey, message)) for message in messages]
    assert [answer.content.decode() for answer in singles] == [row.receipt for row in stored(node, hotkey)]
    again = http.post("/predictions", {"messages": [resent(hotkey, message) for message in messages]})
    assert (again.status_code, again.headers["Grid-Replayed"]) == (200, "1")
    assert again.json()["results"] == [json.loads(answer.content) for answer in singles]


def test_p6_a_prediction_that_never_reached_the_node_is_not_there(
    node: LiveNode, proxy: Proxy, connect: Callable[..., Miner], http: SignedHttp, hotkey: Keypair
) -> None:
    miner = connect(hotkey, url=proxy.url, acknowledges=False)
    message = miner.message()
    proxy.cut_after(100, UP)
    lost = miner.send_later(message)
    with pytest.raises(ConnectionError):
        miner.answer_to(lost)
    answer = http.get(f"/predictions/{message['prediction']['prediction_id']}")
    assert (answer.status_code, answer.json()["code"]) == (404, "prediction_not_found")
    assert http.post("/predictions", resent(hotkey, message)).json()["seq"] == 1


def test_p6_status_by_event_and_by_route_is_the_same(miner: Miner, http: SignedHttp) -> None:
    receipt = miner.predict(game_id="nowhere")
    by_event = miner.status(receipt["prediction_id"])
    assert by_event == http.get(f"/predictions/{receipt['prediction_id']}").json()
    assert by_event == {
        "success": True,
        "prediction_id": receipt["prediction_id"],
        "state": "rejected",
        "receipt": receipt,
        "settlement": None,
    }
