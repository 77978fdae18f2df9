"""What the web process tells of the chain: from memory when fresh, by one call for many else, never past a deadline."""

import json
import threading
import time

import pytest

from grid_node.chain.frames import Beat
from grid_node.chain.ports import Certificate, Commitment, NodeUnreachable
from grid_node.chain.pylon import Identity
from grid_node.errors import ChainNotFound, ChainNotRecent, ChainTimeout, ChainUnreachable
from tests.chain_reads import Reading, until
from tests.chain_stub import hotkey_of, neuron_of

KINDS = ("neurons", "validators", "commitments", "certificates")


@pytest.fixture
def node():
    node = Reading()
    node.chain.seed(1, 4)
    node.link.start()
    yield node
    node.close()


def number_of(told):
    return json.loads(told.body)["block"]["number"]


# --- latest -----------------------------------------------------------------------------------------------------------


def test_a_second_read_comes_from_memory(node):
    first = node.reads.latest("neurons", 1, 5)
    assert node.reads.latest("neurons", 1, 5) is first
    assert (node.hits, node.misses) == (1, 1)
    assert node.chain.calls["neurons"] == 1
    assert first.block == node.chain.at(1001)
    assert number_of(first) == 1001


def test_ready_never_asks(node):
    assert node.reads.ready("neurons", 1) is None
    told = node.reads.latest("neurons", 1, 5)
    assert node.reads.ready("neurons", 1) is told
    assert node.reads.ready("neurons", 2) is None


def test_latest_may_lag_one_block_and_no_more(node):
    node.reads.latest("neurons", 1, 5)
    node.chain.advance()
    node.tick()
    assert number_of(node.reads.latest("neurons", 1, 5)) == 1001
    node.chain.advance()
    node.tick()
    assert node.reads.ready("neurons", 1) is None
    assert number_of(node.reads.latest("neurons", 1, 5)) == 1003


def test_an_answer_about_a_newer_block_outruns_the_others_too(node):
    node.reads.latest("neurons", 1, 5)
    node.chain.advance(2)
    assert node.reads.latest("validators", 1, 5).block.number == 1003
    assert node.reads.ready("neurons", 1) is None


@pytest.mark.parametrize("lag", [0, 3])
def test_the_lag_is_a_setting(lag):
    node = Reading(overrides={"chain_latest_max_lag_blocks": lag})
    node.chain.seed(1, 1)
    node.link.start()
    node.reads.latest("neurons", 1, 5)
    node.chain.advance(lag)
    node.tick()
    assert node.reads.ready("neurons", 1) is not None
    node.chain.advance()
    node.tick()
    assert node.reads.ready("neurons", 1) is None
    node.close()


def test_a_block_that_was_undone_is_told_no_longer(node):
    before = node.reads.latest("neurons", 1, 5)
    other = node.chain.reorg(1)
    node.tick()
    after = node.reads.latest("neurons", 1, 5)
    assert (before.block.number, before.block.hash != after.block.hash) == (after.block.number, True)
    assert after.block == other


def test_a_shorter_fork_is_followed(node):
    node.reads.latest("neurons", 1, 5)
    node.chain.advance()
    node.tick()
    node.reads.latest("neurons", 1, 5)
    node.chain.head_number -= 1
    node.tick()
    assert node.reads.latest("neurons", 1, 5).block.number == 1001


def test_own_writes_are_seen_at_once(node):
    node.reads.latest("neurons", 1, 5)
    written = node.chain.advance()
    node.reads.wrote(written.number)
    assert node.reads.ready("neurons", 1) is None
    assert node.reads.latest("neurons", 1, 5).block == written
    node.reads.wrote(3)
    assert node.reads.ready("neurons", 1) is not None


def test_a_chain_that_does_not_show_our_write_yet_is_asked_again(node, monkeypatch):
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        node.chain.advance()

    monkeypatch.setattr("grid_node.chain.reads.time.sleep", pause)
    node.reads.wrote(1003)
    assert node.reads.latest("neurons", 1, 5).block.number == 1003
    assert len(pauses) == 2


