"""Lesions drawn into the lungs of a real CT.

The precedent is "Label-Free Segmentation of COVID-19 Lesions in Lung CT" (Yao et al., IEEE TMI
2021). A lesion is an opacity, 0 to 1, and a density in HU that the lung takes on under it. Where it
lies is decided by an affinity, a field that is high where the disease likes to be (pleura, bases,
back, one lobe) plus smooth noise; the wanted share of the lungs with the highest affinity is ill.
Vessels keep their density: a lesion can only make a voxel denser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import convex_hull_image

from .fields import Array, smooth_noise, upper_share

Mask = NDArray[np.bool_]

LESION_OPACITY = 0.4
"""Opacity from which a voxel counts as lesion."""

AIR_HU, TISSUE_HU = -950.0, 30.0

# What is so much denser than most of the lung is a vessel, or ill.
VESSEL_RISE_HU = 250.0
AIR_MM = 12.0
VISIBLE_RISE_HU = 120.0
"""Fainter changes, in the mean over some `VISIBLE_MM`, are no lesion: readers hardly draw such.

Of what readers drew in 15 volumes of 14 patients, 5 % rises above the lung around it by less than
90 to 417 HU (median volume 161), half by less than 199 to 848 HU (`tools.synthesis.contrast`).
"""
GLASS_RISE_HU = (220.0, 450.0)
"""Least and largest mean of a study's ground glass above the lung around it."""
VISIBLE_MM = 3.0


@dataclass(frozen=True, slots=True)
class Lungs:
    """Lungs as lesions see them.

    Attributes
    ----------
    mask : bool array (slices, rows, columns)
        Slices to the head, rows to the back, columns to the patient's left.
    spacing_mm : (slices, rows, columns)
    depth_mm, wall_mm : float32 arrays
        Distance to the outside of the lungs, and to the chest wall or diaphragm, leaving aside
        the mediastinum between the lungs.
    base, back : float32 arrays that broadcast against `mask`
        0 at the apex and at the front of the lungs, 1 at the base and at the back.
    air_hu : float32 array
        Density of the aerated lung around each voxel; at the back, where blood sinks to, it can be
        200 HU above that at the front.
    """

    mask: Mask
    spacing_mm: tuple[float, float, float]
    depth_mm: Array
    wall_mm: Array
    base: Array
    back: Array
    air_hu: Array

    @classmethod
    def of(cls, ct_hu: NDArray[np.floating], mask: Mask, spacing_mm: Sequence[float]) -> Lungs:
        """Measure the lungs; `mask` must hold at least one voxel."""
        hull = np.stack([convex_hull_image(s) if s.any() else s for s in mask])
        slices = np.flatnonzero(mask.any((1, 2)))
        rows = np.flatnonzero(mask.any((0, 2)))
        z = np.arange(mask.shape[0], dtype=np.float32)[:, None, None]
        y = np.arange(mask.shape[1], dtype=np.float32)[None, :, None]
        dz, dy, dx = spacing_mm
        return cls(
            mask,
            (dz, dy, dx),
            ndimage.distance_transform_edt(mask, sampling=spacing_mm).astype(np.float32),
            ndimage.distance_transform_edt(hull, sampling=spacing_mm).astype(np.float32),
            np.clip(1 - (z - slices[0]) / max(1, slices[-1] - slices[0]), 0, 1),
            np.clip((y - rows[0]) / max(1, rows[-1] - rows[0]), 0, 1),
            air_hu(ct_hu, mask, spacing_mm),
        )

    def noise(self, scale_mm: float, random: np.random.Generator) -> Array:
        """Smooth noise on the lungs' grid."""
        return smooth_noise(self.mask.shape, self.spacing_mm, scale_mm, random)


