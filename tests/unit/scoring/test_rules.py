"""Rule version splat-1: gates, quality, score and reasons as functions of numbers."""

import pytest

from grid_node.scoring import rules

GOOD = {
    "coverage": 0.2,
    "border": 0.0,
    "soft": 0.02,
    "haze": 0.0,
    "hole": 0.0,
    "hires": 0.97,
    "px": 3.0,
    "std": 0.3,
    "hf": 0.05,
    "entropy": 4.5,
    "grad": 0.04,
    "ssim": 0.9,
    "thin": 0.5,
    "needle": 0.0,
    "cross": 0.0,
}


def test_good_signals_open_every_gate_and_score_one():
    gates = rules.gate_values(GOOD)

    assert set(gates.values()) == {1.0}
    assert rules.quality(GOOD) == pytest.approx(1.0)
    assert rules.reasons(GOOD, accepted=True) == ()


@pytest.mark.parametrize(
    ("gate", "signal", "closed", "half", "reason"),
    [
        ("solid", "thin", 0.004, 0.008, "flat"),
        ("uncrossed", "cross", 0.6, 0.5, "crossed_sheets"),
        ("frame", "coverage", 0.008, 0.014, "nothing_visible"),
        ("frame", "coverage", 0.92, 0.835, "fills_view"),
        ("frame", "border", 0.2, 0.125, "leaves_view"),
        ("opaque", "soft", 0.45, 0.35, "transparent"),
        ("opaque", "haze", 0.16, 0.11, "haze"),
        ("dense", "hole", 0.25, 0.165, "holes"),
        ("dense", "hires", 0.6, 0.725, "dust"),
        ("dense", "px", 0.1, 0.2, "dust"),
        ("texture", "std", 0.02, 0.04, "no_detail"),
        ("texture", "hf", 0.005, 0.009, "blurred"),
        ("texture", "hf", 0.32, 0.26, "noise"),
        ("shape", "needle", 0.6, 0.4, "needles"),
        ("steady", "ssim", 0.40, 0.50, "views_disagree"),
    ],
)
def test_each_constant_of_the_rule_closes_its_gate(gate, signal, closed, half, reason):
    shut, between = GOOD | {signal: closed}, GOOD | {signal: half}

    assert rules.gate_values(shut)[gate] == pytest.approx(0, abs=1e-12)
    assert rules.gate_values(between)[gate] == pytest.approx(0.5)
    assert rules.reasons(shut, accepted=False)[0] == reason
    assert rules.reasons(shut, accepted=False)[-1] == "below_threshold"


def test_reasons_come_worst_first():
    signals = GOOD | {"needle": 0.5, "haze": 0.16, "ssim": 0.42}

    assert rules.reasons(signals, accepted=False) == ("haze", "views_disagree", "needles", "below_threshold")


def test_a_refused_asset_names_its_worst_gate_even_when_none_is_below_one_half():
    signals = GOOD | {"haze": 0.09, "ssim": 0.53}

    assert rules.reasons(signals, accepted=False) == ("views_disagree", "below_threshold")


def test_a_gate_whose_signals_were_not_measured_is_unknown_unless_it_is_shut_already():
    gates = rules.gate_values({"px": 0.05, "thin": 0.5})

    assert gates["dense"] == 0
    assert gates["solid"] == 1
    assert gates["texture"] is None
    assert rules.integrity(gates) == 0


def test_quality_is_what_the_contract_says():
    signals = GOOD | {"std": 0.17, "entropy": 3.0, "grad": 0.0225, "soft": 0.135, "haze": 0.03}

    assert rules.quality(signals) == pytest.approx(0.65 + 0.20 * 0.5 + 0.15 * 0.5)


def test_the_score_is_the_weighted_mean_of_what_is_there():
    assert rules.final_score(0.5, {"quality": (0.9, 1.0)}) == 0.45
    assert rules.final_score(1.0, {"quality": (0.9, 1.0), "alignment": (0.5, 3.0)}) == 0.6
    assert rules.final_score(1.0, {}) == 0.0
    assert rules.final_score(1.0, {"quality": (1.7, 1.0)}) == 1.0
