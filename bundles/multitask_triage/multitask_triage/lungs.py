"""Where the lungs are, for the box that the series is cropped to (paper 4.1)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Transform
from scipy import ndimage
from skimage.segmentation import clear_border

AIR_HU = -400.0


class LungRegiond(Transform):
    """Add a rough lung region to studies that come without a lung mask.

    A mask that is there, with at least one voxel set, is left as it is.

    Parameters
    ----------
    image_key
        CT in HU, (1, rows, columns, slices).
    lung_key
        The mask, of the same shape.
    """

    def __init__(self, image_key: str = "image", lung_key: str = "lung") -> None:
        self.image_key = image_key
        self.lung_key = lung_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the study with the mask."""
        study = dict(data)
        image = study[self.image_key]
        if self.lung_key not in study or not (study[self.lung_key] > 0).any():
            region = air_inside_body(np.asarray(image[0]))[None].astype(np.float32)
            study[self.lung_key] = MetaTensor(region, affine=image.affine)
        return study


def air_inside_body(hu: np.ndarray) -> np.ndarray:
    """Mark air that does not reach the edge of its slice: the lungs, and some gas below them.

    Parameters
    ----------
    hu
        (rows, columns, slices) in HU.

    Returns
    -------
    numpy.ndarray
        bool, of the same shape. All true where no such air is found, as in a series whose field
        of view cuts the lungs: a box around everything loses nothing.
    """
    air = hu < AIR_HU
    inside = np.stack([clear_border(air[..., k]) for k in range(air.shape[-1])], axis=-1)
    pieces, count = ndimage.label(inside)
    if count == 0:
        return np.ones_like(air)
    sizes = np.bincount(pieces.ravel())[1:]
    return np.isin(pieces, 1 + np.flatnonzero(sizes >= 0.1 * sizes.max()))
