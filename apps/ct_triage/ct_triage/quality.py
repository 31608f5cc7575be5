"""Say whether a study is one that the models know, before anyone relies on what they find in it.

Two looks are taken at the same features (:mod:`ct_triage.quality_features`): limits that a person
can name, each with a reason of its own, and the Mahalanobis distance to the studies that the
application was tried on, for what nobody has thought of. The numbers of that distance are data,
``quality_reference.json``, which ``python -m tools.calibrate quality`` writes.
"""

import json
import logging
import math
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ct_triage.quality_features import Features, measure
from ct_triage.severity import BoolMask
from ct_triage.volume import Volume

logger = logging.getLogger(__name__)

# Verdicts, from good to bad.
ACCEPTABLE, LIMITED, UNRELIABLE = VERDICTS = ("acceptable", "limited", "unreliable")
# Kinds of reasons; ct_triage.codes has a code for each.
INCOMPLETE = "lungs_incomplete"
FIELD_OF_VIEW = "field_of_view"
NOISE = "noise"
SLICES = "slice_spacing"
ODD_SLICES = "odd_slices"
SCALE = "hounsfield_scale"
IMPLAUSIBLE = "lungs_implausible"
UNKNOWN = "far_from_training"
# With these the numbers mean nothing; with the others they are of a part, or less exact.
_UNRELIABLE_REASONS = (SCALE, IMPLAUSIBLE)

REFERENCE_FILE = Path(__file__).with_name("quality_reference.json")


@dataclass(frozen=True, slots=True)
class Limit:
    """Where a feature stops to be believable.

    Attributes
    ----------
    feature : str
        One of ``FEATURE_NAMES``.
    low, high : float
        Values beyond are a reason; infinite where there is no bound.
    reason : str
        Kind of reason.
    words : str
        What the feature is, for people.
    unit : str
        Of value and limits; '' for a share.
    """

    feature: str
    low: float
    high: float
    reason: str
    words: str
    unit: str = ""


# Wide: nobody's anatomy, disease, scanner or kernel reaches them, and what is left to doubt is left
# to the distance.
LIMITS = (
    # What is left of an adult's lungs in the worst disease is a litre.
    Limit("lung_volume_ml", 600, math.inf, INCOMPLETE, "lung volume", "ml"),
    Limit("lung_height_mm", 110, math.inf, INCOMPLETE, "height of the lungs", "mm"),
    Limit("right_share", 0.1, 0.9, INCOMPLETE, "share of the right lung in both"),
    # A cut through the outer sixth of the lungs, where they taper, changes no share to speak of;
    # it is noted all the same.
    Limit(
        "first_slice_share",
        -math.inf,
        0.6,
        INCOMPLETE,
        "lung area in the first slice over the largest",
    ),
    Limit(
        "last_slice_share",
        -math.inf,
        0.6,
        INCOMPLETE,
        "lung area in the last slice over the largest",
    ),
    Limit(
        "border_share", -math.inf, 0.005, FIELD_OF_VIEW, "share of the lungs on the picture's edge"
    ),
    Limit("noise_hu", -math.inf, 150, NOISE, "noise in soft tissue", "HU"),
    Limit("noisy_slices_hu", -math.inf, 200, NOISE, "noise in the noisiest slices", "HU"),
    Limit(
        "odd_slices",
        -math.inf,
        0,
        ODD_SLICES,
        "slices that are empty, repeated or not what lies between their neighbours",
    ),
    Limit("slice_spacing_mm", -math.inf, 10.5, SLICES, "slice spacing", "mm"),
    Limit("muscle_hu", -60, 180, SCALE, "upper quartile of soft tissue", "HU"),
    Limit("air_hu", -math.inf, -800, SCALE, "air outside the lungs", "HU"),
    Limit("tissue_share", 0.6, math.inf, SCALE, "share of soft tissue in the body"),
    Limit("lung_middle_hu", -970, -200, IMPLAUSIBLE, "median of the lungs", "HU"),
    Limit("rim_air_share", -math.inf, 0.3, IMPLAUSIBLE, "share of air around the lungs"),
    Limit("lung_volume_ml", -math.inf, 13000, IMPLAUSIBLE, "lung volume", "ml"),
    Limit("lung_height_mm", -math.inf, 480, IMPLAUSIBLE, "height of the lungs", "mm"),
    Limit("lung_width_mm", 130, 480, IMPLAUSIBLE, "width of the lungs", "mm"),
    Limit("roughness", -math.inf, 5, IMPLAUSIBLE, "surface of the lungs over that of a ball"),
)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a study is not simply acceptable.

    Attributes
    ----------
    code : str
        Kind of reason, a stable word.
    text : str
        For people, in English.
    value, limit : float
        What was measured, and the bound that it passes.
    """

    code: str
    text: str
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How far the results of a study can be relied on.

    Attributes
    ----------
    reasons : tuple of Reason
        None for an acceptable study.
    distance, distance_limit : float
        Mahalanobis distance to the reference studies, and where the known ends.
    features : Features
        What was measured.
    """

    reasons: tuple[Reason, ...]
    distance: float
    distance_limit: float
    features: Features

    @property
    def verdict(self) -> str:
        """One of ``VERDICTS``: acceptable; limited: of a part, or less exact; unreliable."""
        if any(reason.code in _UNRELIABLE_REASONS for reason in self.reasons):
            return UNRELIABLE
        return LIMITED if self.reasons else ACCEPTABLE


