"""The scanner: partial volume, a reconstruction kernel and noise on top of `render`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .anatomy import Patient
from .grid import Grid
from .lesions import Disease
from .metal import with_rods
from .render import Renderer
from .shapes import Array

# Kernel name: blur of edges in mm, blur of the noise in mm, edge enhancement.
KERNELS = {"soft": (0.75, 0.95, 0.0), "standard": (0.5, 0.5, 0.0), "sharp": (0.5, 0.35, 0.6)}
# Planes evaluated per section: a vessel of 1 mm must not fall between two of them. Sections
# far thicker than any scanner's need no such care.
_PLANE_STEP_MM = 2.0
_MOST_PLANES = 8
_SLAB_VOXELS = 3_000_000


@dataclass
class Scan:
    """What the scanner and an all-knowing reader return, arrays in the grid's shape."""

    hu: NDArray[np.int16]
    right_lung: NDArray[np.bool_]
    left_lung: NDArray[np.bool_]
    ground_glass: NDArray[np.bool_]
    consolidation: NDArray[np.bool_]


def scan(
    patient: Patient,
    disease: Disease,
    grid: Grid,
    *,
    seed: int,
    kernel: str = "standard",
    noise_hu: float = 20.0,
    contrast_hu: float = 0.0,
    motion_mm: float = 0.0,
    metal: bool = False,
) -> Scan:
    """Scan a patient.

    Parameters
    ----------
    patient, disease
        What lies on the table.
    grid
        Where to sample, and how thick the sections are.
    seed
        Seed of the noise.
    kernel
        One of `KERNELS`.
    noise_hu
        Standard deviation of the noise in a section of 200 mm of water, in HU.
    contrast_hu
        What contrast medium adds to the blood, in HU.
    motion_mm
        How far the patient moves while a section is scanned: contours are seen twice.
    metal
        Rods beside the spine, with streaks.

    Raises
    ------
    ValueError
        On an unknown kernel, negative noise, contrast or motion.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
    if not noise_hu >= 0:
        raise ValueError(f"noise must not be negative, got {noise_hu}")
    if not (contrast_hu >= 0 and motion_mm >= 0):
        raise ValueError(
            f"contrast and motion must not be negative, got {contrast_hu} and {motion_mm}"
        )
    slices, rows, columns = grid.shape
    distance = grid.spacing_mm[0]
    per_slice = int(np.clip(np.ceil(grid.thickness_mm / _PLANE_STEP_MM - 0.01), 1, _MOST_PLANES))
    offsets = ((np.arange(per_slice) + 0.5) / per_slice - 0.5) * grid.thickness_mm / distance
    scale = np.diag([1 / s for s in patient.build.scale] + [1.0])
    canonical = scale @ grid.affine
    renderer = Renderer(patient, disease, grid, canonical, contrast_hu)
    hu = np.empty(grid.shape, dtype=np.int16)
    masks = [np.empty(grid.shape, dtype=bool) for _ in range(4)]
    slab = max(1, _SLAB_VOXELS // (rows * columns * per_slice))
    for start in range(0, slices, slab):
        stop = min(start + slab, slices)
        total = np.zeros((stop - start, rows, columns), dtype=np.float32)
        shares = np.zeros((4, stop - start, rows, columns), dtype=np.float32)
        at = (np.arange(start, stop)[:, None] + offsets).ravel()
        # Overlapping sections take turns, the renderer wants ascending planes.
        order = np.argsort(at, kind="stable")
        renderer.add(at[order], order // per_slice, total, shares)
        total /= per_slice
        shares /= per_slice
        for i in range(stop - start):
            clean = _moved(total[i], grid, motion_mm, [seed, 5, start + i])
            if metal:
                clean = with_rods(clean, start + i, canonical, seed)
            hu[start + i] = _acquire(clean, grid, kernel, noise_hu, [seed, 3, start + i])
        right, left, opaque, solid = shares
        both = right + left > 0.5
        masks[0][start:stop] = both & (right >= left)
        masks[1][start:stop] = both & (right < left)
        masks[3][start:stop] = both & (solid > 0.5)
        masks[2][start:stop] = both & (opaque > 0.5) & ~masks[3][start:stop]
    return Scan(hu, *masks)


def _moved(clean: Array, grid: Grid, motion_mm: float, seed: list[int]) -> Array:
    """See a slice at both ends of a movement of its own direction."""
    if motion_mm == 0:
        return clean
    angle = np.random.default_rng(seed).uniform(0, np.pi)
    _, row_mm, column_mm = grid.spacing_mm
    half = motion_mm / 2 * np.array([np.sin(angle) / row_mm, np.cos(angle) / column_mm])
    ends = [ndimage.shift(clean, shift, order=1, mode="nearest") for shift in (half, -half)]
    return (ends[0] + ends[1]) / 2


def _acquire(
    clean: Array, grid: Grid, kernel: str, noise_hu: float, seed: list[int]
) -> NDArray[np.int16]:
    """Blur one slice with the kernel and add the noise of its attenuation."""
    edge_mm, grain_mm, enhance = KERNELS[kernel]
    _, row_mm, column_mm = grid.spacing_mm
    spacing = np.array([row_mm, column_mm])
    image = ndimage.gaussian_filter(clean, edge_mm / spacing, truncate=3)
    if enhance:
        image += np.float32(enhance) * (image - ndimage.gaussian_filter(image, 1.0 / spacing))
    if noise_hu > 0:
        rng = np.random.default_rng(seed)
        water = np.maximum(clean + 1000, 0) * np.float32(1e-3)
        across = ndimage.gaussian_filter1d(water.sum(axis=1) * column_mm, 8 / row_mm)
        along = ndimage.gaussian_filter1d(water.sum(axis=0) * row_mm, 8 / column_mm)
        # Tube current modulation leaves about a third of the attenuation's effect.
        rate = np.float32(0.0065)
        from_side = np.exp(rate * (across.astype(np.float32) - 200))[:, None]
        from_front = np.exp(rate * (along.astype(np.float32) - 200))[None, :]
        variance = 0.5 * (from_side + from_front)
        white = rng.standard_normal(clean.shape, dtype=np.float32)
        grain = ndimage.gaussian_filter(white, grain_mm / spacing, mode="wrap")
        streak = ndimage.gaussian_filter(white[::-1], (0.5 / row_mm, 5 / column_mm), mode="wrap")
        grain /= grain.std()
        streak /= streak.std()
        thin = np.sqrt(np.float32(2.0 / max(grid.thickness_mm, 0.5)))
        image += (
            np.float32(noise_hu)
            * thin
            * (
                np.sqrt(variance) * grain
                + np.float32(0.35) * np.maximum(from_side - 1.5, 0) * streak
            )
        )
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)
