"""The submitter's lease: who has it, and who may take it over."""

import os
import shutil
import subprocess
import sys

import pytest

from grid_node.chain.lease import Lease, _place
from grid_node.clock import ManualClock
from grid_node.database import DirectStore, make_engine
from tests.stores import sqlite_template

__all__ = ["sqlite_template"]


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def take(sqlite_template, tmp_path):
    shutil.copy(sqlite_template, tmp_path / "grid.db")
    store = DirectStore(make_engine(f"sqlite:///{tmp_path / 'grid.db'}"))
    yield lambda lease: store.write(lease.take)
    store.close()


def test_one_holder_at_a_time(clock, take):
    first, second = Lease(clock, "here 1"), Lease(clock, "there 2")

    assert take(first)
    assert not take(second)
    assert take(first)


def test_it_ends_when_it_is_not_renewed(clock, take):
    first, second = Lease(clock, "here 1"), Lease(clock, "there 2")
    take(first)
    clock.advance(20)
    take(first)
    clock.advance(29)
    assert not take(second)
    clock.advance(1)

    assert take(second)
    assert not take(first)


def test_a_restarted_process_need_not_wait(clock, take):
    take(Lease(clock, "here 1"))
    assert take(Lease(clock, "here 1"))


def test_the_lease_of_a_dead_process_of_this_machine_is_free(clock, take):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    take(Lease(clock, f"{_place()} {gone.pid}"))

    assert take(Lease(clock))


def test_the_lease_of_a_living_process_of_this_machine_is_not(clock, take):
    take(Lease(clock, f"{_place()} {os.getppid()}"))

    assert not take(Lease(clock))


def test_a_process_of_another_machine_is_not_looked_for(clock, take):
    take(Lease(clock, "elsewhere 999999999"))

    assert not take(Lease(clock))


def test_a_clock_that_was_set_back_does_not_prolong_it(clock, take):
    take(Lease(clock, "there 2"))
    clock.set_by(-3600.0)

    assert take(Lease(clock, "here 1"))
