"""A write that is tried again lets weights through meanwhile."""

from grid_node.chain.backends import Interlude
from grid_node.clock import ManualClock


def test_weights_have_their_turns_during_the_pause() -> None:
    clock, turns = ManualClock(), []
    pause = Interlude(clock, clock.advance)

    def turn() -> float:
        turns.append(clock.steady())
        return 2.0

    pause.turn = turn
    began = clock.steady()
    pause(5.0)
    assert [at - began for at in turns] == [0.0, 2.0, 4.0]
    assert clock.steady() - began == 5.0


def test_a_turn_that_fails_or_has_nothing_to_do_ends_no_pause() -> None:
    clock = ManualClock()
    pause = Interlude(clock, clock.advance)
    began = clock.steady()
    pause(3.0)

    def broken() -> float:
        raise RuntimeError("broken")

    pause.turn = broken
    pause(3.0)
    assert clock.steady() - began == 6.0
