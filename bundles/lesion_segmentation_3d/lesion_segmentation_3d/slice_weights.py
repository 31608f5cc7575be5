"""Weights to begin with; written from tools/bundles/modules, edit it there."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import torch
import torch.nn.functional as F

SLICES_SEEN = 3


def read_slice_weights(checkpoint: str | Path, slices_seen: int = 1) -> dict[str, torch.Tensor]:
    """Read what the network of the bundle lesion_segmentation_2d has learned.

    It sees each slice with one below and one above it, as of version 0.5.0.

    Parameters
    ----------
    checkpoint
        ``model.pt`` of that bundle.
    slices_seen
        What the network to begin sees: 3, the same, or 1, the slice alone. What was learned of the
        slices around it is then added to what was learned of the slice, as if all were the same.

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
    return {
        key.removeprefix("network."): _kernels(value, slices_seen) for key, value in weights.items()
    }


def _kernels(weight: torch.Tensor, slices_seen: int) -> torch.Tensor:
    """Make kernels that see that many slices of those that see one or three, as channels."""
    seen = weight.shape[1] if weight.ndim == 4 else None
    if seen == SLICES_SEEN and slices_seen == 1:
        return weight.sum(dim=1, keepdim=True)
    if seen == 1 and slices_seen == SLICES_SEEN:
        return F.pad(weight, (0, 0, 0, 0, 1, 1))
    return weight


def refuse_slice_weights(checkpoint: str | Path) -> NoReturn:
    """Stop, because the weights in a file fit nowhere."""
    raise SystemExit(
        f"error: {checkpoint} holds another network than that of lesion_segmentation_2d's "
        "train.json; leave slice_weights away or give weights of that network"
    )
