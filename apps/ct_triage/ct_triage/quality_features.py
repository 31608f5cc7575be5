"""Measure what tells a chest CT that the models know from one that they do not.

Every feature means something to a person, so that a reason can be given in words. All are taken
from a thinned grid of a few millimetres: they cost a fraction of a second for a study of any size.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ct_triage.severity import BoolMask
from ct_triage.volume import Volume

# Voxels of the thinned grid; lungs and bodies are much larger.
THINNED_MM = 4.0
# What surrounds a lung is looked at to this depth.
RIM_MM = 8.0
# Everything in a body but bones, metal, contrast medium and gas.
TISSUE_HU = (-300, 300)
MUSCLE_PERCENTILE = 75
AIR_BELOW_HU = -700
# Less air than this outside the lungs is their blurred border, and bowel gas.
MIN_AIR_SHARE = 0.05
# Noise is the spread inside blocks of this many pixels a side, where they lie in muscle or water.
BLOCK_PIXELS = 4
BLOCK_MEAN_HU = (-20, 120)
# Most blocks hold a border; the quietest fifth shows the noise alone.
QUIET_PERCENTILE = 20
NOISE_SLICES = 24
# Noise in some slices alone shows in the noisiest quarter of them; fewer blocks say nothing.
NOISY_PERCENTILE = 75
MIN_BLOCKS = 20
# A slice that differs from both neighbours by so much more than they do from each other is not from
# between them. In real and computed chests of 0.6 to 10 mm the ratio stays below 1.05.
ODD_RATIO = 1.3
# A picture of nothing; the air around a patient alone makes any other spread by hundreds.
EMPTY_SPREAD_HU = 50
# A slice is at an end of a lung where it holds less than this share of the largest lung area.
END_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Features:
    """What was measured; NaN where there is nothing to measure it on.

    Attributes
    ----------
    lung_volume_ml : float
        Both lungs.
    right_share : float
        Share of the right lung in that, 0 to 1.
    lung_width_mm, lung_depth_mm, lung_height_mm : float
        Extent of both lungs along the patient's axes: from side to side, from front to back, and
        from head to feet.
    first_slice_share, last_slice_share : float
        Lung area in the outermost slices, as a share of the largest in any slice, 0 to 1.
    border_share : float
        Share of the lung area, in any slice the largest, that lies on the picture's edge, 0 to 1.
    lung_low_hu, lung_middle_hu, lung_high_hu : float
        10th, 50th and 90th percentile in the lungs.
    rim_air_share : float
        Share of air in what surrounds the lungs, 0 to 1; a lung is wrapped in tissue.
    roughness : float
        Surface of the lungs over that of a ball of their volume.
    muscle_hu : float
        75th percentile of tissue between -300 and 300 HU outside the lungs.
    tissue_share : float
        Share of such tissue in all that is no air outside the lungs, 0 to 1.
    air_hu : float
        Median of the air outside the lungs; NaN where the picture holds next to none.
    noise_hu : float
        Standard deviation in the most even parts of soft tissue.
    noisy_slices_hu : float
        The same of single slices: what the noisiest quarter of them reaches.
    odd_slices : float
        Number of slices, from the one above the lungs to the one below, that are empty, the same as
        their neighbour, or not what lies between their neighbours.
    slice_spacing_mm : float
        Distance between slices.
    """

    lung_volume_ml: float
    right_share: float
    lung_width_mm: float
    lung_depth_mm: float
    lung_height_mm: float
    first_slice_share: float
    last_slice_share: float
    border_share: float
    lung_low_hu: float
    lung_middle_hu: float
    lung_high_hu: float
    rim_air_share: float
    roughness: float
    muscle_hu: float
    tissue_share: float
    air_hu: float
    noise_hu: float
    noisy_slices_hu: float
    odd_slices: float
    slice_spacing_mm: float


FEATURE_NAMES = tuple(field.name for field in fields(Features))


def measure(volume: Volume, right: BoolMask, left: BoolMask) -> Features:
    """Measure a volume and its lungs.

    Parameters
    ----------
    volume : Volume
        The study.
    right, left : bool arrays (slices, rows, columns)
        The lungs on the volume's grid; at least one voxel of lung is needed.
    """
    thin = _thinning(volume)
    in_plane = (slice(None), *thin[1:])
    areas = right[in_plane].sum(axis=(1, 2)) + left[in_plane].sum(axis=(1, 2))
    largest = max(int(areas.max()), 1)
    strides = np.array([step.step for step in thin])
    voxel_ml = volume.voxel_volume_ml * float(strides.prod())

    hu, thin_right, thin_left = volume.voxels[thin], right[thin], left[thin]
    lungs = thin_right | thin_left
    points = np.argwhere(lungs) * strides @ volume.affine[:3, :3].T
    width, depth, height = np.ptp(points, axis=0)
    spacing_mm = np.array(volume.spacing_mm) * strides
    rim = _rim(lungs, spacing_mm)
    outside = hu[~lungs]
    air = outside[outside < AIR_BELOW_HU]
    tissue = outside[(outside > TISSUE_HU[0]) & (outside < TISSUE_HU[1])]
    low, middle, high = np.percentile(hu[lungs], [10, 50, 90])
    noise_hu, noisy_slices_hu = _noise_hu(volume, areas)
    return Features(
        lung_volume_ml=float(areas.sum() * voxel_ml / strides[0]),
        right_share=float(thin_right.sum() / lungs.sum()),
        lung_width_mm=float(width),
        lung_depth_mm=float(depth),
        lung_height_mm=float(height),
        first_slice_share=float(areas[0] / largest),
        last_slice_share=float(areas[-1] / largest),
        border_share=_border_share(lungs),
        lung_low_hu=float(low),
        lung_middle_hu=float(middle),
        lung_high_hu=float(high),
        rim_air_share=float((hu[rim] < -500).mean()) if rim.any() else np.nan,
        roughness=_roughness(lungs, spacing_mm),
        muscle_hu=_percentile(tissue, MUSCLE_PERCENTILE),
        tissue_share=float(tissue.size / max((outside > TISSUE_HU[0]).sum(), 1)),
        air_hu=_percentile(air, 50) if air.size > MIN_AIR_SHARE * outside.size else np.nan,
        noise_hu=noise_hu,
        noisy_slices_hu=noisy_slices_hu,
        odd_slices=float(_odd_slices(volume.voxels[in_plane], areas)),
        slice_spacing_mm=volume.spacing_mm[0],
    )


def _thinning(volume: Volume) -> tuple[slice, slice, slice]:
    first, second, third = (
        slice(None, None, max(1, round(THINNED_MM / spacing))) for spacing in volume.spacing_mm
    )
    return first, second, third


def _percentile(values: npt.NDArray[Any], percent: float) -> float:
    return float(np.percentile(values, percent)) if values.size else np.nan


def _rim(lungs: BoolMask, spacing_mm: npt.NDArray[np.float64]) -> BoolMask:
    """Shell around the lungs in their slices: what lies above and below them may be cut off."""
    steps = np.maximum(1, np.rint(RIM_MM / spacing_mm[1:])).astype(int)
    structure = np.ones((1, 2 * steps[0] + 1, 2 * steps[1] + 1), dtype=bool)
    near = ndimage.maximum_filter(lungs.view(np.uint8), footprint=None, size=structure.shape)
    return near.astype(bool) & ~lungs


def _border_share(lungs: BoolMask) -> float:
    edge = np.zeros(lungs.shape[1:], dtype=bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    return float(lungs[:, edge].sum() / max(1, lungs.sum()))


def _roughness(lungs: BoolMask, spacing_mm: npt.NDArray[np.float64]) -> float:
    """Faces between lung and no lung over the surface of a ball of the lungs' volume."""
    face_mm2 = spacing_mm.prod() / spacing_mm
    surface_mm2 = sum(
        np.count_nonzero(np.diff(lungs.view(np.int8), axis=axis)) * face_mm2[axis]
        for axis in range(3)
    )
    volume_mm3 = lungs.sum() * spacing_mm.prod()
    return float(surface_mm2 / (np.pi ** (1 / 3) * (6 * volume_mm3) ** (2 / 3)))


