"""Lesions: a network run on the lungs' bounding box, and only what lies inside the lungs.

Sections 2.2 and 4.1 of "CT-based COVID-19 Triage" (arXiv 2006.01441).
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ct_triage.network import AxialView, SliceNetwork
from ct_triage.severity import BoolMask
from ct_triage.volume import Volume

# Consolidation and effusion hide the border of a lung, so the box must not cut them.
MARGIN_MM = 10.0


def segment_lesions(
    volume: Volume, network: SliceNetwork, lungs: BoolMask, min_lesion_ml: float = 0.0
) -> BoolMask:
    """Segment the lesions of viral pneumonia inside the lungs.

    Parameters
    ----------
    volume : Volume
        The study.
    network : SliceNetwork
        The lesion network.
    lungs : bool array (slices, rows, columns)
        Both lungs on the volume's grid.
    min_lesion_ml : float
        Smaller connected pieces are left out as noise.

    Returns
    -------
    bool array (slices, rows, columns)
        Lesions on the volume's grid.
    """
    view = AxialView.of(volume)
    lungs_on_view = view.of_mask(lungs)
    grid = network.grid_shape(view)
    spacing_mm = np.array(view.spacing_mm) * lungs_on_view.shape / grid
    region = _bounding_box(lungs_on_view, grid, spacing_mm)
    if region is None:
        return np.zeros_like(lungs)
    probabilities = network.probabilities(view, region)
    small = _small_pieces(
        probabilities >= network.threshold, min_lesion_ml * 1000.0 / float(spacing_mm.prod())
    )
    probabilities[small] = 0
    lesions = network.mask_on_view(probabilities, view) & lungs_on_view
    return view.on_source_grid(lesions)


def _bounding_box(
    mask: BoolMask, grid: tuple[int, int, int], spacing_mm: npt.NDArray[np.float64]
) -> tuple[slice, slice, slice] | None:
    """Box of a mask with a margin, in indices of a coarser grid over the same field of view."""
    box = ndimage.find_objects(mask.view(np.uint8))
    if not box:
        return None
    margin = np.ceil(MARGIN_MM / spacing_mm)
    # The slices outside the lungs hold nothing to see; the margin is for rows and columns.
    margin[0] = 0
    first, second, third = (
        slice(
            max(0, int(np.floor(side.start * n / m - extra))),
            min(n, int(np.ceil(side.stop * n / m + extra))),
        )
        for side, n, m, extra in zip(box[0], grid, mask.shape, margin, strict=True)
    )
    return first, second, third


def _small_pieces(mask: BoolMask, min_voxels: float) -> BoolMask:
    pieces, _ = ndimage.label(mask)
    small = np.bincount(pieces.ravel()) < min_voxels
    small[0] = False
    return small[pieces]
