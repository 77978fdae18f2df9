"""The files that a scoring job leaves beside its report: previews, their grid, the other stored form."""

from __future__ import annotations

from pathlib import Path

from grid_node.scoring.camera import preview_views
from grid_node.scoring.cloud import SplatCloud
from grid_node.scoring.measure import Studio
from grid_node.scoring.ply import write_ply
from grid_node.scoring.previews import Pixels, grid, grid_indices, to_pixels, write_png
from grid_node.scoring.scene import Scene
from grid_node.scoring.settings import ScoringSettings
from grid_node.scoring.spz import write_spz

WHITE = 1.0


def write_artifacts(
    folder: Path, cloud: SplatCloud, scene: Scene, said_format: str, studio: Studio, settings: ScoringSettings
) -> dict[str, Path]:
    """Write everything below `folder`; returns the paths by relative name."""
    converted = studio.pool.submit(_write_other_form, folder, cloud, said_format)
    files = _write_previews(folder, scene, studio, settings)
    other = converted.result()
    return {other.name: other} | files


def _write_other_form(folder: Path, cloud: SplatCloud, said_format: str) -> Path:
    other, write = ("asset.spz", write_spz) if said_format == "ply" else ("asset.ply", write_ply)
    path = folder / other
    with path.open("wb") as file:
        write(file, cloud)
    return path


def _write_previews(folder: Path, scene: Scene, studio: Studio, settings: ScoringSettings) -> dict[str, Path]:
    if settings.previews == 0:
        return {}
    (folder / "previews").mkdir(exist_ok=True)
    cameras = preview_views(settings.previews, settings.preview_size, settings.up_axis)

    def draw(k: int) -> Pixels:
        pixels = to_pixels(studio.render(scene, cameras[k], WHITE)[0])
        write_png(folder / f"previews/{k}.png", pixels)
        return pixels

    pictures = list(studio.pool.map(draw, range(len(cameras))))
    names = [f"previews/{k}.png" for k in range(len(cameras))]
    chosen = grid_indices(len(cameras))
    if chosen:
        names.append("previews/grid.png")
        write_png(folder / names[-1], grid([pictures[k] for k in chosen]))
    return {name: folder / name for name in names}