def test_a_chain_that_never_shows_our_write_is_a_timeout(node, monkeypatch):
    monkeypatch.setattr("grid_node.chain.reads.time.sleep", node.clock.advance)
    node.reads.wrote(2000)
    with pytest.raises(ChainTimeout):
        node.reads.latest("neurons", 1, 1)
    with pytest.raises(ChainTimeout):
        node.reads.latest_block(1)


def test_a_chain_that_was_set_back_below_our_write_is_read_again_after_a_while(node):
    node.reads.wrote(1001)
    node.chain.head_number = 900
    node.chain._subnets[1][0] = (0, node.chain._subnets[1][0][1])
    node.tick(600)
    assert node.reads.heads.floor == 1001
    node.tick(1)
    assert node.reads.latest("neurons", 1, 5).block.number == 900


# --- what is none -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("netuid", [65536, 70000, 10**30])
def test_netuids_that_cannot_be_are_answered_without_the_chain(node, kind, netuid):
    asked = len(node.chain.asked)
    for read in (lambda: node.reads.latest(kind, netuid, 5), lambda: node.reads.at(kind, netuid, 1, 5)):
        with pytest.raises(ChainNotFound) as refused:
            read()
        assert refused.value.body() == {"status_code": 404, "detail": f"Subnet {netuid} not found."}
    assert len(node.chain.asked) == asked


@pytest.mark.parametrize("number", [2**32, 10**30])
def test_blocks_that_cannot_be_are_answered_without_the_chain(node, number):
    asked = len(node.chain.asked)
    for read in (lambda: node.reads.at("neurons", 1, number, 5), lambda: node.reads.extrinsic(number, 0, 5)):
        with pytest.raises(ChainNotFound, match=rf"^Block {number} not found\.$"):
            read()
    with pytest.raises(ChainNotFound, match=rf"^Extrinsic 7-{number} not found\.$"):
        node.reads.extrinsic(7, number, 5)
    assert len(node.chain.asked) == asked


def test_what_the_chain_does_not_know(node):
    with pytest.raises(ChainNotFound, match=r"^Subnet 70 not found\.$"):
        node.reads.latest("neurons", 70, 5)
    with pytest.raises(ChainNotFound, match=r"^Block 9000 not found\.$"):
        node.reads.at("neurons", 1, 9000, 5)
    with pytest.raises(ChainNotFound, match=r"^Extrinsic 7-99 not found\.$"):
        node.reads.extrinsic(7, 99, 5)
    with pytest.raises(ChainNotFound, match=r"^Commitment not found\.$"):
        node.reads.commitment(1, hotkey_of("nobody"), 5)
    with pytest.raises(ChainNotFound, match=r"^Certificate not found or error fetching\.$"):
        node.reads.certificate(1, hotkey_of("nobody"), 5)


