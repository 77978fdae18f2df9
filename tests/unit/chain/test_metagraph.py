"""Who is registered, from the node's memory."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_node.chain.metagraph import ChainMetagraph
from grid_node.ss58 import decode
from tests.chain_reads import Reading
from tests.chain_stub import hotkey_of, neuron_of


def key_of(name):
    return decode(hotkey_of(name))


def uid_key(uid):
    return key_of(f"hotkey {uid}")


class Watched(Reading):
    """With a metagraph and what it published."""

    def __post_init__(self):
        super().__post_init__()
        self.metagraph = ChainMetagraph(self.reads, self.clock, self.settings, self.pylon)
        self.changes = []
        self.metagraph.on_change = self.changes.append
        self.chain.seed(1, 4)
        self.link.start()

    def block(self, *neurons):
        if neurons:
            self.chain.subnet(1, neurons=neurons)
        else:
            self.chain.advance()
        self.tick()
        self.refresh()


@pytest.fixture
def node():
    node = Watched()
    yield node
    node.close()


def test_nothing_is_known_before_the_first_snapshot(node):
    standing = node.metagraph.standing(uid_key(1))
    assert (standing.registered, standing.netuid, standing.uid, standing.block) == (None, 1, None, None)
    assert not node.metagraph.is_known


def test_a_registered_hotkey(node):
    node.block(*(neuron_of(uid, incentive=uid / 10, stake_total=uid + 0.5) for uid in range(4)))
    node.clock.advance(3)
    standing = node.metagraph.standing(uid_key(2))
    assert (standing.registered, standing.netuid, standing.uid, standing.hotkey) == (True, 1, 2, hotkey_of("hotkey 2"))
    assert (standing.incentive, standing.stake_total, standing.validator_permit) == (0.2, 2.5, False)
    assert (standing.block, standing.age_seconds, standing.strong) == (node.chain.at(1002), 3, True)
    assert node.metagraph.is_known


def test_a_hotkey_that_is_not_there(node):
    node.block()
    standing = node.metagraph.standing(key_of("nobody"))
    assert (standing.registered, standing.uid, standing.strong, standing.block) == (False, None, None, node.reads.head)


def test_strong_are_the_best_by_incentive_and_of_equals_the_lower_uids():
    node = Watched(overrides={"chain_strong_workers": 3})
    node.block(*(neuron_of(uid, incentive={4: 0.5, 1: 0.2}.get(uid, 0.1)) for uid in range(6)))
    strong = [uid for uid in range(6) if node.metagraph.standing(uid_key(uid)).strong]
    assert strong == [0, 1, 4]
    node.close()


def test_a_worker_that_is_deregistered_is_told_at_the_next_block(node):
    node.block()
    node.block(neuron_of(0), neuron_of(1), neuron_of(2, hotkey=hotkey_of("new")))
    first, change = node.changes
    assert first.added == {uid_key(uid) for uid in range(4)}
    assert (first.removed, first.replaced) == (frozenset(), {})
    assert change.added == {key_of("new")}
    assert change.removed == {uid_key(2), uid_key(3)}
    assert change.replaced == {uid_key(2): key_of("new")}
    assert node.metagraph.standing(uid_key(3)).registered is False
    assert node.metagraph.standing(key_of("new")).uid == 2


def test_a_hotkey_that_moves_to_another_uid_stays(node):
    node.block()
    node.block(*(neuron_of(uid, hotkey=hotkey_of(f"hotkey {3 - uid}")) for uid in range(4)))
    assert len(node.changes) == 1
    assert node.metagraph.standing(uid_key(3)).uid == 0


def test_a_block_without_news_publishes_nothing_but_is_the_newest(node):
    node.block()
    node.block()
    assert len(node.changes) == 1
    assert node.metagraph.standing(uid_key(0)).block == node.chain.at(1003)


def test_a_block_that_was_undone_takes_its_registrations_along(node):
    node.block()
    node.block(*(neuron_of(uid) for uid in range(5)))
    node.chain._subnets[1].pop()
    node.chain.reorg(1)
    node.tick()
    node.refresh()
    assert node.changes[-1].removed == {uid_key(4)}
    assert node.metagraph.standing(uid_key(4)).registered is False


def test_too_old_is_unknown_and_the_next_block_heals_it(node):
    node.block()
    node.chain.is_down = "gone"
    node.tick(1800)
    assert node.metagraph.standing(uid_key(1)).registered is True
    node.tick(1)
    standing = node.metagraph.standing(uid_key(1))
    assert (standing.registered, standing.age_seconds, standing.uid) == (None, 1801, None)
    assert not node.metagraph.is_known
    node.chain.is_down = None
    node.block()
    assert node.metagraph.standing(uid_key(1)).registered is True


def test_a_chain_that_stands_still_but_answers_is_known(node):
    node.block()
    for _ in range(4):
        node.tick(1000)
    standing = node.metagraph.standing(uid_key(1))
    assert (standing.registered, standing.age_seconds) == (True, 0)


def test_a_subnet_whose_reads_fail_is_not_kept_alive_by_new_heads(node):
    node.block()
    node.chain.advance()
    for _ in range(4):
        node.tick(1000)
    assert node.metagraph.standing(uid_key(1)).registered is None


def test_a_hotkey_that_is_none_is_left_out(node):
    node.block(neuron_of(0), neuron_of(1, hotkey="nonsense"))
    assert node.metagraph.standing(uid_key(0)).registered is True
    assert len(node.changes[-1].added) == 1


def test_one_who_fails_at_a_change_harms_neither_read_nor_snapshot(node, caplog):
    node.metagraph.on_change = lambda change: 1 / 0
    assert node.reads.latest("neurons", 1, 5).block.number == 1001
    assert node.metagraph.standing(uid_key(0)).registered is True
    assert "ZeroDivisionError" in caplog.text


def test_other_subnets_are_not_its_own(node):
    node.chain.seed(2, 9)
    node.tick()
    node.reads.latest("neurons", 2, 5)
    assert not node.metagraph.is_known


uids = st.dictionaries(st.integers(0, 5), st.sampled_from("abcdef"), max_size=6).filter(
    lambda held: len(set(held.values())) == len(held)
)


@settings(max_examples=40, deadline=None)
@given(st.lists(uids, min_size=1, max_size=5))
def test_changes_add_up_to_the_metagraph(blocks):
    node, known = Watched(), set()
    for held in blocks:
        node.chain.subnet(1, neurons=tuple(neuron_of(uid, hotkey=hotkey_of(name)) for uid, name in held.items()))
        node.tick()
        node.refresh()
        for change in node.changes:
            assert not change.added & known
            assert change.removed <= known
            assert change.replaced.keys() <= change.removed
            known = (known | change.added) - change.removed
        node.changes.clear()
        assert known == {key_of(name) for name in held.values()}
        for uid, name in held.items():
            assert node.metagraph.standing(key_of(name)).uid == uid
    node.close()


def test_a_large_swap_gives_others_their_turn(monkeypatch):
    node, turns = Watched(), []
    neurons = tuple(neuron_of(uid) for uid in range(256))
    body = node.desk._bodies.neurons(node.chain, 1, node.chain.subnet(1, neurons=neurons))[1]
    monkeypatch.setattr("grid_node.chain.metagraph.time.sleep", turns.append)
    node.metagraph._take(node.chain.at(1002), "state", body)
    assert turns == [0] * 8
    node.close()
