"""Lungs: one mask from a network, then right and left by clustering voxel coordinates.

Section 2.1 of "CT-based COVID-19 Triage" (arXiv 2006.01441).
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.cluster.vq import kmeans2
from skimage.morphology import remove_small_holes

from ct_triage.memory import release_free_memory
from ct_triage.network import AxialView, Region, SliceNetwork, bounding_region, box_of
from ct_triage.severity import BoolMask
from ct_triage.volume import Volume

# Smaller pieces, next to the largest one, are bowel gas and noise rather than a lung.
MIN_PART_OF_LARGEST = 0.05
# Enclosed on all sides and smaller than this, a hole is consolidation; in a single slice it could
# as well be the top of the diaphragm.
MAX_HOLE_VOXELS = 20_000
RIGHT, LEFT = 1, 2
KMEANS_ITERATIONS = 20
# The clusters need the shape of the lungs, not every voxel of them.
KMEANS_POINTS = 20_000
# Lung tissue in one piece belongs to the side that holds this share of it.
WHOLE_PIECE_SHARE = 0.9
# A pair of lungs has its two centres farther apart, and less lung in its middle tenth.
ONE_LUNG_MM = 90.0
ONE_LUNG_MIDDLE_SHARE = 0.09
TISSUE_HU = -500
# Skin is blurred, and the body is measured at every fourth voxel.
BODY_MARGIN_MM = 10.0
BODY_STEP = 4
# Thin bridges between the lungs (the anterior junction) are at most twice this wide, in voxels.
BRIDGE_RADIUS_VOXELS = 1


def segment_lungs(volume: Volume, network: SliceNetwork) -> tuple[BoolMask, BoolMask]:
    """Segment the lungs, with everything inside them that is ill.

    Returns
    -------
    right, left : bool arrays (slices, rows, columns)
        The patient's right and left lung on the volume's own grid; they do not overlap. Both are
        empty where the network sees no lung.
    """
    view = AxialView.of(volume)
    probabilities = network.probabilities(view, body_region(view, network))
    release_free_memory()
    lungs = _clean(probabilities >= network.threshold)
    # What the cleaning removed must not come back at full resolution, nor the holes it closed.
    probabilities[~ndimage.binary_dilation(lungs)] = 0
    probabilities[lungs] = np.maximum(probabilities[lungs], network.threshold)
    right = network.mask_on_view(probabilities, view)
    left = _take_out(_sides(lungs, view) == LEFT, right)
    return view.on_source_grid(right), view.on_source_grid(left)


def body_region(view: AxialView, network: SliceNetwork) -> Region | None:
    """Box of the body in all slices on a network's grid; around it there is only air.

    None, which is the whole grid, where nothing is as dense as tissue.
    """
    grid = network.grid_shape(view)
    margin = np.array([0, *(BODY_MARGIN_MM / mm for mm in network.spacing_mm)])
    region = bounding_region(_tissue(view), grid, margin)
    return region and (slice(None), *region[1:])


def _tissue(view: AxialView) -> BoolMask:
    """Whatever is denser than lungs and air, at every fourth voxel."""
    return view.voxels[::BODY_STEP, ::BODY_STEP, ::BODY_STEP] > TISSUE_HU


def _clean(mask: BoolMask) -> BoolMask:
    """Keep the large pieces and close the holes inside them."""
    pieces, n_pieces = ndimage.label(mask)
    if n_pieces == 0:
        return mask
    sizes = np.bincount(pieces.ravel())[1:]
    keep = np.concatenate([[False], sizes >= MIN_PART_OF_LARGEST * sizes.max()])
    return remove_small_holes(keep[pieces], max_size=MAX_HOLE_VOXELS)


def _sides(lungs: BoolMask, view: AxialView) -> npt.NDArray[np.uint8]:
    """Name the side of every voxel of the grid: RIGHT or LEFT by the patient's own x axis.

    k-means with two clusters divides space by a plane (the paper's step 2). Where the lungs
    reach across that plane, behind the sternum or the heart, a piece that lies almost wholly on
    one side keeps its side. A lone lung is named by its side of the body.
    """
    box = box_of(lungs)
    if box is None:
        return np.zeros(lungs.shape, np.uint8)
    index_to_mm = view.affine[:3, :3] * (np.array(view.voxels.shape) / lungs.shape)
    points = np.argwhere(lungs)
    sample_mm = points[:: max(1, len(points) // KMEANS_POINTS)] @ index_to_mm.T
    lower, upper = np.quantile(sample_mm[:, 0], [0.25, 0.75])
    centre_mm = sample_mm.mean(axis=0)
    start = np.array([[lower, *centre_mm[1:]], [upper, *centre_mm[1:]]])
    centres, _ = kmeans2(sample_mm, start, iter=KMEANS_ITERATIONS, minit="matrix")
    right_mm, left_mm = centres[np.argsort(centres[:, 0])]
    if _is_one_lung(sample_mm[:, 0], left_mm[0] - right_mm[0]):
        side = RIGHT if centre_mm[0] < _body_centre_x_mm(view) else LEFT
        return np.full(lungs.shape, side, np.uint8)

    # Nearer to the left centre: a linear function of the index, evaluated axis by axis.
    toward_left = (left_mm - right_mm) @ index_to_mm
    middle = (left_mm - right_mm) @ (left_mm + right_mm) / 2
    i, j, k = (np.arange(n) * w for n, w in zip(lungs.shape, toward_left, strict=True))
    beyond_middle = (i[:, None, None] + j[:, None] + k) > middle
    sides = np.where(beyond_middle, LEFT, RIGHT).astype(np.uint8)

    # Most of a grid is no lung, and what follows looks at every voxel many times.
    wider = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
    lungs = lungs[wider]
    cores, n_cores = ndimage.label(ndimage.binary_erosion(lungs, iterations=BRIDGE_RADIUS_VOXELS))
    left_share = np.asarray(ndimage.mean(beyond_middle[wider], cores, np.arange(n_cores + 1)))
    side_of_core = np.zeros(n_cores + 1, np.uint8)
    side_of_core[left_share >= WHOLE_PIECE_SHARE] = LEFT
    side_of_core[left_share <= 1 - WHOLE_PIECE_SHARE] = RIGHT
    side_of_core[0] = 0
    whole = side_of_core[cores]
    neighbours = ndimage.generate_binary_structure(3, 1)
    for _ in range(BRIDGE_RADIUS_VOXELS + 1):
        whole = np.where(whole, whole, ndimage.grey_dilation(whole, footprint=neighbours))
    np.copyto(sides[wider], whole, where=lungs & (whole > 0))
    return sides


def _is_one_lung(x_mm: npt.NDArray[np.float64], distance_mm: float) -> bool:
    """Tell a lone lung, cut in two by the clusters, from a pair with the mediastinum between.

    Two lungs' centres are far apart, and little lung lies half way between their outer borders.
    """
    low, high = np.quantile(x_mm, [0.001, 0.999])
    in_the_middle = np.abs(x_mm - (low + high) / 2) < 0.05 * (high - low)
    return distance_mm < ONE_LUNG_MM and bool(in_the_middle.mean() > ONE_LUNG_MIDDLE_SHARE)


def _body_centre_x_mm(view: AxialView) -> float:
    """Centre of the body along the patient's x axis, in mm from the view's first corner."""
    tissue = np.argwhere(_tissue(view)) * BODY_STEP
    return float((tissue @ view.affine[0, :3]).mean())


def _take_out(coarse: BoolMask, mask: BoolMask) -> BoolMask:
    """Take what lies in a coarse mask out of a finer one over the same field of view, in place.

    Returns
    -------
    bool array of the fine mask's shape
        What was taken out.
    """
    slices, rows, columns = (
        ((np.arange(n) + 0.5) * m / n).astype(np.intp)
        for n, m in zip(mask.shape, coarse.shape, strict=True)
    )
    taken = np.zeros_like(mask)
    for index, fine in enumerate(mask):
        if fine.any():
            inside = coarse[slices[index]].take(rows, axis=0).take(columns, axis=1)
            np.logical_and(fine, inside, out=taken[index])
            fine &= ~inside
    return taken
