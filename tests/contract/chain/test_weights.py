"""Weights' jobs from the PUT to the chain, over each store."""

import itertools
import math

import pytest
from sqlalchemy import select

from grid_node.chain.ports import BlockUnknown, Hyperparams, Landed, NodeUnreachable, WriteRefused
from grid_node.chain.weights_tables import jobs
from grid_node.errors import ChainInvalid, ChainNotFound, ChainQueueFull, StoreUnavailable
from tests.chain_stub import LANDS_UNHEARD, LOST
from tests.contract.chain.weighing import LATE, A, B, C, World, identity, sent
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

HALVES = {A: 0.5, B: 0.25, C: 0.0}


@pytest.fixture
def world(store):
    return World(store)


# --- put -----------------------------------------------------------------------------------------------------------


def test_put_answers_as_pylon_does_and_wakes_the_chains_process(world):
    answer = world.put(HALVES)

    job = world.status()
    assert answer == {"detail": "weights update scheduled", "count": 3, "job_id": job["job_id"], "dropped": []}
    assert job["status"] == "scheduled"
    assert world.link.asked == [("weights", {})]


def test_the_status_of_a_new_job_has_every_field(world):
    job_id = world.put(HALVES)["job_id"]

    now = world.clock.now()
    assert world.status() == {
        "job_id": job_id,
        "identity_name": "sn1",
        "netuid": 1,
        "status": "scheduled",
        "weights_submitted": False,
        "count": 3,
        "dropped": [],
        "source": "client",
        "attempts": 0,
        "max_attempts": 201,
        "created_at": now,
        "updated_at": now,
        "next_attempt_at": now,
        "epoch": None,
        "block_number": None,
        "extrinsic_hash": None,
        "reveal_round": None,
        "last_error": None,
    }


def test_an_identity_without_a_job_has_no_status(world):
    with pytest.raises(ChainNotFound, match="No weights job for identity 'sn1'"):
        world.status()


def test_hotkeys_that_are_not_on_the_subnet_are_dropped_and_told(world):
    answer = world.put({A: 1.0, "nobody": 2.0, "\x00\ud800": 1.0})

    assert (answer["count"], answer["dropped"]) == (3, ["nobody", "\x00?"])
    world.run()
    assert world.chain.weights == [sent((0, 65535))]
    assert world.status()["dropped"] == ["nobody", "\x00?"]


@pytest.mark.parametrize(
    ("weights", "key", "message"),
    [
        ({}, "weights", "Value error, No weights provided"),
        ({"nobody": 1.0}, "weights", "Value error, None of the hotkeys is registered on subnet 1"),
        ({A: 1.0, B: -0.1}, f"weights.{B}", "Input should be greater than or equal to 0"),
        ({A: math.nan}, f"weights.{A}", "Input should be a finite number"),
        ({A: math.inf}, f"weights.{A}", "Input should be a finite number"),
    ],
)
def test_bad_weights_are_refused_and_nothing_is_stored(world, weights, key, message):
    with pytest.raises(ChainInvalid) as refused:
        world.put(weights)

    assert refused.value.data["extra"] == [{"message": message, "key": key}]
    with pytest.raises(ChainNotFound):
        world.status()


def test_a_subnet_that_is_not_there_is_told(world):
    def unknown(netuid, timeout):
        raise ChainNotFound("Subnet 1 not found.")

    world.reads.hotkeys = unknown
    with pytest.raises(ChainNotFound, match="Subnet 1 not found"):
        world.put(HALVES)


def test_weights_are_taken_while_the_chain_is_away(world):
    world.reads.known, world.reads.knows_head = None, False
    world.link.answers["weights"] = lambda _args: (_ for _ in ()).throw(ChainQueueFull())

    assert world.put({A: 1.0, "nobody": 1.0})["dropped"] == []

    assert world.run()["status"] == "completed"
    assert world.chain.weights == [sent((0, 65535))]
    assert world.status()["dropped"] == ["nobody"]


def test_when_the_attempt_finds_nobody_on_the_subnet_nothing_is_sent(world):
    world.reads.known = None
    world.put({"nobody": 1.0, "no one": 0.5})

    job = world.run()

    assert (job["status"], job["last_error"]) == ("failed", "None of the hotkeys is registered on subnet 1")
    assert sorted(job["dropped"]) == ["no one", "nobody"]
    assert world.chain.calls["submit"] == 0


# --- who wins ------------------------------------------------------------------------------------------------------


def test_the_last_put_wins(world):
    first = world.put({A: 1.0})["job_id"]
    second = world.put({B: 1.0})["job_id"]

    assert world.run()["job_id"] == second
    assert world.chain.weights == [sent((1, 65535))]
    assert state_of(world, first) == ("superseded", False)


