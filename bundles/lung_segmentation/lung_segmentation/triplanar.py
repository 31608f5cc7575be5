"""Lungs from coronal, sagittal and axial slices, averaged.

CoRSAI: a system for robust interpretation of CT scans of COVID-19 patients using deep learning,
section 4.2: three 2D networks, one a projection, whose input has the three coordinates as channels
beside the image. All of it happens on a cube, so that every projection's slices are square.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.inferers import Inferer
from monai.transforms import MapTransform, Randomizable

PROJECTIONS = 3
"""Slices across the first, the second and the third axis of a volume."""


def orthogonal_slices(volume: torch.Tensor, index: tuple[int, int, int]) -> torch.Tensor:
    """Cut three slices, one across each axis, and stack their channels.

    Parameters
    ----------
    volume : Tensor
        Shape (C, S, S, S).
    index : tuple of int
        Where to cut the first, the second and the third axis.

    Returns
    -------
    Tensor
        Shape (3 C, S, S).
    """
    return torch.cat([volume.select(axis + 1, at) for axis, at in enumerate(index)])


class Triplanar(torch.nn.Module):
    """Three networks side by side, each for the slices of one projection.

    Parameters
    ----------
    projection : Module
        A 2D network from (N, C, S, S) to (N, 1, S, S); each projection gets a copy of its own.
    """

    def __init__(self, projection: torch.nn.Module) -> None:
        super().__init__()
        self.projections = torch.nn.ModuleList(
            copy.deepcopy(projection) for _ in range(PROJECTIONS)
        )

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (N, 3, S, S), of `orthogonal_slices`, shape (N, 3 C, S, S)."""
        channels = slices.shape[1] // len(self.projections)
        logits = [
            projection(slices[:, i * channels : (i + 1) * channels])
            for i, projection in enumerate(self.projections)
        ]
        return torch.cat(logits, dim=1)


class TriplanarInferer(Inferer):
    """Run a `Triplanar` over all slices of a cube and average the three probabilities.

    Parameters
    ----------
    batch_size : int
        Slices of each projection in a forward pass.
    """

    def __init__(self, batch_size: int = 16) -> None:
        super().__init__()
        self.batch_size = batch_size

    def __call__(
        self,
        inputs: torch.Tensor,
        network: Callable[..., torch.Tensor],
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Return the logit of the mean probability.

        Parameters
        ----------
        inputs : Tensor
            Shape (N, C, S, S, S).
        network : callable
            `Triplanar`; further arguments are handed to it.

        Returns
        -------
        Tensor
            Shape (N, 1, S, S, S).

        Raises
        ------
        ValueError
            If the volumes are no cubes.
        """
        size = inputs.shape[-1]
        if inputs.shape[2:] != (size, size, size):
            raise ValueError(f"triplanar inference takes cubes, got {tuple(inputs.shape[2:])}")
        return torch.stack([self._volume(volume, network, args, kwargs) for volume in inputs])

    def _volume(
        self,
        volume: torch.Tensor,
        network: Callable[..., torch.Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> torch.Tensor:
        """Do one volume, shape (C, S, S, S) to (1, S, S, S)."""
        size = volume.shape[-1]
        mean = volume.new_zeros((size, size, size))
        for start in range(0, size, self.batch_size):
            cuts = range(start, min(start + self.batch_size, size))
            slices = torch.stack([orthogonal_slices(volume, (i, i, i)) for i in cuts])
            probability = network(slices, *args, **kwargs).sigmoid()
            for axis in range(PROJECTIONS):
                part = mean.narrow(axis, start, len(cuts))
                part += probability[:, axis].movedim(0, axis) / PROJECTIONS
        return torch.logit(mean, eps=1e-6)[None]


class RandOrthogonalSlicesd(Randomizable, MapTransform):
    """Draw triples of slices that meet in a random voxel.

    Parameters
    ----------
    keys : KeysCollection
        Volumes of the same shape (C, S, S, S), cut at the same places.
    num_samples : int
        How many triples of each volume.
    """

    def __init__(self, keys: KeysCollection, num_samples: int) -> None:
        MapTransform.__init__(self, keys)
        self.num_samples = num_samples

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Return `num_samples` dictionaries with (3 C, S, S) in place of each volume."""
        samples = []
        for _ in range(self.num_samples):
            self.randomize(data[self.keys[0]].shape[1:])
            samples.append(
                {**data, **{key: orthogonal_slices(data[key], self._index) for key in self.keys}}
            )
        return samples

    def randomize(self, data: torch.Size) -> None:
        """Draw a voxel of a volume of shape `data`."""
        i, j, k = (int(self.R.randint(size)) for size in data)
        self._index = (i, j, k)
