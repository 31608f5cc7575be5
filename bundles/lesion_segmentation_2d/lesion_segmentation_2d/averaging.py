"""A second look at each slice: smoothed and mirrored, averaged with the first."""

import torch
import torch.nn.functional as F
from torch import nn


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
        self.radius = max(1, round(3 * sigma_pixels))
        offsets = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (offsets / sigma_pixels) ** 2)
        # Made from the config, so it is no part of the checkpoint.
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None, None], persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 1, rows, columns) of the mean probability; in training, of one look."""
        first = self.network(image)
        if self.training:
            return first
        second = self.network(self._smoothed(image).flip(-1)).flip(-1)
        looks = torch.stack((first.float(), second.float()))
        # The logit of the mean, from logarithms: it stays exact where both looks are certain.
        # softplus, because ONNX takes log(sigmoid) apart and overflows.
        ill, healthy = -F.softplus(-looks), -F.softplus(looks)
        return torch.logsumexp(ill, 0) - torch.logsumexp(healthy, 0)

    def _smoothed(self, image: torch.Tensor) -> torch.Tensor:
        padding = [self.radius, self.radius, self.radius, self.radius]
        padded = F.pad(image, padding, mode="replicate").flatten(0, 1)[:, None]
        kernel = self.kernel.to(image.dtype)
        return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3)).reshape(image.shape)
