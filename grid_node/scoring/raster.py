"""The numba renderer: EWA splatting (Zwicker et al. 2001, Kerbl et al. 2023) of one view on one thread.

Project, order by depth, bin into tiles, composite front to back. Every kernel releases the GIL, so several views run on
several threads, and a picture never depends on their number. Memory is bounded: splats are binned in runs of at most
MAX_ENTRIES (splat, tile) pairs, whatever their size, and a finished tile takes no more of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from grid_node.scoring.camera import FOV_Y_DEGREES, NEAR, Camera
from grid_node.scoring.cloud import Floats
from grid_node.scoring.scene import Scene
from grid_node.scoring.sorting import radix_order

TILE = 16
MAX_ENTRIES = 4_000_000
LOW_PASS = 0.3
"""Added to both diagonal terms of a projected covariance, px²."""
MIN_ALPHA = 1.0 / 255.0
MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4
FOV_CLAMP = 1.3
"""x/z and y/z are cut to this many half fields of view in the Jacobian."""
TAN_LIMIT = float(FOV_CLAMP * np.tan(np.radians(FOV_Y_DEGREES / 2)))

PIXEL_MATH = {"contract", "reassoc", "arcp", "nsz"}
"""Fast math without the flags that make NaN and infinity undefined."""


def render(scene: Scene, camera: Camera, background: float) -> tuple[Floats, Floats]:
    """One view: colour (size, size, 3) over the background, opacity (size, size); float32, row 0 at the top."""
    splats, spans, depths = _project(
        scene.centers,
        scene.covariances,
        scene.opacity,
        scene.colors,
        camera.matrix(),
        camera.focal,
        camera.size,
    )
    order = radix_order(depths, 32)
    image = np.zeros((camera.size, camera.size, 3), np.float32)
    clear = np.ones((camera.size, camera.size), np.float32)
    _composite(splats, spans, order, image, clear)
    image += clear[..., None] * np.float32(background)
    return image, 1 - clear


@njit(cache=True, nogil=True)
def _project(centers: Any, covariances: Any, opacity: Any, colors: Any, matrix: Any, focal: float, size: int) -> Any:
    """The visible splats: rows to draw, tile spans, depth keys.

    A row is x, y, conic xx, xy, yy, opacity, half height, reach, 1/det, red, green, blue. `reach` is twice the
    exponent at which the opacity falls below 1/255: no pixel beyond can receive anything. A span is the first and
    last tile column and row, int16.
    """
    count = len(centers)
    splats = np.empty((count, 12), np.float32)
    spans = np.empty((count, 4), np.int16)
    depths = np.empty(count, np.float32)
    kept = 0
    for i in range(count):
        if opacity[i] < MIN_ALPHA:
            continue
        seen, x, y, z, a, b, c = _project_one(centers[i], covariances[i], matrix, focal)
        determinant = a * c - b * b
        if not (seen and determinant > 0):  # false for NaN too
            continue
        reach = 2 * np.log(np.float64(opacity[i]) * 255)
        width, height = np.sqrt(reach * a), np.sqrt(reach * c)
        u, v = focal * x / z + size / 2, focal * y / z + size / 2
        if not (u + width > 0 and u - width < size and v + height > 0 and v - height < size):
            continue
        row = splats[kept]
        row[0], row[1] = u, v
        row[2], row[3], row[4] = c / determinant, -b / determinant, a / determinant
        row[5], row[6], row[7], row[8] = opacity[i], height, reach, 1 / determinant
        row[9], row[10], row[11] = colors[i, 0], colors[i, 1], colors[i, 2]
        spans[kept, 0] = int(max(0.0, u - width)) // TILE
        spans[kept, 1] = int(min(size - 1.0, u + width)) // TILE
        spans[kept, 2] = int(max(0.0, v - height)) // TILE
        spans[kept, 3] = int(min(size - 1.0, v + height)) // TILE
        depths[kept] = z
        kept += 1
    return splats[:kept], spans[:kept], depths[:kept].view(np.uint32)


@njit(cache=True, nogil=True)
def _project_one(center: Any, covariance: Any, matrix: Any, focal: float) -> Any:
    """In front of the camera?, camera coordinates x, y, z, and the image covariance xx, xy, yy in px²."""
    px, py, pz = np.float64(center[0]), np.float64(center[1]), np.float64(center[2])
    x = matrix[0, 0] * px + matrix[0, 1] * py + matrix[0, 2] * pz + matrix[0, 3]
    y = matrix[1, 0] * px + matrix[1, 1] * py + matrix[1, 2] * pz + matrix[1, 3]
    z = matrix[2, 0] * px + matrix[2, 1] * py + matrix[2, 2] * pz + matrix[2, 3]
    if not z > NEAR:
        return False, x, y, z, 0.0, 0.0, 0.0
    tx = min(TAN_LIMIT, max(-TAN_LIMIT, x / z))
    ty = min(TAN_LIMIT, max(-TAN_LIMIT, y / z))
    scale = focal / z
    ax = scale * (matrix[0, 0] - tx * matrix[2, 0])
    ay = scale * (matrix[0, 1] - tx * matrix[2, 1])
    az = scale * (matrix[0, 2] - tx * matrix[2, 2])
    bx = scale * (matrix[1, 0] - ty * matrix[2, 0])
    by = scale * (matrix[1, 1] - ty * matrix[2, 1])
    bz = scale * (matrix[1, 2] - ty * matrix[2, 2])
    xx, xy, xz, yy, yz, zz = covariance
    vx, vy, vz = xx * ax + xy * ay + xz * az, xy * ax + yy * ay + yz * az, xz * ax + yz * ay + zz * az
    wx, wy, wz = xx * bx + xy * by + xz * bz, xy * bx + yy * by + yz * bz, xz * bx + yz * by + zz * bz
    a = ax * vx + ay * vy + az * vz + LOW_PASS
    b = bx * vx + by * vy + bz * vz
    c = bx * wx + by * wy + bz * wz + LOW_PASS
    return True, x, y, z, a, b, c


@njit(cache=True, nogil=True)
def _composite(splats: Any, spans: Any, order: Any, image: Any, clear: Any) -> None:
    """Draw the ordered splats; `clear` is the transmittance left in each pixel."""
    size = len(clear)
    across = (size + TILE - 1) // TILE
    open_pixels = np.empty(across * across, np.int64)
    for tile in range(across * across):
        rows = min(TILE, size - tile // across * TILE)
        open_pixels[tile] = rows * min(TILE, size - tile % across * TILE)
    start = 0
    while start < len(order):
        starts, stop = _count_run(spans, order, open_pixels, across, start)
        entries = _fill_run(spans, order, open_pixels, across, starts, start, stop)
        for tile in range(across * across):
            run = entries[starts[tile] : starts[tile + 1]]
            top, left = tile // across * TILE, tile % across * TILE
            open_pixels[tile] = _draw_tile(run, splats, image, clear, top, left, open_pixels[tile])
        start = stop
    for y in range(size):
        for x in range(size):
            clear[y, x] = abs(clear[y, x])


@njit(cache=True, nogil=True)
def _count_run(spans: Any, order: Any, open_pixels: Any, across: int, start: int) -> Any:
    """Where each tile's entries begin, and the end of the run of splats that fit into MAX_ENTRIES."""
    starts = np.zeros(across * across + 1, np.int64)
    total = 0
    stop = start
    while stop < len(order):
        left, right, top, bottom = spans[order[stop]]
        if total > 0 and total + (right - left + 1) * (bottom - top + 1) > MAX_ENTRIES:
            break
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                tile = row * across + column
                if open_pixels[tile] > 0:
                    starts[tile + 1] += 1
                    total += 1
        stop += 1
    for tile in range(across * across):
        starts[tile + 1] += starts[tile]
    return starts, stop


