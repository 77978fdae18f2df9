"""Generators for the command line: what a worker does with a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from grid_client.delivery import Job, Output
from grid_client.procedural import build
from grid_client.splats import Splats, encode
from grid_client.worker import Handler

SPLAT_FORMATS = ("ply", "spz")


@dataclass(frozen=True)
class Generator:
    """A handler with what the node has to know about it."""

    kinds: Sequence[str]
    formats: Sequence[str]
    handler: Handler


def procedural(identity: str, *, quality: float = 1.0, prefer: str = "spz", faulty: float = 0.0) -> Generator:
    """Gaussian splats from the prompt; the share `faulty` of the results is really broken."""

    def handler(job: Job) -> Output:
        lease = job.lease
        splats = build(lease.prompt, lease.seed, identity, quality=quality)
        known = [name for name in (prefer, *SPLAT_FORMATS) if name in lease.formats]
        if not known:
            raise ValueError(f"no format of {lease.formats} can be written")
        choice = sha256(lease.lease_id.encode()).digest()
        if int.from_bytes(choice[:4], "big") < faulty * 2**32:
            return Output(broken(splats, known[0], choice[4]), known[0])
        return Output(encode(splats, known[0]), known[0])

    return Generator(("text_to_3d",), SPLAT_FORMATS, handler)


def broken(splats: Splats, fmt: str, choice: int) -> bytes:
    """What goes wrong in the field: a flat sheet, dust, or half a file."""
    flaws = (
        lambda: encode(_squeezed(splats), fmt),
        lambda: encode(_shrunk(splats), fmt),
        lambda: encode(splats, fmt)[: len(splats) * 5],
    )
    return flaws[choice % len(flaws)]()


def _squeezed(splats: Splats) -> Splats:
    flat = splats.centers * np.array([1.0, 1.0, 0.002], dtype=np.float32)
    return Splats(flat, splats.f_dc, splats.opacity, splats.scales, splats.rotations)


def _shrunk(splats: Splats) -> Splats:
    small = splats.scales + np.float32(np.log(0.02))
    return Splats(splats.centers, splats.f_dc, splats.opacity, small, splats.rotations)


def text(identity: str) -> Generator:
    """One sentence about the prompt, the same for the same prompt, seed and identity."""

    def handler(job: Job) -> Output:
        lease = job.lease
        seed = "" if lease.seed is None else f" (seed {lease.seed})"
        return Output(f"{identity} answers to {lease.prompt!r}{seed}.\n".encode(), lease.formats[0])

    return Generator(("text",), ("text",), handler)
