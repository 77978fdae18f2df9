"""What the scorers need of the node's settings."""

import os
from typing import Any, cast

from grid_node.scoring.settings import ScoringSettings
from grid_node.settings import Settings


def scoring_settings(settings: Settings) -> ScoringSettings:
    """What the scorers need of the node's settings."""
    threads = settings.scoring_threads or max(1, (os.cpu_count() or 1) // max(1, settings.scoring_processes))
    return ScoringSettings(
        threshold=settings.scoring_threshold,
        min_splats=settings.scoring_min_splats,
        max_splats=settings.scoring_max_splats,
        max_bytes=settings.scoring_max_bytes,
        view_size=settings.scoring_view_size,
        up_axis=cast(Any, settings.scoring_up_axis),
        previews=settings.scoring_previews,
        preview_size=settings.scoring_preview_size,
        threads=threads,
        backend=cast(Any, settings.scoring_backend),
    )
