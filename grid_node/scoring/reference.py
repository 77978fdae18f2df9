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
    size = camera.size
    middle, covariance, depth = _project(scene, camera)
    opacity = _double(scene.opacity)
    determinant = covariance[:, 0, 0] * covariance[:, 1, 1] - covariance[:, 0, 1] ** 2
    seen = (depth > NEAR) & (determinant > 0) & (opacity >= MIN_ALPHA)
    order = torch.argsort(depth, stable=True)
    steps = torch.arange(size, dtype=torch.float64) + 0.5
    pixels = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
    colors = _double(scene.colors)
    image = torch.zeros(size, size, 3, dtype=torch.float64)
    clear = torch.ones(size, size, dtype=torch.float64)
    is_open = torch.ones(size, size, dtype=torch.bool)
    for i in order[seen[order]].tolist():
        offset = pixels - middle[i]
        power = 0.5 * torch.einsum("yxi,ij,yxj->yx", offset, torch.linalg.inv(covariance[i]), offset)
        alpha = torch.clamp(opacity[i] * torch.exp(-power), max=MAX_ALPHA)
        alpha = torch.where((alpha >= MIN_ALPHA) & is_open, alpha, 0.0)
        after = clear * (1 - alpha)
        is_open &= after >= MIN_TRANSMITTANCE
        alpha = torch.where(is_open, alpha, 0.0)
        image += (alpha * clear)[..., None] * colors[i]
        clear = clear * (1 - alpha)
    image += clear[..., None] * background
    return image.float().numpy(), (1 - clear).float().numpy()


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
