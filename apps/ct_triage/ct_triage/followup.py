"""How disease moves between studies of one patient: arithmetic only, no DICOM.

Section 5.2 of "CoRSAI" (ACM TMIS 2021): from the lesion share of each lung at two dates follows a
positive response, progression or a stable condition. A share is a volume that is corrected for
the lung's own, so a deeper breath is no response.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any

from ct_triage.measurements import PERCENT_DECIMALS, VOLUME_DECIMALS, involvement_numbers
from ct_triage.severity import Findings, Involvement

LUNGS = ("right_lung", "left_lung", "both_lungs")
# CoRSAI 5.2: "for our model the change of < 1% was considered to be stable".
STABLE_BELOW_PERCENT = 1.0


class Response(StrEnum):
    """CoRSAI's three classes of a patient's dynamics."""

    POSITIVE_RESPONSE = "positive response"
    STABLE = "stable"
    PROGRESSION = "progression"


@dataclass(frozen=True, slots=True)
class Instance:
    """Where a DICOM object is in the hierarchy of its patient's objects."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Region:
    """A segment that holds the whole of a lung, or of the lesions."""

    segmentation: Instance
    segment_number: int
    source_series_uid: str


@dataclass(frozen=True, slots=True)
class TimePoint:
    """What was measured in one study.

    Attributes
    ----------
    moment : datetime
        Study date, and time where it is known.
    study_instance_uid : str
        The study that was measured, exactly as stored.
    lungs : mapping of name to Involvement
        Under names of ``LUNGS``; a system that does not tell the sides gives both lungs only.
    instance : Instance or None
        The segmentation or report that the volumes come from; None for the study at hand.
    regions : mapping of name to Region
        The segment of each lung and, for both lungs, of the lesions, where there is one.
    notes : tuple of str
        What was assumed while measuring; no patient data.
    """

    moment: datetime
    study_instance_uid: str
    lungs: Mapping[str, Involvement]
    instance: Instance | None = None
    regions: Mapping[str, Region] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What happened in a lung, or in both, from one study to the next.

    Attributes
    ----------
    share_change_points : float
        Lesion share later minus earlier, in percentage points of the lung volume.
    corrected_lesion_volume_ml : float
        The later lesion volume, as it would be in a lung of the earlier volume.
    corrected_volume_change_ml : float
        That volume minus the earlier one.
    """

    share_change_points: float
    corrected_lesion_volume_ml: float
    corrected_volume_change_ml: float

    @property
    def response(self) -> Response:
        """The class of the change; one percentage point is no longer stable."""
        if abs(self.share_change_points) < STABLE_BELOW_PERCENT:
            return Response.STABLE
        grew = self.share_change_points > 0
        return Response.PROGRESSION if grew else Response.POSITIVE_RESPONSE


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Studies of one patient in the order of their dates.

    Attributes
    ----------
    time_points : tuple of TimePoint
        Two or more, or none where there is nothing to compare with.
    notes : tuple of str
        What was left out and why; no patient data.
    """

    time_points: tuple[TimePoint, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> list[dict[str, Change | None]]:
        """Change by lung from each study to the next; None where a lung cannot be compared."""
        return [compare(earlier, later) for earlier, later in pairwise(self.time_points)]

    def days(self, index: int) -> int:
        """Whole days from the first study to another, by the calendar."""
        return (self.time_points[index].moment.date() - self.time_points[0].moment.date()).days


NO_FOLLOW_UP = FollowUp()


def lungs_of(findings: Findings) -> dict[str, Involvement]:
    """Return the involvement by lung of a study's findings."""
    return {lung: getattr(findings, lung) for lung in LUNGS}


def compare(earlier: TimePoint, later: TimePoint) -> dict[str, Change | None]:
    """Compare each lung of two studies; None where it is absent from either."""
    return {lung: _change(earlier.lungs.get(lung), later.lungs.get(lung)) for lung in LUNGS}


def _change(earlier: Involvement | None, later: Involvement | None) -> Change | None:
    if earlier is None or later is None or not (earlier.lung_volume_ml and later.lung_volume_ml):
        return None
    # From the published numbers, so that a reader who subtracts them finds the same class.
    points = round(
        round(later.lesion_share_percent, PERCENT_DECIMALS)
        - round(earlier.lesion_share_percent, PERCENT_DECIMALS),
        PERCENT_DECIMALS,
    )
    corrected_ml = later.lesion_share_percent / 100.0 * earlier.lung_volume_ml
    return Change(
        points,
        round(corrected_ml, VOLUME_DECIMALS),
        round(corrected_ml - earlier.lesion_volume_ml, VOLUME_DECIMALS),
    )


def follow_up_numbers(follow_up: FollowUp) -> dict[str, Any]:
    """Return studies and changes as plain JSON: days instead of dates, no patient name or ID."""
    points = follow_up.time_points
    return {
        "stable_below_percentage_points": STABLE_BELOW_PERCENT,
        "time_points": [
            {
                "study_instance_uid": point.study_instance_uid,
                "days_since_first": follow_up.days(index),
                "measured_in_sop_instance_uid": (
                    point.instance.sop_instance_uid if point.instance else None
                ),
                **{
                    lung: involvement_numbers(point.lungs[lung]) if lung in point.lungs else None
                    for lung in LUNGS
                },
            }
            for index, point in enumerate(points)
        ],
        "changes": [
            {
                "from_time_point": index,
                "to_time_point": index + 1,
                **{lung: _change_numbers(change[lung]) for lung in LUNGS},
            }
            for index, change in enumerate(follow_up.changes)
        ],
    }


def _change_numbers(change: Change | None) -> dict[str, Any] | None:
    if change is None:
        return None
    return {
        "lesion_share_change_percentage_points": change.share_change_points,
        "corrected_lesion_volume_ml": change.corrected_lesion_volume_ml,
        "corrected_lesion_volume_change_ml": change.corrected_volume_change_ml,
        "response": str(change.response),
    }
