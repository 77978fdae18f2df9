"""Clients, outages, kills, lost and late extrinsics in any order: what the chain has is what was put last, once."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import select

from grid_node.chain.weights_tables import ChainLease, WeightsJob, jobs
from grid_node.database import Base, DirectStore, make_engine
from tests.chain_stub import LANDS_UNHEARD, LOST
from tests.contract.chain.test_weights_kills import Fragile, Fuse, Killed
from tests.contract.chain.weighing import HOTKEYS, LATE, World

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
OUTCOMES = st.sampled_from(["lands", LANDS_UNHEARD, LOST, LATE])


class WeightsMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY, prefix="grid-test-")
        self.store = DirectStore(make_engine(f"sqlite:///{self.folder.name}/grid.db"))
        Base.metadata.create_all(self.store.engine, [WeightsJob.__table__, ChainLease.__table__])
        self.world = World(self.store)
        self.put = 0

    def teardown(self):
        self.world.chain.is_down = None
        self.world.chain.outcomes.clear()
        self.world.chain.land_late()
        try:
            self.restart()
            if self.put:
                self.end()
        finally:
            self.store.close()
            self.folder.cleanup()

    def end(self):
        job = self.world.run(4 * 3600)
        assert job["status"] in ("completed", "tempo_expired")
        assert job["weights_submitted"] == (job["status"] == "completed")
        self.each_job_landed_once_in_order()
        landed = [row.extrinsic_hash for row in self.rows() if row.landed]
        assert landed == [prepared.extrinsic_hash for prepared, _landed in self.world.chain.landed]

    # --- what happens ---------------------------------------------------------------------------------------------

    @rule(uid=st.integers(0, 3), is_known=st.booleans())
    def client_puts(self, uid, is_known):
        self.put += 1
        self.world.reads.known = frozenset(HOTKEYS) if is_known else None
        self.world.put({HOTKEYS[uid]: 1.0, HOTKEYS[4]: 0.5})

    @rule(outcome=OUTCOMES)
    def submission_fares(self, outcome):
        self.world.chain.outcomes.append(outcome)

    @rule(is_down=st.booleans())
    def node_goes_or_comes_back(self, is_down):
        self.world.chain.is_down = "gone" if is_down else None

    @rule()
    def late_ones_land(self):
        self.world.chain.land_late()

    @rule(lag=st.integers(0, 4))
    def finality_lags(self, lag):
        self.world.chain.finalized_lag = lag

    @rule(seconds=st.sampled_from([0.5, 3, 12, 40, 100, 500]))
    def time_passes(self, seconds):
        self.world.wait(seconds)

    @rule(seconds=st.sampled_from([0, 3, 30, 130]))
    def runner_works(self, seconds):
        if self.put:
            self.world.run(seconds)

    @rule(place=st.integers(0, 60))
    def runner_is_killed(self, place):
        fuse = Fuse(place)
        self.world.runner = self.world.new_runner(Fragile(self.store, fuse), Fragile(self.world.chain, fuse))
        try:
            self.world.runner.recover()
            self.runner_works(20)
        except Killed:
            pass
        self.restart()

    def restart(self):
        self.world.runner = self.world.new_runner()
        self.world.runner.recover()

    # --- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def each_job_landed_once_in_order(self):
        """A job's extrinsics are told apart by nothing but their weights: the hash on record is of the one that
        landed, and no job has two."""
        numbers = {row.extrinsic_hash: row.number for row in self.rows() if row.extrinsic_hash is not None}
        landed = [numbers.get(prepared.extrinsic_hash) for prepared, _landed in self.world.chain.landed]
        assert None not in landed, "an extrinsic landed that its job no longer knows"
        assert landed == sorted(set(landed))

    @invariant()
    def one_job_is_unfinished_at_most_and_it_is_the_newest(self):
        unfinished = [row.status in ("scheduled", "running") for row in self.rows()]
        assert not any(unfinished[:-1])

    def rows(self):
        return self.store.read(lambda tx: tx.execute(select(jobs).order_by(jobs.c.number)).all())


TestWeightsMachine = WeightsMachine.TestCase
TestWeightsMachine.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
