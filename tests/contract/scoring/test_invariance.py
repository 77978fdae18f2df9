"""What must not change a score, and what makes a report the same to the byte."""

import gzip
import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grid_node.scoring.ply import write_ply
from grid_node.scoring.port import Report, ScoreTask
from grid_node.scoring.settings import ScoringSettings
from grid_node.scoring.splats import SplatScorer
from grid_node.scoring.spz import HEADER, MAGIC, encode_spz, write_spz

ROOT = Path(__file__).parents[3]


def body(report: Report) -> dict:
    """The report without what may differ."""
    return {key: value for key, value in report.to_dict().items() if key not in ("seconds", "attempts")}


@pytest.fixture(scope="module")
def plain(judge, robot):
    return judge(robot)


def as_spz(cloud) -> bytes:
    file = io.BytesIO()
    write_spz(file, cloud)
    return file.getvalue()


def as_version_3(cloud) -> bytes:
    """Niantic's gzip form with the smallest-three rotations."""
    raw = encode_spz(cloud)
    count = len(cloud)
    unit = cloud.rotations / np.linalg.norm(cloud.rotations, axis=1, keepdims=True)
    xyzw = unit[:, [1, 2, 3, 0]]
    largest = np.abs(xyzw).argmax(axis=1)
    xyzw = xyzw * np.sign(xyzw[np.arange(count), largest])[:, None]
    packed = largest.astype(np.uint32)
    for part in range(4):
        size = np.rint(np.abs(xyzw[:, part]) * np.sqrt(2) * 511).astype(np.uint32)
        word = (packed << 10) | ((xyzw[:, part] < 0).astype(np.uint32) << 9) | np.minimum(size, 511)
        packed = np.where(largest == part, packed, word)
    head = HEADER.pack(MAGIC, 3, count, 0, raw[13], 0, 0)
    return gzip.compress(head + raw[16 : 16 + 16 * count] + packed.astype("<u4").tobytes(), 1)


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(as_spz, id="zstd"),
        pytest.param(lambda cloud: gzip.compress(encode_spz(cloud), 1), id="gzip 2"),
        pytest.param(as_version_3, id="gzip 3"),
    ],
)
def test_the_same_asset_in_another_form_scores_the_same(judge, plain, robot, encode):
    report = judge(encode(robot), said_format="spz")

    assert abs(report.score - plain.score) <= 0.005
    assert report.format == "spz"


def test_the_order_of_the_splats_changes_nothing(judge, plain, robot):
    shuffled = judge(robot.take(np.random.default_rng(8).permutation(len(robot))))

    assert body(shuffled) == body(plain)


def test_size_and_place_change_nothing(judge, plain, robot):
    moved = replace(
        robot,
        centers=robot.centers * 100 + np.array([30, -70, 11], np.float32),
        log_scales=robot.log_scales + np.float32(np.log(100)),
    )

    assert abs(judge(moved).score - plain.score) < 1e-6


def test_one_far_splat_changes_next_to_nothing(judge, plain, robot):
    centers = robot.centers.copy()
    centers[123] = (10_000, 0, 0)

    assert abs(judge(replace(robot, centers=centers)).score - plain.score) <= 0.001


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_nothing(judge, plain, robot, threads):
    report = judge(robot, by=SplatScorer(ScoringSettings(threads=threads)))

    assert body(report) == body(plain)


def test_other_views_change_little(judge, plain, robot):
    scores = [judge(robot, seed).score for seed in (12, 13)]

    assert all(abs(score - plain.score) <= 0.03 for score in scores)


def test_a_report_is_equal_to_the_byte_in_other_processes_and_beside_others(scorer, robot, plain, tmp_path):
    path = tmp_path / "robot.ply"
    with path.open("wb") as file:
        write_ply(file, robot)
    program = (
        "import json, sys; from pathlib import Path\n"
        "from grid_node.scoring.port import ScoreTask; from grid_node.scoring.splats import SplatScorer\n"
        "task = ScoreTask('task', 'a robot', 11, 'text_to_3d', 'ply')\n"
        "print(json.dumps(SplatScorer().score(Path(sys.argv[1]), task).to_dict()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    with ThreadPoolExecutor(2) as pool:
        tasks = [ScoreTask("task", "a robot", seed, "text_to_3d", "ply") for seed in (11, 99)]
        together = list(pool.map(lambda one: scorer.score(path, one), tasks))

    elsewhere = {k: v for k, v in json.loads(done.stdout).items() if k not in ("seconds", "attempts")}
    assert json.dumps(elsewhere) == json.dumps(body(plain)) == json.dumps(body(together[0]))


def test_another_view_size_or_up_axis_is_another_scorer():
    versions = {
        SplatScorer(settings).version
        for settings in (ScoringSettings(), ScoringSettings(view_size=128), ScoringSettings(up_axis="-Y"))
    }

    assert versions == {"splat-1", "splat-1+view-128", "splat-1+up-y"}


def test_the_alignment_is_unavailable_and_not_counted(plain):
    report = plain.to_dict()

    assert report["components"]["alignment"]["status"] == "unavailable"
    assert report["components"]["alignment"]["value"] is None
    assert report["components"]["alignment"]["why"]
    assert report["score"] == report["components"]["quality"]["value"]
    assert report["score_kind"] == "integrity"


def test_a_threshold_above_the_score_refuses_with_a_reason(judge, robot, plain):
    report = judge(robot, by=SplatScorer(ScoringSettings(threshold=0.99)))

    assert (report.accepted, report.reasons, report.score) == (False, ("below_threshold",), plain.score)