@dataclass(frozen=True, slots=True)
class Lesions:
    """What was drawn.

    Attributes
    ----------
    opacity : float32 array
        0..1: how much of the lung's own density is replaced.
    density_hu : float32 array
        What it is replaced by.
    consolidation : bool array
        Where the opacity is consolidation and not ground glass.
    other : bool array or None
        What is drawn and is neither: nodules and fluid.
    """

    opacity: Array
    density_hu: Array
    consolidation: Mask
    other: Mask | None = None


def insert_lesions(
    ct_hu: NDArray[np.floating],
    lungs: Mask,
    spacing_mm: Sequence[float],
    disease: str,
    random: np.random.Generator,
    share: float | None = None,
) -> tuple[Array, Mask, Mask]:
    """Draw the lesions of a disease into a CT.

    Parameters
    ----------
    ct_hu : array (slices, rows, columns)
        CT in HU: slices to the head, rows to the back, columns to the patient's left.
    lungs : bool array
        Both lungs on the same grid.
    spacing_mm
        Distance of neighbouring voxels along (slices, rows, columns) in mm.
    disease
        A key of `DISEASES`.
    random
        Source of the draws: the same seed gives the same study.
    share
        Wanted share of the lungs that is ill, 0..1; drawn when None.

    Returns
    -------
    ct_hu : float32 array
        The CT with the lesions.
    ground_glass, consolidation : bool arrays
        What was drawn; together the lesions.
    """
    box = ndimage.find_objects(lungs.astype(np.uint8))[0]
    box = tuple(slice(max(0, axis.start - 1), axis.stop + 1) for axis in box)
    patient = Lungs.of(ct_hu[box], lungs[box], spacing_mm)
    drawn = DISEASES[disease](patient, random, share)
    opacity = np.where(patient.mask, drawn.opacity, 0).astype(np.float32)
    ill = ct_hu.astype(np.float32)
    ill[box] = _laid_over(ill[box], opacity, drawn, patient, random)
    lesion = opacity >= LESION_OPACITY
    if drawn.other is not None:
        lesion &= ~drawn.other
    # Drawn over a tumour or along the chest wall, nothing has changed.
    rise_hu = mean_around(ill[box] - ct_hu[box], lesion, VISIBLE_MM, spacing_mm)
    lesion &= rise_hu >= VISIBLE_RISE_HU
    glass, solid = np.zeros_like(lungs), np.zeros_like(lungs)
    glass[box], solid[box] = lesion & ~drawn.consolidation, lesion & drawn.consolidation
    return ill, glass, solid


def worsen_lesions(
    ct_hu: NDArray[np.floating],
    lungs: Mask,
    lesions: Mask,
    spacing_mm: Sequence[float],
    random: np.random.Generator,
) -> Array:
    """Make a patient's own lesions denser, some of them as far as consolidation.

    Real lesions lie where disease puts them, so this gives densities that few patients of a
    small collection have, at places that are right. Parameters and return as in
    `insert_lesions`; `lesions` are the patient's own, and remain the truth.
    """
    patient = Lungs.of(ct_hu, lungs, spacing_mm)
    soft = ndimage.gaussian_filter(lesions.astype(np.float32), [1.5 / s for s in spacing_mm])
    liking = soft + random.uniform(0.1, 0.6) * patient.noise(random.uniform(5, 20), random)
    opacity = soft * random.uniform(0.2, 0.9)
    share = float((lesions & lungs).sum() / lungs.sum()) * random.uniform(0, 1)
    drawn = _consolidated(
        patient,
        opacity,
        _ground_glass_hu(patient, random),
        np.where(lesions, liking, -9),
        share,
        random,
    )
    return _laid_over(
        ct_hu, np.where(lesions | (soft > 0.1), drawn.opacity, 0), drawn, patient, random
    )


def covid19(lungs: Lungs, random: np.random.Generator, share: float | None = None) -> Lesions:
    """Bilateral, peripheral and basal ground glass, in part paved, consolidated or banded."""
    if share is None:
        share = float(np.exp(random.uniform(np.log(0.01), np.log(0.65))))
    dense_share = random.choice([0, random.uniform(0, 0.4), random.uniform(0.3, 1)])
    drawn = _peripheral(lungs, random, share, dense_share)
    if random.random() < 0.25:
        drawn = _with_bands(lungs, drawn, random)
    if random.random() < 0.07:
        drawn = _with_fluid(lungs, drawn, lungs.mask, random)
    return drawn


