"""Weights to begin with; written from tools/bundles/modules, edit it there."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import torch

SLICES_SEEN = 3


def read_slice_weights(checkpoint: str | Path) -> dict[str, torch.Tensor]:
    """Read what the network of the bundle lesion_segmentation_2d has learned.

    It sees each slice with one below and one above it. What it learned of those is added to what it
    learned of the slice, as if all three were the same, for networks that see one slice.

    Parameters
    ----------
    checkpoint
        ``model.pt`` of that bundle.

    Returns
    -------
    dict
        Weights by their name in ``Sequential(unet, head)`` of that bundle's ``train.json``.

    Raises
    ------
    SystemExit
        With one line where there is no such file.
    """
    if not Path(checkpoint).is_file():
        raise SystemExit(
            f"error: no weights at {checkpoint} to start from; slice_weights names a model.pt of "
            "lesion_segmentation_2d"
        )
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return {key.removeprefix("network."): _of_one_slice(value) for key, value in weights.items()}


def _of_one_slice(weight: torch.Tensor) -> torch.Tensor:
    """Add the kernels of a convolution that sees neighbouring slices as channels."""
    sees_neighbours = weight.ndim == 4 and weight.shape[1] == SLICES_SEEN
    return weight.sum(dim=1, keepdim=True) if sees_neighbours else weight


def refuse_slice_weights(checkpoint: str | Path) -> NoReturn:
    """Stop, because the weights in a file fit nowhere."""
    raise SystemExit(
        f"error: {checkpoint} holds another network than that of lesion_segmentation_2d's "
        "train.json; leave slice_weights away or give weights of that network"
    )
