"""Two looks at a slice, averaged; written from tools/bundles/modules, edit it there."""

import torch
import torch.nn.functional as F
from torch import nn


class SmoothedMirror(nn.Module):
    """A slice for the second look: smoothed, and mirrored along its columns.

    Parameters
    ----------
    sigma_pixels
        Deviation of the Gaussian.
    """

    kernel: torch.Tensor

    def __init__(self, sigma_pixels: float) -> None:
        super().__init__()
        self.radius = max(1, round(3 * sigma_pixels))
        offsets = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (offsets / sigma_pixels) ** 2)
        # Made from the config, so it is no part of the checkpoint.
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None, None], persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return (n, channels, rows, columns) as they came in, each channel smoothed by itself."""
        padding = [self.radius, self.radius, self.radius, self.radius]
        padded = F.pad(image, padding, mode="replicate").flatten(0, 1)[:, None]
        kernel = self.kernel.to(image.dtype)
        smoothed = F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3)).reshape(image.shape)
        return smoothed.flip(-1)


def logit_of_mean(first: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Return the logit of the mean probability of both looks, from their logits.

    Parameters
    ----------
    first, mirrored
        (n, 1, rows, columns), those of the slice and of its mirror image, as they came out.
    """
    looks = torch.stack((first.float(), mirrored.flip(-1).float()))
    # From logarithms: it stays exact where both looks are certain. softplus, because ONNX takes
    # log(sigmoid) apart and overflows.
    ill, healthy = -F.softplus(-looks), -F.softplus(looks)
    return torch.logsumexp(ill, 0) - torch.logsumexp(healthy, 0)
