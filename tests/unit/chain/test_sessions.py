"""Values of session cookies."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.chain.pylon import Identity
from grid_node.chain.sessions import Sessions
from grid_node.clock import ManualClock
from grid_node.errors import ChainSessionEnded

SN1 = Identity("sn1", 1, "cold", "hot", "token-1")
LIFE = 1000.0


def sessions(clock: ManualClock | None = None, secret: bytes = b"secret") -> Sessions:
    return Sessions(clock or ManualClock(), secret, LIFE)


def ended(found: Sessions, identity: Identity, value: str) -> bool:
    try:
        found.check(identity, value)
    except ChainSessionEnded:
        return True
    return False


def test_a_session_survives_a_restart_and_shows_no_token() -> None:
    value = sessions().issue(SN1)

    assert sessions().check(SN1, value) is None
    assert value.startswith("sn1.1800000000.")
    assert SN1.token not in value


def test_a_session_dies_with_its_token_and_with_the_nodes_secret() -> None:
    value = sessions().issue(SN1)

    assert ended(sessions(), replace(SN1, token="another"), value)
    assert ended(sessions(secret=b"another"), SN1, value)
    assert ended(sessions(), replace(SN1, name="sn2"), value)


@pytest.mark.parametrize(("seconds", "is_over"), [(999, False), (1000, True), (10_000, True)])
def test_a_session_ends(seconds: int, is_over: bool) -> None:
    clock = ManualClock()
    found = sessions(clock)
    value = found.issue(SN1)
    clock.advance(seconds)
    assert ended(found, SN1, value) is is_over


@pytest.mark.parametrize(("back", "is_over"), [(900, False), (2000, True)])
def test_a_clock_that_is_set_back_ends_no_session_at_once(back: int, is_over: bool) -> None:
    clock = ManualClock()
    found = sessions(clock)
    value = found.issue(SN1)
    clock.set_by(-back)
    assert ended(found, SN1, value) is is_over


@given(st.data())
def test_no_changed_value_is_a_session(data: st.DataObject) -> None:
    found = sessions()
    value = found.issue(SN1)
    at = data.draw(st.integers(0, len(value) - 1))
    char = data.draw(st.characters().filter(lambda char: char != value[at]))
    assert ended(found, SN1, value[:at] + char + value[at + 1 :])


@given(st.text() | st.builds(lambda *parts: ".".join(parts), st.text(), st.text(), st.text(), st.text()))
def test_no_text_is_a_session(value: str) -> None:
    assert ended(sessions(), SN1, value)


def test_a_value_that_is_too_long_is_not_looked_at() -> None:
    assert ended(sessions(), SN1, "a" * 10_000_000)
