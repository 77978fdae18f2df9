"""Whole stories of the chain, each on a node of its own: its clients, its operator and its workers."""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, text

from grid_node.chain.epochs import Epoch, automatic_window, epoch_of
from grid_node.chain.ledger import operating
from grid_node.clock import SystemClock
from grid_node.database import DirectStore
from grid_node.generation.tables import Copy
from grid_node.settings import Settings
from tests.chain_sites import ID, OA, TOKEN, ChainNode, LedgerSite, SubtensorSite, address
from tests.integration.sockets import Socket, authenticate_message
from tests.miners import keypair, new_keypair
from tests.nodes import until
from tests.several import tables

U16 = 65535
GET_NEURONS = "NeuronInfoRuntimeApi_get_neurons_lite"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    """Closes what is entered into it."""
    with contextlib.ExitStack() as stack:
        yield stack


def on_ledger(stack: contextlib.ExitStack, folder: Path, **options: Any) -> LedgerSite:
    site = LedgerSite(folder, **options)
    stack.callback(site.close)
    site.node.start()
    return site


def on_subtensor(stack: contextlib.ExitStack, folder: Path, **options: Any) -> SubtensorSite:
    site = SubtensorSite(folder, **options)
    stack.callback(site.close)
    site.start()
    return site


def rows(site: ChainNode, statement: str, **values: Any) -> list[Any]:
    with site.node._engine.connect() as connection:
        return list(connection.execute(text(statement), values).all())


def job_status(site: ChainNode, job_id: str) -> str:
    ((status,),) = rows(site, "SELECT status FROM chain_weights_jobs WHERE id = :id", id=job_id)
    return str(status)


# --- the ledger ------------------------------------------------------------------------------------------------


def test_a_node_that_was_told_nothing_has_a_subnet_as_soon_as_its_operator_wants_one(
    opened: contextlib.ExitStack, tmp_path: Path
) -> None:
    site = on_ledger(opened, tmp_path, pylon={"PYLON_IDENTITIES": "[]"})
    assert site.get("/api/v1/identities").json() == {"identities": {}}
    alice = address("Alice")

    site.flask("register-neuron", "--netuid", "1", "--hotkey", alice, "--stake-alpha", "2", "--axon", "10.1.2.3:8091")

    def is_listed() -> bool:
        answer = site.get(f"{OA}/block/latest/neurons")
        return answer.status_code == 200 and alice in answer.json()["neurons"]

    until(is_listed)
    neuron = site.get(f"{OA}/block/latest/neurons").json()["neurons"][alice]
    assert (neuron["uid"], neuron["stakes"]["alpha"], neuron["pruning_score"]) == (0, 2.0, U16)
    assert neuron["axon_info"]["ip"] == "10.1.2.3"
    assert not (tmp_path / "data" / "wallets").exists()


def test_what_was_written_is_there_for_everybody_and_after_a_restart(
    opened: contextlib.ExitStack, tmp_path: Path
) -> None:
    site = on_ledger(opened, tmp_path)
    site.flask("register-neuron", "--netuid", "1", "--hotkey", address("Alice"))
    until(lambda: len(site.neurons()) == 2)
    own = next(iter(site.neurons()))
    before = site.get(f"{OA}/block/latest/neurons").json()["block"]["number"]
    old = site.get(f"{OA}/block/{before}/neurons").content

    assert site.commit("0x00ff726177").status_code == 201
    told = site.get(f"{OA}/block/latest/commitments/{own}").json()
    assert (told["commitment"], told["hotkey"]) == ("0x00ff726177", own)
    job_id = site.put({address("Alice"): 1.0, own: 0.5})["job_id"]
    assert site.ended()["status"] == "completed"
    site.flask("set-stake", "--netuid", "1", "--hotkey", address("Alice"), "--stake-tao", "7")
    until(lambda: site.neurons()[address("Alice")]["stakes"]["tao"] == 7.0)
    kept = (site.neurons(), site.own("/block/latest/commitments/self")["commitment"])
    cookie = signed_in(site)

    for again in (site.node.restart, site.node.kill):
        again()
        if not site.node.is_running:
            site.node.start()
        assert (site.neurons(), site.own("/block/latest/commitments/self")["commitment"]) == kept
        assert site.get(f"{OA}/block/{before}/neurons").content == old
        assert site.status()["job_id"] == job_id
        assert site.get(f"{OA}/block/latest/neurons").json()["block"]["number"] > before
        assert with_cookie(site, cookie) == 200
    assert len(extrinsics(site, "set_weights")) == 1