def severe(lungs: Lungs, random: np.random.Generator, share: float | None = None) -> Lesions:
    """COVID-19 at its worst: up to 0.7 of the lungs, most of it paved or consolidated."""
    if share is None:
        share = random.uniform(0.3, 0.7)
    drawn = _peripheral(lungs, random, share, random.uniform(0.1, 0.9))
    if random.random() < 0.15:
        drawn = _with_fluid(lungs, drawn, lungs.mask, random)
    return drawn


def bands(lungs: Lungs, random: np.random.Generator, share: float | None = None) -> Lesions:
    """COVID-19 weeks later: faint glass crossed by subpleural lines and parenchymal bands."""
    if share is None:
        share = random.uniform(0.02, 0.15)
    return _with_bands(lungs, _peripheral(lungs, random, share, 0), random)


def bacterial(lungs: Lungs, random: np.random.Generator, share: float | None = None) -> Lesions:
    """Consolidation with air bronchograms, often with fluid beside it.

    Mostly a part of one lobe; else several patches in one lung along the bronchi
    (bronchopneumonia).
    """
    lobe = _lobe(lungs, random)
    patchy = random.random() < 0.3
    if patchy:
        lobe = lungs.mask & (_left(lungs) == lobe[..., _left(lungs)[0, 0]].any())
    inside = np.argwhere(lobe)
    places = np.ogrid[tuple(map(slice, lungs.mask.shape))]
    distance = np.full(lungs.mask.shape, np.inf, np.float32)
    for _ in range(int(random.integers(3, 8)) if patchy else 1):
        centre = inside[random.integers(len(inside))]
        squares = sum(
            (step * (axis - c)) ** 2
            for step, axis, c in zip(lungs.spacing_mm, places, centre, strict=True)
        )
        # Patches of one disease differ in size.
        distance = np.minimum(distance, np.sqrt(squares) * random.uniform(0.7, 1.3))
    affinity = -distance / random.uniform(15, 30) + 0.7 * lungs.noise(12, random)
    # A fissure stops the disease; what the lobe cannot hold goes beyond it.
    affinity -= 20 * ~lobe
    if share is None:
        share = random.uniform(0.03, 0.25)
    room = 0.95 * len(inside) / float(lungs.mask.sum())
    opacity = _opacity(
        lungs, affinity, min(share, room), random.uniform(0.05, 0.2), lobe, LESION_OPACITY
    )
    dense_share = min(share, room) * (random.uniform(0.4, 0.8) if patchy else 0.8)
    drawn = _consolidated(
        lungs, opacity, _ground_glass_hu(lungs, random), affinity, dense_share, random, lobe
    )
    if random.random() < 0.5:
        side = _left(lungs) == _left(lungs)[0, 0, inside[0, 2]]
        return _with_fluid(lungs, drawn, side & lungs.mask, random)
    return drawn


def effusion(lungs: Lungs, random: np.random.Generator, share: float | None = None) -> Lesions:
    """Pleural fluid on one side or both, and no opacity: nothing that counts as lesion."""
    side = lungs.mask
    if random.random() < 0.5:
        side = side & (_left(lungs) == (random.random() < 0.5))
    return _with_fluid(lungs, normal(lungs, random, share), side, random)


