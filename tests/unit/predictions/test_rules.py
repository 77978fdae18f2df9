"""The rules: each with its code and exact text, in their order."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grid_node.clock import parse_rfc3339
from grid_node.predictions.messages import read_prediction
from grid_node.predictions.money import cents, odds_text
from grid_node.predictions.rules import VERDICTS, Limits, Offer, Verdict, judge
from tests.unit.predictions.bodies import SENT

NOW = parse_rfc3339("2026-11-20T11:00:00Z")
START = parse_rfc3339("2026-11-20T12:00:00Z")
LIMITS = Limits(min_wager=100, daily_limit=100000)
NFL = Offer("nfl-17", "Giants", "Cowboys", START, True, 3, 18000, 21000, None)
SOCCER = replace(NFL, tie_odds=32000)
WITH_TIE = {"tie_odds": "3.20"}
FOR_TIE = {**WITH_TIE, "predicted_outcome": 2, "predicted_odds": "3.20"}


def verdict(
    sent: dict[str, Any] | None = None, offer: Offer | None = NFL, wagered: int = 0, at: float = NOW
) -> Verdict:
    return judge(read_prediction({**SENT, **(sent or {})}), offer, wagered, LIMITS, at)


def rejection(code: str, message: str) -> Verdict:
    return Verdict(accepted=False, code=code, message=message, wager=None, outcome=None, accepted_odds=None)


# --- accepted


def test_a_prediction_that_meets_every_rule_is_accepted_at_the_odds_of_the_node():
    assert verdict() == Verdict(True, "successful", "Prediction accepted", wager=1000, outcome=1, accepted_odds=21000)
    assert verdict(FOR_TIE, SOCCER).accepted_odds == 32000


@pytest.mark.parametrize(
    ("outcome", "means"),
    [
        (0, 0),
        (1, 1),
        (2, 2),
        (1.0, 1),
        (-0.0, 0),
        ("0", 0),
        ("1", 1),
        ("2", 2),
        ("Giants", 0),
        ("Cowboys", 1),
        ("tie", 2),
        ("Tie", 2),
        ("TIE", 2),
        ("tIe", 2),
    ],
)
def test_an_outcome_is_a_number_a_digit_a_team_or_tie(outcome, means):
    current = (SOCCER.team_a_odds, SOCCER.team_b_odds, SOCCER.tie_odds)[means]
    judged = verdict({**WITH_TIE, "predicted_outcome": outcome, "predicted_odds": odds_text(current)}, SOCCER)
    assert (judged.code, judged.outcome, judged.accepted_odds) == ("successful", means, current)


def test_a_team_is_found_by_its_exact_name_before_tie_is():
    offer = replace(SOCCER, team_a="Tie", team_b="TIE")
    sent = {**WITH_TIE, "team_a": "Tie", "team_b": "TIE", "predicted_odds": "1.80", "predicted_outcome": "Tie"}
    assert verdict(sent, offer).outcome == 0
    assert verdict({**sent, "predicted_outcome": "TIE", "predicted_odds": "2.10"}, offer).outcome == 1
    assert verdict({**sent, "predicted_outcome": "tie", "predicted_odds": "3.20"}, offer).outcome == 2


@pytest.mark.parametrize("confidence", [None, 0, 1, 0.0, 1.0, 0.5, 1e-300])
def test_confidence_lies_between_0_and_1(confidence):
    assert verdict({"confidence_score": confidence}).accepted


def test_the_minimum_itself_is_enough():
    assert verdict({"wager": "1.00"}).wager == 100


def test_a_wager_may_fill_the_day_to_the_cent():
    assert verdict({"wager": "1000.00"}).accepted
    assert verdict({"wager": "2.20"}, wagered=100000 - 220).accepted
    assert verdict({"wager": 2.2}, wagered=100000 - 219).code == "daily_limit_exceeded"


# --- rejected: code and text of each rule


@dataclass(frozen=True)
class Case:
    """One way to break a rule."""

    rule: int
    code: str
    message: str
    sent: dict[str, Any] = field(default_factory=dict)
    offer: dict[str, Any] | None = field(default_factory=dict)
    """None: the game is not known."""
    wagered: int = 0
    at: float = NOW


ODDS_TEXT = "Submitted team odds do not match current game odds"
TIE_TEXT = "Submitted tie odds do not match current game odds"
CASES = [
    Case(3, "invalid_wager", "Invalid wager value", {"wager": "ten"}),
    Case(3, "invalid_wager", "Invalid wager value", {"wager": "1.001"}),
    Case(3, "invalid_wager", "Invalid wager value", {"wager": 1e-9}),
    Case(3, "invalid_wager", "Invalid wager value", {"wager": True}),
    Case(3, "invalid_wager", "Invalid wager value", {"wager": ["10.00"]}),
    Case(3, "invalid_wager", "Invalid wager value", {"wager": "²"}),
    Case(3, "invalid_wager", "Invalid wager value", {"wager": "NaN"}),
    Case(3, "invalid_wager", "Invalid wager value", {"wager": "1e400"}),
    Case(3, "invalid_wager", "Prediction with non-positive wager - nice try", {"wager": "-10.00"}),
    Case(3, "invalid_wager", "Prediction with non-positive wager - nice try", {"wager": 0}),
    Case(3, "invalid_wager", "Prediction with non-positive wager - nice try", {"wager": "-0.00"}),
    Case(3, "invalid_wager", "Wager is below the minimum of $1.00", {"wager": "0.99"}),
    Case(3, "invalid_wager", "Wager is below the minimum of $1.00", {"wager": 0.01}),
    Case(
        4,
        "daily_limit_exceeded",
        "Would exceed daily limit (Current: $110.00, Attempted: $900.00)",
        {"wager": "900.00"},
        wagered=11000,
    ),
    Case(
        4,
        "daily_limit_exceeded",
        "Would exceed daily limit (Current: $0.00, Attempted: $1000.01)",
        {"wager": "1000.01"},
    ),
    Case(
        4,
        "daily_limit_exceeded",
        "Would exceed daily limit (Current: $1000.00, Attempted: $10.00)",
        wagered=100000,
    ),
    Case(5, "game_not_found", "Game not found in validator game_data", offer=None),
    Case(5, "game_not_found", "Game not found in validator game_data", offer={"active": False}),
    Case(6, "game_started", "Game has already started", at=START),
    Case(6, "game_started", "Game has already started", offer={"outcome": 0}),
    Case(6, "game_started", "Game has already started", offer={"outcome": 2}),
    Case(7, "team_mismatch", "Submitted team names do not match game data", {"team_a": "giants"}),
    Case(7, "team_mismatch", "Submitted team names do not match game data", {"team_b": "Cowboys "}),
    Case(
        7,
        "team_mismatch",
        "Submitted team names do not match game data",
        {"team_a": "Cowboys", "team_b": "Giants"},
    ),
    Case(8, "invalid_odds", "Invalid odds value", {"team_a_odds": "even"}),
    Case(8, "invalid_odds", "Invalid odds value", {"team_b_odds": True}),
    Case(8, "invalid_odds", "Invalid odds value", {"team_b_odds": {"odds": 2.1}}),
    Case(8, "invalid_odds", "Invalid odds value", {"team_a_odds": "NaN"}),
    Case(8, "invalid_odds", "Invalid odds value", {"team_a_odds": 1}),
    Case(8, "invalid_odds", "Invalid odds value", {"team_a_odds": "1000.0001"}),
    Case(8, "invalid_odds", "Invalid odds value", {"team_a_odds": "9.00", "tie_odds": "x"}),
    Case(8, "odds_mismatch", ODDS_TEXT, {"team_a_odds": "1.8101"}),
    Case(8, "odds_mismatch", ODDS_TEXT, {"team_b_odds": "2.0899"}),
    Case(8, "odds_mismatch", ODDS_TEXT, {"team_a_odds": "2.10", "team_b_odds": "1.80"}),
    Case(9, "odds_mismatch", TIE_TEXT, {"tie_odds": "3.2101"}, {"tie_odds": 32000}),
    Case(9, "odds_mismatch", TIE_TEXT, {"tie_odds": None}, {"tie_odds": 32000}),
    Case(9, "odds_mismatch", "Submitted tie odds for game that doesn't support ties", {"tie_odds": "3.20"}),
    Case(10, "invalid_outcome", "Invalid numeric predicted_outcome: 3", {"predicted_outcome": 3}),
    Case(10, "invalid_outcome", "Invalid numeric predicted_outcome: -1", {"predicted_outcome": -1}),
    Case(10, "invalid_outcome", "Invalid numeric predicted_outcome: 0.5", {"predicted_outcome": 0.5}),
    Case(10, "invalid_outcome", "Invalid numeric predicted_outcome: 1e+300", {"predicted_outcome": 1e300}),
    Case(10, "invalid_outcome", "Invalid numeric predicted_outcome: 7", {"predicted_outcome": "7"}),
    Case(10, "invalid_outcome", "Invalid numeric predicted_outcome: 01", {"predicted_outcome": "01"}),
    Case(10, "invalid_outcome", "Invalid numeric predicted_outcome: 2", {"predicted_outcome": 2}),
    Case(10, "invalid_outcome", "Invalid numeric predicted_outcome: 2", {"predicted_outcome": "2"}),
    Case(10, "invalid_outcome", "Invalid predicted_outcome: ²", {"predicted_outcome": "²"}),
    Case(10, "invalid_outcome", "Invalid predicted_outcome: １", {"predicted_outcome": "１"}),
    Case(10, "invalid_outcome", "Invalid predicted_outcome: -1", {"predicted_outcome": "-1"}),
    Case(10, "invalid_outcome", "Invalid predicted_outcome: 1.0", {"predicted_outcome": "1.0"}),
    Case(10, "invalid_outcome", "Invalid predicted_outcome: giants", {"predicted_outcome": "giants"}),
    Case(10, "invalid_outcome", "Invalid predicted_outcome: ", {"predicted_outcome": ""}),
    Case(10, "invalid_outcome", "Invalid predicted_outcome: {value}", {"predicted_outcome": "{value}"}),
    Case(10, "invalid_outcome", "Invalid predicted_outcome: true", {"predicted_outcome": True}),
    Case(10, "invalid_outcome", "Invalid predicted_outcome: false", {"predicted_outcome": False}),
    Case(10, "invalid_outcome", "Invalid predicted_outcome: [1]", {"predicted_outcome": [1]}),
    Case(10, "invalid_outcome", 'Invalid predicted_outcome: {"a":1}', {"predicted_outcome": {"a": 1}}),
    Case(11, "missing_odds", "Missing predicted_odds", {"predicted_odds": None}),
    Case(11, "missing_odds", "Missing predicted_odds", {"predicted_odds": None, "predicted_outcome": "tie"}),
    Case(11, "invalid_odds", "No odds available for the predicted outcome", {"predicted_outcome": "tie"}),
    Case(
        11,
        "invalid_odds",
        "No odds available for the predicted outcome",
        {"predicted_outcome": "Tie", "predicted_odds": "x"},
    ),
    Case(11, "invalid_odds", "Invalid odds value", {"predicted_odds": "2,10"}),
    Case(11, "invalid_odds", "Invalid odds value", {"predicted_odds": []}),
    Case(
        11,
        "odds_mismatch",
        "Predicted odds 2.1101 do not match current game odds 2.1000",
        {"predicted_odds": 2.1101},
    ),
    Case(
        11,
        "odds_mismatch",
        "Predicted odds 1.8000 do not match current game odds 2.1000",
        {"predicted_odds": "1.80"},
    ),
    Case(12, "invalid_confidence", "Invalid confidence score format", {"confidence_score": "0.5"}),
    Case(12, "invalid_confidence", "Invalid confidence score format", {"confidence_score": True}),
    Case(12, "invalid_confidence", "Invalid confidence score format", {"confidence_score": [0.5]}),
    Case(
        12,
        "invalid_confidence",
        "If provided, confidence score must be between 0 and 1",
        {"confidence_score": 1.0000001},
    ),
    Case(12, "invalid_confidence", "If provided, confidence score must be between 0 and 1", {"confidence_score": -0.1}),
    Case(12, "invalid_confidence", "If provided, confidence score must be between 0 and 1", {"confidence_score": 2}),
]


def judged(*cases: Case) -> Verdict:
    """The verdict if all of these are done at once; where two want the same, the first has it."""
    sent: dict[str, Any] = {}
    offer: dict[str, Any] = {}
    for case in reversed(cases):
        sent |= case.sent
        offer |= case.offer or {}
    known = all(case.offer is not None for case in cases)
    wagered, at = max(case.wagered for case in cases), max(case.at for case in cases)
    return verdict(sent, replace(NFL, **offer) if known else None, wagered, at)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule} {case.message} {case.sent}")
def test_each_rule_rejects_with_its_code_and_its_words(case):
    assert judged(case) == rejection(case.code, case.message)


def pairs() -> Iterator[tuple[Case, Case]]:
    """An earlier rule and a later one that do not contradict each other: both stay broken."""
    for first, second in combinations(CASES, 2):
        own = set(first.sent) & set(second.sent)
        same_offer = set(first.offer or {}) & set(second.offer or {})
        if first.rule < second.rule and not own and not same_offer:
            yield first, second


def test_the_first_rule_that_fails_wins_over_every_later_one():
    tried = set()
    for first, second in pairs():
        if (first.rule, second.rule) == (9, 10) and "tie_odds" in (first.offer or {}):
            continue  # a game with tie odds makes outcome 2 a good one: rule 10 is not broken
        assert judged(first, second) == rejection(first.code, first.message), (first, second)
        tried.add((first.rule, second.rule))
    assert tried == set(combinations(range(3, 13), 2))


def test_a_bad_wager_on_an_unknown_game_is_a_bad_wager():
    assert verdict({"wager": "-1"}, offer=None).code == "invalid_wager"


def test_the_table_of_verdicts_holds_every_code_and_every_text():
    texts = [text for texts in VERDICTS.values() for text in texts]
    assert set(VERDICTS) == {case.code for case in CASES} | {"successful"}
    for text in texts:
        start = text.split("{")[0]
        assert any(case.message.startswith(start) for case in CASES) or text == "Prediction accepted"


def test_a_long_outcome_is_repeated_in_short():
    for outcome in ("x" * 10000, ["x" * 10000], int("3" * 15)):
        judged = verdict({"predicted_outcome": outcome})
        assert judged.code == "invalid_outcome"
        assert len(judged.message) <= len("Invalid numeric predicted_outcome: ") + 64


def test_the_least_wager_in_the_text_is_the_one_of_the_node():
    limits = Limits(min_wager=250, daily_limit=100000)
    judged = judge(read_prediction(SENT | {"wager": "2.49"}), NFL, 0, limits, NOW)
    assert judged.message == "Wager is below the minimum of $2.50"


# --- time


def test_an_event_start_with_an_offset_is_a_moment():
    offer = replace(NFL, event_start_date=parse_rfc3339("2026-11-20T17:00:00+05:00"))
    assert verdict(offer=offer, at=parse_rfc3339("2026-11-20T11:59:59.999Z")).accepted
    assert verdict(offer=offer, at=parse_rfc3339("2026-11-20T12:00:00.000Z")).code == "game_started"


def test_the_date_that_a_miner_names_never_counts():
    assert verdict({"prediction_date": "2026-11-20T11:00:00Z"}, at=START).code == "game_started"
    assert verdict({"prediction_date": "2027-01-01T00:00:00Z"}).accepted


# --- odds


@pytest.mark.parametrize(
    ("sent", "offer"),
    [
        ({"team_a_odds": "1.8100"}, NFL),
        ({"team_a_odds": 1.79}, NFL),
        ({"team_b_odds": "2.1100", "predicted_odds": "2.1100"}, NFL),
        ({"team_b_odds": 2.09, "predicted_odds": 2.09}, NFL),
        ({"tie_odds": "3.21"}, SOCCER),
        ({"tie_odds": 3.19}, SOCCER),
    ],
)
def test_odds_one_hundredth_off_are_accepted_at_the_odds_of_the_node(sent, offer):
    judged = verdict({**({} if offer is NFL else WITH_TIE), **sent}, offer)
    assert (judged.accepted, judged.accepted_odds) == (True, 21000)


@given(st.integers(10101, 9_999_900), st.integers(-300, 300), st.booleans())
@example(10101, -100, True)
@example(9_999_900, 100, False)
def test_the_tolerance_is_inclusive_and_exact_for_text_and_number(stored, off, as_text):
    sent = stored + off
    if not 10000 < sent <= 10_000_000:
        return
    value = odds_text(sent) if as_text else sent / 10000
    offer = replace(NFL, team_b_odds=stored)
    judged = verdict({"team_b_odds": value, "predicted_odds": value}, offer)
    assert judged.accepted is (abs(off) <= 100)
    assert judged.accepted_odds == (stored if judged.accepted else None)
    only_predicted = verdict({"team_b_odds": odds_text(stored), "predicted_odds": value}, offer)
    assert only_predicted.code == ("successful" if abs(off) <= 100 else "odds_mismatch")


# --- money


@given(st.lists(st.integers(1, 100000), max_size=30))
def test_accepted_wagers_never_pass_the_limit_and_only_those_beyond_it_are_rejected(amounts):
    wagered = 0
    for amount in amounts:
        judged = verdict({"wager": amount / 100}, wagered=wagered)
        if judged.accepted:
            wagered += cents(amount / 100)
        elif amount >= LIMITS.min_wager:
            assert wagered + amount > LIMITS.daily_limit
            assert judged.code == "daily_limit_exceeded"
    assert wagered <= LIMITS.daily_limit


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=4,
) | st.text("0123456789.-+eE²١naif ")


@given(
    st.fixed_dictionaries(dict.fromkeys(("wager", "predicted_outcome", "team_a_odds", "team_b_odds"), JSON)),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("predicted_odds", "tie_odds", "confidence_score"), JSON)),
    st.sampled_from([NFL, SOCCER, None]),
)
def test_whatever_is_sent_gets_a_verdict_of_the_table(needed, optional, offer):
    sent = {name: SENT[name] if value is None else value for name, value in needed.items()} | optional
    judged = verdict(sent, offer)
    assert judged.code in VERDICTS
    assert judged.accepted is (judged.code == "successful")
    assert (judged.wager is not None) is judged.accepted


@given(st.sampled_from(["wager", "predicted_outcome", "predicted_odds", "confidence_score"]), JSON)
def test_two_spellings_of_one_canonical_body_get_one_verdict(name, value):
    if value is None or not isinstance(value, int) or isinstance(value, bool):
        return
    whole, broken = verdict({name: value}), verdict({name: float(value)})
    assert whole == broken