def signed_in(site: ChainNode) -> str:
    body = {"token": TOKEN, "identity_name": "sn1"}
    answer = httpx.post(f"{site.node.url}/api/v1/login/identity/sn1", json=body, trust_env=False)
    assert answer.json() == {"netuid": 1, "identity_name": "sn1"}
    return answer.cookies["pylon_session"]


def with_cookie(site: ChainNode, cookie: str) -> int:
    headers = {"Cookie": f"pylon_session={cookie}"}
    return httpx.get(f"{site.node.url}{ID}/block/latest/neurons", headers=headers, trust_env=False).status_code


def extrinsics(site: ChainNode, function: str) -> list[Any]:
    return rows(site, "SELECT block FROM chain_extrinsics WHERE function = :function", function=function)


def test_weights_on_the_ledger_land_once_through_every_kill(opened: contextlib.ExitStack, tmp_path: Path) -> None:
    # what was on record when its process was killed is sent again after eight blocks, and not before
    site = on_ledger(opened, tmp_path, chain_local_block_seconds=0.5)
    own = next(iter(site.neurons()))
    for number in range(1, 5):
        job_id = site.put({own: number / 10})["job_id"]
        time.sleep(0.02 * number)
        site.node.kill() if number % 2 else site.kill_worker()
        if not site.node.is_running:
            site.node.start()
        told = site.ended()
        assert (told["job_id"], told["status"], told["attempts"] <= 2) == (job_id, "completed", True)
        assert len(extrinsics(site, "set_weights")) == number


# --- weights and what may happen to them -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SubtensorSite]:
    folder: Path = tmp_path_factory.mktemp("chain")
    site = SubtensorSite(folder, chain_submit_timeout_seconds=2.0)
    try:
        site.start()
        yield site
    finally:
        site.close()


@pytest.fixture
def site(running: SubtensorSite) -> Iterator[SubtensorSite]:
    yield running
    running.fake.faults.clear()


def test_the_last_request_wins(site: SubtensorSite) -> None:
    before = len(site.landed())
    site.neurons()
    site.fake.faults.refuse(times=None)
    first = site.put({site.alice: 1.0})["job_id"]
    until(lambda: site.status()["attempts"] >= 1)
    second = site.put({site.bob: 1.0})["job_id"]
    assert job_status(site, first) == "superseded"
    site.fake.faults.clear()

    assert (site.ended()["job_id"], site.status()["status"]) == (second, "completed")
    assert site.put({site.bob: 1.0})["job_id"] == second
    site.wait_blocks(10)

    assert site.landed()[before:] == [{2: U16}]
    assert job_status(site, first) == "superseded"


def test_refused_twice_the_third_one_lands(site: SubtensorSite) -> None:
    before = len(site.landed())
    site.fake.faults.refuse(times=2)
    site.put({site.alice: 0.5, site.bob: 0.25, site.carol: 0})

    told = site.ended()

    assert (told["status"], told["attempts"], told["max_attempts"]) == ("completed", 3, 201)
    assert site.landed()[before:] == [{1: U16, 2: 32768, 3: 0}]


def test_an_extrinsic_that_fails_on_the_chain_is_sent_again(site: SubtensorSite) -> None:
    before = len(site.landed())
    site.fake.chain.set_neuron(1, site.hotkey, validator_permit=False)
    site.wait_blocks(2)
    site.put({site.alice: 0.125})
    until(lambda: "NeuronNoValidatorPermit" in (site.status()["last_error"] or ""))
    site.fake.chain.set_neuron(1, site.hotkey, validator_permit=True)

    told = site.ended()

    assert (told["status"], told["last_error"]) == ("completed", None)
    landed = site.landed()[before:]
    assert landed == [{1: U16}] * told["attempts"]
    assert told["attempts"] >= 2


def test_a_submission_that_nobody_hears_of_is_found_and_not_sent_again(site: SubtensorSite) -> None:
    before = len(site.landed())
    site.fake.faults.hush()
    site.put({site.alice: 0.25, site.carol: 0.75})

    told = site.ended()

    assert (told["status"], told["attempts"]) == ("completed", 1)
    site.wait_blocks(10)
    assert len(site.landed()) == before + 1
    block, extrinsic = site.fake.chain.landed("set_weights")[-1]
    assert (told["extrinsic_hash"], told["block_number"]) == ("0x" + extrinsic.hash.hex(), block.number)


