"""Pyramid max-pooling of slice-wise feature maps into one vector a study (paper 2.3, 2.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class PyramidMaxPool(nn.Module):
    """Pool the feature maps of a study's slices over a pyramid of bins.

    Level k divides the study into 2^k equal parts along the slices and, where `in_plane` is set,
    along rows and columns too (He et al. 2014, in three dimensions). A maximum of maxima is the
    maximum, so each slice is first reduced by itself to the finest bins in its plane: only these
    few numbers a slice are kept, however many slices a study has, and coarser levels are pooled
    from finer ones.

    Parameters
    ----------
    levels
        Number of levels; 1 is global max-pooling.
    in_plane
        Whether the bins divide rows and columns too.
    """

    def __init__(self, levels: int, in_plane: bool) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels must be at least 1, got {levels}")
        self.levels = levels
        self.bins = 2 ** (levels - 1)
        self.plane_bins = self.bins if in_plane else 1

    def length(self, channels: int) -> int:
        """Length of a study's vector for feature maps of so many channels."""
        dimensions = 3 if self.plane_bins == self.bins else 1
        return channels * sum(2 ** (dimensions * level) for level in range(self.levels))

    def of_slices(self, features: torch.Tensor) -> torch.Tensor:
        """Reduce (slices, channels, rows, columns) to (slices, channels, bins, bins)."""
        rows = _maxima(features, 2, self.plane_bins)
        return _maxima(rows, 3, self.plane_bins)

    def forward(self, descriptors: torch.Tensor) -> torch.Tensor:
        """Pool what `of_slices` gave for whole studies.

        Parameters
        ----------
        descriptors
            (studies, slices, channels, bins, bins), at least one slice. Studies with fewer slices
            than bins have some slices in several bins.

        Returns
        -------
        torch.Tensor
            (studies, ``length(channels)``), the finest level first.
        """
        level = _maxima(descriptors, 1, self.bins).transpose(1, 2)
        vectors = [level.flatten(1)]
        window = [2, min(2, self.plane_bins), min(2, self.plane_bins)]
        for _ in range(self.levels - 1):
            level = F.max_pool3d(level, window)
            vectors.append(level.flatten(1))
        return torch.cat(vectors, dim=1)


def _maxima(values: torch.Tensor, axis: int, bins: int) -> torch.Tensor:
    """Divide an axis into bins that cover it, overlapping where it cannot be divided evenly.

    As PyTorch's adaptive max-pooling, which ONNX cannot express for sizes that are left open.
    """
    size = values.shape[axis]
    parts: list[torch.Tensor] = []
    for part in range(bins):
        first, end = part * size // bins, ((part + 1) * size + bins - 1) // bins
        parts.append(values.narrow(axis, first, end - first).amax(axis, keepdim=True))
    return torch.cat(parts, axis)


class IdentificationHead(nn.Module):
    """Pyramid max-pooling and two fully connected layers: a COVID-19 logit a study.

    The channels are brought to zero mean and unit deviation first, for they come from layers that
    were trained for other things.

    Parameters
    ----------
    channels
        Channels of the feature maps.
    levels, in_plane
        See `PyramidMaxPool`.
    hidden
        Width between the two layers.
    dropout
        Share of inputs dropped before each layer while training.
    """

    def __init__(
        self, channels: int, levels: int, in_plane: bool, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.pool = PyramidMaxPool(levels, in_plane)
        self.normalization = nn.BatchNorm2d(channels, affine=False)
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(self.pool.length(channels), hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def of_slices(self, features: torch.Tensor) -> torch.Tensor:
        """See `PyramidMaxPool.of_slices`."""
        return self.pool.of_slices(features)

    def forward(self, descriptors: torch.Tensor, studies: int) -> torch.Tensor:
        """Classify (studies * slices, channels, bins, bins), study by study: (studies, 1)."""
        _, channels, rows, columns = descriptors.shape
        # Not `unflatten`, which an export to ONNX fixes to the number of slices that it saw.
        by_study = self.normalization(descriptors).reshape(studies, -1, channels, rows, columns)
        return self.layers(self.pool(by_study))
