"""What MONAI's trainers need to run both stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.utils import apply_to_tensor
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torchvision.models.detection import MaskRCNN

from .classifier import LesionClassifier
from .data import CLASSES
from .detector import opacity_map
from .metrics import smooth_along_slices


def collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack images and categories ("label") of a batch; everything else becomes a list."""
    result: dict[str, Any] = {key: [item[key] for item in batch] for key in batch[0]}
    images = [convert_to_tensor(image, track_meta=False) for image in result["image"]]
    result["image"] = torch.stack(images).float()
    result["label"] = torch.tensor(result.pop("category"))
    return result


def prepare_detection(
    batch: Mapping[str, Any],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    **kwargs: Any,
) -> tuple[Any, ...]:
    """Split a batch into slices and targets; Mask R-CNN computes its losses from both."""
    move = {"device": device, "non_blocking": non_blocking, **kwargs}
    images = list(batch["image"].to(**move))
    targets = [{k: v.to(**move) for k, v in target.items()} for target in batch["target"]]
    return images, targets, (targets,), {}


def sum_of_losses(pred: Mapping[str, torch.Tensor], _targets: Any) -> torch.Tensor:
    """Add Mask R-CNN's five losses (paper, equation 1)."""
    return torch.stack(list(pred.values())).sum()


def compute_in_bfloat16(detector: MaskRCNN, device_type: str) -> None:
    """Let a detector compute its feature maps and branches in bfloat16, boxes in float32.

    Parameters
    ----------
    detector
        Changed in place.
    device_type
        "cpu" or "cuda", where it runs.
    """
    heads = detector.roi_heads
    for part in (
        *(detector.backbone, detector.rpn.head),
        *(heads.box_head, heads.mask_head, heads.mask_predictor),
    ):
        part.forward = torch.autocast(device_type, torch.bfloat16)(part.forward)
        part.register_forward_hook(lambda _part, _input, output: apply_to_tensor(output, _float))


def _float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float()


def one_hot(logits: torch.Tensor, category: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of the classes' logits, each a yes or no (paper, equation 2)."""
    truth = torch.nn.functional.one_hot(category, len(CLASSES)).to(logits)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)


class SliceInferer(Inferer):
    """Run the classifier, and where wanted its detector, on the slices of one study.

    Parameters
    ----------
    smooth_slices_mm
        Deviation of the Gaussian that smooths logits along the slices.
    chunk_slices
        Slices at a time.
    with_opacity
        Also paint what is detected.
    """

    def __init__(
        self, smooth_slices_mm: float, chunk_slices: int = 16, with_opacity: bool = True
    ) -> None:
        super().__init__()
        self.smooth_slices_mm = smooth_slices_mm
        self.chunk_slices = chunk_slices
        self.with_opacity = with_opacity

    def __call__(
        self, inputs: MetaTensor, network: LesionClassifier, *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Classify (1, channels, rows, columns, slices) with the affine of its slices.

        Returns
        -------
        dict
            "slices": probabilities (1, slices, classes); "opacity": (1, 1, rows, columns, slices)
            of 0, 1 (ground glass) and 2 (consolidation).
        """
        plain = convert_to_tensor(inputs, track_meta=False)
        series = plain[0].permute(3, 0, 1, 2)
        logits, maps = [], []
        for chunk in series.split(self.chunk_slices):
            logits.append(network(chunk, *args, **kwargs))
            if self.with_opacity:
                detections = network.detector(list(chunk))
                maps += [opacity_map(found, chunk.shape[-2:]) for found in detections]
        slice_mm = float(inputs.pixdim[0][-1])
        smooth = smooth_along_slices(torch.cat(logits).cpu(), slice_mm, self.smooth_slices_mm)
        result = {"slices": torch.from_numpy(smooth).sigmoid().float()[None]}
        if self.with_opacity:
            result["opacity"] = torch.stack(maps, dim=-1)[None, None]
        return result