def nodules(lungs: Lungs, random: np.random.Generator, share: float | None = None) -> Lesions:  # noqa: ARG001
    """Round, slightly lobed nodules of 2 to 10 mm radius in both lungs; no opacities."""
    opacity = np.zeros(lungs.mask.shape, np.float32)
    density = np.zeros_like(opacity)
    spots = np.argwhere(lungs.mask & (lungs.depth_mm > 2))
    for _ in range(int(random.integers(3, 16))):
        centre = spots[random.integers(len(spots))] * np.asarray(lungs.spacing_mm)
        radius_mm = float(np.clip(np.exp(random.normal(1.45, 0.45)), 2, 10))
        firm_hu = random.uniform(-550, -350) if random.random() < 0.1 else random.uniform(-50, 90)
        for _ in range(3):
            lobe = centre + random.normal(0, 0.35, 3) * radius_mm
            window, ball = _ball(lungs, lobe, radius_mm * random.uniform(0.6, 0.95))
            opacity[window] = np.maximum(opacity[window], ball)
            density[window] = np.where(ball > 0, firm_hu, density[window])
    return Lesions(opacity, density, np.zeros_like(lungs.mask), opacity > 0)


def normal(lungs: Lungs, random: np.random.Generator, share: float | None = None) -> Lesions:  # noqa: ARG001
    """Nothing drawn."""
    nothing = np.zeros(lungs.mask.shape, np.float32)
    return Lesions(nothing, nothing, nothing > 0)


DISEASES: dict[str, Callable[[Lungs, np.random.Generator, float | None], Lesions]] = {
    "covid19": covid19,
    "severe": severe,
    "bands": bands,
    "bacterial": bacterial,
    "nodules": nodules,
    "effusion": effusion,
    "normal": normal,
}


def _laid_over(
    ct_hu: NDArray[np.floating],
    opacity: Array,
    drawn: Lesions,
    lungs: Lungs,
    random: np.random.Generator,
) -> Array:
    """Blend the density in, with noise of its own; nothing becomes thinner than it was."""
    density = drawn.density_hu + random.uniform(5, 30) * lungs.noise(
        0.5 * lungs.spacing_mm[1], random
    )
    ct = ct_hu.astype(np.float32)
    return np.where(opacity > 0, np.maximum(ct, ct + opacity * (density - ct)), ct)


def _peripheral(
    lungs: Lungs, random: np.random.Generator, share: float, dense_share: float
) -> Lesions:
    """Opacities as COVID-19 has them; `dense_share` of them, 0..1, are consolidation."""
    affinity = (
        random.uniform(0.3, 2.5) * np.exp(-lungs.wall_mm / random.uniform(6, 25))
        + random.uniform(0, 2) * lungs.base
        + random.uniform(-0.3, 2) * lungs.back
        + random.uniform(0.6, 1.4) * lungs.noise(random.uniform(18, 45), random)
        + random.uniform(0.1, 0.6) * lungs.noise(random.uniform(6, 12), random)
        + random.uniform(0, 0.3) * lungs.noise(3, random)
    )
    strength = random.uniform(0.75, 1)
    opacity = strength * _opacity(
        lungs, affinity, share, random.uniform(0.03, 0.25), at=LESION_OPACITY / strength
    )
    density = _ground_glass_hu(lungs, random)
    if random.random() < 0.4:
        density += _paving_hu(lungs, random)
    if dense_share == 0:
        return Lesions(opacity, density, np.zeros_like(lungs.mask))
    liking = affinity / max(float(affinity[lungs.mask].std()), 1e-6)
    liking = liking + random.uniform(0.3, 1.5) * lungs.noise(random.uniform(5, 20), random)
    # Glass becomes consolidation: none lies where the glass does not.
    liking = np.where(opacity >= LESION_OPACITY, liking, liking.min() - 1)
    return _consolidated(lungs, opacity, density, liking, share * dense_share, random)