def test_a_reorganisation_undoes_nothing(opened: contextlib.ExitStack, tmp_path: Path) -> None:
    site = on_subtensor(opened, tmp_path, finality_lag=4)
    site.put({site.alice: 1.0})
    until(lambda: len(site.landed()) == 1)
    site.fake.chain.reorganise(min(3, site.fake.chain.head.number - site.fake.chain.finalized.number))

    told = site.ended()

    site.wait_blocks(10)
    assert (told["status"], len(site.landed())) == ("completed", 1)
    assert told["block_number"] == site.fake.chain.landed("set_weights")[0][0].number


def test_sealed_weights_are_committed(opened: contextlib.ExitStack, tmp_path: Path) -> None:
    site = on_subtensor(opened, tmp_path, subnet={"commit_reveal": True, "weights_version": 7})
    site.put({site.alice: 1.0})

    told = site.ended()

    assert (told["status"], site.commits(), site.landed()) == ("completed", 1, [])
    (commit,) = site.fake.chain.commits(1, site.hotkey)
    assert commit.reveal_round == told["reveal_round"]


def test_the_epoch_of_the_subnet_decides(opened: contextlib.ExitStack, tmp_path: Path) -> None:
    site = on_subtensor(opened, tmp_path, subnet={"tempo": 40})
    site.fake.faults.refuse(times=None)
    site.put({site.alice: 1.0})

    told = site.ended()

    assert (told["status"], told["weights_submitted"], site.landed()) == ("tempo_expired", False, [])
    assert told["epoch"]["end"] - told["epoch"]["start"] == 41
    assert "RateLimitExceeded" in told["last_error"]


# --- reads -----------------------------------------------------------------------------------------------------


def test_twenty_first_reads_are_one_question(opened: contextlib.ExitStack, tmp_path: Path) -> None:
    site = SubtensorSite(tmp_path, block_seconds=None)
    opened.callback(site.close)
    site.node.start()
    began = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: site.get(f"{OA}/block/latest/neurons"), range(20)))

    assert [answer.status_code for answer in answers] == [200] * 20
    assert len({answer.content for answer in answers}) == 1
    assert time.monotonic() - began < 5
    assert site.fake.calls[GET_NEURONS] == 1


def test_old_blocks_are_the_archives(opened: contextlib.ExitStack, tmp_path: Path) -> None:
    site = SubtensorSite(tmp_path, block_seconds=None)
    opened.callback(site.close)
    archive = opened.enter_context(site.fake.archive())
    site.node._pylon["PYLON_BITTENSOR_ARCHIVE_NETWORK"] = archive.uri
    site.fake.chain.advance(1080 - site.fake.chain.head.number)
    site.start()

    assert site.get(f"{OA}/block/780/neurons").json()["block"]["number"] == 780
    assert archive.calls[GET_NEURONS] == 0
    assert site.get(f"{OA}/block/779/neurons").json()["block"]["number"] == 779
    assert archive.calls[GET_NEURONS] == 1
    site.fake.faults.prune(1000)
    assert site.get(f"{OA}/block/990/neurons").json()["block"]["number"] == 990
    assert archive.calls[GET_NEURONS] == 2
    for reason in ("stale_block", "unknown_block"):
        until(lambda reason=reason: fallbacks(site, reason) == 1)  # type: ignore[misc]
    assert site.get(f"{OA}/block/1081/neurons").json() == {"status_code": 404, "detail": "Block 1081 not found."}


