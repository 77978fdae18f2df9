"""F9 and F11: both faces serve whoever is entitled, and none tells a miner what went wrong inside."""

import sqlite3
from collections.abc import Callable
from contextlib import closing

from bittensor_wallet import Keypair

from tests.miners import Miner, SignedHttp, stored
from tests.nodes import LiveNode


def test_f9_miners_without_sockets_are_served_whatever_share_is_on_sockets(
    node: LiveNode, connect: Callable[..., Miner], new_hotkey: Callable[[], Keypair], http: SignedHttp
) -> None:
    crowd = [connect(new_hotkey()) for _ in range(8)]
    for miner in crowd:
        assert miner.predict()["success"]
        assert http.predict().json()["success"]
    assert http.get("/games").json()["games"]
    assert http.get("/predictions").json()["last_seq"] == len(crowd)


def test_f11_no_text_of_an_exception_reaches_a_miner(
    node: LiveNode, miner: Miner, http: SignedHttp, hotkey: Keypair
) -> None:
    """A row that nobody can read is a fault of ours: its story is in the log alone."""
    receipt = miner.predict()
    with closing(sqlite3.connect(node.data / "grid.db")) as database, database:
        database.execute(
            "UPDATE miner_predictions SET receipt = 'broken-row' WHERE prediction_id = ?", (receipt["prediction_id"],)
        )
    wanted = {"success": False, "code": "internal_error", "error": "Internal Server Error", "status": 500}
    assert miner.status(receipt["prediction_id"]) == wanted
    answer = http.get(f"/predictions/{receipt['prediction_id']}")
    assert (answer.status_code, answer.json()) == (500, wanted)
    assert "JSONDecodeError" in node.log_text()


def test_logs_hold_no_signature_and_say_what_was_confirmed(
    node: LiveNode, miner: Miner, http: SignedHttp, hotkey: Keypair
) -> None:
    message = miner.message()
    receipt = miner.send(message)
    by_route = http.predict().json()
    log = node.log_text()
    address = hotkey.ss58_address
    assert f"WebSocket connection established with miner {address} (UID: None)" in log
    assert f"Sent confirmation for prediction {receipt['prediction_id']} to {address} via WebSocket" in log
    assert f"Sent confirmation for prediction {by_route['prediction_id']} to {address} via HTTP" in log
    for secret in (message["signature"], receipt["signature"], miner.challenge["nonce"]):
        assert secret not in log
    assert len(stored(node, hotkey)) == 2
