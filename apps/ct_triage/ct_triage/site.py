"""The site file: thresholds that a hospital calibrated on its own patients."""

from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from ct_triage.strict import StrictModel


def _ascending(bounds: tuple[float, float, float]) -> tuple[float, float, float]:
    if any(low >= high for low, high in pairwise(bounds)):
        raise ValueError("must be three ascending lesion shares, as in [0.25, 0.5, 0.75]")
    return bounds


Probability = Annotated[float, Field(gt=0, lt=1)]
LesionShare = Annotated[float, Field(gt=0, lt=1)]
# YAML knows lists only, so the tuple itself cannot be asked for strictly.
CTClassBounds = Annotated[
    tuple[LesionShare, LesionShare, LesionShare], Field(strict=False), AfterValidator(_ascending)
]


class Calibration(StrictModel):
    """A record of how the thresholds were found; further keys are kept as they are."""

    model_config = ConfigDict(extra="allow", strict=False)

    date: Any = None
    """When."""
    cases: int | None = None
    """Studies that the thresholds were chosen on."""
    held_out_cases: int | None = None
    """Studies that they were checked on."""
    trusted: bool | None = None
    """Whether the check was passed."""
    model: str | None = None
    """Lesion model: name, version and SHA-256 of its weights, with blanks between."""


class Site(StrictModel):
    """What a site replaces in the application's settings."""

    site: str
    """Name of the site, for the report."""
    lesion_threshold: Probability | None = None
    """Lesion probability from which a voxel counts as lesion."""
    ct_class_bounds: CTClassBounds | None = None
    """Lesion shares of a lung above which CT-2, CT-3 and CT-4 begin; CT-0 is no lesion at all."""
    calibration: Calibration | None = None
    """How these numbers were found."""
