import numpy as np
import pytest
from grid_client.delivery import Job
from grid_client.generators import broken, procedural, text
from grid_client.messages import Lease
from grid_client.procedural import build


def job(number: int = 0, **fields: object) -> Job:
    lease = {"task_id": f"t{number}", "lease_id": f"lease-{number}", "kind": "text_to_3d", "prompt": "a ball"}
    return Job(Lease.model_validate({**lease, "formats": ["ply", "spz"], "seed": 4, **fields}))


def test_procedural_answers_in_the_preferred_format_if_the_lease_takes_it() -> None:
    generator = procedural("w", prefer="spz")
    assert generator.handler(job()).format == "spz"
    only_ply = generator.handler(job(formats=["ply"]))
    assert (only_ply.format, only_ply.asset[:4]) == ("ply", b"ply\n")


def test_a_lease_of_unknown_formats_is_an_error_of_the_generator() -> None:
    with pytest.raises(ValueError, match="glb"):
        procedural("w").handler(job(formats=["glb"]))


def test_about_the_wanted_share_of_a_faulty_worker_is_broken() -> None:
    good, faulty = procedural("w", quality=0.4), procedural("w", quality=0.4, faulty=0.3)
    jobs = [job(n) for n in range(60)]
    honest = good.handler(jobs[0]).asset
    count = sum(faulty.handler(j).asset != honest for j in jobs)
    assert 8 <= count <= 30


def test_broken_results_are_broken_in_different_ways() -> None:
    splats = build("a ball", 1, "w", quality=0.4)
    results = [broken(splats, "ply", choice) for choice in range(3)]
    whole = len(results[0])
    assert len(results[2]) < whole
    flat = np.frombuffer(results[0][-len(splats) * 56 :], "<f4").reshape(-1, 14)[:, 2]
    assert np.ptp(flat) < 0.01
    dust = np.frombuffer(results[1][-len(splats) * 56 :], "<f4").reshape(-1, 14)[:, 7]
    assert dust.mean() < splats.scales[:, 0].mean() - 3


def test_text_is_one_sentence_about_the_prompt() -> None:
    output = text("w-3").handler(job(kind="text", formats=["text"]))
    assert output.format == "text"
    assert output.asset == b"w-3 answers to 'a ball' (seed 4).\n"
