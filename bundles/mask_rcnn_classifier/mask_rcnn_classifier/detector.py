"""Mask R-CNN for ground glass and consolidation (paper 3.1, tables 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import maskrcnn_inference
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign, nms

LESION_CLASSES = 3
"""Background, ground glass (1), consolidation (2)."""
MASK_THRESHOLD = 0.5
"""Probability from which a pixel belongs to a detection."""


class SlicesAsTheyAre(GeneralizedRCNNTransform):
    """Batch slices without normalising or resizing them, in training and in evaluation.

    torchvision's own option to skip resizing holds in training only.

    Parameters
    ----------
    divisor
        Rows and columns are padded with zeros to multiples of it.
    """

    def __init__(self, divisor: int) -> None:
        # The sizes are read by `resize` alone.
        super().__init__(1, 1, image_mean=[0.0], image_std=[1.0], size_divisible=divisor)

    def resize(
        self, image: torch.Tensor, target: dict[str, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
        """Return what came in."""
        return image, target


class LesionDetector(MaskRCNN):
    """torchvision's Mask R-CNN, which looks twice when it detects and ranks by masks too.

    In evaluation it sees each slice as it is and mirrored; classes, boxes and masks of a region are
    the means of both.

    The score of a box says what it holds, not how well that is outlined (Huang et al. 2019, "Mask
    Scoring R-CNN"). So it is multiplied by the mean probability of the mask's pixels (Wang et al.
    2020, "SOLO").
    """

    @torch.jit.unused
    def forward(
        self,
        images: list[torch.Tensor],
        targets: list[dict[str, torch.Tensor]] | None = None,
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """Return losses by name in training, otherwise what is detected on each slice.

        Parameters
        ----------
        images
            Slices (channels, rows, columns) in 0..1.
        targets
            In training, of each slice: see `data.lesion_targets`.

        Returns
        -------
        dict or list of dict
            In evaluation "boxes" (n, 4), "labels" (n,), "scores" (n,) and "masks" (n, 1, rows,
            columns), probabilities, of each slice.
        """
        if self.training:
            return super().forward(images, targets)
        result = self.detect(images)
        for found in result:
            masks = found["masks"]
            inside = masks >= MASK_THRESHOLD
            pixels = inside.sum(dim=(1, 2, 3)).clamp(min=1)
            found["scores"] = found["scores"] * (masks * inside).sum(dim=(1, 2, 3)) / pixels
        return result

    def detect(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """Detect as `MaskRCNN` does, by the means over slices and their mirror images."""
        heads = self.roi_heads
        views, _ = self.transform([*images, *(image.flip(-1) for image in images)])
        sizes = views.image_sizes[: len(images)]
        features = self.backbone(views.tensors)
        proposals, _ = self.rpn(views, features)
        regions = self.best_of(proposals[: len(images)], _mirrored(proposals[len(images) :], sizes))
        pooled = heads.box_roi_pool(
            features, regions + _mirrored(regions, sizes), views.image_sizes
        )
        logits, regression = heads.box_predictor(heads.box_head(pooled))
        probabilities = torch.stack(logits.softmax(-1).chunk(2)).mean(0)
        # The first of a box's four numbers is its shift along the columns.
        codes, codes_mirrored = regression.unflatten(1, (-1, 4)).chunk(2)
        codes = (codes + codes_mirrored * codes.new_tensor([-1, 1, 1, 1])) / 2
        boxes, scores, labels = heads.postprocess_detections(
            probabilities.log(), codes.flatten(1), regions, sizes
        )
        looks = boxes + _mirrored(boxes, sizes)
        pooled = heads.mask_roi_pool(features, looks, views.image_sizes)
        masks = maskrcnn_inference(heads.mask_predictor(heads.mask_head(pooled)), labels * 2)
        placed = [
            place_masks(mask, box, size)
            for mask, box, size in zip(masks, looks, views.image_sizes, strict=True)
        ]
        seen, mirrored = placed[: len(images)], placed[len(images) :]
        return [
            {"boxes": box, "scores": score, "labels": label, "masks": (mask + turned.flip(-1)) / 2}
            for box, score, label, mask, turned in zip(
                boxes, scores, labels, seen, mirrored, strict=True
            )
        ]

    def best_of(self, seen: list[torch.Tensor], mirrored: list[torch.Tensor]) -> list[torch.Tensor]:
        """Choose from the proposals of both looks, best first, as many as of one."""
        number, overlap = self.rpn.post_nms_top_n(), self.rpn.nms_thresh
        regions = []
        for looks in zip(seen, mirrored, strict=True):
            boxes = torch.cat(looks)
            places = torch.cat([torch.arange(len(look), device=look.device) for look in looks])
            regions.append(boxes[nms(boxes, -places.to(boxes), overlap)[:number]])
        return regions


def place_masks(masks: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Place the masks of boxes where the boxes lie on a slice, to a fraction of a pixel.

    torchvision's own way rounds a box to whole pixels and makes it a pixel wider and higher, which
    is a third more of a lesion of 7 x 7 pixels. Interpolation is bilinear, as there, by weights of
    rows and columns.

    Parameters
    ----------
    masks
        Probabilities (n, 1, m, m) on a grid over each box, sampled as torchvision does for the
        masks to learn from: a pixel's index is its centre.
    boxes
        Their corners (n, 4), x1, y1, x2, y2.
    size
        Rows and columns of the slice.

    Returns
    -------
    torch.Tensor
        Probabilities (n, 1, rows, columns), 0 outside of the boxes.
    """
    cells = torch.arange(masks.shape[-1], device=boxes.device)
    weights = []
    for axis, length in enumerate(size):
        low, high = boxes[:, 1 - axis, None], boxes[:, 3 - axis, None]
        pixels = torch.arange(length, device=boxes.device)
        place = (pixels - low) / (high - low) * len(cells) - 0.5
        near = 1 - (place.clamp(0, len(cells) - 1)[..., None] - cells).abs()
        # Boxes end at the edges of pixels, half a pixel from their centres.
        inside = (pixels + 0.5 >= low) & (pixels + 0.5 <= high)
        weights.append(near.clamp(min=0) * inside[..., None])
    rows, columns = weights
    return (rows @ masks[:, 0] @ columns.mT)[:, None]


