"""The loss of both heads (paper 2.4 and 4.4)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import nn


class MultitaskLoss(nn.Module):
    """Weighted sum of two binary cross-entropies; a study teaches one head only.

    Parameters
    ----------
    identification_weight
        Factor of the identification head's part (0.1 in the paper).
    lesion_positive_weight
        Weight of lesion pixels against others (1 in the paper).
    dice_weight
        Factor of a Dice loss over the lesions of the batch, which short trainings need: few
        pixels are lesion, and cross-entropy alone takes long to leave "nowhere" (0 in the paper).
    """

    def __init__(
        self,
        identification_weight: float = 0.1,
        lesion_positive_weight: float = 1.0,
        dice_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.identification_weight = identification_weight
        self.dice_weight = dice_weight
        self.dice = DiceLoss(sigmoid=True, batch=True)
        self.register_buffer("lesion_positive_weight", torch.tensor(lesion_positive_weight))

    def forward(
        self, pred: Mapping[str, torch.Tensor], label: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Compute the loss of a batch.

        Parameters
        ----------
        pred
            Logits: "identification" (studies, 1) and, where the network has that head, "lesion"
            (studies, 1, rows, columns, slices).
        label
            "supervises_lesion" (studies,) of 0 and 1; "covid19" (studies,) and "lesion" (as in
            `pred`), each read only where it is supervised.
        """
        teaches_lesion = label["supervises_lesion"].bool()
        identification = F.binary_cross_entropy_with_logits(
            pred["identification"][~teaches_lesion, 0],
            label["covid19"][~teaches_lesion].float(),
            reduction="sum",
        ) / (~teaches_lesion).sum().clamp(min=1)
        loss = self.identification_weight * identification
        if "lesion" in pred:
            # A sum over no study is 0 and still reaches every parameter of the head.
            lesion = F.binary_cross_entropy_with_logits(
                pred["lesion"][teaches_lesion],
                label["lesion"][teaches_lesion].float(),
                pos_weight=self.lesion_positive_weight.to(pred["lesion"].device),
                reduction="sum",
            )
            voxels = teaches_lesion.sum().clamp(min=1) * pred["lesion"][0].numel()
            loss = loss + lesion / voxels
            if self.dice_weight and teaches_lesion.any():
                dice = self.dice(pred["lesion"][teaches_lesion], label["lesion"][teaches_lesion])
                loss = loss + self.dice_weight * dice
        return loss
