"""The whole way from stored series to written results, with oracle models (see oracle.py)."""

import dataclasses
import json
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from oracle import BODY_HU, painted
from pydicom import dcmread

from ct_triage.configuration import Configuration
from ct_triage.pipeline import Pipeline
from tools.phantom import Grid, Phantom, build_phantom, write_dicom_series

SEED = 3


def _run(phantom: Phantom, folder: Path, models: Path, **series: bool) -> Path:
    write_dicom_series(phantom, folder / "study", **series)
    Pipeline(folder / "study", folder / "out", models).run()
    return folder / "out"


def _segments_on_phantom(out: Path, study: Path, phantom: Phantom) -> dict[int, np.ndarray]:
    """Masks of seg.dcm by segment number, placed by their own geometry on the phantom's grid."""
    seg = hd.seg.segread(out / "seg.dcm")
    uids = [dcmread(f).SOPInstanceUID for f in _in_phantom_order(study, phantom)]
    frames = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    return {n: frames[..., i] > 0 for i, n in enumerate(seg.segment_numbers)}


def _in_phantom_order(study: Path, phantom: Phantom) -> list[Path]:
    def slice_index(file: Path) -> float:
        position = [*dcmread(file, stop_before_pixels=True).ImagePositionPatient, 1]
        return float((np.linalg.inv(phantom.grid.affine) @ np.array(position, float))[0])

    return sorted(study.rglob("*.dcm"), key=slice_index)


def _centroid_mm(mask: np.ndarray, grid: Grid) -> np.ndarray:
    return grid.to_patient(np.argwhere(mask).mean(axis=0))


def test_masks_come_back_to_the_voxel(
    covid_phantom: Phantom, oracle_models: Path, tmp_path: Path
) -> None:
    """At the networks' own spacing nothing is interpolated, so every voxel must be right."""
    out = _run(covid_phantom, tmp_path, oracle_models)
    masks = _segments_on_phantom(out, tmp_path / "study", covid_phantom)
    lungs = covid_phantom.right_lung | covid_phantom.left_lung

    assert np.array_equal(masks[1] | masks[2], lungs)
    assert not (masks[1] & masks[2]).any()
    assert np.count_nonzero(masks[1] ^ covid_phantom.right_lung) <= 0.002 * lungs.sum()
    # Specks below 0.1 ml, two voxels here, are left out.
    assert not (masks[3] & ~covid_phantom.lesion).any()
    assert masks[3].sum() >= 0.99 * covid_phantom.lesion.sum()

    findings = json.loads((out / "result.json").read_text())["findings"]
    voxel_ml = 0.04
    for number, side in ((1, "right_lung"), (2, "left_lung")):
        lung_ml, lesion_ml = masks[number].sum(), (masks[number] & masks[3]).sum()
        assert findings[side]["lung_volume_ml"] == pytest.approx(lung_ml * voxel_ml, abs=1e-3)
        assert findings[side]["lesion_volume_ml"] == pytest.approx(lesion_ml * voxel_ml, abs=1e-3)


ROTATION = {"rotation_deg": (12.0, -8.0, 10.0)}


def _tilted(grid: Grid, degrees: float) -> Grid:
    """Shear a grid as a tilted gantry does: slices shift against each other, front to back."""
    affine = grid.affine.copy()
    affine[1, 0] += np.tan(np.deg2rad(degrees)) * grid.spacing_mm[0]
    affine[:3, 3] -= (affine[:3, 0] - grid.affine[:3, 0]) * (grid.shape[0] - 1) / 2
    return Grid(grid.shape, affine)


GRIDS = {
    "head first supine": Grid.axial((40, 144, 144), (8.0, 2.5, 2.5)),
    "head first prone": Grid.axial((40, 144, 144), (8.0, 2.5, 2.5), "HFP"),
    "feet first supine": Grid.axial((40, 144, 144), (8.0, 2.5, 2.5), "FFS"),
    "feet first prone": Grid.axial((40, 144, 144), (8.0, 2.5, 2.5), "FFP"),
    "gantry tilt": _tilted(Grid.axial((32, 112, 112), (10.0, 3.2, 3.2)), 12.0),
    "pixels twice as high as wide": Grid.axial((40, 100, 200), (8.0, 3.6, 1.8)),
    "oblique": Grid.axial((48, 160, 160), (8.0, 2.5, 2.5), **ROTATION),
    "oblique, feet first, not square": Grid.axial(
        (48, 130, 170), (8.0, 3.0, 2.3), "FFS", **ROTATION
    ),
}


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reversed instance numbers"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_segments_are_where_the_phantom_put_them(
    grid: Grid, reverse: bool, oracle_models: Path, tmp_path: Path
) -> None:
    phantom = painted(build_phantom(grid, "covid19", seed=SEED))
    out = _run(phantom, tmp_path, oracle_models, reverse_instance_numbers=reverse)
    masks = _segments_on_phantom(out, tmp_path / "study", phantom)

    truth = {1: phantom.right_lung, 2: phantom.left_lung, 3: phantom.lesion}
    for number, mask in truth.items():
        offset_mm = _centroid_mm(masks[number], grid) - _centroid_mm(mask, grid)
        # In index space: along each axis less than one voxel.
        offset = np.linalg.inv(grid.affine[:3, :3]) @ offset_mm
        assert np.abs(offset).max() < 1.0, f"segment {number} is off by {offset_mm} mm"
        overlap = 2 * (masks[number] & mask).sum() / (masks[number].sum() + mask.sum())
        assert overlap > 0.95
    assert _centroid_mm(masks[1], grid)[0] < _centroid_mm(masks[2], grid)[0]