def _mirrored(
    boxes: Sequence[torch.Tensor], sizes: Sequence[tuple[int, int]]
) -> list[torch.Tensor]:
    """Mirror boxes (n, 4) of x1, y1, x2, y2 along the columns of slices (rows, columns)."""
    turned = []
    for box, (_, columns) in zip(boxes, sizes, strict=True):
        left, top, right, bottom = box.unbind(1)
        turned.append(torch.stack([columns - right, top, columns - left, bottom], dim=1))
    return turned


def mask_rcnn(
    backbone: nn.Module,
    box_features: int = 128,
    anchor_sizes: Sequence[Sequence[int]] | None = None,
    aspect_ratios: Sequence[float] = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0),
    proposals: int = 1000,
    foreground_iou: float = 0.75,
    regions: int = 256,
    nms_threshold: float = 0.25,
) -> LesionDetector:
    """Build Mask R-CNN with the paper's hyperparameters for slices as they are.

    Parameters
    ----------
    backbone
        Its feature pyramid, with `out_channels` and `levels`: see `backbones`.
    box_features
        Width of the box branch.
    anchor_sizes
        Pixels of the anchors at each place of each level; by default all of 2^2 to 2^5 (table 2)
        on every level.
    aspect_ratios
        Of the anchors of each size (table 2: six "scales").
    proposals
        Regions a slice that the region proposal network passes on, of twice as many on each
        level before overlapping ones are dropped. Their pooling is most of the work, above all in
        training the classifier.
    foreground_iou
        Overlap with a lesion that makes an anchor or region one in training (0.75 in the paper). A
        backbone that starts from random weights meets few regions above a high one.
    regions
        Regions a slice that the box branch learns from, at most a quarter of them lesions; only
        those go through the mask branch, which is most of the work of training (256 in the paper).
    nms_threshold
        Overlap from which the lower of two detected boxes of a class is dropped.

    Raises
    ------
    ValueError
        If `anchor_sizes` are not of as many levels as the backbone has.
    """
    channels, levels = backbone.out_channels, backbone.levels
    sizes = ((4, 8, 16, 32),) * levels if anchor_sizes is None else anchor_sizes
    if len(sizes) != levels:
        raise ValueError(f"anchor_sizes are of {len(sizes)} levels, the backbone has {levels}")
    names = [str(level) for level in range(levels - 1)]
    detector = LesionDetector(
        backbone,
        rpn_anchor_generator=AnchorGenerator(
            tuple(tuple(level) for level in sizes), (tuple(aspect_ratios),) * levels
        ),
        rpn_nms_thresh=0.75,
        rpn_fg_iou_thresh=foreground_iou,
        rpn_batch_size_per_image=256,
        rpn_pre_nms_top_n_train=2 * proposals,
        rpn_pre_nms_top_n_test=2 * proposals,
        rpn_post_nms_top_n_train=proposals,
        rpn_post_nms_top_n_test=proposals,
        box_roi_pool=MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2),
        box_head=TwoMLPHead(channels * 7 * 7, box_features),
        box_predictor=FastRCNNPredictor(box_features, LESION_CLASSES),
        box_nms_thresh=nms_threshold,
        box_fg_iou_thresh=foreground_iou,
        box_bg_iou_thresh=foreground_iou,
        box_batch_size_per_image=regions,
        box_score_thresh=0.05,
        box_detections_per_img=100,
        mask_roi_pool=MultiScaleRoIAlign(names, output_size=14, sampling_ratio=2),
        mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, LESION_CLASSES),
    )
    detector.transform = SlicesAsTheyAre(backbone.divisor)
    return detector


def copy_weights(detector: MaskRCNN, checkpoint: str | Path) -> None:
    """Give a detector the weights that the segmentation stage saved (paper, figure 3).

    Raises
    ------
    SystemExit
        With one line where there is no such file or it holds another network.
    """
    if not Path(checkpoint).is_file():
        raise SystemExit(
            f"error: {checkpoint} does not exist; train the segmentation stage or name its "
            "weights with --segmentation_checkpoint"
        )
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    try:
        detector.load_state_dict(saved.get("model", saved))
    except RuntimeError as error:
        raise SystemExit(
            f"error: {checkpoint} holds no weights of this detector; name a checkpoint of the "
            "segmentation stage with the same backbone"
        ) from error


def opacity_map(detection: dict[str, torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
    """Paint a slice's detections, the surest last: (rows, columns) uint8 of 0, 1 and 2."""
    result = torch.zeros(tuple(shape), dtype=torch.uint8)
    for index in detection["scores"].argsort().tolist():
        result[detection["masks"][index, 0] >= MASK_THRESHOLD] = int(detection["labels"][index])
    return result
