"""Severity of viral pneumonia from masks: pure arithmetic, no models and no DICOM.

The score is the larger of the two lungs' lesion shares, as in section 2.2 of "CT-based COVID-19
Triage" (arXiv 2006.01441); the categories CT-0..CT-4 are the 25 % steps of the same paper's
introduction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

BoolMask = npt.NDArray[np.bool_]

CATEGORIES = ("CT-0", "CT-1", "CT-2", "CT-3", "CT-4")
DEFAULT_THRESHOLDS_PERCENT = (0.0, 25.0, 50.0, 75.0)


@dataclass(frozen=True, slots=True)
class Segments:
    """The masks of one study, each (slices, rows, columns) on the source grid.

    Lungs hold their lesions; right and left are the patient's and do not overlap. The three are
    parts of one array, ``stack`` (3, slices, rows, columns), as a segmentation wants them.
    """

    right_lung: BoolMask
    left_lung: BoolMask
    lesion: BoolMask
    stack: BoolMask = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Copy the masks into one array, so that nobody needs another copy of all of them."""
        stack = np.stack((self.right_lung, self.left_lung, self.lesion))
        for name, value in zip(
            ("right_lung", "left_lung", "lesion", "stack"), (*stack, stack), strict=True
        ):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Involvement:
    """How much of one lung, or of both, is affected."""

    lung_volume_ml: float
    lesion_volume_ml: float

    @property
    def lesion_share_percent(self) -> float:
        """Lesion volume as a percentage of lung volume; 0 where there is no lung."""
        if self.lung_volume_ml == 0:
            return 0.0
        return 100.0 * self.lesion_volume_ml / self.lung_volume_ml


@dataclass(frozen=True, slots=True)
class SliceClasses:
    """What the classification of a study's slices says of the study.

    Attributes
    ----------
    category : str
        Class of the study.
    probabilities : dict of str to float
        Of each class, 0 to 1; each is a yes or no of its own, so they need not add up to 1.
    slices : dict of str to int
        How many of the slices through the lungs are of each class.
    """

    category: str
    probabilities: dict[str, float]
    slices: dict[str, int]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in one study.

    Attributes
    ----------
    right_lung, left_lung : Involvement
        How much of each lung is affected.
    severity_category : str
        One of ``CATEGORIES``.
    covid19_probability : float or None
        Probability that the study shows COVID-19, 0 to 1; None where that was not asked for or
        could not be told.
    slice_classes : SliceClasses or None
        What a classification of the slices says; None where that was not asked for.
    """

    right_lung: Involvement
    left_lung: Involvement
    severity_category: str
    covid19_probability: float | None = None
    slice_classes: SliceClasses | None = None

    @property
    def both_lungs(self) -> Involvement:
        """Both lungs taken together."""
        return Involvement(
            self.right_lung.lung_volume_ml + self.left_lung.lung_volume_ml,
            self.right_lung.lesion_volume_ml + self.left_lung.lesion_volume_ml,
        )

    @property
    def severity_score_percent(self) -> float:
        """The larger of the two lungs' lesion shares."""
        return severity_score_percent(self.right_lung, self.left_lung)


def severity_score_percent(right_lung: Involvement, left_lung: Involvement) -> float:
    """Return the larger of the two lungs' lesion shares, in percent."""
    return max(right_lung.lesion_share_percent, left_lung.lesion_share_percent)


def ct_classes(scores: npt.ArrayLike, thresholds: Sequence[float]) -> npt.NDArray[np.intp]:
    """Return the CT classes of severity scores as numbers, the indices of ``CATEGORIES``.

    A score on a bound is of the lower class: "25 % or below" is CT-1 (MosMedData, CoRSAI 1). The
    papers give 75 % to CT-3 ("50 to 75 %") and to CT-4 ("75 % and above"); here it is CT-3.

    Parameters
    ----------
    scores : array of float
        Severity scores of any shape.
    thresholds : sequence of 4 floats
        Ascending upper bounds (inclusive) of CT-0, CT-1, CT-2 and CT-3, in the scores' unit.

    Raises
    ------
    ValueError
        If the thresholds are not four ascending numbers.
    """
    thresholds = list(thresholds)
    if len(thresholds) != len(CATEGORIES) - 1 or thresholds != sorted(thresholds):
        raise ValueError(f"severity thresholds must be four ascending numbers, got {thresholds}")
    return np.searchsorted(thresholds, np.asarray(scores, float), side="left")


def severity_category(
    score_percent: float, thresholds_percent: Sequence[float] = DEFAULT_THRESHOLDS_PERCENT
) -> str:
    """Return the CT category of a severity score, one of ``CATEGORIES``; see `ct_classes`.

    Parameters
    ----------
    score_percent : float
        Severity score in percent of the lung.
    thresholds_percent : sequence of 4 floats
        Ascending upper bounds (inclusive) of CT-0, CT-1, CT-2 and CT-3, in percent.
    """
    return CATEGORIES[int(ct_classes(score_percent, thresholds_percent))]


def assess_severity(
    segments: Segments,
    voxel_volume_ml: float,
    thresholds_percent: Sequence[float] = DEFAULT_THRESHOLDS_PERCENT,
) -> Findings:
    """Measure the lungs and their lesions and grade the severity.

    Parameters
    ----------
    segments : Segments
        Masks on the source grid.
    voxel_volume_ml : float
        Volume of one voxel of that grid in millilitres.
    thresholds_percent : sequence of 4 floats
        Category bounds, see :func:`severity_category`.
    """

    def involvement(lung: BoolMask) -> Involvement:
        return Involvement(
            np.count_nonzero(lung) * voxel_volume_ml,
            np.count_nonzero(lung & segments.lesion) * voxel_volume_ml,
        )

    right_lung, left_lung = involvement(segments.right_lung), involvement(segments.left_lung)
    score = severity_score_percent(right_lung, left_lung)
    return Findings(right_lung, left_lung, severity_category(score, thresholds_percent))
