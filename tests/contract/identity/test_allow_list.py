"""What the allow-list and the blacklist promise, on every store."""

import pytest
from bittensor_wallet import Keypair

from grid_node.clock import ManualClock
from grid_node.errors import Blacklisted, ChainUnavailable, NotRegistered, StoreUnavailable
from grid_node.identity.refusal import Refused
from grid_node.identity.service import KeyService
from grid_node.identity.standing import AllowList, BlacklistEntry, Standing, admit
from grid_node.settings import Settings

PAIR = Keypair.create_from_seed("0x" + "01" * 32)
MINER = PAIR.public_key
OTHER = Keypair.create_from_seed("0x" + "02" * 32).public_key


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def allow_list(store, clock):
    return AllowList(store, clock)


def test_a_stranger_is_not_registered(allow_list):
    assert allow_list.standing(MINER) == Standing(registered=False, blacklisted=False, strong=None, uid=None)
    with pytest.raises(NotRegistered) as refusal:
        admit(allow_list, MINER)
    assert refusal.value.body() == {
        "success": False,
        "error": "Unregistered hotkey",
        "code": "not_registered",
        "status": 403,
        "retry_after": 3600,
    }


def test_who_is_on_the_list_may_come_in_and_nobody_else(allow_list):
    allow_list.allow(MINER)
    assert admit(allow_list, MINER).registered
    with pytest.raises(NotRegistered):
        admit(allow_list, OTHER)
    assert allow_list.allowed() == [PAIR.ss58_address]


def test_who_was_taken_off_is_out_at_once(allow_list, store, clock):
    allow_list.allow(MINER)
    elsewhere = AllowList(store, clock)
    admit(elsewhere, MINER)
    allow_list.disallow(MINER)
    with pytest.raises(NotRegistered):
        admit(elsewhere, MINER)


def test_a_blacklisted_hotkey_is_refused_though_allowed(allow_list):
    allow_list.allow(MINER)
    allow_list.blacklist(MINER, "sends noise")
    with pytest.raises(Blacklisted):
        admit(allow_list, MINER)
    assert allow_list.blacklisted() == [BlacklistEntry(PAIR.ss58_address, "sends noise", None)]
    allow_list.pardon(MINER)
    assert admit(allow_list, MINER)


def test_not_being_registered_is_told_before_the_blacklist(allow_list):
    allow_list.blacklist(MINER)
    with pytest.raises(NotRegistered):
        admit(allow_list, MINER)


def test_an_entry_ends_at_its_time(allow_list, clock):
    allow_list.allow(MINER)
    allow_list.blacklist(MINER, until=clock.now() + 10)
    clock.advance(9.999)
    with pytest.raises(Blacklisted):
        admit(allow_list, MINER)
    clock.advance(0.001)
    assert admit(allow_list, MINER)
    assert allow_list.blacklisted() == []
    allow_list.blacklist(MINER, "again")


@pytest.mark.parametrize(
    ("operation", "refusal"),
    [("disallow", "hotkey is not allowed"), ("pardon", "hotkey is not blacklisted")],
)
def test_what_is_not_there_cannot_be_removed(allow_list, operation, refusal):
    with pytest.raises(Refused, match=f"^{refusal}$"):
        getattr(allow_list, operation)(MINER)


@pytest.mark.parametrize(
    ("operation", "refusal"),
    [("allow", "hotkey is already allowed"), ("blacklist", "hotkey is already blacklisted")],
)
def test_what_is_there_cannot_be_added(allow_list, operation, refusal):
    getattr(allow_list, operation)(MINER)
    with pytest.raises(Refused, match=f"^{refusal}$"):
        getattr(allow_list, operation)(MINER)


@pytest.mark.parametrize("reason", ["x" * 201, "a\nb", "a|b", "\x1b[31m"])
def test_a_reason_that_would_break_the_list_is_refused(allow_list, reason):
    with pytest.raises(Refused, match="reason must be"):
        allow_list.blacklist(MINER, reason)


def test_an_entry_that_ended_before_it_began_is_refused(allow_list, clock):
    with pytest.raises(Refused, match="until is in the past"):
        allow_list.blacklist(MINER, until=clock.now())


def test_every_change_moves_the_epoch_that_connections_watch(allow_list, store, clock):
    keys = KeyService(store, clock, Settings())
    seen = [keys.epoch()]
    for change in (allow_list.allow, allow_list.blacklist, allow_list.pardon, allow_list.disallow):
        change(MINER)
        seen.append(keys.epoch())
    assert seen == [0, 1, 2, 3, 4]


class DeadStore:
    """A database that is away."""

    def read(self, unit):
        raise StoreUnavailable(retry_after=1)

    write = read

    def close(self):
        pass


def test_nobody_is_judged_while_the_list_cannot_be_read(clock):
    with pytest.raises(ChainUnavailable) as refusal:
        AllowList(DeadStore(), clock).standing(MINER)
    assert refusal.value.body()["retry_after"] == 1
