"""MONAI's U-Net taken apart; written from tools/bundles/modules, edit it there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets import UNet
from monai.networks.utils import copy_model_state
from torch import nn

from .slice_weights import read_slice_weights, refuse_slice_weights


def unet_parts(unet: UNet) -> tuple[list[nn.Module], nn.Module, list[nn.Module]]:
    """Take a U-Net's nested blocks apart: encoder from the top, bottom, decoder from below."""
    encoder: list[nn.Module] = []
    decoder: list[nn.Module] = []
    block: nn.Module = unet.model
    while isinstance(block, nn.Sequential) and isinstance(block[1], SkipConnection):
        encoder.append(block[0])
        decoder.insert(0, block[2])
        block = block[1].submodule
    return encoder, block, decoder


def start_unet(unet: UNet, checkpoint: str | Path) -> Mapping[str, torch.Tensor]:
    """Give a U-Net what the network of the bundle lesion_segmentation_2d has learned.

    Levels that this U-Net has beyond that network's stay as they are, and so does the level above
    them, whose input they change.

    Parameters
    ----------
    unet
        As in that bundle's ``train.json``, or deeper; it may see each slice alone.
    checkpoint
        ``model.pt`` of that bundle.

    Returns
    -------
    mapping
        All weights of the checkpoint, see `read_slice_weights`.

    Raises
    ------
    SystemExit
        With one line where there is no such file or it fits nowhere.
    """
    weights = read_slice_weights(checkpoint, unet.in_channels)
    _, taken, _ = copy_model_state(
        unet, {key.removeprefix("0."): value for key, value in weights.items()}
    )
    if not taken:
        refuse_slice_weights(checkpoint)
    return weights
