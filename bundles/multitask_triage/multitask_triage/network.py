"""The networks of sections 2.3 (ResNet50) and 2.4 (Multitask): slices of a study in, both out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.nets import UNet
from monai.utils import convert_to_tensor
from torch import nn

from .looks import SmoothedMirror, logit_of_mean
from .pyramid import IdentificationHead
from .unet import unet_parts


class MultitaskTriage(nn.Module):
    """Slice-wise U-Net whose feature maps also identify the study (paper 2.4, figure 3).

    Outside of training, lesions are told from two looks at each slice, as it is and its smoothed
    mirror image, by the mean of their probabilities. The study is identified by the first look.

    Parameters
    ----------
    unet
        Where encoder, bottom and decoder come from; two-dimensional, every stride 2. Its output
        channels are the feature maps of the uppermost level, from which the lesions are told.
    feature_map
        What the identification head sees. "spatial_l", l from 1 to the number of levels: the
        l-th upper level of the decoder (the last one is the bottom). "latent": the bottom without
        its place in the plane, as one maximum a channel and slice.
    pyramid_levels, hidden, dropout
        See `IdentificationHead`.
    chunk_slices
        Slices that go through the U-Net together in inference; bounds memory and changes no
        result.
    identification_only
        Whether only the identification head learns; the U-Net then stays in evaluation mode.
    sigma_pixels
        Deviation of the Gaussian that smooths a slice for the second look.

    Raises
    ------
    ValueError
        On an unknown feature map.
    """

    def __init__(
        self,
        unet: UNet,
        feature_map: str = "spatial_1",
        pyramid_levels: int = 4,
        hidden: int = 128,
        dropout: float = 0.5,
        chunk_slices: int = 16,
        identification_only: bool = False,
        sigma_pixels: float = 0.8,
    ) -> None:
        super().__init__()
        encoder, bottom, decoder = unet_parts(unet)
        depth = len(encoder) + 1
        names = {f"spatial_{level}": level for level in range(1, depth + 1)} | {"latent": depth}
        if feature_map not in names:
            raise ValueError(f"feature_map must be one of {', '.join(names)}, got {feature_map!r}")
        self.encoder = nn.ModuleList(encoder)
        self.bottom = bottom
        self.decoder = nn.ModuleList(decoder)
        self.lesion = nn.Conv2d(unet.out_channels, 1, kernel_size=1)
        # Few pixels are lesion: beginning from there saves the steps to learn it.
        nn.init.constant_(self.lesion.bias, -3.0)
        self.level = names[feature_map]
        channels = [unet.out_channels, *unet.channels[: depth - 2], unet.channels[-1]]
        self.identification = IdentificationHead(
            channels[self.level - 1],
            pyramid_levels,
            in_plane=feature_map != "latent",
            hidden=hidden,
            dropout=dropout,
        )
        self.smoothed_mirror = SmoothedMirror(sigma_pixels)
        self.depth = depth
        self.divisor = 2 ** (depth - 1)
        self.step = 2 ** (self.level - 1)
        self.chunk_slices = chunk_slices
        self.identification_only = identification_only
        if identification_only:
            self.requires_grad_(False)
            self.identification.requires_grad_(True)

    @torch.jit.unused
    def train(self, mode: bool = True) -> MultitaskTriage:
        """Switch what learns."""
        super().train(mode and not self.identification_only)
        self.training = mode
        self.identification.train(mode)
        return self

    def forward(self, slices: torch.Tensor, studies: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Segment and identify.

        Parameters
        ----------
        slices
            (studies * slices, channels, rows, columns) in 0..1, the slices of a study together and
            in their order; any number of slices, rows and columns.
        studies
            How many studies the slices belong to, each with as many.

        Returns
        -------
        tuple
            Lesion logits (studies * slices, 1, rows, columns) and COVID-19 logits (studies, 1).
        """
        # Batch normalisation is trained on all slices at once.
        chunk = slices.shape[0] if _all_at_once(self.training) else self.chunk_slices
        lesions: list[torch.Tensor] = []
        descriptors: list[torch.Tensor] = []
        for start in range(0, slices.shape[0], chunk):
            part = slices[start : start + chunk]
            lesion, features = self._of_chunk(part)
            descriptors.append(self.identification.of_slices(features))
            if not self.training:
                lesion = logit_of_mean(lesion, self._of_chunk(self.smoothed_mirror(part))[0])
            lesions.append(lesion)
        return torch.cat(lesions), self.identification(torch.cat(descriptors), studies)

    @torch.jit.unused
    @torch.no_grad()
    def describe(self, study: torch.Tensor) -> torch.Tensor:
        """Pool the feature maps of a study as far as `identification` can be trained on them.

        Parameters
        ----------
        study
            (channels, rows, columns, slices) in 0..1.

        Returns
        -------
        torch.Tensor
            (channels, bins, bins, slices), rows to columns as in the study.
        """
        self.eval()
        plain = convert_to_tensor(study, track_meta=False).permute(3, 0, 1, 2)
        chunks = plain.split(self.chunk_slices)
        parts = [self.identification.of_slices(self._of_chunk(chunk)[1]) for chunk in chunks]
        return torch.cat(parts).permute(1, 2, 3, 0).contiguous()

    def _of_chunk(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the lesion logits of some slices and the feature maps that identify them."""
        rows, columns = slices.shape[-2], slices.shape[-1]
        bottom, right = -rows % self.divisor, -columns % self.divisor
        x = F.pad(slices, [0, right, 0, bottom])
        skips: list[torch.Tensor] = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        x = self.bottom(x)
        features = x
        for number, block in enumerate(self.decoder):
            x = block(torch.cat([skips[-1 - number], x], dim=1))
            if self.depth - 1 - number == self.level:
                features = x
        # What was padded must not take part in the maxima.
        features = features[..., : -(-rows // self.step), : -(-columns // self.step)]
        return self.lesion(x)[..., :rows, :columns], features


class SliceClassifier(nn.Module):
    """Classification baseline "ResNet50" (paper 2.3): a vector a slice, pooled along the slices.

    Parameters
    ----------
    encoder
        Maps images (slices, n, rows, columns) to vectors (slices, channels).
    channels
        Length of the encoder's vectors.
    pyramid_levels, hidden, dropout, chunk_slices
        See `MultitaskTriage`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        channels: int,
        pyramid_levels: int = 4,
        hidden: int = 128,
        dropout: float = 0.5,
        chunk_slices: int = 16,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.identification = IdentificationHead(
            channels, pyramid_levels, in_plane=False, hidden=hidden, dropout=dropout
        )
        self.chunk_slices = chunk_slices

    def forward(self, slices: torch.Tensor, studies: int = 1) -> torch.Tensor:
        """Identify; as in `MultitaskTriage.forward`, without the lesions."""
        chunk = slices.shape[0] if _all_at_once(self.training) else self.chunk_slices
        vectors: list[torch.Tensor] = []
        for start in range(0, slices.shape[0], chunk):
            vectors.append(self.encoder(slices[start : start + chunk]))
        return self.identification(torch.cat(vectors)[:, :, None, None], studies)


def _all_at_once(training: bool) -> bool:
    """Tell whether all slices go through the network together: an exported trace has no loop."""
    return training or torch.jit.is_tracing()


class LesionMap(nn.Module):
    """The segmentation half alone, for tools that want a network of one output.

    Parameters
    ----------
    network
        Whose lesion logits to return.
    """

    def __init__(self, network: MultitaskTriage) -> None:
        super().__init__()
        self.network = network

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """Segment (slices, channels, rows, columns)."""
        return self.network(slices)[0]
