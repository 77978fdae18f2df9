"""The chain's process itself, on a ledger: started by a link, killed, left alone, and under eventlet."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from grid_node.chain.backends import assemble  # noqa: F401 - its tables belong into the template
from grid_node.chain.ledger import operating
from grid_node.chain.link import ChainLink
from grid_node.chain.pylon import PylonSettings
from grid_node.chain.worker import MEMORY_MAX
from grid_node.clock import SystemClock
from grid_node.database import DirectStore, make_engine
from grid_node.errors import ChainError, ChainNotFound, ChainUnreachable
from grid_node.settings import Settings
from tests.chain_stub import hotkey_of
from tests.nodes import ROOT, until
from tests.stores import sqlite_template

__all__ = ["sqlite_template"]

IDENTITY = {
    "PYLON_IDENTITIES": '["sn1"]',
    "PYLON_ID_SN1_WALLET_NAME": "w",
    "PYLON_ID_SN1_HOTKEY_NAME": "h",
    "PYLON_ID_SN1_NETUID": "1",
    "PYLON_ID_SN1_TOKEN": "token-of-sn1",
}
LATEST = {"netuid": 1, "number": None}
WAIT = 30
"""Seconds that a call may take on a busy machine."""


class Home:
    """A node's data folder with an empty ledger."""

    def __init__(self, folder, template):
        shutil.copy(template, folder / "grid.db")
        self.settings = Settings.load({}, data_dir=folder)
        self.pylon = PylonSettings.load(IDENTITY)
        self.store = DirectStore(make_engine(self.settings.database))
        self.links = []

    def link(self):
        self.links.append(ChainLink(self.settings, self.pylon))
        return self.links[-1]

    def environ(self):
        return {**os.environ, **self.settings.environ(), **self.pylon.environ(), "PYTHONPATH": str(ROOT)}

    @contextlib.contextmanager
    def python(self, *words, **given):
        """A program with this home's settings; it does not outlive the block."""
        command = [sys.executable, "-W", "ignore", *words]
        with subprocess.Popen(command, env=self.environ(), cwd=ROOT, **given) as process:
            try:
                yield process
            finally:
                process.kill()

    def close(self):
        for link in self.links:
            link.stop(5)
        self.store.close()


@pytest.fixture
def home(tmp_path, sqlite_template):
    made = Home(tmp_path, sqlite_template)
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory, sqlite_template):
    """A link to a process that has nothing else to do."""
    made = Home(tmp_path_factory.mktemp("served"), sqlite_template)
    yield made.link()
    made.close()


def test_with_nothing_prepared_it_serves_and_writes(home):
    link = home.link()

    neurons = json.loads(link.ask("neurons", LATEST, WAIT).body)["neurons"]
    written = link.ask("set_commitment", {"identity": "sn1", "data": "00ff726177"}, WAIT).meta["block_number"]
    commitment = json.loads(link.ask("commitment", {"identity": "sn1"}, WAIT).body)

    assert [neuron["uid"] for neuron in neurons.values()] == [0]
    assert commitment["commitment"] == "0x00ff726177"
    assert commitment["commitment_block_number"] == written
    assert commitment["hotkey"] in neurons
    until(lambda: link.beat is not None and link.beat.block.number >= written)
    assert link.beat.identities == {"sn1": commitment["hotkey"]}
    assert link.ask("status", {}, WAIT).meta["endpoints"][0]["ok"]


def test_what_it_may_allocate_has_a_limit(served):
    served.ask("neurons", LATEST, WAIT)

    assert psutil.Process(served.pid).rlimit(psutil.RLIMIT_AS)[0] == MEMORY_MAX


