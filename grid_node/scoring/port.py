"""The port between the node and its scorers (standard library only: the web process imports this).

A scorer is pure: no database, no Flask, no network. It answers with a `Report`, or raises `InvalidAsset` when the
bytes are at fault. Any other exception is a fault of ours and must never cost the worker anything.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

ComponentStatus = Literal["ok", "unavailable", "failed"]


def view_seed(secret: bytes, task_id: str) -> int:
    """Seed of a task's camera views: first 8 bytes of HMAC-SHA256(node secret, task id), big-endian.

    Workers cannot know it before the task ends, so an asset cannot be made for the views that judge it.
    """
    return int.from_bytes(hmac.digest(secret, task_id.encode("utf-8"), "sha256")[:8], "big")


class InvalidAsset(Exception):
    """The worker's bytes cannot be judged: score 0 with this reason, never retried."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """What a scorer may know of a task. `seed` is the view seed, `format` what the worker says it sent."""

    task_id: str
    prompt: str
    seed: int
    kind: str
    format: str


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a score. `value` is None unless `status` is "ok"; its weight is then left out, never a 0."""

    value: float | None
    status: ComponentStatus = "ok"
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        body: dict[str, Any] = {"value": _rounded(self.value), "status": self.status}
        return body | {"why": self.why} if self.why else body


@dataclass(frozen=True, slots=True)
class Report:
    """What is stored with a result. Numbers are rounded to 4 decimals in `to_dict` and before any comparison.

    `attempts` is the caller's, `seconds` the scorer's. A gate or signal of None was not judged, because another
    gate was already 0 (flag `stopped_early`). `artifacts` are files written beside the report, by relative name.
    """

    score: float
    accepted: bool
    threshold: float
    score_kind: str
    scorer: str
    components: Mapping[str, Component] = field(default_factory=dict)
    gates: Mapping[str, float | None] = field(default_factory=dict)
    signals: Mapping[str, float | None] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    splats: int | None = None
    format: str = ""
    bytes: int = 0
    view_seed: int = 0
    backend: str = ""
    attempts: int = 1
    seconds: float = 0.0
    artifacts: Mapping[str, Path] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The wire form, ready for JSON."""
        return {
            "success": True,
            "score": _rounded(self.score),
            "accepted": self.accepted,
            "threshold": self.threshold,
            "score_kind": self.score_kind,
            "scorer": self.scorer,
            "components": {name: part.to_dict() for name, part in self.components.items()},
            "gates": {name: _rounded(value) for name, value in self.gates.items()},
            "signals": {name: _rounded(value) for name, value in self.signals.items()},
            "reasons": list(self.reasons),
            "flags": list(self.flags),
            "splats": self.splats,
            "format": self.format,
            "bytes": self.bytes,
            "view_seed": f"{self.view_seed:016x}",
            "backend": self.backend,
            "attempts": self.attempts,
            "seconds": _rounded(self.seconds),
        }

    def with_attempts(self, attempts: int) -> Report:
        return replace(self, attempts=attempts)

    @classmethod
    def rejected(
        cls,
        reason: str,
        *,
        task: ScoreTask,
        scorer: str,
        score_kind: str,
        threshold: float,
        size: int = 0,
        seconds: float = 0.0,
    ) -> Report:
        """The report of an asset that `InvalidAsset` refused: score 0 for this one reason."""
        not_judged = Component(None, "unavailable", f"the asset is not valid: {reason}")
        names = ("integrity", "quality", "alignment") if score_kind == "integrity" else ("validity",)
        components = dict.fromkeys(names, not_judged) | {names[0]: Component(0.0)}
        return cls(
            score=0.0,
            accepted=False,
            threshold=threshold,
            score_kind=score_kind,
            scorer=scorer,
            components=components,
            reasons=(reason,),
            format=task.format,
            bytes=size,
            view_seed=task.seed,
            seconds=seconds,
        )


class Scorer(Protocol):
    """Judges the results of one kind.

    Guarantees: the same bytes and task give an equal report but for `seconds` (`attempts` is the caller's), in any
    process, after any other asset, with any number of threads; every allocation follows a checked size.
    """

    @property
    def kind(self) -> str: ...

    @property
    def version(self) -> str:
        """Rule version with everything that changes scores; scores of different versions are never compared."""
        ...

    @property
    def score_kind(self) -> str:
        """`integrity`, `integrity+alignment` or `validity`: what a score of this scorer says."""
        ...

    @property
    def formats(self) -> tuple[str, ...]: ...

    @property
    def limits(self) -> Mapping[str, int]: ...

    def warm(self) -> None:
        """Load and compile everything, so that the first asset is not slower than the next."""
        ...

    def score(self, path: Path, task: ScoreTask, artifacts: Path | None = None) -> Report:
        """Judge the file at `path`; write previews and the other stored form into the folder `artifacts`.

        Raises InvalidAsset for the worker's fault; anything else that it raises is a fault of ours.
        """
        ...


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
