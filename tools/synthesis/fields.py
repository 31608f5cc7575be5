"""Random fields: smooth noise with a scale in mm, the raw material of shapes and textures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]

# A Gaussian wider than this many voxels is drawn on a coarser lattice: same look, less time.
LATTICE_SIGMA = 2.5


def smooth_noise(
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    scale_mm: float,
    random: np.random.Generator,
) -> Array:
    """Gaussian noise of zero mean and unit deviation, correlated over `scale_mm`.

    Parameters
    ----------
    shape
        (slices, rows, columns).
    spacing_mm
        Distance of neighbouring voxels along each axis in mm.
    scale_mm
        Standard deviation of the smoothing kernel in mm.
    random
        Source of the draws.
    """
    sigma = [scale_mm / s for s in spacing_mm]
    coarse = [
        max(1, min(n, round(n * LATTICE_SIGMA / s))) for n, s in zip(shape, sigma, strict=True)
    ]
    field = random.standard_normal([n + 6 for n in coarse], dtype=np.float32)
    field = ndimage.gaussian_filter(
        field, [s * c / n for s, c, n in zip(sigma, coarse, shape, strict=True)]
    )[3:-3, 3:-3, 3:-3]
    field = (field - field.mean()) / max(float(field.std()), 1e-6)
    grid = [np.linspace(0, c - 1, n, dtype=np.float32) for n, c in zip(shape, coarse, strict=True)]
    for axis, positions in enumerate(grid):
        field = _interpolated(field, positions, axis)
    return field


def _interpolated(field: Array, positions: Array, axis: int) -> Array:
    """Read a field at fractional positions along one axis, linearly."""
    if len(positions) == field.shape[axis]:
        return field
    low = np.minimum(positions.astype(np.intp), field.shape[axis] - 1)
    high = np.minimum(low + 1, field.shape[axis] - 1)
    weight = (positions - low).astype(np.float32)
    weight = weight.reshape([-1 if a == axis else 1 for a in range(field.ndim)])
    return np.take(field, low, axis) * (1 - weight) + np.take(field, high, axis) * weight


def upper_share(field: Array, inside: NDArray[np.bool_], share: float) -> float:
    """Level above which `share` (0..1) of the voxels `inside` lie."""
    return float(np.quantile(field[inside], 1 - share))