def test_a_healthy_patient_gets_lungs_and_a_report_without_lesions(
    oracle_models: Path, tmp_path: Path
) -> None:
    grid = Grid.axial((32, 128, 128), (10.0, 3.0, 3.0))
    out = _run(painted(build_phantom(grid, "normal", seed=1)), tmp_path, oracle_models)
    findings = json.loads((out / "result.json").read_text())["findings"]
    assert findings["severity_category"] == "CT-0"
    assert findings["both_lungs"]["lesion_volume_ml"] == 0.0
    assert findings["right_lung"]["lung_volume_ml"] > 500
    assert dcmread(out / "sr.dcm").SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"


@pytest.mark.parametrize("side", ["right_lung", "left_lung"])
def test_a_lone_lung_is_not_cut_in_two(
    covid_phantom: Phantom, side: str, oracle_models: Path, tmp_path: Path
) -> None:
    """After the removal of a lung the clusters would divide the other one."""
    removed = covid_phantom.right_lung if side == "left_lung" else covid_phantom.left_lung
    hu = np.where(removed, BODY_HU, covid_phantom.hu).astype(np.int16)
    out = _run(dataclasses.replace(covid_phantom, hu=hu), tmp_path, oracle_models)
    findings = json.loads((out / "result.json").read_text())["findings"]
    volume_ml = getattr(covid_phantom, side).sum() * covid_phantom.grid.voxel_volume_mm3 / 1000
    assert findings[side]["lung_volume_ml"] == pytest.approx(volume_ml, rel=0.01)
    other = {"right_lung": "left_lung", "left_lung": "right_lung"}[side]
    assert findings[other]["lung_volume_ml"] == 0.0


def test_a_prior_in_the_study_folder_is_compared_with(
    covid_phantom: Phantom, oracle_models: Path, tmp_path: Path
) -> None:
    first = _run(covid_phantom, tmp_path, oracle_models)
    prior = dcmread(first / "seg.dcm")
    prior.StudyDate = "20200322"
    prior.StudyInstanceUID, prior.SOPInstanceUID = "1.2.3.1", "1.2.3.2"
    (tmp_path / "study" / "priors").mkdir()
    prior.save_as(tmp_path / "study" / "priors" / "seg.dcm")
    prior.PatientID = "ANOTHER"
    prior.save_as(tmp_path / "study" / "priors" / "another.dcm")
    broken = (first / "sr.dcm").read_bytes()[:3000]
    (tmp_path / "study" / "priors" / "broken.dcm").write_bytes(broken)
    Pipeline(tmp_path / "study", tmp_path / "out", oracle_models).run()

    result = json.loads((tmp_path / "out" / "result.json").read_text())
    earlier, later = result["follow_up"]["time_points"]
    assert (earlier["days_since_first"], later["days_since_first"]) == (0, 10)
    (change,) = result["follow_up"]["changes"]
    for lung in ("right_lung", "left_lung", "both_lungs"):
        assert earlier[lung] == later[lung] == result["findings"][lung]
        assert change[lung]["response"] == "stable"
        assert change[lung]["lesion_share_change_percentage_points"] == 0
    assert any("another patient's" in note for note in result["notes"])
    report = dcmread(tmp_path / "out" / "sr.dcm")
    assert report.PertinentOtherEvidenceSequence[0].StudyInstanceUID == "1.2.3.1"

    switched_off = Configuration(follow_up=False)
    Pipeline(tmp_path / "study", tmp_path / "off", oracle_models, switched_off).run()
    alone = json.loads((tmp_path / "off" / "result.json").read_text())
    assert "follow_up" not in alone
    assert alone["notes"] == []
    assert "PertinentOtherEvidenceSequence" not in dcmread(tmp_path / "off" / "sr.dcm")


def test_a_run_is_repeatable(covid_phantom: Phantom, oracle_models: Path, tmp_path: Path) -> None:
    first = _run(covid_phantom, tmp_path / "first", oracle_models)
    second = _run(covid_phantom, tmp_path / "second", oracle_models)
    names = ["result.fhir.json", "result.json", "seg.dcm", "sr.dcm"]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert sorted(p.name for p in first.iterdir()) == names