def _with_bands(lungs: Lungs, drawn: Lesions, random: np.random.Generator) -> Lesions:
    """Add lines that follow the pleura some mm away from it, and bands that run to it."""
    where = lungs.noise(25, random) + np.exp(-lungs.wall_mm / 25) + 0.5 * lungs.back
    depth_mm, width_mm = random.uniform(4, 12), random.uniform(0.8, 1.6)
    line = np.exp(-(((lungs.wall_mm - depth_mm + lungs.noise(15, random)) / width_mm) ** 2))
    # A field of unit deviation correlated over s mm has about the slope 0.7 / s.
    scale_mm = random.uniform(12, 20)
    sheet = lungs.noise(scale_mm, random) * scale_mm / 0.7
    band = np.exp(-((sheet / random.uniform(1, 2)) ** 2))
    places = (where > upper_share(where, lungs.mask, random.uniform(0.04, 0.15))) & lungs.mask
    added = np.where(places, np.maximum(line, band), 0).astype(np.float32)
    dense = added >= LESION_OPACITY
    density = np.where(dense, random.uniform(-150, 30), drawn.density_hu).astype(np.float32)
    return Lesions(np.maximum(drawn.opacity, added), density, drawn.consolidation | dense)


def _left(lungs: Lungs) -> Mask:
    """Columns of the left lung, (1, 1, columns): those beyond the emptiest in the middle."""
    columns = lungs.mask.sum((0, 1))
    middle = len(columns) // 2
    near = slice(middle - len(columns) // 6, middle + len(columns) // 6 + 1)
    cut = near.start + int(np.argmin(columns[near]))
    return (np.arange(len(columns)) > cut)[None, None]


def _lobe(lungs: Lungs, random: np.random.Generator) -> Mask:
    """One lobe, bounded by a plane that lies and slopes as the fissures do."""
    left = random.random() < 0.45
    side = lungs.mask & (_left(lungs) == left)
    if not side.any():
        side = lungs.mask
    oblique = lungs.base - random.uniform(0.2, 0.4) - random.uniform(0.5, 0.75) * (1 - lungs.back)
    oblique = oblique + 0.02 * lungs.noise(25, random)
    lower = oblique > 0
    # The right lung has a middle lobe between the fissures.
    upper = ~lower & ((lungs.base < random.uniform(0.4, 0.6)) | left)
    lobes = [m for m in (lower, upper, ~lower & ~upper) if (m & side).sum() > 0.02 * side.sum()]
    return side & lobes[int(random.integers(len(lobes)))]


def _with_fluid(lungs: Lungs, drawn: Lesions, side: Mask, random: np.random.Generator) -> Lesions:
    """Lay a pleural effusion into a lung: level to the back, with a meniscus along the wall."""
    amount = random.uniform(0.05, 0.35)
    level = 1 - amount * np.clip(lungs.base * 1.6 - 0.6, 0, 1)
    meniscus = random.uniform(0.1, 0.3) * amount / 0.2 * np.exp(-lungs.wall_mm / 6)
    fluid = side & (lungs.back + meniscus * (lungs.base > 0.4) > level) & (level < 0.995)
    opacity = np.where(fluid, 1, drawn.opacity).astype(np.float32)
    fluid_hu = random.uniform(0, 25)
    density = np.where(fluid, fluid_hu, drawn.density_hu).astype(np.float32)
    return Lesions(opacity, density, drawn.consolidation & ~fluid, fluid)


def _ball(
    lungs: Lungs, centre_mm: NDArray[np.float64], radius_mm: float
) -> tuple[tuple[slice, ...], Array]:
    """Share of each voxel that a ball fills, in the window around it."""
    spacing = np.asarray(lungs.spacing_mm)
    low = np.maximum(np.floor((centre_mm - radius_mm) / spacing).astype(int) - 1, 0)
    high = np.minimum(np.ceil((centre_mm + radius_mm) / spacing).astype(int) + 2, lungs.mask.shape)
    window = tuple(slice(a, b) for a, b in zip(low, np.maximum(high, low), strict=True))
    # Sections are thick: three planes of each are looked at.
    share = np.zeros([s.stop - s.start for s in window], np.float32)
    for shift in (-1 / 3, 0, 1 / 3):
        z, y, x = np.ogrid[window]
        squares = zip((z + shift, y, x), spacing, centre_mm, strict=True)
        distance = np.sqrt(sum((i * s - c) ** 2 for i, s, c in squares))
        share += np.clip(0.5 + (radius_mm - distance) / spacing[1], 0, 1).astype(np.float32) / 3
    return window, share


def _opacity(
    lungs: Lungs,
    affinity: Array,
    share: float,
    softness: float,
    spread_of: Mask | None = None,
    at: float = 0.5,
) -> Array:
    """Opacity 0..1 with soft edges: it is `at` where the affinity passes the share's level.

    `softness` is in deviations of the affinity in the lungs, or in the part `spread_of`.
    """
    level = upper_share(affinity, lungs.mask, share)
    part = lungs.mask if spread_of is None else spread_of
    spread = softness * float(affinity[part].std())
    scaled = (affinity - level) / max(spread, 1e-6) + np.log(at / (1 - at))
    scaled = np.clip(scaled, -30, 30)
    opacity = 1 / (1 + np.exp(-scaled))
    return np.where(opacity > 0.02, opacity, 0).astype(np.float32)


def air_hu(ct_hu: NDArray[np.floating], lungs: Mask, spacing_mm: Sequence[float]) -> Array:
    """Density of the lung around each voxel, leaving vessels and whatever is ill aside."""
    median = np.float32(np.median(ct_hu[lungs]))
    aerated = lungs & (ct_hu < median + VESSEL_RISE_HU)
    return median + mean_around(ct_hu - median, aerated, AIR_MM, spacing_mm)


def mean_around(
    values: NDArray[np.floating], where: Mask, scale_mm: float, spacing_mm: Sequence[float]
) -> Array:
    """Mean of the values in a mask, weighted by a Gaussian; it tends to 0 far from the mask."""
    sigma = [scale_mm / s for s in spacing_mm]
    weight = ndimage.gaussian_filter(where.astype(np.float32), sigma)
    total = ndimage.gaussian_filter(np.where(where, values, 0).astype(np.float32), sigma)
    return total / np.maximum(weight, np.float32(0.01))


def _ground_glass_hu(lungs: Lungs, random: np.random.Generator) -> Array:
    # Fainter glass than this, beside the lung around it, nobody would draw around.
    mean = np.maximum(random.uniform(-680, -300), lungs.air_hu + random.uniform(*GLASS_RISE_HU))
    coarse = random.uniform(0.1, 0.4) * (mean - lungs.air_hu)
    return (
        mean
        + coarse * lungs.noise(random.uniform(6, 15), random)
        + random.uniform(10, 60) * lungs.noise(2.5, random)
    ).astype(np.float32)


def _paving_hu(lungs: Lungs, random: np.random.Generator) -> Array:
    """Thin dense sheets, the thickened septa of crazy paving: the zeros of a random field."""
    field = lungs.noise(random.uniform(3, 6), random)
    return random.uniform(100, 350) * np.exp(-((field / random.uniform(0.15, 0.3)) ** 2))


def _consolidated(
    lungs: Lungs,
    opacity: Array,
    density: Array,
    liking: Array,
    share: float,
    random: np.random.Generator,
    spread_of: Mask | None = None,
) -> Lesions:
    """Turn the part of the lesions that likes it most into consolidation."""
    solidity = _opacity(lungs, liking, share, random.uniform(0.03, 0.2), spread_of)
    solid_hu = random.uniform(-60, 70) + random.uniform(5, 25) * lungs.noise(4, random)
    if random.random() < 0.5:
        # Bronchi stay open: two random sheets meet in a tree of thin curves.
        first, second = lungs.noise(9, random), lungs.noise(9, random)
        bronchi = np.exp(-(first**2 + second**2) / random.uniform(0.01, 0.04))
        solid_hu = solid_hu + bronchi * (AIR_HU - TISSUE_HU)
    density = density + solidity * (solid_hu - density)
    return Lesions(np.maximum(opacity, solidity), density, solidity >= 0.5)
