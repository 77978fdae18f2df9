"""kill -9 around the submission of weights: whenever it comes and whomever it hits, they land exactly once."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chain_sites import SubtensorSite, workers_of
from tests.nodes import until

ROUNDS = max(2, int(os.environ.get("GRID_TEST_KILL_ROUNDS", "8")) // 4)
SEED = 20261122
U16 = 65535
ERA_BLOCKS = 8
SUBMIT_SECONDS = 5.0
"""A process that was killed before it sent anything is followed by one that meets the fault, and waits so long."""
SUBMIT = "author_submitAndWatchExtrinsic"

pytestmark = pytest.mark.timeout(300 + 60 * ROUNDS)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SubtensorSite]:
    site = SubtensorSite(tmp_path_factory.mktemp("kill"), chain_submit_timeout_seconds=SUBMIT_SECONDS)
    try:
        site.start()
        yield site
    finally:
        site.close()


@pytest.fixture
def site(running: SubtensorSite) -> Iterator[SubtensorSite]:
    yield running
    running.fake.faults.clear()


class Rounds:
    """Weights that no round had before, so that the chain tells which of them it got, and how often."""

    def __init__(self) -> None:
        self.number = 0

    def weights(self, site: SubtensorSite) -> tuple[dict[str, float], dict[int, int]]:
        """As a client puts them, and as they land."""
        self.number += 1
        return {site.alice: 1.0, site.bob: self.number / U16}, {1: U16, 2: self.number}


rounds = Rounds()


def kill_node(site: SubtensorSite) -> None:
    site.node.kill()
    site.node.start()


def kill_worker(site: SubtensorSite) -> None:
    site.kill_worker()


KILLS = pytest.mark.parametrize("kill", [kill_node, kill_worker])


def check_completed(site: SubtensorSite, job_id: str, sent: dict[int, int]) -> dict[str, Any]:
    told = site.ended()
    assert (told["job_id"], told["status"], told["weights_submitted"]) == (job_id, "completed", True)
    row = site.fake.chain.weights(1, site.hotkey)
    assert row is not None
    assert dict(row.values) == sent
    return told


def check_once(site: SubtensorSite, job_id: str, sent: dict[int, int]) -> dict[str, Any]:
    told = check_completed(site, job_id, sent)
    site.wait_blocks(ERA_BLOCKS + 2)  # whatever else was sent has landed by now, or never will
    assert site.landed().count(sent) == 1
    return told


@KILLS
def test_killed_before_the_submission(site: SubtensorSite, kill: Callable[[SubtensorSite], None]) -> None:
    """The chain does not say yet what the subnet is like."""
    weights, sent = rounds.weights(site)
    site.neurons()
    site.fake.faults.stall("state_call")
    job_id = site.put(weights)["job_id"]
    until(lambda: site.status()["attempts"] == 1)
    assert site.landed().count(sent) == 0
    site.fake.faults.clear()

    kill(site)

    check_once(site, job_id, sent)


@KILLS
def test_killed_while_the_node_takes_it(site: SubtensorSite, kill: Callable[[SubtensorSite], None]) -> None:
    """Sent, and not taken: it never lands, and only the end of its era says so."""
    weights, sent = rounds.weights(site)
    site.fake.faults.stall(SUBMIT, times=1)
    job_id = site.put(weights)["job_id"]
    until(lambda: site.status()["extrinsic_hash"] is not None)
    first = site.status()["extrinsic_hash"]

    kill(site)

    told = check_once(site, job_id, sent)
    assert told["extrinsic_hash"] != first
    assert told["attempts"] == 2


@KILLS
def test_killed_while_it_is_in_the_pool(site: SubtensorSite, kill: Callable[[SubtensorSite], None]) -> None:
    weights, sent = rounds.weights(site)
    site.fake.faults.forget()
    job_id = site.put(weights)["job_id"]
    until(lambda: site.status()["extrinsic_hash"] is not None)
    time.sleep(0.2)

    kill(site)

    check_once(site, job_id, sent)


@KILLS
def test_killed_after_it_landed_and_before_anybody_knew(
    site: SubtensorSite, kill: Callable[[SubtensorSite], None]
) -> None:
    weights, sent = rounds.weights(site)
    site.fake.faults.hush()
    job_id = site.put(weights)["job_id"]
    until(lambda: site.landed().count(sent) == 1)
    assert site.status()["status"] == "running"

    kill(site)

    assert check_once(site, job_id, sent)["attempts"] == 1


@KILLS
def test_killed_in_the_retry_loop(site: SubtensorSite, kill: Callable[[SubtensorSite], None]) -> None:
    """Attempts are counted on."""
    weights, sent = rounds.weights(site)
    site.fake.faults.refuse(times=None)
    job_id = site.put(weights)["job_id"]
    until(lambda: site.status()["attempts"] >= 2)
    seen = site.status()["attempts"]

    kill(site)
    until(lambda: site.status()["attempts"] > seen)
    until(lambda: "RateLimitExceeded" in site.status()["last_error"])  # it may have died with one on its way
    site.fake.faults.clear()

    told = check_once(site, job_id, sent)
    assert told["attempts"] > seen


@KILLS
def test_killed_at_any_time(site: SubtensorSite, kill: Callable[[SubtensorSite], None]) -> None:
    """Again and again, from the request to well after the landing; every other time with a fault on the way."""
    chance = random.Random(f"{SEED} {kill.__name__}")
    all_sent = []
    for number in range(ROUNDS):
        weights, sent = rounds.weights(site)
        if number % 2:
            chance.choice([site.fake.faults.refuse, site.fake.faults.hush, site.fake.faults.forget])()
        job_id = site.put(weights)["job_id"]
        time.sleep(chance.uniform(0, 0.8))

        kill(site)

        check_completed(site, job_id, sent)
        site.fake.faults.clear()
        all_sent.append(sent)
    site.wait_blocks(ERA_BLOCKS + 2)
    assert [site.landed().count(sent) for sent in all_sent] == [1] * ROUNDS


def test_killed_twice_in_a_row(site: SubtensorSite) -> None:
    """The chain's process, and before another one is there the node."""
    weights, sent = rounds.weights(site)
    site.fake.faults.hush()
    job_id = site.put(weights)["job_id"]
    until(lambda: site.status()["extrinsic_hash"] is not None)
    site.kill_worker()
    kill_node(site)

    check_once(site, job_id, sent)


