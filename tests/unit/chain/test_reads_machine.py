"""Reads under whatever order of blocks, forks, outages, deaths and writes: the right body for each block, and none that
is older than it may be."""

from collections import deque
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from grid_node.chain.bodies import Bodies
from grid_node.chain.ports import Commitment
from grid_node.errors import ChainError, ChainNotRecent, ChainUnreachable
from tests.chain_reads import Reading
from tests.chain_stub import hotkey_of, neuron_of

KINDS = ("neurons", "validators", "commitments", "certificates")
LAG, STALE, HARD, SOFT = 1, 60.0, 20, 10
FINAL = 3
"""Blocks that may be undone."""
kinds = st.sampled_from(KINDS)


class Reads(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        environ = {
            "PYLON_RECENT_OBJECTS_SOFT_LIMIT_BLOCKS": str(SOFT),
            "PYLON_RECENT_OBJECTS_HARD_LIMIT_BLOCKS": str(HARD),
        }
        self.node = Reading(environ=environ)
        self.chain, self.reads, self.clock = self.node.chain, self.node.reads, self.node.clock
        self.chain.finalized_lag = FINAL
        self.expected = {}
        self.written = 0
        self.known = deque([(self.clock.steady(), 0)])
        """When reads could know of which head number, newest last."""
        self.heard_at = self.clock.steady()
        self.sleeping = patch("grid_node.chain.reads.time.sleep", self.clock.advance)
        self.sleeping.start()
        self.chain.seed(1, 2)
        self.note()
        self.node.link.start()
        self.learn()

    def teardown(self):
        if hasattr(self, "node"):
            self.sleeping.stop()
            self.node.close()

    def note(self):
        """What is to be told about each block that exists now."""
        down, self.chain.is_down = self.chain.is_down, None
        bodies = Bodies()
        for number in range(1001, self.chain.head_number + 1):
            block = self.chain.at(number)
            for kind in KINDS:
                if (kind, block.hash) not in self.expected:
                    self.expected[kind, block.hash] = getattr(bodies, kind)(self.chain, 1, block)[1]
        self.chain.is_down = down

    def learn(self):
        self.heard_at = self.clock.steady()
        self.known.append((self.heard_at, self.chain.head_number))

    @property
    def is_well(self):
        return self.chain.is_down is None and self.node.link.is_up

    @property
    def is_thought_away(self):
        """The last beat said so, and a long silence before it; the next one will tell otherwise."""
        return self.clock.steady() - self.heard_at > STALE

    # --- what happens to the chain --------------------------------------------------------------------------------

    @rule(blocks=st.integers(1, 4))
    def advance(self, blocks):
        self.chain.advance(blocks)
        self.note()

    @rule(stake=st.integers(0, 9), uid=st.integers(0, 3))
    def change(self, stake, uid):
        self.chain.subnet(1, neurons=(neuron_of(uid, stake_total=float(stake)), neuron_of(8)))
        self.note()

    @rule(data=st.binary(min_size=1, max_size=4))
    def commit(self, data):
        key = hotkey_of("a")
        self.chain.subnet(1, commitments={key: Commitment(key, data, self.chain.head_number + 1)})
        self.note()

    @rule(depth=st.integers(1, FINAL))
    def reorg(self, depth):
        first = max(self.chain.head_number - depth + 1, self.written + 1, 1002)
        depth = self.chain.head_number - first + 1
        if depth > 0:
            versions = self.chain._subnets[1]
            while versions[-1][0] >= first:
                versions.pop()
            self.chain.reorg(depth)
            self.note()

    @rule(why=st.sampled_from(["gone", None]))
    def node_goes_or_comes(self, why):
        self.chain.is_down = why

    @rule(is_up=st.booleans())
    def process_dies_or_comes(self, is_up):
        self.node.link.is_up = is_up

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0, 12.0, 59.0, 61.0, 300.0]))
    def beat(self, seconds):
        self.node.tick(seconds)
        if self.is_well:
            self.learn()

    @precondition(lambda self: self.is_well)
    @rule()
    def write(self):
        """A write is told of when it is finalized."""
        self.written = self.chain.advance().number
        self.chain.advance(FINAL)
        self.note()
        self.reads.wrote(self.written)

    @rule()
    def refresh(self):
        self.node.refresh()

    # --- what is told ---------------------------------------------------------------------------------------------

    def check(self, kind, told):
        assert told.body == self.expected[kind, told.block.hash]

    def check_latest(self, kind, told, newest_known):
        self.check(kind, told)
        assert told.block.number >= self.written
        assert self.clock.steady() - self.heard_at <= STALE
        since = self.clock.steady() - STALE
        lately = [number for at, number in self.known if at >= since]
        before = [number for at, number in self.known if at < since][-1:]
        assert told.block.number >= min(lately + before) - LAG
        if self.is_well:
            assert told.block.number >= newest_known - LAG

    @rule(kind=kinds)
    def latest(self, kind):
        newest_known = self.known[-1][1]
        if self.is_well:
            self.learn_if_asked(kind)
        try:
            told = self.reads.latest(kind, 1, 30)
        except ChainUnreachable:
            assert not self.is_well
            return
        self.check_latest(kind, told, newest_known)

    def learn_if_asked(self, kind):
        """An answer of the chain tells of its head, not of the node's health, which beats do."""
        if self.reads.ready(kind, 1) is None:
            self.known.append((self.clock.steady(), self.chain.head_number))
            if self.clock.steady() - self.heard_at > STALE:
                self.node.tick(0)
                self.learn()

    @rule(kind=kinds)
    def ready(self, kind):
        asked = len(self.chain.asked)
        told = self.reads.ready(kind, 1)
        assert len(self.chain.asked) == asked
        if told is not None:
            self.check_latest(kind, told, self.known[-1][1])

    @rule(kind=kinds, back=st.integers(0, 8))
    def at(self, kind, back):
        number = max(1001, self.chain.head_number - back)
        try:
            told = self.reads.at(kind, 1, number, 30)
        except ChainUnreachable:
            assert not self.is_well or self.is_thought_away
            return
        assert told.block == self.chain.at(number)
        self.check(kind, told)

    @rule()
    def recent(self):
        is_well = self.is_well
        try:
            told = self.reads.recent(1, 30)
        except ChainNotRecent:
            assert not is_well or self.is_thought_away
            return
        self.check("neurons", told)
        newest = self.reads.head.number
        missed = int((self.clock.steady() - self.reads.heads.heard_at) / 12)
        assert told.block.number >= newest + missed - HARD or told.block.number == self.chain.head_number

    @rule()
    def latest_block(self):
        try:
            told = self.reads.latest_block(30)
        except ChainError:
            assert not self.is_well or self.is_thought_away
            return
        assert told.block.number >= self.written

    @invariant()
    def no_more_than_allowed_is_kept(self):
        if hasattr(self, "node"):
            assert self.reads.cache_bytes <= self.node.settings.chain_cache_max_bytes


TestReads = Reads.TestCase
TestReads.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
