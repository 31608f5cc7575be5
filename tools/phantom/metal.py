"""Metal in the body: rods beside the spine, and the streaks that they leave."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.transform import iradon, radon

from .build import spine_y
from .shapes import Array

METAL_HU = 3000.0
_RADIUS_MM = 3.0
_BESIDE_MM, _BEHIND_MM = 17.0, 26.0
_ANGLES = np.linspace(0, 180, 90, endpoint=False)


def with_rods(clean: Array, index: int, affine: NDArray[np.float64], seed: int) -> Array:
    """Return a slice with two rods of spinal fixation, if they reach it.

    The streaks are what filtered back projection makes of beam hardening, an error of the
    projections that grows with the square of the metal's length along the ray.

    Parameters
    ----------
    clean
        Slice without noise, (rows, columns) in HU.
    index
        The slice's index in its grid.
    affine
        4x4, from (slice, row, column) to the canonical frame in mm.
    seed
        Where the rods lie and how strong the streaks are.
    """
    random = np.random.default_rng([seed, 4])
    low = random.uniform(-100, 20)
    high = low + random.uniform(60, 120)
    strength_hu = random.uniform(80, 300)
    rows, columns = np.ogrid[: clean.shape[0], : clean.shape[1]]
    x, y, z = (
        affine[i, 0] * index + affine[i, 1] * rows + affine[i, 2] * columns + affine[i, 3]
        for i in range(3)
    )
    away = np.hypot(np.abs(x) - _BESIDE_MM, y - spine_y(z) - _BEHIND_MM)
    rods = (away < _RADIUS_MM) & (z > low) & (z < high)
    if not rods.any():
        return clean
    projections = radon(rods.astype(np.float32), _ANGLES, circle=False)
    streaks = iradon(-(projections**2), _ANGLES, output_size=max(clean.shape), circle=False)
    top, left = ((max(clean.shape) - n) // 2 for n in clean.shape)
    streaks = streaks[top : top + clean.shape[0], left : left + clean.shape[1]]
    streaks *= strength_hu / np.quantile(np.abs(streaks[away < 60]), 0.95)
    return np.where(rods, METAL_HU, clean + streaks).astype(np.float32)
