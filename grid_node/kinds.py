"""The kinds of tasks this node takes: scoring's table, made ready for generation."""

from collections.abc import Mapping
from typing import Any

from grid_node.generation.leases import Kind
from grid_node.scoring.kinds import KINDS, KindSpec
from grid_node.scoring.port import InvalidAsset, Report, ScoreTask, view_seed
from grid_node.scoring.settings import ScoringSettings

UNJUDGED = "cog"


def load_kinds(scoring: ScoringSettings, secret: bytes) -> dict[str, Kind]:
    """Every registered kind. Only inline scorers are loaded here; they need nothing but the standard library."""
    return {spec.kind: _kind(spec, scoring, secret) for spec in KINDS.values()}


def offered_by_anybody(kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """Without the kind that is taken as it comes: only registered models work on it, whose owners answer for them."""
    return {name: kind for name, kind in kinds.items() if name != UNJUDGED}


def _kind(spec: KindSpec, scoring: ScoringSettings, secret: bytes) -> Kind:
    judge = _inline_judge(spec, scoring, secret) if spec.inline else None
    return Kind(spec.kind, spec.formats, spec.max_bytes, judge)


def _inline_judge(spec: KindSpec, scoring: ScoringSettings, secret: bytes) -> Any:
    scorer: Any = spec.load(scoring)

    def judge(data: bytes, task: Any, copy_format: str) -> dict[str, Any]:
        asked = ScoreTask(task.id, task.prompt, view_seed(secret, task.id), task.kind, copy_format)
        try:
            report: Report = scorer.judge(data, asked)
        except InvalidAsset as error:
            refused = Report.rejected(
                error.reason,
                task=asked,
                scorer=scorer.version,
                score_kind=scorer.score_kind,
                threshold=scoring.threshold,
                size=len(data),
            )
            return {**refused.to_dict(), "invalid": True}
        return report.to_dict()

    return judge
