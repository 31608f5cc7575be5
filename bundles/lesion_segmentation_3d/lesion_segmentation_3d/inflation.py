"""A network of volumes begun from one of slices."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .slice_weights import read_slice_weights, refuse_slice_weights


def start_from_slices(network: nn.Module, checkpoint: str | Path) -> None:
    """Begin with what a network of the bundle lesion_segmentation_2d has learned.

    Each of its kernels becomes the middle slice of a kernel here, between zeros. Until training
    goes on, the network looks at each slice by itself and returns what that network does at its
    first look.

    Parameters
    ----------
    network
        ``Sequential(unet, head)`` of the channels of that bundle's ``train.json``; it may shrink
        rows and columns between levels, not slices.
    checkpoint
        ``model.pt`` of that bundle.

    Raises
    ------
    SystemExit
        With one line where there is no such file or it does not fit.
    """
    weights = read_slice_weights(checkpoint)
    state = network.state_dict()
    if weights.keys() != state.keys():
        refuse_slice_weights(checkpoint)
    inflated = {key: _inflated(value, state[key].shape) for key, value in weights.items()}
    if any(inflated[key].shape != state[key].shape for key in state):
        refuse_slice_weights(checkpoint)
    network.load_state_dict(inflated)


def _inflated(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Put a kernel of slices into the middle of one with a further axis, if `shape` has one."""
    if weight.shape == shape or weight.shape != shape[:-1]:
        return weight
    result = weight.new_zeros(shape)
    result[..., shape[-1] // 2] = weight
    return result
