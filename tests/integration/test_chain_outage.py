"""A subtensor that goes away and comes back: weights, first in simulated time, then those of a node; and reads."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import app  # noqa: F401 - it loads every table
from grid_node.chain.epochs import retry_delay
from grid_node.chain.lease import Lease
from grid_node.chain.ports import Block
from grid_node.chain.pylon import PylonSettings
from grid_node.chain.samples import Samples
from grid_node.chain.subtensor import SubtensorChain
from grid_node.chain.weights import Weights
from grid_node.chain.weights_runner import WeightsRunner
from grid_node.clock import ManualClock
from grid_node.errors import ChainUnreachable
from grid_node.settings import Settings
from tests.chain_sites import BLOCK_SECONDS, ID, OA, SIGNER, TOKEN, SubtensorSite
from tests.contract.chain.subtensor_yard import NamedKeys
from tests.contract.chain.weighing import StubLink, at_once, identity
from tests.ledgers import memory_store
from tests.nodes import until
from tests.subtensor import FakeSubtensor
from tests.subtensor.chain import Chain
from tests.subtensor.faults import SUBMISSION

OUTAGE = 600.0
"""Simulated seconds."""
BLOCK = 12
U16 = 65535
STAKE = 10**15

pytestmark = pytest.mark.timeout(300)


# --- ten simulated minutes -------------------------------------------------------------------------------------


class Nobody:
    """Reads of a node that never heard of the chain."""

    head: Block | None = None
    genesis: str | None = None

    def hotkeys(self, netuid: int, timeout: float) -> frozenset[str]:
        raise ChainUnreachable("Chain node is unreachable: connection refused")


class Sea:
    """The submitter and a subtensor that one connection joins, at a clock that both go by.

    The subtensor makes a block every 12 simulated seconds, whether anybody can reach it or not, and one for each
    extrinsic that arrives.
    """

    def __init__(self, **subnet: Any) -> None:
        self.clock = ManualClock()
        self.fake = FakeSubtensor(instant=True, chain=Chain(self.clock.now))
        self.fake.start()
        keys = NamedKeys()
        self.hotkey = keys.hotkey(SIGNER)
        self.other = keys.hotkey(replace(SIGNER, identity="Bob"))
        self.fake.chain.add_subnet(1, **subnet)
        self.fake.chain.add_neuron(1, self.hotkey, validator_permit=True, total_stake=STAKE, alpha_stake=STAKE)
        self.fake.chain.add_neuron(1, self.other)
        self.fake.chain.advance(5)
        self.store = memory_store()
        self.settings = Settings(chain_call_timeout_seconds=5.0, chain_submit_timeout_seconds=20.0)
        self.pylon = PylonSettings(identities=(identity(),))
        self.weights = Weights(self.store, self.clock, self.settings, self.pylon, Nobody(), StubLink(), spawn=at_once)
        self.port = SubtensorChain(self.fake.uri, self.settings, keys, Samples())  # type: ignore[arg-type]
        self.runner = self.new_runner()
        self._rest = 0.0

    def new_runner(self) -> WeightsRunner:
        """As a process that starts."""
        runner = WeightsRunner(
            self.store, self.clock, self.settings, self.pylon, self.port, Samples(), Lease(self.clock, "here 1")
        )
        runner.recover()
        return runner

    def put(self) -> dict[str, Any]:
        return self.weights.put(identity(), {self.hotkey: 1.0, self.other: 0.5}, 2.0)

    def status(self) -> dict[str, Any]:
        return self.weights.status(identity())

    def pass_time(self, seconds: float) -> None:
        """The runner at work all the while."""
        end = self.clock.now() + seconds
        while (left := end - self.clock.now()) > 0:
            pause = self.runner.step()
            if pause:
                self._wait(min(pause, left))

    def _wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        blocks, self._rest = divmod(self._rest + seconds, BLOCK)
        if blocks:
            self.fake.chain.advance(int(blocks))

    def landed(self, function: str = "set_weights") -> int:
        return len(self.fake.chain.landed(function, self.hotkey))

    @contextmanager
    def sinking(self, when: Callable[[], bool]) -> Iterator[None]:
        """The subtensor is gone as soon as `when` is true, which becomes so inside of the block."""

        def watch() -> None:
            until(when)
            self.fake.stop()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def close(self) -> None:
        self.fake.stop()
        self.store.close()


@pytest.fixture
def sea() -> Iterator[Callable[..., Sea]]:
    with ExitStack() as stack:

        def made(**subnet: Any) -> Sea:
            one = Sea(**subnet)
            stack.callback(one.close)
            return one

        yield made


def tries_in(seconds: float) -> int:
    """Attempts that begin within this time, the first one at its start."""
    count, at = 1, 0.0
    while (at := at + retry_delay(count, 1.0)) <= seconds:
        count += 1
    return count


@pytest.mark.parametrize("is_sealed", [False, True], ids=["open", "sealed"])
def test_ten_minutes_without_the_chain_and_the_weights_are_committed_once(
    sea: Callable[..., Sea], is_sealed: bool
) -> None:
    at = sea(commit_reveal=is_sealed)
    at.fake.stop()
    job_id = at.put()["job_id"]

    at.pass_time(OUTAGE)

    waiting = at.status()
    assert waiting["status"] == "running"
    assert waiting["attempts"] in (tries_in(OUTAGE) - 1, tries_in(OUTAGE))
    assert waiting["last_error"] == "connection refused"
    at.fake.start()
    at.pass_time(60)

    told = at.status()
    assert (told["job_id"], told["status"], told["attempts"]) == (job_id, "completed", waiting["attempts"] + 1)
    assert (told["reveal_round"] is not None) == is_sealed
    at.pass_time(OUTAGE)
    function = "commit_timelocked_weights" if is_sealed else "set_weights"
    assert at.landed(function) == at.landed(None) == 1  # type: ignore[arg-type]


def test_it_goes_away_with_the_extrinsic_in_a_block(sea: Callable[..., Sea]) -> None:
    at = sea()
    at.put()
    at.fake.faults.hush()
    with at.sinking(lambda: at.landed() == 1):
        at.runner.step()
    at.pass_time(OUTAGE)
    waiting = at.status()
    assert (waiting["status"], waiting["attempts"], waiting["weights_submitted"]) == ("running", 1, False)

    at.fake.start()
    at.pass_time(60)

    told = at.status()
    assert (told["status"], told["attempts"], at.landed()) == ("completed", 1, 1)
    assert told["block_number"] == at.fake.chain.landed("set_weights")[0][0].number


def test_it_goes_away_and_forgets_the_extrinsic(sea: Callable[..., Sea]) -> None:
    """Ten minutes later its era is over: it is known not to be there, and another one is sent."""
    at = sea()
    at.put()
    at.fake.faults.forget()
    with at.sinking(lambda: at.fake.faults.wait_for_use(SUBMISSION)):
        at.runner.step()
    first = at.status()["extrinsic_hash"]
    assert first is not None
    at.pass_time(OUTAGE)
    assert at.status()["attempts"] == 1

    at.fake.start()
    at.pass_time(60)

    told = at.status()
    assert (told["status"], told["attempts"], at.landed()) == ("completed", 2, 1)
    assert told["extrinsic_hash"] != first


def test_it_goes_away_and_sends_the_extrinsic_later(sea: Callable[..., Sea]) -> None:
    """Nothing is sent beside it while its era lasts; it is then found."""
    at = sea()
    at.put()
    at.fake.faults.forget()
    raw: list[bytes] = []
    submit = at.fake.chain.submit

    def keep(one: bytes, *arguments: Any, **options: Any) -> bytes:
        raw.append(one)
        return submit(one, *arguments, **options)

    at.fake.chain.submit = keep  # type: ignore[method-assign]
    with at.sinking(lambda: bool(raw)):
        at.runner.step()
    at.pass_time(4 * BLOCK)
    submit(raw[0])
    at.pass_time(OUTAGE)
    at.fake.start()
    at.pass_time(60)

    assert (at.status()["status"], at.status()["attempts"], at.landed()) == ("completed", 1, 1)


def test_the_process_is_restarted_in_the_outage(sea: Callable[..., Sea]) -> None:
    at = sea()
    at.fake.stop()
    at.put()
    for _ in range(6):
        at.pass_time(OUTAGE / 6)
        at.runner = at.new_runner()
    tried = at.status()["attempts"]
    at.fake.start()
    at.pass_time(60)

    assert (at.status()["status"], at.status()["attempts"], at.landed()) == ("completed", tried + 1, 1)


def test_the_epoch_ends_in_the_outage(sea: Callable[..., Sea]) -> None:
    at = sea(tempo=40)
    at.put()
    at.fake.faults.refuse(times=1)
    at.runner.step()
    assert at.status()["epoch"] is not None
    at.fake.stop()
    at.pass_time(OUTAGE)
    at.fake.start()
    at.pass_time(60)

    told = at.status()
    assert (told["status"], told["weights_submitted"], at.landed()) == ("tempo_expired", False, 0)


def test_the_tries_come_to_an_end_in_the_outage(sea: Callable[..., Sea]) -> None:
    at = sea()
    at.fake.stop()
    at.put()
    at.pass_time(3600)
    at.fake.start()
    at.pass_time(OUTAGE)

    assert (at.status()["status"], at.status()["attempts"], at.landed()) == ("failed", 201, 0)


# --- a node and its short outages ------------------------------------------------------------------------------

STALE = 3.0
HARD = 28
"""Blocks: seven seconds."""
SHORT = {
    "PYLON_RECENT_OBJECTS_SOFT_LIMIT_BLOCKS": "20",
    "PYLON_RECENT_OBJECTS_HARD_LIMIT_BLOCKS": str(HARD),
    "PYLON_RECENT_OBJECTS_REFRESH_LEAD_BLOCKS": "10",
    "PYLON_RECENT_OBJECTS_NETUIDS": "[1]",
}
LATEST, RECENT = f"{OA}/block/latest/neurons", f"{OA}/block/recent/neurons"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SubtensorSite]:
    folder: Path = tmp_path_factory.mktemp("outage")
    site = SubtensorSite(folder, pylon=SHORT, chain_latest_stale_seconds=STALE, chain_call_timeout_seconds=4.0)
    try:
        site.start()
        yield site
    finally:
        site.close()


@pytest.fixture
def site(running: SubtensorSite) -> Iterator[SubtensorSite]:
    until(lambda: running.get(LATEST).status_code == 200, 60)
    yield running
    recovered(running)


def gone(site: SubtensorSite) -> None:
    site.away()


def silent(site: SubtensorSite) -> None:
    site.fake.faults.stall()


def babbling(site: SubtensorSite) -> None:
    site.fake.faults.garbage()


def recovered(site: SubtensorSite) -> None:
    site.fake.faults.clear()
    if site.is_away:
        site.back(40)


@pytest.mark.parametrize("trouble", [gone, silent, babbling])
def test_reads_age_and_then_are_refused_and_come_back(
    site: SubtensorSite, trouble: Callable[[SubtensorSite], None]
) -> None:
    assert site.get(RECENT).status_code == 200
    trouble(site)
    began = time.monotonic()
    seen: list[tuple[float, str, int, float]] = []

    def look() -> bool:
        for path in (LATEST, RECENT):
            asked = time.monotonic()
            answer = site.get(path)
            assert time.monotonic() - asked < 6, "no request waits past its deadline"
            seen.append(
                (time.monotonic() - began, path, answer.status_code, float(answer.headers.get("X-Chain-Age", -1)))
            )
            if answer.status_code == 502:
                assert answer.json()["detail"].startswith("Chain node is unreachable: ")
            if answer.status_code == 503:
                assert int(answer.headers["Retry-After"]) > 0
        return {status for _at, path, status, _age in seen[-2:]} == {502, 503}

    until(look, 60)
    for path, refusal in ((LATEST, 502), (RECENT, 503)):
        statuses = [status for _at, of, status, _age in seen if of == path]
        assert set(statuses) <= {200, refusal}, seen
        assert statuses == sorted(statuses), seen
        ages = [age for _at, of, status, age in seen if of == path and status == 200]
        assert ages[-1] > ages[0], seen
    last_latest = max(at for at, of, status, _age in seen if (of, status) == (LATEST, 200))
    last_recent = max(at for at, of, status, _age in seen if (of, status) == (RECENT, 200))
    assert last_latest < last_recent
    assert last_latest < STALE + 3, seen
    assert HARD * BLOCK_SECONDS - 3 < last_recent < HARD * BLOCK_SECONDS + 4, seen
    endpoints = site.chain_status()["endpoints"]
    assert not any(endpoint["ok"] for endpoint in endpoints), endpoints

    recovered(site)

    until(lambda: site.get(LATEST).status_code == site.get(RECENT).status_code == 200, 60)
    head = site.fake.chain.head.number
    until(lambda: site.get(LATEST).json()["block"]["number"] >= head)
    assert site.chain_status()["worker"] == "up"


@pytest.mark.parametrize("trouble", [gone, silent])
def test_weights_are_put_into_the_outage_and_land_after_it(
    site: SubtensorSite, trouble: Callable[[SubtensorSite], None]
) -> None:
    share = (1 + ["gone", "silent"].index(trouble.__name__)) / U16
    landed = len(site.landed())
    trouble(site)
    until(lambda: site.get(LATEST).status_code == 502, 60)
    began = time.monotonic()
    answer = site.put({site.alice: 1.0, site.bob: share})
    assert time.monotonic() - began < 3
    assert site.put({site.alice: 1.0, site.bob: share})["job_id"] == answer["job_id"]
    until(lambda: site.status()["attempts"] >= 2 or trouble is silent)
    assert site.status()["weights_submitted"] is False

    recovered(site)

    told = site.ended()
    assert (told["job_id"], told["status"]) == (answer["job_id"], "completed")
    site.wait_blocks(10)
    assert len(site.landed()) == landed + 1


def test_a_commitment_in_the_outage_is_refused_within_its_time(site: SubtensorSite) -> None:
    site.away()
    began = time.monotonic()
    answer = site.commit("00ff")
    assert answer.status_code in (502, 504), answer.text
    assert time.monotonic() - began < 61
    recovered(site)
    until(lambda: site.commit("00ff").status_code == 201, 60)
    assert site.fake.chain.commitment(1, site.hotkey) == b"\x00\xff"


def test_the_chain_process_is_killed_with_a_call_under_way(site: SubtensorSite) -> None:
    number = site.fake.chain.head.number - 5
    site.fake.faults.stall("state_call")
    answers: list[tuple[int, float]] = []

    def ask() -> None:
        answer = site.get(f"{OA}/block/{number}/neurons")
        answers.append((answer.status_code, time.monotonic()))

    thread = threading.Thread(target=ask)
    calls = site.fake.calls["state_call"]
    thread.start()
    until(lambda: site.fake.calls["state_call"] > calls)
    killed = time.monotonic()
    site.kill_worker()
    thread.join(30)
    site.fake.faults.clear()

    ((status, at),) = answers
    assert status == 502
    assert at - killed < 1.5
    until(lambda: site.get(f"{OA}/block/{number}/neurons").status_code == 200, 60)
    assert "grid_chain_worker_restarts_total 0.0" not in site.node.metrics()


def test_who_has_the_token_is_refused_like_everybody_in_an_outage(site: SubtensorSite) -> None:
    """Refusals come before the chain is asked."""
    site.away()
    assert site.get(f"{ID}/block/latest/neurons", "wrong").status_code == 403
    assert site.get(f"{ID}/weights/status").status_code == 401
    assert site.get(f"{ID}/weights/status", TOKEN).status_code in (200, 404)
    recovered(site)
