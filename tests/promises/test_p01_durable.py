"""P1: an acknowledgement means that the row is on disk."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair

from grid_node.database import GroupCommitStore
from tests.faults import Disk, no_file_grows, server_process
from tests.miners import Miner, SignedHttp, keypair, stored
from tests.nodes import LiveNode
from tests.promises.desk import Desk, opened_desk

SEED = 20261121


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def desk(tmp_path: Path, sqlite_template: Path, disk: Disk) -> Iterator[Desk]:
    with opened_desk(tmp_path, sqlite_template, disk.commit) as made:
        yield made


@pytest.mark.parametrize("transport", ["websocket", "http"])
def test_p1_a_commit_that_fails_is_503_and_leaves_no_receipt(desk: Desk, disk: Disk, transport: str) -> None:
    anna = keypair("anna")
    message = desk.message(anna, wager="10.00")

    disk.fails = "before"
    failed = desk.send(anna, message, transport)

    assert failed.status == 503
    body = json.loads(failed.text)
    assert (body["success"], body["code"], body["status"]) == (False, "storage_unavailable", 503)
    assert body["retry_after"] > 0
    assert "signature" not in body
    assert "disk I/O" not in failed.text
    assert desk.receipts(anna) == []

    again = json.loads(desk.send(anna, message, transport).text)
    assert (again["success"], again["seq"]) == (True, 1)
    assert again["miner_stats"] == {"utc_day": again["received_at"][:10], "wagered": "10.00", **_rest(990, 1, desk)}


def _rest(dollars: int, accepted: int, desk: Desk) -> dict[str, Any]:
    assert desk.settings.prediction_daily_limit == "1000.00"
    return {"remaining": f"{dollars}.00", "accepted": accepted}


def test_p1_a_commit_that_fails_takes_the_whole_batch_with_it(desk: Desk, disk: Disk) -> None:
    anna = keypair("anna")
    batch = {"messages": [desk.message(anna) for _ in range(5)]}
    disk.fails = "before"
    assert desk.send(anna, batch).status == 503
    assert desk.receipts(anna) == []
    results = json.loads(desk.send(anna, batch).text)["results"]
    assert [result["seq"] for result in results] == [1, 2, 3, 4, 5]


def test_p1_where_the_outcome_of_a_commit_is_not_known_the_same_id_finds_the_receipt(desk: Desk, disk: Disk) -> None:
    anna = keypair("anna")
    message = desk.message(anna)
    disk.fails = "after"
    assert desk.send(anna, message).status == 503
    again = desk.send(anna, message)
    assert (again.status, again.replayed) == (200, True)
    assert [json.loads(again.text)] == desk.receipts(anna)


def test_p1_every_pooled_connection_waits_for_the_disk(sqlite_store: GroupCommitStore) -> None:
    sqlite_store.write(lambda tx: None)  # the writer has its connection now
    with contextlib.ExitStack() as stack:
        pooled = [stack.enter_context(sqlite_store._reads.connect()) for _ in range(10)]
        writer = sqlite_store._connection
        assert writer is not None
        for connection in [*pooled, writer]:
            driver: Any = connection.connection.dbapi_connection
            assert driver.execute("PRAGMA synchronous").fetchone() == (2,)
            assert driver.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# --- a real node ------------------------------------------------------------------------------------------------------


def test_p1_a_full_disk_is_503_over_both_faces_and_afterwards_all_is_well(
    node: LiveNode, miner: Miner, http: SignedHttp, hotkey: Keypair
) -> None:
    assert miner.predict()["seq"] == 1
    messages = [miner.message(), miner.message()]
    with no_file_grows(server_process(node)):
        by_event = miner.send(messages[0])
        by_route = http.post("/predictions", messages[1])
    assert (by_event["code"], by_event["status"]) == ("storage_unavailable", 503)
    assert by_route.status_code == 503
    assert int(by_route.headers["Retry-After"]) >= 1
    assert len(stored(node, hotkey)) == 1
    assert [miner.send(message)["seq"] for message in messages] == [2, 3]