def fallbacks(site: ChainNode, reason: str) -> float:
    lines = [line for line in site.node.metrics().splitlines() if line.startswith("pylon_bittensor_fallback_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if f'reason="{reason}"' in line)


# --- workers ---------------------------------------------------------------------------------------------------


def introduced(stack: contextlib.ExitStack, site: ChainNode, keys: Any) -> tuple[Socket, dict[str, Any]]:
    """A worker with a hotkey, and what the node said to it."""
    socket = Socket(site.node.url, "/worker")
    stack.callback(socket.close)
    challenge = socket.wait_for("challenge")[0]
    return socket, socket.call("authenticate", authenticate_message(challenge, keys))


def test_a_worker_comes_and_goes_with_its_registration_on_the_ledger(
    opened: contextlib.ExitStack, tmp_path: Path
) -> None:
    site = on_ledger(opened, tmp_path, worker_api_keys=False)
    worker, other = keypair("worker"), keypair("other")
    site.neurons()
    _, refused = introduced(opened, site, worker)
    assert refused["code"] == "not_registered"

    site.flask("register-neuron", "--netuid", "1", "--hotkey", worker.ss58_address)
    site.flask("register-neuron", "--netuid", "1", "--hotkey", other.ss58_address)
    until(lambda: other.ss58_address in site.neurons())
    socket, answer = introduced(opened, site, worker)
    stays, also = introduced(opened, site, other)
    assert answer["success"], answer
    assert also["success"], also

    site.flask("deregister-neuron", "--netuid", "1", "--hotkey", worker.ss58_address)

    began = time.monotonic()
    socket.wait_for("disconnect")
    assert time.monotonic() - began < 12  # a block
    assert not stays.all("disconnect")
    assert introduced(opened, site, worker)[1]["code"] == "not_registered"


def test_a_worker_whose_uid_is_anothers_now_is_closed_within_a_block(
    opened: contextlib.ExitStack, tmp_path: Path
) -> None:
    site = on_subtensor(opened, tmp_path, block_seconds=3.0, worker_api_keys=False)
    worker, successor = new_keypair(), new_keypair()
    uid = site.fake.chain.add_neuron(1, worker.ss58_address)
    until(lambda: worker.ss58_address in site.neurons())
    socket, answer = introduced(opened, site, worker)
    assert answer["success"], answer

    site.fake.chain.replace_neuron(1, uid, successor.ss58_address)
    site.fake.chain.advance()
    began = time.monotonic()
    socket.wait_for("disconnect")

    assert time.monotonic() - began < 3
    assert introduced(opened, site, successor)[1]["success"]


def test_while_nobody_knows_the_chain_no_worker_is_let_in(opened: contextlib.ExitStack, tmp_path: Path) -> None:
    site = SubtensorSite(tmp_path, worker_api_keys=False)
    opened.callback(site.close)
    worker = new_keypair()
    site.fake.chain.add_neuron(1, worker.ss58_address)
    site.away()
    site.node.start()

    _, refused = introduced(opened, site, worker)

    wanted = {"success": False, "code": "chain_unavailable", "status": 503, "retry_after": 12}
    assert {name: refused.get(name) for name in wanted} == wanted
    assert refused["error"] == "Chain data is not available"
    site.back(1)
    until(lambda: introduced(opened, site, worker)[1]["success"], 60)


def test_a_worker_stays_through_an_outage_of_the_chain(opened: contextlib.ExitStack, tmp_path: Path) -> None:
    site = on_subtensor(opened, tmp_path, worker_api_keys=False, chain_latest_stale_seconds=1.0)
    worker, late = new_keypair(), new_keypair()
    for keys in (worker, late):
        site.fake.chain.add_neuron(1, keys.ss58_address)
    until(lambda: late.ss58_address in site.neurons())
    socket, answer = introduced(opened, site, worker)
    assert answer["success"], answer

    site.away()
    until(lambda: site.get(f"{OA}/block/latest/neurons").status_code == 502, 60)

    assert introduced(opened, site, late)[1]["success"]
    assert introduced(opened, site, new_keypair())[1]["code"] == "not_registered"
    assert not socket.all("disconnect")


# --- scores become weights -------------------------------------------------------------------------------------

BLOCK = 0.2
TEMPO = 119
"""Epochs of 24 seconds, with weights in the last 12 of them but 2. A node looks whether it is time every five."""


def earn(site: ChainNode, hotkey: str, *scores: float) -> None:
    """As when tasks were judged just now."""
    now = time.time()
    earned = [
        {
            "lease_id": str(uuid.uuid4()), "task_id": str(uuid.uuid4()), "worker": hotkey, "strong": False,
            "extra": False, "state": "accepted", "granted_at": now, "lease_expires_at": now, "lease_until": now,
            "verdict_at": now, "score": score,
        }
        for score in scores
    ]  # fmt: skip
    with site.node._engine.begin() as connection:
        connection.execute(insert(Copy.__table__), earned)  # type: ignore[arg-type]


def test_scores_become_weights_once_in_each_epoch(opened: contextlib.ExitStack, tmp_path: Path) -> None:
    site = LedgerSite(
        tmp_path,
        pylon={"PYLON_TEMPO": str(TEMPO)},
        chain_local_block_seconds=BLOCK,
        chain_auto_weights="sn1",
        chain_score_window_epochs=100,
    )
    opened.callback(site.close)
    site.node.start()
    alice, bob = address("Alice"), address("Bob")
    for hotkey in (alice, bob):
        site.flask("register-neuron", "--netuid", "1", "--hotkey", hotkey)
    until(lambda: bob in site.neurons())
    earn(site, alice, *[0.75] * 5)
    earn(site, bob, *[0.25] * 5)
    earn(site, address("Charlie"), *[1.0] * 5)

    proposal = json.loads(site.flask("propose-weights", "--identity", "sn1", "--json"))
    assert proposal["weights"] == {alice: pytest.approx(0.75), bob: pytest.approx(0.25)}
    assert [one["hotkey"] for one in proposal["excluded"]] == [address("Charlie")]
    seen = [
        through_epoch(site),
        through_epoch(site, afterwards=site.node.restart),
        through_epoch(site, first=lambda: site.put({alice: 1.0})),
        through_epoch(site),
    ]

    assert [sources for _start, sources in seen] == [["auto"], ["auto"], ["client"], ["auto"]], seen
    assert len({start for start, _sources in seen}) == 4


def through_epoch(
    site: LedgerSite, first: Callable[[], Any] | None = None, afterwards: Callable[[], None] | None = None
) -> tuple[int, list[str]]:
    """From the start of the next epoch to its end; its start, and the sources of the jobs in it.

    `first` is done at the start, `afterwards` when there are weights.
    """
    number = head(site)
    epoch = epoch_of(epoch_of(number, 1, TEMPO).end, 1, TEMPO)
    window = automatic_window(epoch, 180, 10)
    skip(site, epoch.start - number)
    until(lambda: head(site) >= epoch.start)
    if first:
        first()
    skip(site, window.start - head(site) - 2)
    until(lambda: bool(sources(site, epoch)), 2 * TEMPO * BLOCK)
    if afterwards:
        assert site.ended()["status"] == "completed"
        afterwards()
    until(lambda: head(site) >= window.stop)
    assert site.ended()["status"] == "completed"
    return epoch.start, sources(site, epoch)


def sources(site: ChainNode, epoch: Epoch) -> list[str]:
    statement = "SELECT source FROM chain_weights_jobs WHERE put_block >= :start AND put_block < :end"
    return [source for (source,) in rows(site, statement, start=epoch.start, end=epoch.end)]


def head(site: ChainNode) -> int:
    number: int = site.get("/api/v1/block/latest").json()["number"]
    return number


def skip(site: ChainNode, blocks: int) -> None:
    settings = Settings.load({}, data_dir=site.node.data, chain_local_block_seconds=BLOCK)
    if blocks < 1:
        return
    operating.advance(DirectStore(site.node._engine), SystemClock(), settings, blocks)


# --- two nodes of one grid -------------------------------------------------------------------------------------


@pytest.mark.postgres
def test_two_nodes_on_one_database_are_one_submitter(opened: contextlib.ExitStack, tmp_path: Path) -> None:
    url = opened.enter_context(tables())
    site = SubtensorSite(tmp_path / "a", database_url=url, blobs_url=str(tmp_path / "blobs"))
    opened.callback(site.close)
    site.start()
    twin = ChainNode(site.node.another(tmp_path / "b"))
    opened.callback(twin.node.discard)
    twin.node.start()
    faces = [site, twin]
    for number in range(1, 7):
        job_id = put_by_all(faces, {site.alice: 1.0, site.bob: number / U16})
        assert {face.ended()["job_id"] for face in faces} == {job_id}
        assert site.landed().count({1: U16, 2: number}) == 1
    assert len(rows(site, "SELECT name FROM chain_leases")) == 1

    site.fake.faults.hush()
    job_id = twin.put({site.carol: 1.0})["job_id"]
    until(lambda: {3: U16} in site.landed())
    holder = submitter(site, faces)
    holder.node.kill()
    (other,) = [face for face in faces if face is not holder]
    told = other.ended()

    assert (told["job_id"], told["status"], told["attempts"]) == (job_id, "completed", 1)
    site.wait_blocks(10)
    assert site.landed().count({3: U16}) == 1


def put_by_all(faces: Sequence[ChainNode], weights: dict[str, float]) -> str:
    """The same weights through every node at once; the job that they all got."""
    barrier = threading.Barrier(len(faces))

    def put(face: ChainNode) -> str:
        barrier.wait(10)
        return str(face.put(weights)["job_id"])

    with ThreadPoolExecutor(len(faces)) as pool:
        (job_id,) = set(pool.map(put, faces))
    return job_id


def submitter(site: ChainNode, faces: list[Any]) -> Any:
    """The node whose chain process has the lease."""
    ((holder,),) = rows(site, "SELECT holder FROM chain_leases")
    pid = int(holder.split()[-2])
    (found,) = [face for face in faces if face.worker_pid() == pid]
    return found
