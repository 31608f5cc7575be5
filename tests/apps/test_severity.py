import numpy as np
import pytest

from ct_triage.severity import Segments, assess_severity, severity_category


@pytest.mark.parametrize(
    ("score_percent", "category"),
    [
        (0.0, "CT-0"),
        (0.01, "CT-1"),
        (25.0, "CT-1"),
        (25.01, "CT-2"),
        (50.0, "CT-2"),
        (75.0, "CT-3"),
        (75.01, "CT-4"),
        (100.0, "CT-4"),
    ],
)
def test_category_changes_at_every_quarter(score_percent: float, category: str) -> None:
    assert severity_category(score_percent) == category


@pytest.mark.parametrize("thresholds", [(0, 25, 50), (0, 50, 25, 75)])
def test_thresholds_must_be_four_ascending_numbers(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="four ascending numbers"):
        severity_category(10.0, thresholds)


def _segments(right: int, left: int, right_lesion: int, left_lesion: int) -> Segments:
    """Masks with so many voxels, in one row of 100."""
    masks = {name: np.zeros((1, 1, 100), bool) for name in ("right", "left", "lesion")}
    masks["right"][..., :right] = True
    masks["left"][..., 50 : 50 + left] = True
    masks["lesion"][..., :right_lesion] = True
    masks["lesion"][..., 50 : 50 + left_lesion] = True
    return Segments(masks["right"], masks["left"], masks["lesion"])


def test_score_is_the_larger_share_of_the_two_lungs() -> None:
    findings = assess_severity(_segments(40, 20, 10, 12), voxel_volume_ml=2.0)
    assert findings.right_lung.lung_volume_ml == 80.0
    assert findings.right_lung.lesion_volume_ml == 20.0
    assert findings.right_lung.lesion_share_percent == 25.0
    assert findings.left_lung.lesion_share_percent == 60.0
    assert findings.both_lungs.lesion_share_percent == pytest.approx(100 * 22 / 60)
    assert findings.severity_score_percent == 60.0
    assert findings.severity_category == "CT-3"


def test_healthy_and_missing_lungs_are_ct_0() -> None:
    assert assess_severity(_segments(40, 30, 0, 0), 1.0).severity_category == "CT-0"
    empty = assess_severity(_segments(0, 0, 0, 0), 1.0)
    assert empty.severity_score_percent == 0.0
    assert empty.severity_category == "CT-0"


def test_lesions_outside_the_lungs_do_not_count() -> None:
    findings = assess_severity(_segments(5, 5, 20, 5), 1.0)
    assert findings.right_lung.lesion_volume_ml == 5.0
