"""Rule version `splat-1`: from signals to gates, quality, score and reasons. Pure functions over numbers.

The table GATES is the rule; a changed constant is a new rule version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RULE_VERSION = "splat-1"
NAMED_BELOW = 0.5
"""A gate factor below this is named in the reasons."""
QUALITY_BASE = 0.65


def ramp(x: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high` on, straight between."""
    return min(1.0, max(0.0, (x - low) / (high - low)))


@dataclass(frozen=True, slots=True)
class Factor:
    """One factor of a gate: a ramp over one signal, and the reason it gives when it is low."""

    signal: str
    low: float
    high: float
    rises: bool
    reason: str

    def value(self, signals: Mapping[str, float]) -> float:
        share = ramp(signals[self.signal], self.low, self.high)
        return share if self.rises else 1.0 - share


GATES: dict[str, tuple[Factor, ...]] = {
    "solid": (Factor("thin", 0.004, 0.012, True, "flat"),),
    "uncrossed": (Factor("cross", 0.4, 0.6, False, "crossed_sheets"),),
    "frame": (
        Factor("coverage", 0.008, 0.02, True, "nothing_visible"),
        Factor("coverage", 0.75, 0.92, False, "fills_view"),
        Factor("border", 0.05, 0.2, False, "leaves_view"),
    ),
    "opaque": (
        Factor("soft", 0.25, 0.45, False, "transparent"),
        Factor("haze", 0.06, 0.16, False, "haze"),
    ),
    "dense": (
        Factor("hole", 0.08, 0.25, False, "holes"),
        Factor("hires", 0.6, 0.85, True, "dust"),
        Factor("px", 0.1, 0.3, True, "dust"),
    ),
    "texture": (
        Factor("std", 0.02, 0.06, True, "no_detail"),
        Factor("hf", 0.005, 0.013, True, "blurred"),
        Factor("hf", 0.2, 0.32, False, "noise"),
    ),
    "shape": (Factor("needle", 0.2, 0.6, False, "needles"),),
    "steady": (Factor("ssim", 0.40, 0.60, True, "views_disagree"),),
}

Gates = Mapping[str, tuple[Factor, ...]]


def gate_values(signals: Mapping[str, float], gates: Gates = GATES) -> dict[str, float | None]:
    """Each gate 0..1, the product of its factors. None: a signal it needs was not measured and none of the
    measured ones is already 0."""
    return {name: _gate(factors, signals) for name, factors in gates.items()}


def _gate(factors: tuple[Factor, ...], signals: Mapping[str, float]) -> float | None:
    values = [factor.value(signals) for factor in factors if factor.signal in signals]
    product = 1.0
    for value in values:
        product *= value
    return product if len(values) == len(factors) or (values and product == 0) else None


def integrity(gates: Mapping[str, float | None]) -> float:
    """Product of the judged gates."""
    product = 1.0
    for value in gates.values():
        product *= 1.0 if value is None else value
    return product


def quality(signals: Mapping[str, float]) -> float:
    """0.65 to 1: how much there is to see, and how cleanly it is cut."""
    detail = (
        0.4 * ramp(signals["std"], 0.04, 0.30)
        + 0.4 * ramp(signals["entropy"], 1.5, 4.5)
        + 0.2 * ramp(signals["grad"], 0.005, 0.04)
    )
    clean = 0.5 * (1 - ramp(signals["soft"], 0.02, 0.25)) + 0.5 * (1 - ramp(signals["haze"], 0.0, 0.06))
    return QUALITY_BASE + 0.20 * detail + 0.15 * clean


def final_score(integrity_value: float, parts: Mapping[str, tuple[float, float]]) -> float:
    """integrity × weighted mean of the components that are ok, as name: (value, weight); 4 decimals."""
    weight = sum(weight for _, weight in parts.values())
    mean = sum(value * weight for value, weight in parts.values()) / weight if weight > 0 else 0.0
    return round(min(1.0, max(0.0, integrity_value * mean)), 4)


def reasons(signals: Mapping[str, float], accepted: bool, gates: Gates = GATES) -> tuple[str, ...]:
    """Codes of what lowered the score, worst first; a refused asset always has one besides `below_threshold`
    if any gate took something."""
    found: dict[str, float] = {}
    for factor in (factor for factors in gates.values() for factor in factors):
        if factor.signal in signals:
            value = factor.value(signals)
            found[factor.reason] = min(value, found.get(factor.reason, 1.0))
    worst_first = sorted(found, key=lambda reason: found[reason])
    named = [reason for reason in worst_first if found[reason] < NAMED_BELOW]
    if accepted:
        return tuple(named)
    if not named and worst_first and found[worst_first[0]] < 1:
        named = worst_first[:1]
    return (*named, "below_threshold")
