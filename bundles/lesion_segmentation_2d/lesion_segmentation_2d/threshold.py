"""The threshold-based baseline (Goncharov et al. 2021, section 2.2).

Three steps: voxels of the lungs in an HU window; Gaussian blur, cut at one half; removal of small
connected components.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

CERTAIN = 20.0
"""Logit of a voxel that is marked; its negative of one that is not."""


def dense_regions(
    hu: np.ndarray,
    lungs: np.ndarray,
    hu_min: float,
    hu_max: float,
    sigma: Sequence[float],
) -> np.ndarray:
    """Mark where most of the neighbourhood is lung of `hu_min` to `hu_max`: the first two steps.

    Parameters
    ----------
    hu : ndarray
        Hounsfield units, three axes.
    lungs : ndarray of bool
        Same shape.
    hu_min, hu_max : float
        The window in HU, both inside.
    sigma : sequence of float
        Standard deviation of the blur along each axis, in voxels.

    Returns
    -------
    ndarray of bool
    """
    dense = lungs & (hu >= hu_min) & (hu <= hu_max)
    return ndimage.gaussian_filter(dense.astype(np.float32), sigma) > 0.5


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return slices around the voxels of a mask; an empty box for an empty one."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    return found[0] if found else (slice(0, 0),) * mask.ndim


class ThresholdBaseline(torch.nn.Module):
    """The baseline as a network, so that it is trained, saved and run as the others are.

    Its four numbers are buffers; the paper's values are the defaults. The paper does not say in
    which unit its blur (4) is: here it is millimetres.

    Parameters
    ----------
    spacing_mm : sequence of float
        Voxel spacing of what it is given.
    hu_min, hu_max : float
        The window in HU.
    sigma_mm : float
        Standard deviation of the blur in millimetres.
    min_lung_share : float
        Components smaller than this share of the lungs' volume are removed (0.001 is 0.1 %).
    """

    def __init__(
        self,
        spacing_mm: Sequence[float],
        hu_min: float = -700.0,
        hu_max: float = 300.0,
        sigma_mm: float = 4.0,
        min_lung_share: float = 0.001,
    ) -> None:
        super().__init__()
        self.spacing_mm = tuple(spacing_mm)
        for name, value in (
            ("hu_min", hu_min),
            ("hu_max", hu_max),
            ("sigma_mm", sigma_mm),
            ("min_lung_share", min_lung_share),
        ):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Mark lesions.

        Parameters
        ----------
        image : Tensor
            Shape (N, 2, X, Y, Z): HU, and the lung mask.

        Returns
        -------
        Tensor
            float32 of shape (N, 1, X, Y, Z): a logit, `CERTAIN` in lesions and its negative
            elsewhere.
        """
        masks = [self._lesions(*item.cpu().numpy()) for item in image]
        marked = torch.from_numpy(np.stack(masks))[:, None]
        return (2.0 * marked.to(image.device, torch.float32) - 1.0) * CERTAIN

    def _lesions(self, hu: np.ndarray, lung_mask: np.ndarray) -> np.ndarray:
        lungs = lung_mask > 0.5
        box = bounding_box(lungs)
        sigma = [float(self.sigma_mm) / spacing for spacing in self.spacing_mm]
        dense = dense_regions(hu[box], lungs[box], float(self.hu_min), float(self.hu_max), sigma)
        components, count = ndimage.label(dense)
        large = np.bincount(components.ravel(), minlength=count + 1) >= (
            float(self.min_lung_share) * lungs.sum()
        )
        large[0] = False
        result = np.zeros(lungs.shape, bool)
        result[box] = large[components]
        return result