def test_weights_that_were_sent_are_awaited_before_newer_ones(world):
    world.chain.outcomes.append(LATE)
    first = world.put({A: 1.0})["job_id"]
    world.run()
    world.put({B: 1.0})
    world.run(20)
    assert world.chain.weights == []
    assert state_of(world, first) == ("superseded", False)

    world.chain.land_late()
    job = world.run(60)

    assert job["status"] == "completed"
    assert world.chain.weights == [sent((0, 65535)), sent((1, 65535))]
    assert state_of(world, first) == ("superseded", True)


def test_weights_put_while_older_ones_are_being_signed_win(world):
    prepare = world.chain.prepare_weights

    def put_meanwhile(*args):
        world.chain.prepare_weights = prepare
        world.put({B: 1.0})
        return prepare(*args)

    world.chain.prepare_weights = put_meanwhile
    world.put({A: 1.0})
    world.run()

    assert world.chain.weights == [sent((1, 65535))]


def test_the_same_weights_again_are_the_same_job(world):
    first = world.put({A: 1.0, B: 2.0})
    assert world.put({B: 2.0, A: 1.0}) == first
    world.run()
    assert world.put({A: 1, B: 2.0}) == first
    world.run()

    assert len(world.chain.weights) == 1


def test_the_same_weights_in_the_next_epoch_are_a_new_job(world):
    first = world.put(HALVES)["job_id"]
    job = world.run()
    world.chain.advance(job["epoch"]["end"] - world.chain.head_number)

    assert world.put(HALVES)["job_id"] != first
    assert world.run()["epoch"]["start"] == job["epoch"]["end"]
    assert len(world.chain.weights) == 2


def test_the_same_weights_are_a_new_job_when_the_epoch_ended_unheard(world):
    first = world.put(HALVES)["job_id"]
    job = world.run()
    world.reads.knows_head = False
    world.clock.advance((job["epoch"]["end"] - job["block_number"] + 1) * 12)

    assert world.put(HALVES)["job_id"] != first


def test_the_same_weights_after_others_are_a_new_job(world):
    first = world.put({A: 1.0})["job_id"]
    world.put({B: 1.0})
    assert world.put({A: 1.0})["job_id"] != first

    world.run()
    assert world.chain.weights == [sent((0, 65535))]


def test_identities_do_not_stand_in_each_others_way(store):
    world = World(store, ("sn1", "other"))
    world.chain.fail("prepare_weights", WriteRefused("no"))
    world.put({A: 1.0})
    world.wait(0.1)
    world.put({B: 1.0}, "other")

    world.run(name="other")
    assert world.chain.weights == [sent((1, 65535))]
    assert world.run(5)["status"] == "completed"


# --- attempts ------------------------------------------------------------------------------------------------------


def test_weights_are_sent_in_the_order_of_uids_and_scaled_to_the_largest(world):
    world.put({C: 0.0, B: 0.25, A: 0.5})

    job = world.run()

    assert world.chain.weights == [sent((0, 65535), (1, 32768), (2, 0))]
    assert (job["status"], job["weights_submitted"], job["attempts"]) == ("completed", True, 1)
    assert job["epoch"] == {"start": 719, "end": 1080}
    assert job["block_number"] == world.chain.landed[0][1].block.number
    assert job["extrinsic_hash"] == world.chain.landed[0][0].extrinsic_hash
    assert job["next_attempt_at"] is None


def test_what_is_committed_now_and_revealed_later_tells_its_round(world):
    world.chain.subnet(1, hyperparams=Hyperparams(360, True, 4, 1, 0))
    world.put(HALVES)

    assert world.run()["reveal_round"] == 12345


def test_the_epoch_follows_the_subnets_own_tempo(world):
    world.chain.subnet(1, hyperparams=Hyperparams(99, False, 4, 1, 0))
    world.put(HALVES)

    assert world.run()["epoch"] == {"start": 997, "end": 1097}


def test_two_failures_and_a_success(world, attempts_at):
    world.chain.outcomes.extend([WriteRefused("busy"), WriteRefused("busy")])
    world.put(HALVES)

    job = world.run(10)

    assert (job["status"], job["attempts"], job["last_error"]) == ("completed", 3, None)
    assert pauses(attempts_at) == [1, 2]


def test_an_extrinsic_that_was_dispatched_in_vain_is_tried_again(world):
    land = world.chain._land

    def in_vain(prepared):
        world.chain._land = land
        return Landed(world.chain.advance(), prepared.extrinsic_hash, "SettingWeightsTooFast")

    world.chain._land = in_vain
    world.put(HALVES)

    assert world.run()["last_error"] == "SettingWeightsTooFast"
    assert world.status()["weights_submitted"] is False
    assert world.run(5)["status"] == "completed"


