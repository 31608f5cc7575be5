"""Weights to begin with; written from tools/bundles/modules, edit it there."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import torch


def read_slice_weights(checkpoint: str | Path) -> dict[str, torch.Tensor]:
    """Read what the network of the bundle lesion_segmentation_2d has learned.

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
    return {key.removeprefix("network."): value for key, value in weights.items()}


def refuse_slice_weights(checkpoint: str | Path) -> NoReturn:
    """Stop, because the weights in a file fit nowhere."""
    raise SystemExit(
        f"error: {checkpoint} holds another network than that of lesion_segmentation_2d's "
        "train.json; leave slice_weights away or give weights of that network"
    )