def test_what_a_command_writes_is_seen_within_a_second(home):
    link = home.link()
    link.ask("neurons", LATEST, WAIT)
    beats = []
    link.on_beat = lambda beat: beats.append((time.monotonic(), beat.block.number))

    registered = operating.register_neuron(home.store, SystemClock(), home.settings, 1, hotkey_of("miner"))
    begun = time.monotonic()
    until(lambda: beats and beats[-1][1] >= registered.block.number)

    assert beats[-1][0] - begun < 1.0
    assert hotkey_of("miner") in json.loads(link.ask("neurons", LATEST, WAIT).body)["neurons"]


def test_operations_of_the_ledger_are_measured(home):
    link, samples = home.link(), []
    link.on_samples = samples.extend
    link.ask("neurons", LATEST, WAIT)
    link.ask("set_commitment", {"identity": "sn1", "data": "00ff"}, WAIT)
    with pytest.raises(ChainNotFound):
        link.ask("neurons", {"netuid": 9, "number": None}, WAIT)

    def told():
        return {(sample[1], sample[2], sample[4]) for sample in samples if sample[0] == "operation"}

    until(lambda: {("get_neurons", "success", 1), ("set_commitment", "success", 1)} <= told())
    until(lambda: ("get_neurons", "error", 9) in told())


def test_killed_in_the_middle_of_a_call_it_is_started_again_and_knows_everything(home):
    link = home.link()
    link.ask("set_commitment", {"identity": "sn1", "data": "aa"}, WAIT)
    before = link.ask("commitment", {"identity": "sn1"}, WAIT).body
    pid, outcomes = link.pid, []
    os.kill(pid, signal.SIGSTOP)

    def ask():
        try:
            outcomes.append(link.ask("neurons", LATEST, WAIT))
        except ChainUnreachable as error:
            outcomes.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: link.queue == 1)
    begun = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    thread.join(WAIT)

    assert time.monotonic() - begun < 1.0
    assert isinstance(outcomes[0], ChainUnreachable)
    until(lambda: link.pid not in (None, pid))
    after = json.loads(link.ask("commitment", {"identity": "sn1"}, WAIT).body)
    assert {**json.loads(before), "block": None} == {**after, "block": None}
    assert link.restarts == 1


def test_a_killed_web_process_leaves_nothing_behind(home):
    script = """
import sys, threading
from grid_node.chain.link import ChainLink
from grid_node.chain.pylon import PylonSettings
from grid_node.settings import Settings
link = ChainLink(Settings.load(), PylonSettings.load())
link.ask("block", {"number": None}, 30)
print(link.pid, flush=True)
threading.Event().wait()
"""
    with home.python("-c", script, stdout=subprocess.PIPE) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()

    assert child.wait(10) is None or not child.is_running()


def test_one_whose_link_ends_while_it_starts_ends_too(home):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = ("-m", "grid_node.chain.worker", str(theirs.fileno()))
        with home.python(*words, pass_fds=(theirs.fileno(),)) as process:
            ours.close()
            theirs.close()
            assert process.wait(10) == 0


def test_garbage_on_the_link_ends_it(home):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = ("-m", "grid_node.chain.worker", str(theirs.fileno()))
        with home.python(*words, pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE) as process:
            theirs.close()
            ours.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert process.wait(WAIT) == 0
            assert b"the link does not speak the protocol" in process.stderr.read()


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("neurons", {}),
        ("neurons", {"netuid": "x", "number": None}),
        ("block", {"number": "x"}),
        ("block", {"number": [1]}),
        ("extrinsic", {"number": 0}),
        ("set_commitment", {"identity": "sn1", "data": "zz"}),
        ("set_commitment", {}),
        ("no such thing", {}),
    ],
)
def test_a_call_that_makes_no_sense_is_refused_and_hurts_nothing(served, op, args):
    with pytest.raises(ChainError):
        served.ask(op, args, WAIT)

    assert served.ask("block", {"number": None}, WAIT).meta["block"]["number"] >= 0
    assert served.restarts == 0


