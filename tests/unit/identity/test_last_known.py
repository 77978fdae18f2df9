"""LastKnown: while the source is away, its last word holds for a time."""

import pytest

from grid_node.clock import ManualClock
from grid_node.errors import Blacklisted, ChainUnavailable, NotRegistered
from grid_node.identity.standing import LastKnown, Standing, admit

MAX_AGE = 3600.0
ANNA, BERT = b"a" * 32, b"b" * 32
MEMBER = Standing(registered=True, blacklisted=False, strong=None, uid=7)
STRANGER = Standing(registered=False, blacklisted=False, strong=None, uid=None)
REFUSED = Standing(registered=True, blacklisted=True, strong=None, uid=8)


class Source:
    """A metagraph that can be away."""

    def __init__(self) -> None:
        self.standings: dict[bytes, Standing] = {}
        self.away: ChainUnavailable | None = None

    def standing(self, public_key: bytes) -> Standing:
        if self.away is not None:
            raise self.away
        return self.standings.get(public_key, STRANGER)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def known(source: Source, clock: ManualClock) -> LastKnown:
    return LastKnown(source, clock, MAX_AGE)


def away() -> ChainUnavailable:
    return ChainUnavailable(retry_after=12)


def test_while_the_source_answers_its_word_is_passed_on(known: LastKnown, source: Source) -> None:
    for standing in (MEMBER, REFUSED, STRANGER, MEMBER):
        source.standings[ANNA] = standing
        assert known.standing(ANNA) is standing


@pytest.mark.parametrize("standing", [MEMBER, REFUSED, STRANGER])
def test_while_the_source_is_away_its_last_word_holds(
    known: LastKnown, source: Source, clock: ManualClock, standing: Standing
) -> None:
    """A refusal too: nobody comes in because the chain is away."""
    source.standings[ANNA] = MEMBER
    known.standing(ANNA)
    source.standings[ANNA] = standing
    known.standing(ANNA)

    source.away = away()

    assert known.standing(ANNA) is standing
    clock.advance(MAX_AGE)
    assert known.standing(ANNA) is standing


def test_a_word_that_is_too_old_holds_no_more(known: LastKnown, source: Source, clock: ManualClock) -> None:
    """It is as old as the source's answer, however often it was asked for meanwhile."""
    source.standings[ANNA] = MEMBER
    known.standing(ANNA)
    source.away = away()
    for _ in range(4):
        clock.advance(MAX_AGE / 4)
        assert known.standing(ANNA) is MEMBER

    clock.advance(0.001)

    with pytest.raises(ChainUnavailable) as caught:
        known.standing(ANNA)
    assert caught.value is source.away
    assert caught.value.retry_after == 12


def test_of_a_hotkey_that_nobody_asked_for_nothing_is_known(known: LastKnown, source: Source) -> None:
    known.standing(ANNA)
    source.away = away()

    with pytest.raises(ChainUnavailable):
        known.standing(BERT)


def test_a_source_that_is_back_is_asked_again(known: LastKnown, source: Source, clock: ManualClock) -> None:
    source.standings[ANNA] = MEMBER
    known.standing(ANNA)
    source.away = away()
    clock.advance(MAX_AGE + 1)
    source.away, source.standings[ANNA] = None, STRANGER

    assert known.standing(ANNA) is STRANGER
    source.away = away()
    assert known.standing(ANNA) is STRANGER


def test_hotkeys_are_admitted_and_refused_as_they_were_last(known: LastKnown, source: Source) -> None:
    source.standings = {ANNA: MEMBER, BERT: REFUSED}
    for key in (ANNA, BERT, b"c" * 32):
        known.standing(key)
    source.away = away()

    assert admit(known, ANNA).uid == 7
    with pytest.raises(Blacklisted):
        admit(known, BERT)
    with pytest.raises(NotRegistered):
        admit(known, b"c" * 32)


def test_only_so_many_are_remembered_and_who_was_heard_of_last_stays(source: Source, clock: ManualClock) -> None:
    class Small(LastKnown):
        KEPT = 3

    known = Small(source, clock, MAX_AGE)
    keys = [bytes([number]) * 32 for number in range(4)]
    for key in (*keys[:3], keys[0], keys[3]):
        known.standing(key)
    source.away = away()

    for key in (keys[2], keys[0], keys[3]):
        assert known.standing(key) is STRANGER
    with pytest.raises(ChainUnavailable):
        known.standing(keys[1])


def test_a_fault_of_the_source_is_not_hidden(known: LastKnown, source: Source) -> None:
    known.standing(ANNA)
    source.standing = lambda public_key: 1 / 0  # type: ignore[assignment, method-assign, return-value]

    with pytest.raises(ZeroDivisionError):
        known.standing(ANNA)
