"""Multitask triage of chest CT: lesion segmentation and COVID-19 identification in one network.

Goncharov M. et al. CT-Based COVID-19 triage: Deep multitask learning improves joint identification
and severity quantification. Medical Image Analysis 71, 2021. Sections 2.3, 2.4, 4.1 and 4.4.
"""

from .evaluation import TriageMetrics
from .loss import MultitaskLoss
from .lungs import LungRegiond
from .network import LesionMap, MultitaskTriage, SliceClassifier
from .pyramid import IdentificationHead, PyramidMaxPool
from .shared import held_out
from .studies import find_studies, training_samples, with_lung_masks
from .training import DrawSlicesd, StudyInferer, prepare_batch, start_from_slices

__all__ = [
    "DrawSlicesd",
    "IdentificationHead",
    "LesionMap",
    "LungRegiond",
    "MultitaskLoss",
    "MultitaskTriage",
    "PyramidMaxPool",
    "SliceClassifier",
    "StudyInferer",
    "TriageMetrics",
    "find_studies",
    "held_out",
    "prepare_batch",
    "start_from_slices",
    "training_samples",
    "with_lung_masks",
]
