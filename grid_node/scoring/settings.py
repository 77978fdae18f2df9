"""What an operator may set about scoring, as plain data (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CONTRACT_VIEW_SIZE = 256


@dataclass(frozen=True, slots=True)
class ScoringSettings:
    """Defaults are those of rule version `splat-1`; sizes in pixels or bytes as named."""

    threshold: float = 0.6
    """A result is accepted at this score (0..1) or above."""
    min_splats: int = 7_000
    max_splats: int = 2_000_000
    max_bytes: int = 134_217_728
    view_size: int = CONTRACT_VIEW_SIZE
    """Side of the square judged views, px. Another size is another scorer version."""
    up_axis: Literal["+Y", "-Y"] = "+Y"
    previews: int = 8
    """Previews written beside an asset, evenly around it; 0 writes none."""
    preview_size: int = 512
    threads: int = 0
    """Threads of one scoring process; 0 means all cores this process may use."""
    backend: Literal["auto", "numba", "torch"] = "auto"
    """`auto` is numba; `torch` is the slow float64 reference, for comparisons on small images."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError("threshold must be from 0 to 1")
        if not 1 <= self.min_splats <= self.max_splats:
            raise ValueError("min_splats must be at least 1 and at most max_splats")
        if self.max_bytes < 1:
            raise ValueError("max_bytes must be positive")
        if not 32 <= self.view_size <= 1024 or not 16 <= self.preview_size <= 2048:
            raise ValueError("view_size must be 32 to 1024 px, preview_size 16 to 2048 px")
        if self.up_axis not in ("+Y", "-Y"):
            raise ValueError("up_axis must be +Y or -Y")
        if self.backend not in ("auto", "numba", "torch"):
            raise ValueError("backend must be auto, numba or torch")
        if self.previews < 0 or self.threads < 0:
            raise ValueError("previews and threads must not be negative")