@dataclass(frozen=True, slots=True)
class Reference:
    """Distribution of the features of the studies that the application was tried on.

    Attributes
    ----------
    mean : float64 array (k,)
        Of :func:`coordinates`.
    precision : float64 array (k, k)
        Inverse of their covariance.
    limit : float
        Mahalanobis distance beyond which a study is unlike all of them.
    """

    mean: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    limit: float

    @classmethod
    def read(cls, file: Path = REFERENCE_FILE) -> "Reference":
        """Read what ``python -m tools.calibrate quality`` wrote.

        Raises
        ------
        ValueError
            If the file is for other features than these.
        """
        content = json.loads(file.read_text())
        if content["coordinates"] != list(COORDINATES):
            raise ValueError(f"{file}: is for other features; run tools.calibrate quality again")
        return cls(
            np.array(content["mean"]), np.array(content["precision"]), float(content["limit"])
        )

    def distance(self, features: Features) -> float:
        """Mahalanobis distance; a feature that could not be measured counts as average."""
        offset = np.nan_to_num(coordinates(features) - self.mean)
        return float(np.sqrt(offset @ self.precision @ offset))


# Names of the coordinates that distances are taken in, each with what makes its spread even.
_COORDINATES = {
    "log lung_volume_ml": lambda f: math.log(max(f.lung_volume_ml, 1)),
    "right_share": lambda f: f.right_share,
    "log lung_width_mm": lambda f: math.log(max(f.lung_width_mm, 1)),
    "log lung_depth_mm": lambda f: math.log(max(f.lung_depth_mm, 1)),
    "log lung_height_mm": lambda f: math.log(max(f.lung_height_mm, 1)),
    "lung_low_hu": lambda f: f.lung_low_hu,
    "lung_middle_hu": lambda f: f.lung_middle_hu,
    "lung_high_hu": lambda f: f.lung_high_hu,
    "sqrt rim_air_share": lambda f: math.sqrt(f.rim_air_share),
    "log roughness": lambda f: math.log(f.roughness),
    "muscle_hu": lambda f: f.muscle_hu,
    "log noise_hu": lambda f: math.log(max(f.noise_hu, 1)),
}
COORDINATES = tuple(_COORDINATES)


def coordinates(features: Features) -> npt.NDArray[np.float64]:
    """Return the point that distances are taken of, in the order of ``COORDINATES``."""
    return np.array([of(features) for of in _COORDINATES.values()])


def assess_quality(volume: Volume, right: BoolMask, left: BoolMask) -> Quality:
    """Assess a study by its voxels and the lungs found in it.

    Parameters
    ----------
    volume : Volume
        The study.
    right, left : bool arrays (slices, rows, columns)
        The lungs on the volume's grid, not both empty.
    """
    return judge(measure(volume, right, left), _reference())


def judge(features: Features, reference: Reference) -> Quality:
    """Hold features against the limits and the reference."""
    reasons = [reason for limit in LIMITS for reason in _beyond(limit, features)]
    distance = reference.distance(features)
    # What a named reason explains needs no second one.
    if distance > reference.limit and not reasons:
        text = (
            f"the study is unlike those that the models are known to work on (distance"
            f" {distance:.1f}, at most {reference.limit:.1f} is known)"
        )
        reasons.append(Reason(UNKNOWN, text, distance, reference.limit))
    for reason in reasons:
        logger.warning("%s", reason.text)
    return Quality(tuple(reasons), distance, reference.limit, features)


def _beyond(limit: Limit, features: Features) -> list[Reason]:
    value = getattr(features, limit.feature)
    if math.isnan(value) or limit.low <= value <= limit.high:
        return []
    bound, word = (limit.low, "at least") if value < limit.low else (limit.high, "at most")
    unit = f" {limit.unit}" if limit.unit else ""
    text = f"{limit.words}: {_written(value)}{unit}, {word} {_written(bound)}{unit} is known"
    return [Reason(limit.reason, text, value, bound)]


def _written(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


@cache
def _reference() -> Reference:
    return Reference.read()


def quality_numbers(quality: Quality) -> dict[str, Any]:
    """Return a quality as ``result.json`` has it."""
    return {
        "verdict": quality.verdict,
        "reasons": [
            {**asdict(reason), "value": _short(reason.value), "limit": _short(reason.limit)}
            for reason in quality.reasons
        ],
        "distance": _short(quality.distance),
        "distance_limit": _short(quality.distance_limit),
        "features": {
            name: None if math.isnan(value) else _short(value)
            for name, value in asdict(quality.features).items()
        },
    }


def _short(value: float) -> float:
    return round(value, 4)
