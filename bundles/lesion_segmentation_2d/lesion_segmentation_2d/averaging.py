"""A second look at each slice: smoothed and mirrored, averaged with the first."""

import torch
from torch import nn

from .looks import SmoothedMirror, logit_of_mean


class SecondLook(nn.Module):
    """Average a network's probabilities over a picture and its smoothed mirror image.

    Noise and sharpness differ from scanner to scanner, and a network that learned from few of them
    misses faint lesions in noise and sees the dense ones best in the sharp picture. In training the
    network sees each picture once, as it is.

    Parameters
    ----------
    network
        (n, channels, rows, columns) to logits (n, 1, rows, columns).
    sigma_pixels
        Deviation of the Gaussian that smooths the second picture.
    """

    def __init__(self, network: nn.Module, sigma_pixels: float = 0.8) -> None:
        super().__init__()
        self.network = network
        self.smoothed_mirror = SmoothedMirror(sigma_pixels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 1, rows, columns) of the mean probability; in training, of one look."""
        first = self.network(image)
        if self.training:
            return first
        return logit_of_mean(first, self.network(self.smoothed_mirror(image)))