@pytest.mark.parametrize(
    "hotkey", ["self", "", "5Grw", "x" * 300, "\0", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQ0"]
)
def test_a_hotkey_that_is_none_is_not_found(node, hotkey):
    asked = len(node.chain.asked)
    with pytest.raises(ChainNotFound, match=r"^Commitment not found\.$"):
        node.reads.commitment(1, hotkey, 5)
    with pytest.raises(ChainNotFound, match=r"^Certificate not found or error fetching\.$"):
        node.reads.certificate(1, hotkey, 5)
    assert len(node.chain.asked) == asked


def test_a_subnet_that_is_gone_is_told_no_longer(node):
    node.reads.latest("neurons", 1, 5)
    node.chain.drop_subnet(1)
    node.chain.advance()
    node.tick()
    with pytest.raises(ChainNotFound):
        node.reads.latest("neurons", 1, 5)
    assert node.reads.cache_bytes == 0


# --- one block --------------------------------------------------------------------------------------------------------


def test_a_finalized_block_is_read_once_and_never_changes(node):
    node.chain.advance(5)
    node.tick()
    first = node.reads.at("neurons", 1, 1003, 5)
    node.chain.subnet(1, neurons=(neuron_of(0),))
    node.tick()
    assert node.reads.at("neurons", 1, 1003, 5) is first
    assert first.block == node.chain.at(1003)
    assert number_of(first) == 1003
    assert (node.hits, node.misses) == (1, 1)


def test_a_block_that_may_be_undone_is_asked_for_each_time(node):
    node.chain.finalized_lag = 3
    node.chain.advance(5)
    node.tick()
    before = node.reads.at("neurons", 1, 1005, 5)
    node.chain.reorg(2)
    after = node.reads.at("neurons", 1, 1005, 5)
    assert before.block.hash != after.block.hash
    assert node.chain.at(1005) == after.block


def test_memory_outlives_the_chain_node_where_nothing_can_change(node):
    told = node.reads.at("neurons", 1, 1001, 5)
    extrinsic = node.reads.extrinsic(1001, 0, 5)
    node.chain.is_down = "no route"
    node.tick(1000)
    assert node.reads.at("neurons", 1, 1001, 5) is told
    assert node.reads.extrinsic(1001, 0, 5) is extrinsic
    with pytest.raises(ChainUnreachable, match=r"^Chain node is unreachable: no route$"):
        node.reads.at("neurons", 1, 1000, 5)


def test_a_chain_that_begins_again_is_another_one(node):
    old = node.reads.at("neurons", 1, 1001, 5)
    node.chain.head_number = 5
    node.desk.follower.finalized = 5
    node.tick()
    node.chain.subnet(1)
    node.chain.head_number = 1001
    node.chain.reorg(1001)
    node.desk.follower.finalized = 1001
    node.tick()
    assert node.reads.at("neurons", 1, 1001, 5).body != old.body


def test_extrinsics(node):
    told = node.reads.extrinsic(7, 0, 5)
    assert json.loads(told.body)["call"]["call_module"] == "Timestamp"
    assert node.reads.extrinsic(7, 0, 5) is told


# --- single hotkeys and the head --------------------------------------------------------------------------------------


def test_one_commitment_is_told_from_memory_within_its_block_only(node):
    key = hotkey_of("a")
    node.chain.subnet(1, commitments={key: Commitment(key, b"x", 7)})
    node.tick()
    first = node.reads.commitment(1, key, 5)
    assert node.reads.commitment(1, key, 5) is first
    node.chain.subnet(1, commitments={key: Commitment(key, b"y", 8)})
    node.tick()
    assert json.loads(node.reads.commitment(1, key, 5).body)["commitment"] == "0x79"


def test_what_an_identity_has_of_its_own():
    identity = Identity("sn1", 1, "wallet", "hotkey", "token")
    names = {"WALLET_NAME": "w", "HOTKEY_NAME": "h", "NETUID": "1", "TOKEN": "t"}
    environ = {"PYLON_IDENTITIES": '["sn1"]', **{f"PYLON_ID_SN1_{name}": value for name, value in names.items()}}
    node, key = Reading(environ=environ), hotkey_of("sn1")
    node.chain.subnet(1, commitments={key: Commitment(key, b"x", 7)}, certificates={key: Certificate(1, bytes(32))})
    node.link.start()
    assert json.loads(node.reads.own_commitment(identity, 5).body)["hotkey"] == key
    assert json.loads(node.reads.own_certificate(identity, 5).body)["public_key"] == "00" * 32
    node.chain.drop_subnet(1)
    node.tick()
    with pytest.raises(ChainNotFound, match=r"^Subnet 1 not found\.$"):
        node.reads.own_commitment(identity, 5)
    node.close()


def test_the_latest_block(node):
    asked = node.chain.calls["head"]
    told = node.reads.latest_block(5)
    assert json.loads(told.body) == node.chain.at(1001).body()
    assert node.chain.calls["head"] == asked
    node.reads.wrote(node.chain.advance().number)
    assert json.loads(node.reads.latest_block(5).body)["number"] == 1002


def test_the_latest_block_before_the_first_beat():
    node = Reading()
    assert node.reads.head is None
    assert json.loads(node.reads.latest_block(5).body)["number"] == 1000
    assert node.reads.head == node.chain.at(1000)
    node.close()


def test_hotkeys_follow_the_metagraph(node):
    assert node.reads.hotkeys(1, 5) == {hotkey_of(f"hotkey {uid}") for uid in range(4)}
    assert node.reads.hotkeys(1, 5) is node.reads.hotkeys(1, 5)
    node.reads.wrote(node.chain.subnet(1, neurons=(neuron_of(9),)).number)
    assert node.reads.hotkeys(1, 5) == {hotkey_of("hotkey 9")}


def test_the_age_of_a_block_is_in_whole_seconds_and_never_negative(node):
    block = node.chain.at(1000)
    assert node.reads.age(block) == 0
    node.clock.advance(12.9)
    assert node.reads.age(block) == 12
    assert node.reads.age(node.chain.at(2000)) == 0


def test_the_status_does_not_fail_with_the_chain(node):
    node.reads.latest("neurons", 1, 5)
    status = node.reads.status()
    assert status == {
        "backend": "local",
        "worker": "up",
        "head": node.chain.at(1001).ref(),
        "age_seconds": 0,
        "endpoints": [{"uri": "ws://stub", "ok": True, "error": None}],
        "queue": 0,
        "cache_bytes": node.reads.cache_bytes,
    }
    node.link.is_up = False
    assert {**status, "worker": "down", "endpoints": []} == node.reads.status()


def test_heads_are_told_once_each_and_one_who_fails_hides_none(node):
    seen = []
    node.reads.watch_heads(lambda block: 1 / 0)
    node.reads.watch_heads(seen.append)
    node.tick()
    node.chain.advance()
    node.tick()
    node.tick()
    node.chain.reorg(1)
    node.tick()
    assert [block.number for block in seen] == [1002, 1002]


# --- outage -----------------------------------------------------------------------------------------------------------


def test_latest_outlives_the_chain_node_for_a_while_then_says_why_then_recovers(node):
    told = node.reads.latest("neurons", 1, 5)
    node.chain.is_down = "connection refused"
    for _ in range(60):
        node.tick()
        assert node.reads.latest("neurons", 1, 5) is told
    node.tick()
    with pytest.raises(ChainUnreachable) as refused:
        node.reads.latest("neurons", 1, 5)
    assert refused.value.body() == {
        "status_code": 502,
        "detail": "Chain node is unreachable: connection refused",
    }
    node.chain.is_down = None
    node.chain.advance(6)
    node.tick()
    assert node.reads.latest("neurons", 1, 5).block.number == 1007


def test_a_read_that_was_overtaken_when_the_node_went_is_told_as_long(node):
    told = node.reads.latest("neurons", 1, 5)
    node.chain.advance(2)
    node.tick()
    node.chain.is_down = "gone"
    node.clock.advance(59)
    assert node.reads.latest("neurons", 1, 5) is told
    node.clock.advance(2)
    with pytest.raises(ChainUnreachable):
        node.reads.latest("neurons", 1, 5)


def test_what_was_old_before_the_node_went_is_not_told(node):
    node.reads.latest("neurons", 1, 5)
    node.chain.advance(2)
    node.tick()
    node.tick(100)
    node.chain.is_down = "gone"
    with pytest.raises(ChainUnreachable):
        node.reads.latest("neurons", 1, 5)


def test_in_an_outage_nothing_older_than_our_own_write_is_told(node):
    node.reads.latest("neurons", 1, 5)
    node.reads.wrote(1002)
    node.chain.is_down = "gone"
    with pytest.raises(ChainUnreachable):
        node.reads.latest("neurons", 1, 5)


def test_a_chain_node_known_to_be_away_is_not_waited_for(node):
    node.chain.is_down = "gone"
    node.tick(61)
    asked = len(node.chain.asked)
    with pytest.raises(ChainUnreachable):
        node.reads.latest("neurons", 1, 5)
    assert len(node.chain.asked) == asked


def test_before_the_node_was_ever_heard_it_is_asked(node):
    fresh = Reading()
    fresh.chain.is_down = "not yet"
    fresh.link.start()
    fresh.chain.is_down = None
    fresh.chain.seed(1, 1)
    assert fresh.reads.latest("neurons", 1, 5).block.number == 1001
    fresh.close()


def test_without_any_patience_memory_is_used_while_the_chain_answers():
    node = Reading(overrides={"chain_latest_stale_seconds": 0.0})
    node.chain.seed(1, 1)
    node.link.start()
    told = node.reads.latest("neurons", 1, 5)
    node.clock.advance(1)
    assert node.reads.latest("neurons", 1, 5) is told
    node.chain.is_down = "gone"
    node.tick(6)
    with pytest.raises(ChainUnreachable):
        node.reads.latest("neurons", 1, 5)
    node.close()


def test_a_beat_from_before_an_answer_takes_nothing_back(node):
    node.chain.advance()
    told = node.reads.latest("neurons", 1, 5)
    assert told.block.number == 1002
    node.chain.is_down = "gone"
    node.tick(61)
    assert node.reads.head.number == 1002
    with pytest.raises(ChainUnreachable):
        node.reads.latest("neurons", 1, 5)


def test_a_word_of_trouble_is_not_believed_for_ever(node):
    node.chain.is_down = "gone"
    node.tick(61)
    node.chain.is_down = None
    node.clock.advance(6)
    assert node.reads.latest("neurons", 1, 5).block.number == 1001


def test_the_process_of_the_chain_may_die_and_memory_answers(node):
    told = node.reads.latest("neurons", 1, 5)
    node.link.is_up = False
    node.clock.advance(59)
    assert node.reads.latest("neurons", 1, 5) is told
    with pytest.raises(ChainUnreachable):
        node.reads.latest("validators", 1, 5)
    node.link.is_up = True
    assert node.reads.latest("validators", 1, 5).block.number == 1001


def test_garbage_of_the_chain_node_harms_no_memory(node):
    told = node.reads.latest("neurons", 1, 5)
    node.chain.fail("neurons", NodeUnreachable("half a frame"))
    node.chain.subnet(1, neurons=(neuron_of(0),))
    node.chain.advance()
    node.tick()
    assert node.reads.latest("neurons", 1, 5) is told
    assert node.reads.latest("neurons", 1, 5).block.number == 1003


# --- recent -----------------------------------------------------------------------------------------------------------


def test_recent_is_told_up_to_the_hard_limit_while_the_node_is_away(node):
    told = node.reads.recent(1, 5)
    node.chain.is_down = "gone"
    node.tick(150 * 12 + 11)
    assert node.reads.recent(1, 5) is told
    node.tick(1)
    with pytest.raises(ChainNotRecent) as refused:
        node.reads.recent(1, 5)
    assert (refused.value.status, refused.value.retry_after) == (503, 12)
    node.chain.is_down = None
    node.chain.advance(151)
    node.tick()
    assert node.reads.recent(1, 5).block.number == 1152


def test_recent_counts_the_blocks_that_came(node):
    told = node.reads.recent(1, 5)
    node.chain.advance(150)
    node.tick()
    assert node.reads.recent(1, 5) is told
    node.chain.advance()
    node.tick()
    assert node.reads.recent(1, 5).block.number == 1152


def test_recent_of_a_subnet_that_nobody_listed_is_fetched_once(node):
    node.chain.seed(7, 2)
    node.tick()
    first = node.reads.recent(7, 5)
    assert node.reads.recent(7, 5) is first
    assert node.chain.calls["neurons"] == 1
    with pytest.raises(ChainNotFound, match=r"^Subnet 8 not found\.$"):
        node.reads.recent(8, 5)


def test_recent_near_its_soft_limit_has_itself_refreshed(node):
    told, woken = node.reads.recent(1, 5), []
    for blocks, wakes in ((89, []), (1, [True])):
        node.chain.advance(blocks)
        node.tick()
        node.reads._refresher.wake = lambda: woken.append(True)
        assert node.reads.recent(1, 5) is told
        assert woken == wakes
        node.reads._refresher.wake = lambda: None
    node.refresh()
    assert node.reads.recent(1, 5).block.number == 1091


# --- many at once -----------------------------------------------------------------------------------------------------


def many(count, read):
    told, threads = [], []

    def run():
        try:
            told.append(read())
        except (ChainTimeout, ChainUnreachable, ChainNotFound) as error:
            told.append(error)

    for _ in range(count):
        threads.append(threading.Thread(target=run))
        threads[-1].start()
    return told, threads


@pytest.mark.parametrize("read", ["latest", "at", "recent"])
def test_twenty_first_reads_are_one_call(node, read):
    reads = {
        "latest": lambda: node.reads.latest("neurons", 1, 10),
        "at": lambda: node.reads.at("neurons", 1, 1001, 10),
        "recent": lambda: node.reads.recent(1, 10),
    }
    with node.chain.hold("neurons"):
        told, threads = many(20, reads[read])
        until(lambda: node.misses == 20)
    for thread in threads:
        thread.join(10)
    assert len(told) == 20
    assert all(one is told[0] for one in told)
    assert node.chain.calls["neurons"] == 1


def test_each_waiter_has_its_own_deadline_and_takes_nobody_along(node):
    with node.chain.hold("neurons"):
        patient, threads = many(2, lambda: node.reads.latest("neurons", 1, 10))
        until(lambda: node.misses == 2)
        began = time.monotonic()
        with pytest.raises(ChainTimeout):
            node.reads.latest("neurons", 1, 0.05)
        assert time.monotonic() - began < 2
    for thread in threads:
        thread.join(10)
    assert [told.block.number for told in patient] == [1001, 1001]
    assert node.chain.calls["neurons"] == 1


def test_a_failure_is_everybodys_and_is_not_remembered(node):
    node.chain.fail("neurons", NodeUnreachable("garbage"))
    with node.chain.hold("neurons"):
        told, threads = many(5, lambda: node.reads.latest("neurons", 1, 10))
        until(lambda: node.misses == 5)
    for thread in threads:
        thread.join(10)
    assert [str(error) for error in told] == ["Chain node is unreachable: garbage"] * 5
    assert len({id(error) for error in told}) == 5
    assert node.reads.latest("neurons", 1, 5).block.number == 1001


def test_no_time_left_is_a_timeout_without_a_call(node):
    asked = len(node.chain.asked)
    with pytest.raises(ChainTimeout):
        node.reads.latest("neurons", 1, 0)
    assert len(node.chain.asked) == asked


def test_who_joins_a_read_that_began_before_a_write_sees_the_write(node):
    with node.chain.hold("neurons"):
        before, threads = many(1, lambda: node.reads.latest("neurons", 1, 10))
        until(lambda: node.chain.calls["neurons"] == 1)
        written = node.chain.subnet(1, neurons=(neuron_of(5),))
        node.reads.wrote(written.number)
        after, more = many(1, lambda: node.reads.latest("neurons", 1, 10))
        until(lambda: node.misses == 2)
    for thread in (*threads, *more):
        thread.join(10)
    assert (before[0].block.number, after[0].block) == (1001, written)


def test_who_joins_a_read_that_the_head_has_left_behind_gets_a_newer_one(node):
    with node.chain.hold("neurons"):
        before, threads = many(1, lambda: node.reads.latest("neurons", 1, 10))
        until(lambda: node.chain.calls["neurons"] == 1)
        node.reads.on_beat(Beat(node.chain.advance(3), 1004, 0.0, None, {}))
        after, more = many(1, lambda: node.reads.latest("neurons", 1, 10))
        until(lambda: node.misses == 2)
    for thread in (*threads, *more):
        thread.join(10)
    assert (before[0].block.number, after[0].block.number) == (1001, 1004)


def test_an_answer_that_comes_too_late_is_not_kept_as_the_latest(node):
    with node.chain.hold("neurons"):
        told, threads = many(1, lambda: node.reads.latest("neurons", 1, 10))
        until(lambda: node.chain.calls["neurons"] == 1)
        node.reads.on_beat(Beat(node.chain.advance(3), 1004, 0.0, None, {}))
    threads[0].join(10)
    assert told[0].block.number == 1001
    assert node.reads.ready("neurons", 1) is None


# --- a small cache ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3000])
def test_without_room_every_read_is_a_call_and_right(limit):
    node = Reading(overrides={"chain_cache_max_bytes": limit})
    node.chain.seed(1, 4)
    node.link.start()
    for _ in range(3):
        assert number_of(node.reads.latest("neurons", 1, 5)) == 1001
        assert number_of(node.reads.at("neurons", 1, 1001, 5)) == 1001
    assert (node.hits, node.reads.cache_bytes) == (0, 0)
    node.close()
