"""One warm scorer and the files of a few genuine assets, shared by the contract tests of scoring."""

from collections.abc import Callable
from pathlib import Path

import pytest

from grid_node.scoring import shapes
from grid_node.scoring.cloud import SplatCloud
from grid_node.scoring.ply import write_ply
from grid_node.scoring.port import Report, ScoreTask
from grid_node.scoring.splats import SplatScorer

Judge = Callable[..., Report]


@pytest.fixture(scope="session")
def scorer() -> SplatScorer:
    return SplatScorer()


@pytest.fixture(scope="session")
def robot() -> SplatCloud:
    return shapes.build("robot", 16_000)


def task(seed: int = 11, said_format: str = "ply") -> ScoreTask:
    return ScoreTask("task", "a robot", seed, "text_to_3d", said_format)


@pytest.fixture(scope="session")
def judge(scorer: SplatScorer, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """Report on a cloud written as PLY, or on given bytes."""
    folder: Path = tmp_path_factory.mktemp("assets")

    def judged(asset: SplatCloud | bytes, seed: int = 11, said_format: str = "ply", by: SplatScorer = scorer) -> Report:
        path = folder / "asset"
        if isinstance(asset, bytes):
            path.write_bytes(asset)
        else:
            with path.open("wb") as file:
                write_ply(file, asset)
        return by.score(path, task(seed, said_format))

    return judged
