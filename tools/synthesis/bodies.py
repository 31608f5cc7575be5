"""Another body from a patient's: deformed, cropped, sampled and scanned in another way.

Few healthy patients are at hand. So that a network cannot learn them by heart, each study shows
its patient with another build, field of view, slice thickness, kernel, dose and grey scale. Right
and left are never swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.exposure import equalize_adapthist

from .fields import Array, smooth_noise

Mask = NDArray[np.bool_]

AIR_HU = -1000.0


def reshaped(
    ct_hu: NDArray[np.integer],
    lungs: Mask,
    spacing_mm: Sequence[float],
    target_mm: tuple[float, float, float],
    random: np.random.Generator,
) -> tuple[Array, Mask]:
    """Deform a patient and sample him anew around the lungs.

    Size, proportions, tilt and shear change by an affine map, the inside by a smooth random
    displacement. The sections' thickness is drawn between the source's and 8 mm.

    Parameters
    ----------
    ct_hu, lungs
        CT in HU and both lungs (slices up, rows back, columns left).
    spacing_mm, target_mm
        Distance of neighbouring voxels along (slices, rows, columns) in mm, before and after.
    random
        Source of the draws.

    Returns
    -------
    ct_hu : float32 array
    lungs : bool array
    """
    source, target = np.asarray(spacing_mm, float), np.asarray(target_mm, float)
    ct = _thickened(ct_hu.astype(np.float32), float(source[0]), random)
    inside = np.argwhere(lungs)
    centre_mm = (inside.min(0) + inside.max(0)) / 2 * source
    half_mm = (np.ptp(inside, axis=0) + 1) / 2 * source
    body = _affine(random)
    half_mm = np.abs(np.linalg.inv(body)) @ half_mm
    above, below = random.uniform((0, 5, 5), (20, 50, 50)), random.uniform((0, 5, 5), (20, 50, 50))
    shape = np.ceil((2 * half_mm + above + below) / target).astype(int)
    axes = [
        np.arange(n, dtype=np.float32) * t - h - b
        for n, t, h, b in zip(shape, target, half_mm, below, strict=True)
    ]
    grid = np.meshgrid(*axes, indexing="ij", copy=False)
    strength_mm, scale_mm = random.uniform(0, 7), random.uniform(35, 70)
    points = [
        sum(np.float32(body[i, j]) * grid[j] for j in range(3))
        + np.float32(strength_mm) * smooth_noise(shape, target_mm, scale_mm, random)
        + np.float32(centre_mm[i])
        for i in range(3)
    ]
    index = np.stack([p / np.float32(s) for p, s in zip(points, source, strict=True)])
    moved = ndimage.map_coordinates(ct, index, order=1, cval=AIR_HU)
    moved_lungs = ndimage.map_coordinates(lungs.astype(np.float32), index, order=1) > 0.5
    return moved, moved_lungs


def rescanned(
    ct_hu: Array,
    spacing_mm: Sequence[float],
    random: np.random.Generator,
    *,
    pictures: bool = True,
) -> Array:
    """Scan a study in another way: kernel, dose, and how grey values came to be HU.

    Some studies are as scanners store them, some have passed through an 8-bit lung window, as
    published pictures have, and some of those through contrast-limited adaptive histogram
    equalisation (CLAHE).

    Parameters
    ----------
    ct_hu : float32 array
        (slices, rows, columns).
    spacing_mm
        Distance of neighbouring voxels along (slices, rows, columns) in mm.
    random
        Source of the draws.
    pictures
        False leaves the grey values what scanners store.

    Returns
    -------
    float32 array
        HU, or what passes for it.
    """
    ct = _kernel(ct_hu, spacing_mm, random)
    noise = random.standard_normal(ct.shape, dtype=np.float32)
    grain_mm = random.uniform(0.1, 1.5)
    noise = ndimage.gaussian_filter(noise, [0, grain_mm / spacing_mm[1], grain_mm / spacing_mm[2]])
    ct = ct + np.float32(random.gamma(2, 6) / noise.std()) * noise
    ct = _curve(ct, random)
    if not pictures:
        return ct
    style = random.choice(len(STYLES), p=list(STYLES.values()))
    return list(STYLES)[style](ct, random).astype(np.float32)


def _affine(random: np.random.Generator) -> NDArray[np.float64]:
    """Draw the map from the new body's mm to the old one's, both from the lungs' middle."""
    tilt, turn, roll = np.deg2rad(random.normal(0, (4, 4, 6)))
    (ct, st), (cu, su), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (tilt, turn, roll))
    rotation = (
        np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
        @ np.array([[cu, 0, su], [0, 1, 0], [-su, 0, cu]])
        @ np.array([[ct, -st, 0], [st, ct, 0], [0, 0, 1]])
    )
    shear = np.eye(3) + random.normal(0, 0.04, (3, 3)) * (1 - np.eye(3))
    size = random.uniform(0.9, 1.08) * random.uniform((0.9, 0.92, 0.92), (1.1, 1.08, 1.08))
    return rotation @ shear @ np.diag(1 / size)


