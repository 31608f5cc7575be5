"""Features mean what they say, and limits and distance give the reasons that they should."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ct_triage import codes
from ct_triage.configuration import Configuration
from ct_triage.provenance import Origin
from ct_triage.quality import (
    COORDINATES,
    LIMITS,
    REFERENCE_FILE,
    UNKNOWN,
    VERDICTS,
    Reference,
    judge,
)
from ct_triage.quality_features import Features, measure
from ct_triage.volume import Volume

SCHEMA = Path(__file__).parents[2] / "apps" / "ct_triage" / "docs" / "result.schema.json"
# A man's lungs in a phantom of 5 mm slices.
GOOD = Features(
    lung_volume_ml=4400.0,
    right_share=0.53,
    lung_width_mm=275.0,
    lung_depth_mm=187.0,
    lung_height_mm=263.0,
    first_slice_share=0.0,
    last_slice_share=0.0,
    border_share=0.0,
    lung_low_hu=-897.0,
    lung_middle_hu=-825.0,
    lung_high_hu=-576.0,
    rim_air_share=0.01,
    roughness=2.95,
    muscle_hu=58.0,
    tissue_share=0.96,
    air_hu=-999.0,
    noise_hu=15.0,
    noisy_slices_hu=17.0,
    odd_slices=0.0,
    slice_spacing_mm=5.0,
)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.read()


def _box_chest(noise_hu: float = 12.0) -> tuple[Volume, np.ndarray, np.ndarray]:
    """A block of tissue with two boxes of lung, in 2 mm pixels and 5 mm slices; patient LPS."""
    right, left = (np.zeros((60, 160, 160), dtype=bool) for _ in range(2))
    right[10:50, 50:110, 25:75] = True
    left[10:50, 50:110, 85:125] = True
    hu = np.full(right.shape, 40.0)
    hu[:, :20] = hu[:, -20:] = -1000
    hu[right | left] = -850
    hu += np.random.default_rng(0).normal(0, noise_hu, hu.shape)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0, 3], [0, 1, 2, 3]] = 5, 2, 2, 1
    return Volume(hu.clip(-1024).astype(np.int16), affine, ()), right, left


def test_features_are_what_they_are_called() -> None:
    volume, right, left = _box_chest()
    features = measure(volume, right, left)
    assert features.lung_volume_ml == pytest.approx((right | left).sum() * 0.02)
    assert features.right_share == pytest.approx(right.sum() / (right | left).sum())
    assert features.lung_width_mm == pytest.approx(198, abs=4)
    assert features.lung_depth_mm == pytest.approx(118, abs=4)
    assert features.lung_height_mm == pytest.approx(195, abs=5)
    assert features.lung_middle_hu == pytest.approx(-850, abs=2)
    assert features.muscle_hu == pytest.approx(40 + 0.67 * 12, abs=2)
    assert features.air_hu == pytest.approx(-1000, abs=2)
    assert features.noise_hu == pytest.approx(12, rel=0.2)
    assert features.slice_spacing_mm == 5
    assert (features.first_slice_share, features.border_share, features.rim_air_share) == (0, 0, 0)


@pytest.mark.parametrize("noise_hu", [5.0, 50.0, 200.0])
def test_noise_is_told_whatever_it_is(noise_hu: float) -> None:
    assert measure(*_box_chest(noise_hu)).noise_hu == pytest.approx(noise_hu, rel=0.25)


def test_noise_in_some_slices_is_not_averaged_away() -> None:
    volume, *lungs = _box_chest()
    noise = np.random.default_rng(1).normal(0, 300, volume.voxels[:25].shape)
    volume.voxels[:25] += noise.astype(np.int16)
    features = measure(volume, *lungs)
    assert features.noise_hu < 20
    assert features.noisy_slices_hu > 200


def _empty(hu: np.ndarray) -> None:
    hu[30:33] = -1000


def _repeated(hu: np.ndarray) -> None:
    hu[30:34] = hu[30]


def _swapped(hu: np.ndarray) -> None:
    hu[[12, 40]] = hu[[40, 12]]


@pytest.mark.parametrize(("change", "count"), [(_empty, 3), (_repeated, 3), (_swapped, 2)])
def test_slices_that_no_scanner_makes_are_counted(change, count: int) -> None:
    volume, *lungs = _box_chest()
    # The body narrows to the head, so that slices differ.
    for index, picture in enumerate(volume.voxels):
        picture[:, : 10 + index // 2] = -1000
    assert measure(volume, *lungs).odd_slices == 0
    change(volume.voxels)
    assert measure(volume, *lungs).odd_slices == count


def test_the_order_of_slices_and_columns_changes_nothing() -> None:
    volume, *lungs = _box_chest()
    flip = (slice(None, None, -1), slice(None), slice(None, None, -1))
    affine = volume.affine.copy()
    affine[:3, 3] = affine[:3, 0] * 59 + affine[:3, 2] * 159
    affine[:3, [0, 2]] *= -1
    turned = measure(Volume(volume.voxels[flip], affine, ()), *(lung[flip] for lung in lungs))
    straight = measure(volume, *lungs)
    for name in ("lung_volume_ml", "right_share", "lung_height_mm", "muscle_hu", "noise_hu"):
        assert getattr(turned, name) == pytest.approx(getattr(straight, name), rel=0.05)


def test_slices_that_cut_the_lungs_are_seen() -> None:
    volume, right, left = _box_chest()
    cut = Volume(volume.voxels[20:], volume.affine, ())
    features = measure(cut, right[20:], left[20:])
    assert (features.first_slice_share, features.last_slice_share) == (1, 0)


def test_a_usual_study_is_acceptable(reference: Reference) -> None:
    quality = judge(GOOD, reference)
    assert (quality.reasons, quality.verdict) == ((), "acceptable")
    assert quality.distance < quality.distance_limit / 2


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"{limit.reason} {limit.feature}")
def test_each_limit_gives_its_reason(limit, reference: Reference) -> None:
    for bound, beyond in ((limit.low, -1), (limit.high, 1)):
        if not np.isfinite(bound):
            continue
        value = bound + beyond * 0.01 * max(1, abs(bound))
        quality = judge(replace(GOOD, **{limit.feature: value}), reference)
        (reason,) = [r for r in quality.reasons if r.limit == bound and r.value == value]
        assert reason.code == limit.reason
        assert quality.verdict != "acceptable"
        inside = judge(replace(GOOD, **{limit.feature: bound}), reference)
        assert limit.reason not in [r.code for r in inside.reasons]


def test_what_no_limit_names_is_far_away(reference: Reference) -> None:
    # Each believable, all together in no patient: small and narrow lungs, filled and high.
    odd = replace(
        GOOD, lung_volume_ml=700.0, lung_width_mm=400.0, lung_middle_hu=-300.0, lung_low_hu=-950.0
    )
    quality = judge(odd, reference)
    assert [reason.code for reason in quality.reasons] == [UNKNOWN]
    assert quality.verdict == "limited"
    assert quality.reasons[0].value == quality.distance > quality.distance_limit


def test_what_could_not_be_measured_is_no_reason(reference: Reference) -> None:
    unknown = replace(GOOD, noise_hu=np.nan, muscle_hu=np.nan, air_hu=np.nan, rim_air_share=np.nan)
    assert judge(unknown, reference).reasons == ()


def test_a_reference_for_other_features_is_refused(tmp_path: Path) -> None:
    content = json.loads(REFERENCE_FILE.read_text())
    (tmp_path / "other.json").write_text(json.dumps({**content, "coordinates": ["age"]}))
    with pytest.raises(ValueError, match="is for other features"):
        Reference.read(tmp_path / "other.json")
    assert len(content["mean"]) == len(COORDINATES)


def test_every_reason_and_verdict_has_a_code_and_is_in_the_schema() -> None:
    reasons = {limit.reason for limit in LIMITS} | {UNKNOWN}
    assert set(Origin(configuration=Configuration()).codes.quality_findings) == reasons
    assert set(codes.QUALITY_VERDICTS) == set(VERDICTS)
    quality = json.loads(SCHEMA.read_text())["properties"]["quality"]["properties"]
    assert set(quality["verdict"]["enum"]) == set(VERDICTS)
    assert set(quality["reasons"]["items"]["properties"]["code"]["enum"]) == reasons
