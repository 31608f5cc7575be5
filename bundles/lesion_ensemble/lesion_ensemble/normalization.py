"""The two input normalizations (CoRSAI, section 4.1.5), as first layer of a member.

Being layers they are trained, evaluated, exported and deployed with their network and cannot come
apart from it. Both take slices (slices, 1, rows, columns) in which ``hu_window`` is mapped to 0..1
and go back to Hounsfield units first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

LIMIT = 0.505


class RelativeToMinimum(torch.nn.Module):
    """Divide HU by the absolute value of the slice's minimum and clip (CoRSAI, Algorithm 1).

    The paper's text multiplies by the rescale slope and adds the intercept; its listing has it the
    other way round. Hounsfield units, as the text has them, are what readers of CT give.

    Parameters
    ----------
    hu_window : Sequence[float]
        HU that 0 and 1 stand for.
    limit : float
        Values are clipped to -limit..limit.
    air_hu : Sequence[float]
        The minimum is taken to lie in here: a slice cut to soft tissue holds no air to divide by,
        and padding outside of the scanner's view may be far below air.
    """

    def __init__(
        self,
        hu_window: Sequence[float],
        limit: float = LIMIT,
        air_hu: Sequence[float] = (-1024.0, -900.0),
    ) -> None:
        super().__init__()
        self.hu_window = (float(hu_window[0]), float(hu_window[1]))
        self.limit = limit
        self.air_hu = (float(air_hu[0]), float(air_hu[1]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return slices of the same shape, -limit..limit."""
        hu = to_hu(image, self.hu_window)
        minimum = hu.amin(dim=(1, 2, 3), keepdim=True).clamp(self.air_hu[0], self.air_hu[1])
        return (hu / minimum.abs()).clamp(-self.limit, self.limit)


class ZeroMeanUnitDeviation(torch.nn.Module):
    """Subtract the mean and divide by the standard deviation of the training data.

    Parameters
    ----------
    hu_window : Sequence[float]
        HU that 0 and 1 stand for.
    mean_hu, deviation_hu : float
        Of all voxels of the training volumes.
    """

    def __init__(self, hu_window: Sequence[float], mean_hu: float, deviation_hu: float) -> None:
        super().__init__()
        self.hu_window = (float(hu_window[0]), float(hu_window[1]))
        self.mean_hu = mean_hu
        self.deviation_hu = deviation_hu

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return slices of the same shape."""
        return (to_hu(image, self.hu_window) - self.mean_hu) / self.deviation_hu


def to_hu(image: torch.Tensor, hu_window: tuple[float, float]) -> torch.Tensor:
    """Undo the mapping of ``hu_window`` to 0..1."""
    return image * (hu_window[1] - hu_window[0]) + hu_window[0]