@njit(cache=True, nogil=True)
def _fill_run(spans: Any, order: Any, open_pixels: Any, across: int, starts: Any, start: int, stop: int) -> Any:
    """The splats of each tile, front to back."""
    entries = np.empty(starts[-1], np.int32)
    cursor = starts[:-1].copy()
    for place in range(start, stop):
        item = order[place]
        left, right, top, bottom = spans[item]
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                tile = row * across + column
                if open_pixels[tile] > 0:
                    entries[cursor[tile]] = item
                    cursor[tile] += 1
    return entries


@njit(cache=True, nogil=True, fastmath=PIXEL_MATH)
def _draw_tile(run: Any, splats: Any, image: Any, clear: Any, top: int, left: int, open_pixels: int) -> int:
    """Composite one tile; a finished pixel's transmittance turns negative. Returns the pixels still open."""
    bottom, right = min(top + TILE, len(clear)), min(left + TILE, len(clear))
    half, one = np.float32(0.5), np.float32(1)
    for item in run:
        x, y, a, b, c, opacity, height, reach, inverse, red, green, blue = splats[item]
        y0 = max(top, int(np.ceil(max(np.float32(-1), y - height - half))))
        y1 = min(bottom, int(np.floor(min(np.float32(bottom), y + height - half))) + 1)
        for py in range(y0, y1):
            dy = np.float32(py) + half - y
            inside = a * reach - inverse * dy * dy  # discriminant of the ellipse's row
            if inside <= 0:
                continue
            root = np.sqrt(inside) / a
            centre = x - b * dy / a - half
            x0 = max(left, int(np.ceil(max(np.float32(-1), centre - root))))
            x1 = min(right, int(np.floor(min(np.float32(right), centre + root))) + 1)
            for px in range(x0, x1):
                before = clear[py, px]
                if before < 0:
                    continue
                dx = np.float32(px) + half - x
                power = half * (a * dx * dx + c * dy * dy) + b * dx * dy
                alpha = min(np.float32(MAX_ALPHA), opacity * np.exp(-power))
                if alpha < np.float32(MIN_ALPHA):
                    continue
                after = before * (one - alpha)
                if after < np.float32(MIN_TRANSMITTANCE):
                    clear[py, px] = -before
                    open_pixels -= 1
                    continue
                share = alpha * before
                image[py, px, 0] += share * red
                image[py, px, 1] += share * green
                image[py, px, 2] += share * blue
                clear[py, px] = after
        if open_pixels == 0:
            break
    return open_pixels
