"""COVID-CT-Mask-Net: classify chest CT slices by the lesions that Mask R-CNN detects.

Ter-Sarkisov A. COVID-CT-Mask-Net: Prediction of COVID-19 from CT scans using regional features.
Applied Intelligence 52, 2022.
"""

from .backbones import UNetPyramid, resnet_pyramid, start_from_slices
from .classifier import LesionClassifier, rank_boxes
from .data import (
    CLASSES,
    class_weights,
    draw_images,
    find_studies,
    lesion_targets,
    read_slices,
)
from .detector import copy_weights, mask_rcnn
from .engine import (
    SliceInferer,
    collate,
    compute_in_bfloat16,
    one_hot,
    prepare_detection,
    sum_of_losses,
)
from .metrics import (
    ClassificationMetrics,
    DetectionMetrics,
    StudyTable,
    aggregate_slices,
    smooth_along_slices,
)
from .shared import held_out

__all__ = [
    "CLASSES",
    "ClassificationMetrics",
    "DetectionMetrics",
    "LesionClassifier",
    "SliceInferer",
    "StudyTable",
    "UNetPyramid",
    "aggregate_slices",
    "class_weights",
    "collate",
    "compute_in_bfloat16",
    "copy_weights",
    "draw_images",
    "find_studies",
    "held_out",
    "lesion_targets",
    "mask_rcnn",
    "one_hot",
    "prepare_detection",
    "rank_boxes",
    "read_slices",
    "resnet_pyramid",
    "smooth_along_slices",
    "start_from_slices",
    "sum_of_losses",
]
