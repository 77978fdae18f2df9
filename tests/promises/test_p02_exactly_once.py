"""P2: one effect for each (hotkey, id). A repeat gets the same bytes; another body is 409."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bittensor_wallet import Keypair

from grid_node.canonical import canonical
from tests.miners import Miner, SignedHttp, new_keypair, prediction_body, public_key, resent, rows, signed, stored
from tests.nodes import LiveNode


def test_p2_the_same_prediction_ten_times_at_once_by_both_faces_counts_once(
    node: LiveNode, miner: Miner, http: SignedHttp, hotkey: Keypair
) -> None:
    messages = [miner.message(prediction_id="once", wager="7.00")]
    messages += [resent(hotkey, messages[0]) for _ in range(9)]
    with ThreadPoolExecutor(10) as pool:
        by_event = [pool.submit(miner.send, message) for message in messages[:5]]
        by_route = [pool.submit(http.post, "/predictions", message) for message in messages[5:]]
        receipts = [canonical(answer.result()) for answer in by_event]
        answers = [answer.result() for answer in by_route]
    receipts += [answer.content for answer in answers]

    (row,) = stored(node, hotkey)
    assert set(receipts) == {row.receipt.encode()}
    assert {answer.status_code for answer in answers} == {200}
    assert sum("Grid-Replayed" in answer.headers for answer in answers) >= 4
    assert daily(node, hotkey) == [(700, 1)]


def daily(node: LiveNode, keypair: Keypair) -> list[tuple[int, int]]:
    query = "SELECT wagered, accepted FROM miner_daily_wagers WHERE miner = :miner"
    return [tuple(row) for row in rows(node, query, miner=public_key(keypair).hex())]


def test_p2_another_body_under_the_same_id_is_409_and_the_first_stays(
    node: LiveNode, miner: Miner, http: SignedHttp, hotkey: Keypair
) -> None:
    first = miner.predict(prediction_id="taken", wager="1.00")
    for answer in (
        miner.predict(prediction_id="taken", wager="2.00"),
        http.predict(prediction_id="taken", predicted_outcome=0, predicted_odds="1.80").json(),
        miner.batch([miner.message(prediction_id="taken", wager="1.0")])["results"][0],
    ):
        assert answer == {
            "success": False,
            "error": "Prediction taken already exists in database",
            "code": "duplicate_prediction",
            "status": 409,
        }
    (row,) = stored(node, hotkey)
    assert json.loads(row.receipt) == first
    assert daily(node, hotkey) == [(100, 1)]


def test_p2_a_rejection_consumes_the_id_and_is_repeated_byte_by_byte(
    node: LiveNode, miner: Miner, http: SignedHttp, hotkey: Keypair
) -> None:
    body = prediction_body(prediction_id="rejected", game_id="nowhere")
    message = signed(hotkey, {**miner.message(), "prediction": body})
    first = miner.send(message)
    assert (first["success"], first["code"], first["status"]) == (False, "game_not_found", 422)
    again = http.post("/predictions", resent(hotkey, message))
    assert (again.status_code, again.headers["Grid-Replayed"]) == (422, "1")
    assert again.content == canonical(first)
    assert miner.predict(prediction_id="rejected")["code"] == "duplicate_prediction"


def test_p2_two_items_of_one_batch_with_one_id_are_one_prediction_or_a_conflict(
    node: LiveNode, miner: Miner, hotkey: Keypair
) -> None:
    first = miner.message(prediction_id="twin", wager="3.00")
    other = miner.message(prediction_id="twin", wager="4.00")
    results = miner.batch([first, resent(hotkey, first), other])["results"]
    assert results[0] == results[1]
    assert (results[0]["success"], results[2]["code"]) == (True, "duplicate_prediction")
    assert len(stored(node, hotkey)) == 1


def test_p2_two_miners_may_use_one_id(
    node: LiveNode, connect: Callable[..., Miner], new_hotkey: Callable[[], Keypair]
) -> None:
    hotkeys = [new_hotkey(), new_hotkey()]
    for number, one in enumerate(hotkeys):
        assert connect(one).predict(prediction_id="shared", wager=f"{number + 1}.00")["success"]
    assert [stored(node, one)[0].wager for one in hotkeys] == [100, 200]


def test_p2_the_order_of_members_and_the_writing_of_numbers_make_no_other_body(miner: Miner, hotkey: Keypair) -> None:
    """The identity of a body is its canonical form: what JSON calls equal is equal."""
    body = prediction_body(wager=5, predicted_odds=2.1, team_a_odds=1.8, team_b_odds=2.1)
    turned = dict(reversed(body.items()))
    message = signed(hotkey, {**miner.message(), "prediction": body})
    assert miner.send(message)["success"]
    assert miner.send(signed(hotkey, {**message, "prediction": turned})) == miner.send(message)


def test_p2_an_unknown_hotkeys_prediction_has_no_effect(node: LiveNode, closing: Callable[..., SignedHttp]) -> None:
    stranger = new_keypair()
    answer = closing(SignedHttp(node, stranger)).predict()
    assert (answer.status_code, answer.json()["code"]) == (403, "not_registered")
    assert stored(node, stranger) == []