def test_a_terminals_interrupt_is_not_for_it(home):
    link = home.link()
    link.ask("block", {"number": None}, WAIT)
    os.kill(link.pid, signal.SIGINT)

    link.ask("block", {"number": None}, WAIT)
    assert link.restarts == 0


@pytest.mark.parametrize("word", [signal.SIGTERM, signal.SIGINT])
def test_without_a_link_it_runs_until_it_is_told_to_stop(home, word):
    with home.python("-m", "grid_node.chain.worker", stderr=subprocess.PIPE) as process:
        assert b"is ready: backend local" in process.stderr.readline()
        process.send_signal(word)
        assert process.wait(10) == 0


def test_bad_settings_are_told_and_nothing_starts(home):
    broken = {**home.environ(), "PYLON_ID_SN1_TOKEN": ""}
    command = [sys.executable, "-m", "grid_node.chain.worker"]

    done = subprocess.run(command, env=broken, cwd=ROOT, capture_output=True, timeout=60, check=False)

    assert done.returncode == 2
    assert b"PYLON_ID_SN1_TOKEN" in done.stderr


def test_it_loads_neither_eventlet_nor_what_computes(home):
    words = "import sys, grid_node.chain.worker; print(sorted(sys.modules.keys() & {'eventlet', 'torch', 'numba'}))"
    with home.python("-c", words, stdout=subprocess.PIPE) as process:
        assert process.stdout.read().strip() == b"[]"


def test_two_of_them_share_one_ledger(home):
    first, second = home.link(), home.link()
    assert first.ask("neurons", LATEST, WAIT).body
    written = first.ask("set_commitment", {"identity": "sn1", "data": "0102"}, WAIT).meta["block_number"]

    found = second.ask("commitment", {"identity": "sn1"}, WAIT)

    assert json.loads(found.body)["commitment"] == "0x0102"
    assert found.meta["block"]["number"] >= written
    assert first.ask("neurons", LATEST, WAIT).meta["state"] == second.ask("neurons", LATEST, WAIT).meta["state"]


GREEN = """
import eventlet
eventlet.monkey_patch()
import json, os, signal, time
import psutil
from grid_node.chain.link import ChainLink
from grid_node.chain.pylon import PylonSettings
from grid_node.errors import ChainError
from grid_node.settings import Settings

busiest = 0.0

def watch():
    global busiest
    before = time.thread_time()
    while True:
        eventlet.sleep(0.002)
        now = time.thread_time()
        busiest, before = max(busiest, now - before), now

def refused(op, args, timeout):
    try:
        return link.ask(op, args, timeout) and ""
    except ChainError as error:
        return error.code

link = ChainLink(Settings.load(), PylonSettings.load())
eventlet.spawn(watch)
latest = {"netuid": 1, "number": None}
asked = [eventlet.spawn(link.ask, "neurons", latest, 30) for _ in range(20)]
bodies = {one.wait().body[:9] for one in asked}
first = link.pid
os.kill(first, signal.SIGSTOP)
while psutil.Process(first).status() != psutil.STATUS_STOPPED:
    eventlet.sleep(0.001)
late = refused("neurons", latest, 0.2)
asked = [eventlet.spawn(refused, "neurons", latest, 30) for _ in range(5)]
eventlet.sleep(0.05)
os.kill(first, signal.SIGKILL)
dead = {one.wait() for one in asked}
while not link.is_up or link.pid == first:
    eventlet.sleep(0.02)
again = refused("neurons", latest, 30)
link.stop(5)
print(json.dumps([len(bodies), late, sorted(dead), again, busiest]))
"""


def test_under_eventlet_the_same_holds_and_the_hub_stays_free(home):
    with home.python("-c", GREEN, stdout=subprocess.PIPE) as process:
        bodies, late, dead, again, busiest = json.loads(process.stdout.read())

    assert (bodies, late, dead, again) == (1, "chain_timeout", ["chain_unreachable"], "")
    assert busiest <= 0.020  # seconds of CPU between two turns of the hub: what a busy machine adds is not ours
