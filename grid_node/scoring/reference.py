"""The plain renderer in torch, float64: every splat at every pixel, for small images only.

The numba renderer is compared with it; it shares the camera and the constants, nothing else.
"""

from __future__ import annotations

import torch

from grid_node.scoring.camera import FOV_Y_DEGREES, NEAR, Camera
from grid_node.scoring.cloud import Floats
from grid_node.scoring.raster import FOV_CLAMP, LOW_PASS, MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE
from grid_node.scoring.scene import Scene

Tensor = torch.Tensor


def render(scene: Scene, camera: Camera, background: float) -> tuple[Floats, Floats]:
    """One view as `raster.render` gives it: colour over the background, opacity."""
    middle, covariance, depth = _project(scene, camera)
    opacity, colors = _double(scene.opacity), _double(scene.colors)
    seen = (depth > NEAR) & (torch.linalg.det(covariance) > 0) & (opacity >= MIN_ALPHA)
    order = torch.argsort(depth, stable=True)
    order = order[seen[order]]
    inverse = torch.linalg.inv(covariance[order])
    steps = torch.arange(camera.size, dtype=torch.float64) + 0.5
    image, clear = [], []
    for y in steps:  # a row of pixels at a time
        pixels = torch.stack([steps, y.expand_as(steps)], dim=1)
        offset = pixels[None] - middle[order][:, None]
        power = 0.5 * torch.einsum("npi,nij,npj->np", offset, inverse, offset)
        weights, left = _weights(opacity[order, None] * torch.exp(-power))
        image.append(weights.T @ colors[order] + left[:, None] * background)
        clear.append(left)
    return torch.stack(image).float().numpy(), (1 - torch.stack(clear)).float().numpy()


def _weights(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Share of each splat (N, P) in each pixel, front to back, and the transmittance left (P,)."""
    alpha = torch.where(alpha >= MIN_ALPHA, alpha.clamp(max=MAX_ALPHA), 0.0)
    after = torch.cumprod(1 - alpha, dim=0)
    is_closed = torch.cummax((after < MIN_TRANSMITTANCE).int(), dim=0).values.bool()
    alpha = torch.where(is_closed, 0.0, alpha)
    before = torch.cat([torch.ones_like(alpha[:1]), torch.cumprod(1 - alpha, dim=0)])
    return alpha * before[:-1], before[-1]


def _project(scene: Scene, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """Centres on the image (N, 2) px, their covariances (N, 2, 2) px², depths (N,)."""
    matrix = _double(camera.matrix())
    rotation, shift = matrix[:, :3], matrix[:, 3]
    x, y, z = (_double(scene.centers) @ rotation.T + shift).unbind(dim=1)
    focal = camera.focal
    limit = FOV_CLAMP * torch.tan(torch.deg2rad(torch.tensor(FOV_Y_DEGREES / 2, dtype=torch.float64)))
    tx, ty = torch.clamp(x / z, -limit, limit), torch.clamp(y / z, -limit, limit)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([focal / z, zero, -focal * tx / z], dim=1),
            torch.stack([zero, focal / z, -focal * ty / z], dim=1),
        ],
        dim=1,
    )
    upper = _double(scene.covariances)
    world = upper[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    turned = jacobian @ rotation
    covariance = turned @ world @ turned.transpose(1, 2) + LOW_PASS * torch.eye(2, dtype=torch.float64)
    middle = torch.stack([focal * x / z, focal * y / z], dim=1) + camera.size / 2
    return middle, covariance, depth_of(z)


def depth_of(z: Tensor) -> Tensor:
    """Depth rounded to float32, as every renderer orders by it."""
    return z.float().double()


def _double(array: object) -> Tensor:
    return torch.as_tensor(array, dtype=torch.float64)