def test_after_the_last_attempt_the_job_failed(world, attempts_at):
    world.chain.fail("head", *[NodeUnreachable("gone")] * 201)
    world.put(HALVES)

    job = world.run(3600)

    assert (job["status"], job["attempts"], job["last_error"]) == ("failed", 201, "gone")
    assert job["weights_submitted"] is False
    assert world.run(60)["attempts"] == 201
    assert pauses(attempts_at) == [1, 2, 4, 8] + [10] * 196


def test_weights_outlive_an_outage_of_ten_minutes(world):
    world.put(HALVES)
    world.chain.is_down = "connection refused"
    world.run(600)
    assert world.status()["status"] == "running"
    world.chain.is_down = None

    assert world.run(15)["status"] == "completed"
    assert len(world.chain.weights) == 1


def test_a_job_ends_with_its_epoch(world):
    world.chain.fail("prepare_weights", *[WriteRefused("no stake")] * 400)
    world.put(HALVES)
    world.run()
    world.chain.advance(1080 - world.chain.head_number)
    assert world.run(1)["status"] == "running"
    world.chain.advance()

    job = world.run(60)
    assert (job["status"], job["last_error"]) == ("tempo_expired", "no stake")
    assert world.chain.weights == []


def test_weights_that_landed_unheard_are_not_sent_again(world):
    world.chain.outcomes.append(LANDS_UNHEARD)
    world.put(HALVES)

    job = world.run(30)

    assert (job["status"], job["attempts"]) == ("completed", 1)
    assert world.chain.calls["submit"] == 1


def test_weights_that_were_lost_are_sent_again_when_their_era_is_over(world):
    world.chain.finalized_lag = 3
    world.chain.outcomes.append(LOST)
    world.put(HALVES)
    world.run(60)
    assert world.chain.calls["submit"] == 1

    job = world.run(120)

    assert (job["status"], job["attempts"]) == ("completed", 2)
    assert world.chain.landed[0][0].era_start >= 1001 + 8 + 2


def test_nothing_is_sent_again_while_nobody_can_say_what_became_of_it(world):
    world.chain.outcomes.append(LANDS_UNHEARD)
    world.chain.find = unreadable
    world.put(HALVES)
    world.run(600)
    assert world.status()["status"] == "running"
    world.chain.advance(200)

    assert world.run(60)["status"] == "tempo_expired"
    assert world.chain.calls["submit"] == 1


def test_newer_weights_do_not_wait_for_ever_for_older_ones(world):
    world.chain.outcomes.append(LOST)
    world.chain.find = unreadable
    world.put({A: 1.0})
    world.run()
    world.put({B: 1.0})

    assert world.run(150)["status"] == "completed"
    assert world.chain.weights == [sent((1, 65535))]


def test_a_job_of_an_identity_that_is_gone_fails(store):
    world = World(store, ("sn1",))
    world.weights.put(identity("gone"), HALVES, 10.0)
    world.runner.step()

    job = world.weights.status(identity("gone"))
    assert (job["status"], job["last_error"]) == ("failed", "Identity 'gone' is not configured for subnet 1")


def test_a_defect_is_an_attempt_and_no_busy_loop(world, caplog):
    neurons = world.chain.neurons
    world.chain.neurons = lambda *_: 1 // 0
    world.put(HALVES)
    world.run(25)
    assert world.status()["last_error"] == "Internal error"
    assert world.status()["attempts"] == 3
    world.chain.neurons = neurons

    assert world.run(15)["status"] == "completed"
    assert "ZeroDivisionError" in caplog.text


def test_a_node_with_nothing_to_do_looks_now_and_then(world):
    assert world.runner.step() == 2.0
    world.put(HALVES)
    world.chain.fail("head", NodeUnreachable("gone"))
    assert world.runner.step() == 0.0
    assert world.runner.step() == 1.0


def test_a_database_that_is_away_is_waited_for(world):
    class Away:
        def read(self, unit):
            raise StoreUnavailable(retry_after=1)

    assert world.new_runner(Away()).step() == 1.0


def test_a_clock_that_was_set_back_does_not_stop_the_attempts(world):
    world.chain.outcomes.append(WriteRefused("busy"))
    world.put(HALVES)
    world.run()
    world.clock.set_by(-86400.0)

    assert world.run(1)["status"] == "completed"


# --- several processes ---------------------------------------------------------------------------------------------


def test_one_process_sends_at_a_time(world):
    other = world.new_runner(process="elsewhere 1")
    other.recover()
    world.put(HALVES)
    assert world.runner.step() == 2.0
    assert world.chain.weights == []

    world.wait(30)
    world.run()
    assert len(world.chain.weights) == 1


