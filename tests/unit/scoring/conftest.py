"""Small clouds and the files made of them, shared by the unit tests of scoring."""

import io

import numpy as np
import pytest
import torch

from grid_node.scoring import shapes
from grid_node.scoring.cloud import SplatCloud
from grid_node.scoring.ply import write_ply
from grid_node.scoring.settings import ScoringSettings
from grid_node.scoring.spz import write_spz


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small torch operations lose more by waiting for each other than they win."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cloud() -> SplatCloud:
    return shapes.build("robot", 300)


@pytest.fixture(scope="session")
def small() -> ScoringSettings:
    """Limits low enough for files of a few splats."""
    return ScoringSettings(min_splats=1, max_splats=1_000)


@pytest.fixture(scope="session")
def ply_bytes(cloud: SplatCloud) -> bytes:
    file = io.BytesIO()
    write_ply(file, cloud)
    return file.getvalue()


@pytest.fixture(scope="session")
def spz_bytes(cloud: SplatCloud) -> bytes:
    file = io.BytesIO()
    write_spz(file, cloud)
    return file.getvalue()


@pytest.fixture(scope="session")
def one_splat() -> SplatCloud:
    """A single opaque white ball at the origin."""
    return SplatCloud(
        centers=np.zeros((1, 3), np.float32),
        f_dc=np.full((1, 3), 0.5 / 0.28209479177387814, np.float32),
        opacity=np.full(1, 0.8, np.float32),
        log_scales=np.full((1, 3), np.log(0.1), np.float32),
        rotations=np.array([[1, 0, 0, 0]], np.float32),
    )
