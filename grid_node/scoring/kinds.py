"""The one table of kinds: who judges what (standard library only).

A new kind is one more row: `register(KindSpec(...))` before the node or its job processes start.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import cast

from grid_node.scoring.file import MAX_FILE_BYTES
from grid_node.scoring.port import Scorer
from grid_node.scoring.settings import ScoringSettings
from grid_node.scoring.text import MAX_TEXT_BYTES


@dataclass(frozen=True, slots=True)
class KindSpec:
    """`inline` kinds are judged in the submit transaction (microseconds); the others in a job process.

    `scorer` is "module:Class", imported only by `load`, because it may need numba and torch.
    """

    kind: str
    formats: tuple[str, ...]
    max_bytes: int
    inline: bool
    scorer: str

    def load(self, settings: ScoringSettings) -> Scorer:
        """Make the kind's scorer; not warm yet."""
        module, _, name = self.scorer.partition(":")
        return cast(Scorer, getattr(importlib.import_module(module), name)(settings))


KINDS: dict[str, KindSpec] = {}


def register(spec: KindSpec) -> None:
    """Add a kind; raises ValueError when the name is taken."""
    if spec.kind in KINDS:
        raise ValueError(f"the kind {spec.kind} is already registered")
    KINDS[spec.kind] = spec


register(
    KindSpec(
        kind="text_to_3d",
        formats=("ply", "spz"),
        max_bytes=ScoringSettings().max_bytes,
        inline=False,
        scorer="grid_node.scoring.splats:SplatScorer",
    )
)
register(
    KindSpec(
        kind="text",
        formats=("text",),
        max_bytes=MAX_TEXT_BYTES,
        inline=True,
        scorer="grid_node.scoring.text:TextScorer",
    )
)
register(
    KindSpec(
        kind="cog",
        formats=("file",),
        max_bytes=MAX_FILE_BYTES,
        inline=False,
        scorer="grid_node.scoring.file:FileScorer",
    )
)