def test_killed_with_newer_weights_put_the_newer_ones_are_last(site: SubtensorSite) -> None:
    first, first_sent = rounds.weights(site)
    site.fake.faults.hush()
    site.put(first)
    until(lambda: site.landed().count(first_sent) == 1)
    second, second_sent = rounds.weights(site)
    job_id = site.put(second)["job_id"]

    kill_node(site)

    check_once(site, job_id, second_sent)
    assert site.landed().count(first_sent) == 1
    assert site.landed()[-2:] == [first_sent, second_sent]


def test_put_again_by_a_client_that_saw_the_node_die_nothing_is_sent_twice(site: SubtensorSite) -> None:
    weights, sent = rounds.weights(site)
    job_id = site.put(weights)["job_id"]
    kill_node(site)

    assert site.put(weights)["job_id"] == job_id
    check_once(site, job_id, sent)


def test_sealed_weights_are_committed_once(tmp_path: Path) -> None:
    site = SubtensorSite(tmp_path, subnet={"commit_reveal": True})
    try:
        site.start()
        for number, kill in enumerate((kill_worker, kill_node)):
            site.fake.faults.hush()
            job_id = site.put({site.alice: 1.0, site.bob: (number + 1) / 10})["job_id"]
            until(lambda number=number: site.commits() == number + 1)  # type: ignore[misc]

            kill(site)

            told = site.ended()
            assert (told["job_id"], told["status"], told["attempts"]) == (job_id, "completed", 1)
            assert told["reveal_round"] > 0
            site.wait_blocks(ERA_BLOCKS + 2)
            assert site.commits() == number + 1
    finally:
        site.close()


def test_killed_between_requests_nothing_is_forgotten(site: SubtensorSite) -> None:
    """Clients put all the time while processes die; the last request that was answered is what the chain has."""
    chance = random.Random(SEED)
    over = threading.Event()

    def killer() -> None:
        while not over.wait(chance.uniform(0.3, 1.0)):
            for pid in workers_of(site.node.pid):
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    answered: list[tuple[str, dict[int, int]]] = []
    try:
        for _ in range(4 * ROUNDS):
            weights, sent = rounds.weights(site)
            answered.append((site.put(weights)["job_id"], sent))
            time.sleep(chance.uniform(0, 0.5))
    finally:
        over.set()
        thread.join()

    check_once(site, *answered[-1])
    landed = site.landed()
    ours = [sent for _job, sent in answered if sent in landed]
    assert [sent for sent in landed if sent in ours] == ours  # each once, in the order of the requests
