"""Arithmetic of follow-up, section 5.2 of CoRSAI."""

from datetime import datetime

import pytest

from ct_triage.followup import FollowUp, Response, TimePoint, compare, follow_up_numbers
from ct_triage.severity import Involvement


def _point(day: int, **lungs: tuple[float, float]) -> TimePoint:
    volumes = {lung: Involvement(*volumes) for lung, volumes in lungs.items()}
    return TimePoint(datetime(2020, 3, day), f"1.2.{day}", volumes)


def _response(earlier: tuple[float, float], later: tuple[float, float]) -> Response:
    change = compare(_point(1, both_lungs=earlier), _point(2, both_lungs=later))["both_lungs"]
    assert change is not None
    return change.response


@pytest.mark.parametrize(
    ("share", "response"),
    [
        (20.0, Response.STABLE),
        (20.99, Response.STABLE),
        (19.01, Response.STABLE),
        (21.0, Response.PROGRESSION),
        (19.0, Response.POSITIVE_RESPONSE),
        (55.0, Response.PROGRESSION),
        (0.0, Response.POSITIVE_RESPONSE),
    ],
)
def test_a_change_below_one_percent_is_stable(share: float, response: Response) -> None:
    assert _response((3000.0, 600.0), (3000.0, 30.0 * share)) == response


def test_a_deeper_breath_is_no_response() -> None:
    """The lesions grow with the lung; the share and the corrected volume stay."""
    earlier, later = _point(1, left_lung=(2000.0, 400.0)), _point(2, left_lung=(2600.0, 520.0))
    change = compare(earlier, later)["left_lung"]
    assert change is not None
    assert change.response == Response.STABLE
    assert change.share_change_points == 0
    assert change.corrected_lesion_volume_ml == 400.0
    assert change.corrected_volume_change_ml == 0


def test_equal_lesions_in_a_smaller_breath_are_progression() -> None:
    earlier, later = _point(1, left_lung=(2600.0, 400.0)), _point(2, left_lung=(2000.0, 400.0))
    change = compare(earlier, later)["left_lung"]
    assert change is not None
    assert change.response == Response.PROGRESSION
    assert change.share_change_points == pytest.approx(20.0 - 400 / 26, abs=1e-4)
    assert change.corrected_volume_change_ml == pytest.approx(120.0)


@pytest.mark.parametrize("other", [{}, {"right_lung": (0.0, 0.0)}])
def test_a_lung_that_is_absent_from_one_study_is_not_compared(
    other: dict[str, tuple[float, float]],
) -> None:
    whole = _point(1, right_lung=(2000.0, 40.0), both_lungs=(4000.0, 40.0))
    later = _point(2, both_lungs=(4000.0, 400.0), **other)
    changes = compare(whole, later)
    assert changes["right_lung"] is None
    assert changes["left_lung"] is None
    assert changes["both_lungs"].response == Response.PROGRESSION


def test_each_study_is_compared_with_the_one_before_it() -> None:
    points = [_point(d, both_lungs=(1000.0, v)) for d, v in ((1, 100.0), (5, 300.0), (20, 50.0))]
    numbers = follow_up_numbers(FollowUp(tuple(points)))
    assert [point["days_since_first"] for point in numbers["time_points"]] == [0, 4, 19]
    assert [
        (c["from_time_point"], c["to_time_point"], c["both_lungs"]["response"])
        for c in numbers["changes"]
    ] == [(0, 1, "progression"), (1, 2, "positive response")]
    assert numbers["changes"][1]["both_lungs"] == {
        "lesion_share_change_percentage_points": -25.0,
        "corrected_lesion_volume_ml": 50.0,
        "corrected_lesion_volume_change_ml": -250.0,
        "response": "positive response",
    }
