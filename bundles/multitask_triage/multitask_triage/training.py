"""How studies become batches of slices."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.inferers import Inferer
from monai.networks import copy_model_state
from monai.networks.nets import UNet
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_dst_type, convert_to_tensor

from .network import MultitaskTriage
from .unet import start_unet


class DrawSlicesd(MapTransform, Randomizable):
    """Draw a fixed number of slices from all heights of a study, in their order.

    The study is divided into as many equal parts along its last axis; a random slice of each is
    taken (paper 4.4: batches of series; its authors leave each k-th slice, 32 in all).

    Parameters
    ----------
    keys
        Arrays of (channels, rows, columns, slices), equally long.
    count
        How many slices.
    """

    def __init__(self, keys: KeysCollection, count: int) -> None:
        super().__init__(keys)
        self.count = count

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the study with the drawn slices."""
        study = dict(data)
        slices = study[self.keys[0]].shape[-1]
        places = (np.arange(self.count) + self.R.random(self.count)) * slices / self.count
        indices = places.astype(int).tolist()
        for key in self.key_iterator(study):
            study[key] = study[key][..., indices]
        return study


class StudyInferer(Inferer):
    """Hand studies to a network of this package and name its outputs."""

    def __call__(
        self,
        inputs: torch.Tensor,
        network: torch.nn.Module,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Run a network on whole studies.

        Parameters
        ----------
        inputs
            (studies, channels, rows, columns, slices).
        network
            `MultitaskTriage` or `SliceClassifier`.

        Returns
        -------
        dict
            Logits: "identification" (studies, 1) and, of a network with that head, "lesion"
            (studies, 1, rows, columns, slices).
        """
        studies, channels, rows, columns, slices = inputs.shape
        # Metadata of a study say nothing of a slice.
        plain = convert_to_tensor(inputs, track_meta=False)
        series = plain.permute(0, 4, 1, 2, 3).reshape(-1, channels, rows, columns)
        output = network(series, studies, *args, **kwargs)
        if isinstance(output, torch.Tensor):
            return {"identification": output}
        lesion, identification = output
        # On the grid of the studies again, with its spacing where they have one.
        lesion = lesion.unflatten(0, (studies, slices)).permute(0, 2, 3, 4, 1)
        return {
            "lesion": convert_to_dst_type(lesion, inputs)[0],
            "identification": identification,
        }


def start_from_slices(network: MultitaskTriage, unet: UNet, checkpoint: str | Path) -> None:
    """Begin with what a network of the bundle lesion_segmentation_2d has learned.

    Its U-Net has a level less: the two lowest levels here stay as they are, and the identification
    head too.

    Parameters
    ----------
    network, unet
        The network and the U-Net that it was made of.
    checkpoint
        ``model.pt`` of that bundle.

    Raises
    ------
    SystemExit
        With one line where there is no such file or it fits nowhere.
    """
    weights = start_unet(unet, checkpoint)
    head = {key.removeprefix("1."): value for key, value in weights.items()}
    copy_model_state(network.lesion, head)


def prepare_batch(
    batch: Mapping[str, Any],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    **kwargs: Any,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Split a batch into images and what `MultitaskLoss` wants to know of them."""
    move = {"device": device, "non_blocking": non_blocking, **kwargs}
    label = {
        key: convert_to_tensor(batch[key], track_meta=False).to(**move)
        for key in ("lesion", "covid19", "supervises_lesion")
        if key in batch
    }
    return batch["image"].to(**move), label