def test_a_process_that_ends_leaves_the_rest_to_another_at_once(world):
    other = world.new_runner(process="elsewhere 1")
    other.recover()
    other.close()
    world.put(HALVES)

    assert world.run()["status"] == "completed"


def test_a_process_that_lost_the_lease_while_signing_sends_nothing(world):
    prepare = world.chain.prepare_weights
    other = world.new_runner(process="elsewhere 1")

    def slow(*args):
        world.chain.prepare_weights = prepare
        world.clock.advance(31)
        assert other.step() == 0.0
        return prepare(*args)

    world.chain.prepare_weights = slow
    world.put(HALVES)
    world.run()

    assert len(world.chain.weights) == 1


def test_what_another_process_is_sending_is_looked_for_and_not_sent(world):
    submit = world.chain.submit
    other = world.new_runner(process="elsewhere 1")

    def slow(prepared, timeout):
        landed = submit(prepared, timeout)
        world.wait(60)
        other.step()
        assert world.status()["status"] == "completed"
        return landed

    world.chain.submit = slow
    world.put(HALVES)
    world.run()

    assert world.chain.calls["submit"] == 1
    assert world.status()["attempts"] == 1


# --- what is measured ----------------------------------------------------------------------------------------------


def test_jobs_and_attempts_are_measured(world):
    world.chain.outcomes.append(WriteRefused("busy"))
    world.chain.hotkeys["sn1"] = "5Hot"
    world.put(HALVES)
    world.run(5)

    assert world.samples.drain() == [
        ["attempt", "error", 1, "5Hot", 0.0],
        ["job", "success", 1, "5Hot", 1.0],
        ["attempt", "success", 1, "5Hot", 0.0],
    ]


def test_a_job_that_ran_out_of_its_epoch_is_no_success(world):
    world.chain.fail("prepare_weights", WriteRefused("no"))
    world.put(HALVES)
    world.run()
    world.chain.advance(100)
    world.run(5)

    assert [sample[:2] for sample in world.samples.drain()] == [
        ["attempt", "error"],
        ["job", "error"],
        ["attempt", "error"],
    ]


def test_old_jobs_are_forgotten(world):
    for _ in range(3):
        world.put(HALVES)
        world.run()
        world.clock.advance(31 * 86400.0)
        world.chain.advance(400)
    world.put(HALVES)

    count = len(world.store.read(lambda tx: tx.execute(select(jobs.c.number)).all()))
    assert count == 1


def state_of(world, job_id):
    query = select(jobs.c.status, jobs.c.landed).where(jobs.c.id == job_id)
    return tuple(world.store.read(lambda tx: tx.execute(query).one()))


def unreadable(*_args):
    raise BlockUnknown("block 1002 is gone")


@pytest.fixture
def attempts_at(world):
    """When each attempt began to look at the chain."""
    head, times = world.chain.head, []

    def noted():
        times.append(world.clock.now())
        return head()

    world.chain.head = noted
    return times


def pauses(times):
    return [round(after - before, 3) for before, after in itertools.pairwise(times)]


# --- another chain -------------------------------------------------------------------------------------------------


def move_to_another_chain(world):
    world.chain.reorg(world.chain.head_number + 1)


def test_weights_of_an_earlier_chain_are_put_anew(world):
    first = world.put(HALVES)["job_id"]
    assert world.run()["status"] == "completed"
    assert world.put(HALVES)["job_id"] == first

    move_to_another_chain(world)

    assert world.put(HALVES)["job_id"] != first
    assert world.run()["status"] == "completed"
    assert len(world.chain.weights) == 2


def test_weights_that_wait_do_not_move_to_another_chain(world):
    world.put(HALVES)
    move_to_another_chain(world)

    job = world.run()

    assert (job["status"], job["last_error"]) == ("failed", "The weights were put for another chain")
    assert (job["attempts"], world.chain.weights) == (0, [])


def test_weights_that_were_tried_do_not_move_to_another_chain(world):
    world.reads.knows_head = False  # nobody knew the chain when they were put
    world.put(HALVES)
    world.chain.fail("prepare_weights", WriteRefused("not now"))
    assert world.run(0.5)["attempts"] == 1

    move_to_another_chain(world)

    assert world.run(60.0)["last_error"] == "The weights were put for another chain"
    assert world.chain.weights == []


def test_an_extrinsic_of_another_chain_is_not_looked_for_here(world):
    world.chain.outcomes.append(LOST)
    world.put(HALVES)
    world.run(0.1)
    assert world.status()["extrinsic_hash"] is not None

    move_to_another_chain(world)

    job = world.run(600.0)
    assert (job["status"], job["last_error"]) == ("failed", "The weights were put for another chain")
    assert world.chain.weights == []
