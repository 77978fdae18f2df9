"""Who may ask the chain and who may write."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.chain.access import ChainAccess
from grid_node.chain.failures import Failures, network
from grid_node.chain.pylon import Identity, PylonSettings
from grid_node.clock import ManualClock
from grid_node.errors import (
    ChainAuthLimited,
    ChainError,
    ChainIdentityBound,
    ChainInvalid,
    ChainLoginNeeded,
    ChainNotFound,
    ChainNotMeasured,
    ChainSessionEnded,
    ChainTokenInvalid,
    ChainTokenMalformed,
)
from grid_node.settings import Settings

HOME = "192.0.2.1"
SN1 = Identity("sn1", 1, "cold", "hot", "token-1")
SN2 = Identity("sn2", 2, "cold", "hot2", "tökén-2")
PYLON = PylonSettings(identities=(SN1, SN2), open_access_token="öpen", metrics_token="metrics")
WRONG = "Bearer wrong"
HEADER_NEEDED = "Authorization header is required"
HEADER_MALFORMED = "Invalid Authorization header format. Expected: Bearer <token>"
TOKEN_WRONG = "Invalid authorization token"


def access(pylon: PylonSettings = PYLON, clock: ManualClock | None = None, **settings: Any) -> ChainAccess:
    return ChainAccess(Settings.load({}, **settings), pylon, clock or ManualClock(), b"secret")


def bearer(token: str, scheme: str = "Bearer") -> str:
    """The header as WSGI hands it over: a character for each byte that came."""
    return f"{scheme} {token.encode().decode('latin-1')}"


def told(error: ChainError) -> tuple[int, str]:
    return error.body()["status_code"], error.body()["detail"]


# --- identities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", " Bearer  "])
@pytest.mark.parametrize("identity", [SN1, SN2])
def test_an_identitys_token_opens_it(identity: Identity, scheme: str) -> None:
    header = bearer(identity.token, scheme)
    assert access().identity(identity.name, identity.netuid, header, None, HOME) == (identity, None)


@pytest.mark.parametrize(
    ("name", "netuid", "header", "status", "detail"),
    [
        ("nope", 2, None, 401, HEADER_NEEDED),
        ("nope", 2, "Token x", 401, HEADER_MALFORMED),
        ("nope", 2, "Bearer", 401, HEADER_MALFORMED),
        ("nope", 2, "", 401, HEADER_MALFORMED),
        ("nope", 2, WRONG, 404, "Identity 'nope' not found"),
        ("sn1", 2, WRONG, 403, TOKEN_WRONG),
        ("sn1", 2, "Bearer t\xf6ken", 403, TOKEN_WRONG),
        ("sn1", 2, "Bearer \ud800\u4e00", 403, TOKEN_WRONG),
        ("sn1", 2, bearer(SN2.token), 403, TOKEN_WRONG),
        ("sn1", 1, bearer("öpen"), 403, TOKEN_WRONG),
        ("SN1", 1, bearer("token-1"), 404, "Identity 'SN1' not found"),
        ("sn1", 2, bearer("token-1"), 308, "Identity 'sn1' is bound to subnet 1, not 2"),
    ],
)
def test_refusals_come_in_order(name: str, netuid: int, header: str | None, status: int, detail: str) -> None:
    with pytest.raises(ChainError) as caught:
        access().identity(name, netuid, header, None, HOME)
    assert told(caught.value) == (status, detail)


def test_a_session_opens_its_identity_and_no_other() -> None:
    door = access()
    identity, cookie = door.login("sn1", "token-1", HOME)

    assert identity == SN1
    assert door.identity("sn1", 1, None, cookie, HOME) == (SN1, None)
    with pytest.raises(ChainSessionEnded, match="Session is invalid or expired"):
        door.identity("sn2", 2, None, cookie, HOME)
    with pytest.raises(ChainIdentityBound):
        door.identity("sn1", 2, None, cookie, HOME)
    with pytest.raises(ChainNotFound):
        door.identity("nope", 1, None, cookie, HOME)


def test_a_header_decides_alone() -> None:
    door = access()
    _, cookie = door.login("sn1", "token-1", HOME)

    assert door.identity("sn1", 1, bearer("token-1"), "rubbish", HOME) == (SN1, None)
    with pytest.raises(ChainTokenInvalid):
        door.identity("sn1", 1, WRONG, cookie, HOME)
    with pytest.raises(ChainTokenMalformed):
        door.identity("sn1", 1, "", cookie, HOME)


def test_a_session_is_renewed_when_half_of_it_is_over() -> None:
    clock = ManualClock()
    door = access(clock=clock, chain_session_seconds=100.0)
    _, cookie = door.login("sn1", "token-1", HOME)

    clock.advance(49)
    assert door.identity("sn1", 1, None, cookie, HOME)[1] is None
    clock.advance(2)
    renewed = door.identity("sn1", 1, None, cookie, HOME)[1]
    assert renewed not in {None, cookie}
    clock.advance(50)
    with pytest.raises(ChainSessionEnded):
        door.identity("sn1", 1, None, cookie, HOME)
    assert door.identity("sn1", 1, None, renewed, HOME)[0] == SN1


@pytest.mark.parametrize(
    ("name", "token", "status", "detail"),
    [
        ("nope", None, 404, "Identity 'nope' not found"),
        ("sn1", "wrong", 403, TOKEN_WRONG),
        ("sn1", "", 403, TOKEN_WRONG),
        ("sn1", "\ud800", 403, TOKEN_WRONG),
        ("sn1", None, 400, "Validation failed for POST /api/v1/login/identity/sn1"),
        ("sn1", ["token-1"], 400, "Validation failed for POST /api/v1/login/identity/sn1"),
    ],
)
def test_a_login_is_refused(name: str, token: object, status: int, detail: str) -> None:
    with pytest.raises(ChainError) as caught:
        access().login(name, token, HOME)
    assert told(caught.value) == (status, detail)


def test_a_login_without_a_token_says_so() -> None:
    with pytest.raises(ChainInvalid) as caught:
        access().login("sn1", None, HOME)
    assert caught.value.body()["extra"] == [{"message": "Field required", "key": "token"}]


# --- open access and blocks ------------------------------------------------------------------------------------------


def test_an_empty_token_opens_to_all_and_no_header_counts() -> None:
    door = access(PylonSettings())
    for header in (None, "", "rubbish", WRONG):
        door.open(header, HOME)
        door.block_level(header, HOME)
    door.open_token("rubbish", HOME)
    door.open_token(None, HOME)


@pytest.mark.parametrize("tokenless", [False, True])
def test_a_token_of_open_access_must_be_shown(tokenless: bool) -> None:
    door = access(chain_allow_tokenless_open_access=tokenless)

    door.open(bearer("öpen"), HOME)
    with pytest.raises(ChainTokenMalformed):
        door.open("Token x", HOME)
    with pytest.raises(ChainTokenInvalid):
        door.open(WRONG, HOME)
    with pytest.raises(ChainTokenInvalid):
        door.open(bearer(SN1.token), HOME)
    if tokenless:
        door.open(None, HOME)
    else:
        with pytest.raises(ChainLoginNeeded):
            door.open(None, HOME)


def test_blocks_need_no_header_but_no_wrong_one() -> None:
    door = access()
    door.block_level(None, HOME)
    door.block_level(bearer("öpen"), HOME)
    with pytest.raises(ChainTokenInvalid):
        door.block_level(WRONG, HOME)
    with pytest.raises(ChainTokenMalformed):
        door.block_level("Bearer", HOME)


# --- sockets ---------------------------------------------------------------------------------------------------------


def test_sockets_show_the_same_tokens() -> None:
    door = access()
    assert door.by_token("sn2", SN2.token, HOME) == SN2
    door.open_token("öpen", HOME)
    for name, token, error in (
        ("sn1", None, ChainLoginNeeded),
        ("sn1", 1, ChainLoginNeeded),
        ("nope", "x", ChainNotFound),
        (["sn1"], "x", ChainNotFound),
        ("sn1", "x", ChainTokenInvalid),
    ):
        with pytest.raises(error):
            door.by_token(name, token, HOME)
    for token, error in ((None, ChainLoginNeeded), (7, ChainLoginNeeded), ("x", ChainTokenInvalid)):
        with pytest.raises(error):
            door.open_token(token, HOME)
    access(chain_allow_tokenless_open_access=True).open_token(None, HOME)


# --- metrics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "detail"),
    [(None, HEADER_NEEDED), ("metrics", HEADER_MALFORMED), ("", HEADER_MALFORMED), (WRONG, TOKEN_WRONG)],
)
def test_metrics_are_refused_with_403(header: str | None, detail: str) -> None:
    door = access()
    door.metrics(bearer("metrics"))
    with pytest.raises(ChainNotMeasured) as caught:
        door.metrics(header)
    assert told(caught.value) == (403, detail)


@pytest.mark.parametrize("header", [None, "Bearer ", "Bearer metrics"])
def test_without_a_token_nobody_measures(header: str | None) -> None:
    with pytest.raises(ChainNotMeasured, match="Metrics endpoint is not configured"):
        access(PylonSettings()).metrics(header)


# --- too many failures -----------------------------------------------------------------------------------------------


def fail(door: ChainAccess, address: str = HOME) -> None:
    with pytest.raises(ChainTokenInvalid):
        door.open(WRONG, address)


def test_too_many_wrong_tokens_make_an_address_wait() -> None:
    clock = ManualClock()
    door = access(clock=clock, chain_auth_failures_per_minute=3)
    for _ in range(3):
        fail(door)
    clock.advance(20)

    for attempt in (
        lambda: door.open(WRONG, HOME),
        lambda: door.open(bearer("öpen"), HOME),
        lambda: door.identity("sn1", 1, bearer("token-1"), None, HOME),
        lambda: door.login("sn1", "token-1", HOME),
        lambda: door.by_token("sn1", "token-1", HOME),
    ):
        with pytest.raises(ChainAuthLimited) as caught:
            attempt()
        assert (caught.value.status, caught.value.retry_after) == (429, 40)
    door.open(bearer("öpen"), "192.0.2.2")

    clock.advance(40)
    door.open(bearer("öpen"), HOME)
    fail(door)


def test_a_neighbours_mistakes_do_not_shut_out_who_came_in_before() -> None:
    door = access(chain_auth_failures_per_minute=2)
    door.identity("sn1", 1, bearer("token-1"), None, HOME)
    fail(door)
    fail(door)

    door.identity("sn1", 1, bearer("token-1"), None, HOME)
    with pytest.raises(ChainAuthLimited):
        door.identity("sn1", 1, WRONG, None, HOME)
    with pytest.raises(ChainAuthLimited):
        door.identity("sn2", 2, bearer(SN2.token), None, HOME)


def test_sessions_and_absent_headers_are_no_failures() -> None:
    door = access(chain_auth_failures_per_minute=1)
    _, cookie = door.login("sn1", "token-1", HOME)
    fail(door)

    door.identity("sn1", 1, None, cookie, HOME)
    door.block_level(None, HOME)
    with pytest.raises(ChainLoginNeeded):
        door.open(None, HOME)
    with pytest.raises(ChainSessionEnded):
        door.identity("sn1", 1, None, "rubbish", HOME)


def test_failures_remember_a_bounded_number_of_addresses() -> None:
    failures = Failures(1, ManualClock(), addresses=2)
    for last in (1, 2, 3):
        failures.note(f"192.0.2.{last}")
    assert [failures.wait(f"192.0.2.{last}") for last in (1, 2, 3)] == [None, 60, 60]


def test_a_clock_that_is_set_prolongs_no_wait() -> None:
    clock = ManualClock()
    failures = Failures(1, clock)
    failures.note(HOME)
    clock.set_by(-86400)
    assert failures.wait(HOME) == 60


@pytest.mark.parametrize(
    ("address", "sender"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::1", "2001:db8:1:2::/64"),
        ("", ""),
        ("x" * 1000, "x" * 64),
    ],
)
def test_a_sender_is_an_address_or_a_network(address: str, sender: str) -> None:
    assert network(address) == sender


# --- anything --------------------------------------------------------------------------------------------------------

anything = st.none() | st.text() | st.text().map(lambda text: f"Bearer {text}")
words = (
    st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()) | st.dictionaries(st.text(), st.none())
)


@given(name=st.sampled_from(["sn1", "sn2", "nope", ""]), netuid=st.integers(0, 3), header=anything, cookie=anything)
def test_no_header_and_no_cookie_does_anything_but_be_refused(
    name: str, netuid: int, header: str | None, cookie: str | None
) -> None:
    door = access()
    for attempt in (
        lambda: door.identity(name, netuid, header, cookie, HOME),
        lambda: door.metrics(header),
    ):
        with pytest.raises(ChainError):
            attempt()
    for attempt in (lambda: door.open(header, HOME), lambda: door.block_level(header, HOME)):
        try:
            attempt()
        except ChainError:
            continue
        assert header is None


@given(name=words, token=words)
def test_no_login_of_a_stranger_does_anything_but_be_refused(name: Any, token: Any) -> None:
    door = access()
    for attempt in (
        lambda: door.login(name, token, HOME),
        lambda: door.by_token(name, token, HOME),
        lambda: door.open_token(token, HOME),
    ):
        with pytest.raises(ChainError):
            attempt()