def _noise_hu(volume: Volume, areas: npt.NDArray[np.intp]) -> tuple[float, float]:
    """Spread inside small blocks of even soft tissue, in all slices that hold lung and in some."""
    slices = np.flatnonzero(areas)
    chosen = slices[:: max(1, len(slices) // NOISE_SLICES)]
    rows, columns = (n // BLOCK_PIXELS * BLOCK_PIXELS for n in volume.voxels.shape[1:])
    spreads = []
    for index in chosen:
        blocks = (
            volume.voxels[index, :rows, :columns]
            .reshape(rows // BLOCK_PIXELS, BLOCK_PIXELS, columns // BLOCK_PIXELS, BLOCK_PIXELS)
            .swapaxes(1, 2)[::2, ::2]
            .reshape(-1, BLOCK_PIXELS**2)
            .astype(np.float32)
        )
        means = blocks.mean(axis=1)
        soft = blocks[(means > BLOCK_MEAN_HU[0]) & (means < BLOCK_MEAN_HU[1])]
        spreads.append(soft.std(axis=1, ddof=1))
    quiet = [np.percentile(s, QUIET_PERCENTILE) for s in spreads if s.size >= MIN_BLOCKS]
    return (
        _percentile(np.concatenate(spreads), QUIET_PERCENTILE),
        _percentile(np.array(quiet), NOISY_PERCENTILE),
    )


def _odd_slices(voxels: npt.NDArray[np.int16], areas: npt.NDArray[np.intp]) -> int:
    """Count slices that a scanner does not make between their neighbours."""
    slices = np.flatnonzero(areas)
    hu = voxels[max(slices[0] - 1, 0) : slices[-1] + 2]
    odd = np.array([picture.std() < EMPTY_SPREAD_HU for picture in hu])
    steps = np.array([_difference_hu(hu[i], hu[i + 1]) for i in range(len(hu) - 1)])
    odd[1:] |= steps == 0
    for i in range(1, len(hu) - 1):
        odd[i] |= min(steps[i - 1 : i + 1]) > ODD_RATIO * _difference_hu(hu[i - 1], hu[i + 1])
    return int(odd.sum())


def _difference_hu(one: npt.NDArray[np.int16], other: npt.NDArray[np.int16]) -> float:
    return float(np.abs(one.astype(np.float32) - other).mean())
