"""The slice classifier: ranked boxes of Mask R-CNN through module S (paper 3.2, table 3)."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, clip_boxes_to_image

from .detector import copy_weights

SCORE_THRESHOLD = -0.01
TRAINED = ("s", "s_bn", "box", "full")


def rank_boxes(
    scores: torch.Tensor,
    encoded: torch.Tensor,
    boxes: torch.Tensor,
    number: int,
    nms_threshold: float,
    score_threshold: float = SCORE_THRESHOLD,
) -> torch.Tensor:
    """Order a slice's predictions by score and keep a fixed number (paper 3.2.1, 3.2.2).

    Parameters
    ----------
    scores
        (regions, classes) probabilities, background first.
    encoded
        (regions, classes, 4) box regressions.
    boxes
        (regions, classes, 4) the same decoded, within the slice.
    number
        How many rows to return.
    nms_threshold
        Overlap from which the lower of two boxes of a class is dropped.
    score_threshold
        Predictions at or below it are dropped; a negative one accepts all.

    Returns
    -------
    torch.Tensor
        (number, 5): encoded box and score, the highest score first; the class is forgotten and
        empty boxes are dropped. Fewer predictions are repeated in their order to fill the rows;
        zeros where there is none.
    """
    classes = scores.shape[1]
    labels = torch.arange(1, classes, device=scores.device).expand(scores.shape[0], -1).flatten()
    score = scores[:, 1:].flatten()
    code = encoded[:, 1:].reshape(-1, 4)
    box = boxes[:, 1:].reshape(-1, 4)
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    kept = torch.where((area > 0) & (score > score_threshold))[0]
    kept = kept[batched_nms(box[kept], score[kept], labels[kept], nms_threshold)][:number]
    if kept.numel() == 0:
        return torch.zeros(number, 5, dtype=scores.dtype, device=scores.device)
    rows = torch.cat([code[kept], score[kept, None]], dim=1)
    places = torch.arange(number, device=scores.device) * rows.shape[0] // number
    return rows[places]


class LesionClassifier(nn.Module):
    """Mask R-CNN without losses, then module S on its ranked boxes: three logits a slice.

    The detector stays in evaluation mode whatever `train` says (paper 4.2); gradients pass through
    it all the same. Proposals carry none, as everywhere in torchvision, so the region proposal
    network's own head is not changed by the full mode.

    The box branch whose boxes are ranked begins as the detector's and is a copy of it: it may
    learn what tells the classes apart while the detector's own goes on detecting.

    Parameters
    ----------
    detector
        Mask R-CNN; its mask branch is not used here.
    trained
        What learns: "s" module S alone, "s_bn" and the backbone's batch normalisation weights,
        "box" module S and the box branch, "full" everything that gradients reach; the detector
        then detects no more.
    number
        Boxes a slice, N of the paper.
    hidden
        Width of the two fully connected layers.
    classes
        Number of logits.
    nms_threshold
        For boxes of a class.

    Raises
    ------
    ValueError
        If `trained` is none of the four.
    """

    def __init__(
        self,
        detector: MaskRCNN,
        trained: str = "box",
        number: int = 256,
        hidden: int = 256,
        classes: int = 3,
        nms_threshold: float = 0.75,
    ) -> None:
        super().__init__()
        if trained not in TRAINED:
            raise ValueError(f"trained must be one of {', '.join(TRAINED)}, got {trained!r}")
        self.detector = detector
        self.box_head = deepcopy(detector.roi_heads.box_head)
        self.box_predictor = deepcopy(detector.roi_heads.box_predictor)
        self.s = nn.Sequential(
            nn.Flatten(),
            nn.Linear(number * 5, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )
        self.number = number
        self.nms_threshold = nms_threshold
        # No target reaches its heads from the class of a slice.
        detector.requires_grad_(False)
        detector.backbone.requires_grad_(trained == "full")
        if trained == "s_bn":
            for module in detector.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.requires_grad_(True)
        for branch in (self.box_head, self.box_predictor):
            branch.requires_grad_(trained in ("box", "full"))
        detector.eval()

    @torch.jit.unused
    def train(self, mode: bool = True) -> LesionClassifier:
        """Switch module S; the detector stays in evaluation mode."""
        super().train(mode)
        self.detector.eval()
        return self

    @torch.jit.unused
    def start_from_detector(self, checkpoint: str | Path) -> None:
        """Take the weights of the segmentation stage; see `copy_weights`."""
        copy_weights(self.detector, checkpoint)
        heads = self.detector.roi_heads
        self.box_head.load_state_dict(heads.box_head.state_dict())
        self.box_predictor.load_state_dict(heads.box_predictor.state_dict())

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """Classify slices (n, channels, rows, columns) in 0..1: logits (n, classes)."""
        return self.s(self.regions(slices))

    def regions(self, slices: torch.Tensor) -> torch.Tensor:
        """Return the ranked boxes and scores of slices, (n, number, 5)."""
        rows, columns = slices.shape[-2], slices.shape[-1]
        shapes = [(rows, columns) for _ in range(slices.shape[0])]
        divisor = self.detector.transform.size_divisible
        padded = F.pad(slices, [0, -columns % divisor, 0, -rows % divisor])
        features = self.detector.backbone(padded)
        images = ImageList(padded, shapes)
        proposals, _ = self.detector.rpn(images, features, None)
        heads = self.detector.roi_heads
        pooled = self.box_head(heads.box_roi_pool(features, proposals, shapes))
        logits, regression = self.box_predictor(pooled)
        decoded = heads.box_coder.decode(regression, proposals)
        scores = logits.softmax(-1)
        encoded = regression.reshape(regression.shape[0], -1, 4)
        result: list[torch.Tensor] = []
        start = 0
        for proposal in proposals:
            end = start + proposal.shape[0]
            result.append(
                rank_boxes(
                    scores[start:end],
                    encoded[start:end],
                    clip_boxes_to_image(decoded[start:end], (rows, columns)),
                    self.number,
                    self.nms_threshold,
                )
            )
            start = end
        return torch.stack(result)
