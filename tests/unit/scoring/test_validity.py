"""Hard validity: clouds that no score can be given to."""

from dataclasses import replace

import numpy as np
import pytest

from grid_node.scoring import shapes
from grid_node.scoring.cloud import SplatCloud
from grid_node.scoring.port import InvalidAsset
from grid_node.scoring.validity import check_valid


def changed(cloud: SplatCloud, name: str, value: float, share: float) -> SplatCloud:
    array = getattr(cloud, name).copy()
    array[: int(len(cloud) * share)] = value
    return replace(cloud, **{name: array})


@pytest.fixture(scope="module")
def genuine() -> SplatCloud:
    return shapes.build("tree", 1_000)


def test_a_genuine_cloud_is_valid(genuine):
    check_valid(genuine)


@pytest.mark.parametrize(
    ("name", "value", "share", "reason"),
    [
        ("centers", np.nan, 0.001, "non_finite"),
        ("f_dc", np.inf, 0.001, "non_finite"),
        ("opacity", np.nan, 0.001, "non_finite"),
        ("log_scales", -np.inf, 0.001, "non_finite"),
        ("rotations", np.nan, 0.001, "non_finite"),
        ("centers", 0.25, 1.0, "degenerate"),
        ("centers", 2e9, 0.001, "degenerate"),
        ("log_scales", -30.0, 0.011, "degenerate"),
        ("log_scales", 30.0, 0.011, "degenerate"),
        ("rotations", 0.0, 0.011, "zero_rotation"),
        ("opacity", 0.0009, 0.81, "invisible"),
    ],
)
def test_a_spoiled_cloud_is_refused(genuine, name, value, share, reason):
    with pytest.raises(InvalidAsset) as caught:
        check_valid(changed(genuine, name, value, share))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("name", "value", "share"),
    [
        ("log_scales", -30.0, 0.01),
        ("log_scales", 300.0, 0.01),
        ("rotations", 0.0, 0.01),
        ("opacity", 0.0, 0.8),
        ("centers", 1e6, 0.001),
    ],
)
def test_a_few_bad_splats_are_forgiven(genuine, name, value, share):
    check_valid(changed(genuine, name, value, share))
