"""What Mask R-CNN finds lesions in: pyramids of feature maps of a slice and its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.networks.nets import UNet
from torch import nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from torchvision.ops.misc import Conv2dNormActivation

from .unet import start_unet, unet_parts


class UNetPyramid(nn.Module):
    """The decoder of a U-Net as a feature pyramid.

    Its levels have a half, a fourth and so on of the slice's resolution, down to the lowest level
    of the decoder, and one more that is pooled from that. The map of full resolution goes into the
    first level, the four pixels of each of its places as channels, so that no detail is lost.

    Parameters
    ----------
    unet
        Two-dimensional, every stride 2.
    channels
        Of each level.

    Attributes
    ----------
    out_channels : int
        As torchvision's detectors want to know them.
    levels : int
        How many maps `forward` returns.
    divisor : int
        What rows and columns must be multiples of.
    """

    def __init__(self, unet: UNet, channels: int = 64) -> None:
        super().__init__()
        encoder, self.bottom, decoder = unet_parts(unet)
        self.encoder = nn.ModuleList(encoder)
        self.decoder = nn.ModuleList(decoder)
        first, *others = unet.channels[: len(encoder) - 1]
        widths = [4 * unet.out_channels + first, *others]
        self.lateral = nn.ModuleList(Conv2dNormActivation(width, channels) for width in widths)
        self.out_channels = channels
        self.levels = len(widths) + 1
        self.divisor = 2 ** len(encoder)

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map (n, channels, rows, columns) to levels "0", "1", ... and "pool", the finest first."""
        x = slices
        skips: list[torch.Tensor] = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        x = self.bottom(x)
        maps: list[torch.Tensor] = []
        for number, block in enumerate(self.decoder):
            x = block(torch.cat([skips[-1 - number], x], dim=1))
            maps.append(x)
        maps[-2] = torch.cat([F.pixel_unshuffle(maps[-1], 2), maps[-2]], dim=1)
        pyramid: dict[str, torch.Tensor] = {}
        for level, lateral in enumerate(self.lateral):
            x = lateral(maps[-2 - level])
            pyramid[str(level)] = x
        pyramid["pool"] = F.max_pool2d(x, 1, 2)
        return pyramid


def resnet_pyramid(
    name: str = "resnet50", stages: Sequence[int] = (1, 2, 3, 4), channels: int = 128
) -> nn.Module:
    """Build a torchvision ResNet with its feature pyramid, as in the paper, from random weights.

    It takes three channels: a slice between its neighbours.

    Parameters
    ----------
    name
        "resnet18", "resnet50" and so on.
    stages
        Residual stages whose output goes into the pyramid; later ones are left away.
    channels
        Of each level.

    Returns
    -------
    torch.nn.Module
        With the attributes of `UNetPyramid`.
    """
    pyramid = resnet_fpn_backbone(
        backbone_name=name,
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=list(stages),
    )
    widths = [pyramid.fpn.inner_blocks[i][0].in_channels for i in range(len(stages))]
    pyramid.fpn = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())
    pyramid.out_channels = channels
    pyramid.levels = len(stages) + 1
    pyramid.divisor = 2 ** (max(stages) + 1)
    return pyramid


def start_from_slices(backbone: nn.Module, unet: UNet, checkpoint: str | Path) -> None:
    """Begin with what the network of the bundle lesion_segmentation_2d has learned.

    Parameters
    ----------
    backbone, unet
        The backbone and the U-Net that it was made of.
    checkpoint
        ``model.pt`` of that bundle.

    Raises
    ------
    SystemExit
        With one line where there is no such file, it fits nowhere, or the backbone is no U-Net.
    """
    if not isinstance(backbone, UNetPyramid):
        raise SystemExit(
            "error: slice_weights are of a U-Net and the backbone is none; leave them away"
        )
    start_unet(unet, checkpoint)
