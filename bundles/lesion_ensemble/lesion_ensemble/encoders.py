"""The two residual networks that no library offers (CoRSAI, sections 4.1.2 and 4.1.4)."""

from __future__ import annotations

import torch
import torchvision
from segmentation_models_pytorch.encoders import encoders
from segmentation_models_pytorch.encoders.resnet import ResNetEncoder
from torchvision.models.resnet import BasicBlock

# The paper names ResNet-21 without its blocks. Twenty-one layers are the stem and ten blocks of
# two convolutions each; spread like this they stay below 25 MB in half precision.
RESNET21_BLOCKS = [3, 3, 3, 1]

encoders["resnet21"] = {
    "encoder": ResNetEncoder,
    "pretrained_settings": {},
    "params": {
        "out_channels": [3, 64, 64, 128, 256, 512],
        "block": BasicBlock,
        "layers": RESNET21_BLOCKS,
    },
}


class PlainResNet18(torch.nn.Sequential):
    """ResNet-18 without its pooling and fully connected layers, as a segmentation network.

    Without pooling a feature stands for 16 x 16 pixels. The paper does not say how they become
    pixels again: here a 1 x 1 convolution gives a logit for each of the 256, and nothing is
    interpolated.

    Parameters
    ----------
    in_channels : int
        Channels of the image.

    Notes
    -----
    Takes (slices, in_channels, rows, columns), rows and columns multiples of 16; returns logits
    (slices, 1, rows, columns).
    """

    STRIDE = 16

    def __init__(self, in_channels: int = 1) -> None:
        resnet = torchvision.models.resnet18(weights=None)
        stem = torch.nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        super().__init__(
            stem,
            resnet.bn1,
            resnet.relu,
            resnet.layer1,
            resnet.layer2,
            resnet.layer3,
            resnet.layer4,
            torch.nn.Conv2d(512, self.STRIDE**2, kernel_size=1),
            torch.nn.PixelShuffle(self.STRIDE),
        )