def _thickened(ct: Array, slice_mm: float, random: np.random.Generator) -> Array:
    """Average over sections of a drawn thickness of 1 to 8 mm; those thinner stay as they are."""
    thickness_mm = random.uniform(1, 8)
    extra = max(0.0, thickness_mm**2 - slice_mm**2) ** 0.5
    # A box of width w has the deviation w / sqrt(12).
    return ndimage.gaussian_filter(ct, (extra / 12**0.5 / slice_mm, 0, 0))


def _kernel(ct: Array, spacing_mm: Sequence[float], random: np.random.Generator) -> Array:
    """Blur as soft kernels do, or enhance edges as sharp ones do."""
    width_mm = random.uniform(0.6, 2.0)
    sigma = [0, width_mm / spacing_mm[1], width_mm / spacing_mm[2]]
    blurred = ndimage.gaussian_filter(ct, sigma)
    return blurred + np.float32(random.uniform(0.2, 1.5)) * (ct - blurred)


def _curve(ct: Array, random: np.random.Generator) -> Array:
    """Bend the grey scale a little: no two scanners, and no two lungs, are alike."""
    knots = np.array([-1000, -850, -500, -100, 50, 400, 3000], float)
    moved = knots + random.normal(0, (8, 30, 40, 25, 12, 30, 60))
    return np.interp(ct, np.r_[-2000, knots], np.r_[-2000, np.maximum.accumulate(moved)]).astype(
        np.float32
    )


def _unchanged(ct: Array, random: np.random.Generator) -> Array:  # noqa: ARG001
    return ct


def _windowed(ct: Array, random: np.random.Generator) -> Array:
    """Return HU rebuilt from an 8-bit lung window whose bounds are known to about 40 HU."""
    low, high = _window(random)
    grey = np.round(np.clip((ct - low) / (high - low), 0, 1) * 255) / 255
    return grey * (high - low + random.normal(0, 40)) + low + random.normal(0, 25)


def _equalised(ct: Array, random: np.random.Generator) -> Array:
    """Return likenesses of HU from pictures after CLAHE."""
    low, high = _window(random)
    grey = np.clip((ct - low) / (high - low), 0, 1)
    tiles, limit = int(random.integers(4, 10)), random.uniform(0.003, 0.02)
    size = [max(8, n // tiles) for n in grey.shape[1:]]
    equal = np.stack([equalize_adapthist(s, size, limit) for s in grey]).astype(np.float32)
    # Bring lung and soft tissue back to where they were, as is done with the collections.
    anchors = []
    for level in (-850.0, 40.0):
        near = equal[np.abs(ct - level) < 60]
        anchors.append(float(np.median(near)) if len(near) else (level - low) / (high - low))
    dark, soft = anchors[0], max(anchors[1], anchors[0] + 0.05)
    soft = min(soft, 0.99)
    dark = max(0.01, min(dark, soft - 0.01))
    return np.interp(equal, [0, dark, soft, 1], [AIR_HU, -850, 40, 400]).astype(np.float32)


STYLES: dict[Callable[[Array, np.random.Generator], Array], float] = {
    _unchanged: 0.65,
    _windowed: 0.2,
    _equalised: 0.15,
}
"""How grey values come to be HU, and how often."""


def _window(random: np.random.Generator) -> tuple[float, float]:
    """Draw a lung window's bounds in HU."""
    return float(random.uniform(-1400, -1000)), float(random.uniform(100, 400))
