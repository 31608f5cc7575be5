"""Site calibration: the threshold moves Dice on unseen patients as the command reports."""

import json
import os
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import yaml
from monai.metrics import compute_dice

sys.path.insert(0, str(Path(__file__).parents[1] / "apps"))

from oracle import painted, write_oracle_models

from ct_triage.configuration import Configuration
from ct_triage.lesion_models import load_lesion_model
from ct_triage.lungs import segment_lungs
from ct_triage.network import SliceNetwork
from ct_triage.provenance import ModelIdentity, Origin
from ct_triage.severity import CATEGORIES
from ct_triage.site import Site
from ct_triage.volume import Volume
from tools.calibrate.__main__ import main
from tools.calibrate.cases import THRESHOLDS
from tools.calibrate.classes import fitted
from tools.calibrate.lesions import best_threshold, calibrate
from tools.calibrate.trust import MIN_PATIENTS, judge
from tools.evaluate.segmentation import dice
from tools.phantom import Grid, build_phantom, write_nifti

REPOSITORY = Path(__file__).parents[2]
BUNDLES = REPOSITORY / "bundles"
MEDSEG = Path(os.environ.get("SHARED_DATA", REPOSITORY.parent / "shared" / "data")) / "medseg"

SHAPE = (24, 20, 8)
LUNG = ModelIdentity("lung_segmentation", "1.2.3", "a1" * 32)
LESION = ModelIdentity("lesion_segmentation_2d", "4.5.6", "b2" * 32)


def _write(array: np.ndarray, file: Path, spacing_mm: float = 2.0) -> Path:
    affine = np.diag([-spacing_mm, -spacing_mm, 5.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(array, affine), file)
    return file


def _site(folder: Path, n: int, best: float, patients: int | None = None) -> Path:
    """Write cases whose maps are right when cut at ``best``, and their datalist."""
    random = np.random.default_rng(4)
    rows = []
    for index in range(n):
        truth = np.zeros(SHAPE, np.uint8)
        start = random.integers(2, 8, size=2)
        truth[start[0] : start[0] + 10, start[1] : start[1] + 8, 2:6] = 1
        near = np.zeros(SHAPE, bool)
        near[start[0] : start[0] + 12, start[1] : start[1] + 9, 1:6] = True
        noise = random.uniform(-0.04, 0.04, SHAPE)
        maps = np.where(truth > 0, best + 0.07, np.where(near, best - 0.12, 0.01)) + noise
        name = f"case{index}"
        _write(truth, folder / f"{name}_truth.nii.gz")
        _write(maps.clip(0, 1).astype(np.float32), folder / f"{name}_map.nii.gz")
        rows.append(
            {
                "case": name,
                "patient": f"p{index % (patients or n)}",
                "truth": f"{name}_truth.nii.gz",
                "prediction": f"{name}_map.nii.gz",
            }
        )
    pd.DataFrame(rows).to_csv(folder / "site.csv", index=False)
    return folder / "site.csv"


def _run(command: str, datalist: Path, out: Path, *options: str) -> int:
    return main([command, str(datalist), "--site", "North", "-o", str(out), "--quiet", *options])


def _dice_by_hand(folder: Path, case: str, threshold: float) -> float:
    import torch

    truth, maps = (
        np.asanyarray(nibabel.load(folder / f"{case}_{kind}.nii.gz").dataobj)
        for kind in ("truth", "map")
    )
    pair = (torch.from_numpy(m)[None, None] for m in (maps >= threshold, truth > 0))
    return float(compute_dice(*pair))


def test_the_threshold_is_found_and_dice_moves_as_reported(tmp_path: Path) -> None:
    datalist = _site(tmp_path, 12, best=0.3)
    assert _run("lesions", datalist, tmp_path / "out") == 0
    site = yaml.safe_load((tmp_path / "out" / "site.yaml").read_text())
    assert site["site"] == "North"
    assert site["lesion_threshold"] in (0.25, 0.3)
    assert (site["calibration"]["cases"], site["calibration"]["held_out_cases"]) == (6, 6)
    assert site["calibration"]["trusted"] is True

    cases = pd.read_csv(tmp_path / "out" / "cases.csv")
    held_out = list(cases["case"][cases["part"] == "held out"])
    moved = [
        _dice_by_hand(tmp_path, case, site["lesion_threshold"]) - _dice_by_hand(tmp_path, case, 0.5)
        for case in held_out
    ]
    table = pd.read_csv(tmp_path / "out" / "calibration.csv")
    assert list(table["cases_percent"]) == [0, 10, 20, 30, 40, 50]
    assert list(table["patients"]) == [0, 1, 2, 4, 5, 6]
    assert table["change"].iloc[-1] == pytest.approx(np.mean(moved), abs=1e-6)
    assert table["change"].iloc[-1] > 0.3
    assert (tmp_path / "out" / "calibration.png").stat().st_size > 1000
    assert "| cases_percent" in (tmp_path / "out" / "calibration.md").read_text()


def test_a_model_that_fits_is_left_alone(tmp_path: Path) -> None:
    assert _run("lesions", _site(tmp_path, 12, best=0.5), tmp_path / "out") == 0
    site = yaml.safe_load((tmp_path / "out" / "site.yaml").read_text())
    assert site["lesion_threshold"] == 0.5
    assert site["calibration"]["trusted"] is True


def test_too_few_cases_are_not_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("lesions", _site(tmp_path, 6, best=0.3), tmp_path / "out") == 0
    assert "NOT TRUSTED: too few patients to choose on (3 of 5)" in capsys.readouterr().out
    site = yaml.safe_load((tmp_path / "out" / "site.yaml").read_text())
    assert site["calibration"]["trusted"] is False


def test_the_held_out_half_stays_and_patients_are_not_split() -> None:
    random = np.random.default_rng(0)
    patients = [f"p{i // 2}" for i in range(20)]
    dice = pd.DataFrame(random.uniform(size=(20, 21)), columns=list(THRESHOLDS), index=patients)
    result = calibrate(dice, 0.5, seed=3)
    assert not set(result.calibration.index) & set(result.held_out.index)
    assert len(result.held_out) == 10
    before = result.table.iloc[0]
    assert (before["threshold"], before["cases"], before["change"]) == (0.5, 0, 0)
    for _, row in result.table.iterrows():
        assert row["held_out_dice"] == pytest.approx(result.held_out[row["threshold"]].mean())
    assert result.threshold == best_threshold(result.calibration, 0.5)


def test_neither_0_nor_1_is_chosen_and_equals_stay_near_the_default() -> None:
    dice = pd.DataFrame([[0.9] + [0.5] * 19 + [1.0]], columns=list(THRESHOLDS), index=["p"])
    assert best_threshold(dice, 0.45) == 0.45


def test_trust_needs_patients_and_a_gain_beyond_chance() -> None:
    names = [f"p{i}" for i in range(8)]
    assert judge([0.1] * 8, names, MIN_PATIENTS, False, 0).trusted
    assert not judge([0.1] * 8, names, MIN_PATIENTS - 1, False, 0).trusted
    # Eight studies of two patients are two patients.
    assert not judge([0.1] * 8, ["p0", "p1"] * 4, 9, False, 0).trusted
    chance = judge([0.3, -0.3, 0.2, -0.2, 0.1, -0.1, 0.2, -0.1], names, 9, False, 0)
    assert "chance" in chance.reason
    assert chance.low < chance.change < chance.high
    alone = judge([0.1] * 8, ["p0"] * 8, 9, False, 0)
    assert "one patient has no interval" in alone.verdict


def _spoil_geometry(folder: Path) -> None:
    _write(np.zeros((24, 20, 9), np.uint8), folder / "case3_truth.nii.gz")


def _spoil_spacing(folder: Path) -> None:
    _write(np.ones(SHAPE, np.uint8), folder / "case3_truth.nii.gz", spacing_mm=1.0)


def _spoil_labels(folder: Path) -> None:
    _write(np.full(SHAPE, 2, np.uint8), folder / "case3_truth.nii.gz")


def _spoil_map(folder: Path) -> None:
    _write(np.full(SHAPE, 1.5, np.float32), folder / "case3_map.nii.gz")


def _remove(folder: Path) -> None:
    (folder / "case3_truth.nii.gz").unlink()


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (_spoil_geometry, ("case3_truth.nii.gz", "geometry differs")),
        (_spoil_spacing, ("case3_truth.nii.gz", "geometry differs")),
        (_spoil_labels, ("case3_truth.nii.gz", "not binary")),
        (_spoil_map, ("case3_map.nii.gz", "not a probability map")),
        (_remove, ("case3", "does not exist")),
    ],
)
def test_a_bad_case_is_refused_by_name(
    spoil, parts: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datalist = _site(tmp_path, 5, best=0.3)
    spoil(tmp_path)
    _assert_refused(_run("lesions", datalist, tmp_path / "out"), tmp_path, capsys, *parts)


def test_what_cannot_be_calibrated_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datalist, out = _site(tmp_path, 4, best=0.3, patients=1), tmp_path / "out"
    _assert_refused(_run("lesions", datalist, out), tmp_path, capsys, "one patient only")
    datalist = _site(tmp_path, 4, best=0.3)
    for index in range(4):
        _write(np.zeros(SHAPE, np.uint8), tmp_path / f"case{index}_truth.nii.gz")
    _assert_refused(_run("lesions", datalist, out), tmp_path, capsys, "no true mask holds a lesion")
    both = pd.read_csv(_site(tmp_path, 4, best=0.3)).assign(image="case0_map.nii.gz")
    both.to_csv(datalist, index=False)
    _assert_refused(_run("lesions", datalist, out), tmp_path, capsys, "either image")
    out.mkdir()
    (out / "site.yaml").write_text("site: South\n")
    code = _run("lesions", _site(tmp_path, 4, best=0.3), out)
    _assert_error(code, capsys, "is not of site North")
    assert (out / "site.yaml").read_text() == "site: South\n"


def _assert_error(code: int, capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    error = capsys.readouterr().err
    assert code == 2
    assert len(error.splitlines()) == 1
    for part in parts:
        assert part in error


def _assert_refused(
    code: int, folder: Path, capsys: pytest.CaptureFixture[str], *parts: str
) -> None:
    _assert_error(code, capsys, *parts)
    assert not (folder / "out").exists()


def test_on_ct_it_is_the_application_that_is_calibrated(tmp_path: Path) -> None:
    """The oracle is right at its own threshold, as it is in the application."""
    phantom = painted(build_phantom(Grid.axial((14, 192, 192), (22.0, 2.0, 2.0)), "covid19", 3))
    oracle_models = write_oracle_models(tmp_path / "models")
    write_nifti(phantom, tmp_path, "one")
    write_nifti(phantom, tmp_path, "two")
    cases = [
        {"case": name, "image": f"{name}_ct.nii.gz", "truth": f"{name}_lesion.nii.gz"}
        for name in ("one", "two")
    ]
    (tmp_path / "cases.json").write_text(json.dumps({"cases": cases}))
    out = tmp_path / "out"
    assert _run("lesions", tmp_path / "cases.json", out, "-m", str(oracle_models)) == 0
    dice = pd.read_csv(out / "cases.csv")
    assert dice["0.50"].min() > 0.99
    assert dice["1.00"].max() == 0
    site = yaml.safe_load((out / "site.yaml").read_text())
    name, version, sha256 = site["calibration"]["model"].rsplit(" ", 2)
    both = "oracle lesion_segmentation_2d+2*oracle multitask_triage"
    assert (name, version, len(sha256)) == (both, "1.2.3+1.2.3", 64)
    # The application takes the file, and sees that it is for this very model.
    applied = Configuration.model_validate({"site": Site.read(out / "site.yaml")})
    calibrated = ModelIdentity(name, version, sha256)
    for model, told in ((calibrated, False), (LESION, True)):
        notes = Origin((LUNG, model), 0.5, site["lesion_threshold"], applied).notes
        assert any("calibrated for another model" in note for note in notes) is told


@pytest.mark.slow
def test_on_real_patients_dice_of_the_others_moves_as_reported(tmp_path: Path) -> None:
    """Whatever the sign; measured again by the application with and without the site file."""
    patients = ("case1", "case2", "case6", "case8")
    if not all((MEDSEG / f"{name}_ct.nii.gz").exists() for name in patients):
        pytest.skip(f"no MedSeg volumes at {MEDSEG}; set SHARED_DATA to the folder of real CT")
    frame = pd.DataFrame({"case": patients})
    for column, kind in (("image", "ct"), ("truth", "lesion")):
        frame[column] = [str(MEDSEG / f"{name}_{kind}.nii.gz") for name in patients]
    frame.to_csv(tmp_path / "site.csv", index=False)
    out = tmp_path / "out"
    assert _run("lesions", tmp_path / "site.csv", out, "-m", str(BUNDLES)) == 0
    table, cases = (pd.read_csv(out / f"{name}.csv") for name in ("calibration", "cases"))
    site = Site.read(out / "site.yaml")
    own = Configuration()
    calibrated = Configuration.model_validate({"site": site})
    # The table starts from the step that is nearest to the bundle's own threshold.
    first = Configuration.model_validate({"thresholds": {"lesion": table["threshold"].iloc[0]}})
    models = [load_lesion_model(BUNDLES, configuration) for configuration in (first, calibrated)]
    assert models[1].threshold == site.lesion_threshold
    lungs_by = SliceNetwork.load(BUNDLES / own.models.lungs)
    moved = []
    for name in cases["case"][cases["part"] == "held out"]:
        ct, truth = (nibabel.load(MEDSEG / f"{name}_{kind}.nii.gz") for kind in ("ct", "lesion"))
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ct.affine
        hu = np.asanyarray(ct.dataobj).clip(-1024, 3071).astype(np.int16)
        volume = Volume(hu, affine, ())
        right, left = segment_lungs(volume, lungs_by)
        mask = np.asanyarray(truth.dataobj) > 0
        before, after = (model.find(volume, right | left).mask for model in models)
        moved.append(dice(after, mask) - dice(before, mask))
    assert len(moved) == 2
    assert table["change"].iloc[-1] == pytest.approx(np.mean(moved), abs=1e-6)
    assert site.calibration is not None
    assert site.calibration.trusted is False


def _readings(folder: Path, n: int, bounds: tuple[float, float, float]) -> Path:
    shares = np.random.default_rng(1).uniform(0.01, 0.99, n)
    classes = [CATEGORIES[1 + np.searchsorted(bounds, share)] for share in shares]
    frame = pd.DataFrame({"case": range(n), "severity_percent": 100 * shares, "ct_class": classes})
    frame.to_csv(folder / "readings.csv", index=False)
    return folder / "readings.csv"


def test_class_bounds_follow_the_sites_readings(tmp_path: Path) -> None:
    wanted = (0.15, 0.35, 0.6)
    assert _run("classes", _readings(tmp_path, 120, wanted), tmp_path / "out") == 0
    site = yaml.safe_load((tmp_path / "out" / "site.yaml").read_text())
    assert site["ct_class_bounds"] == pytest.approx(wanted, abs=0.05)
    assert site["calibration"]["trusted"] is True
    table = pd.read_csv(tmp_path / "out" / "ct_classes.csv")
    assert (table["accuracy_after"] > 0.9).all()
    assert (table["change"] > 0.2).all()


def test_both_calibrations_share_a_site_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert _run("lesions", _site(tmp_path, 6, best=0.3), out) == 0
    assert _run("classes", _readings(tmp_path, 120, (0.15, 0.35, 0.6)), out) == 0
    site = yaml.safe_load((out / "site.yaml").read_text())
    assert {"lesion_threshold", "ct_class_bounds"} <= site.keys()
    applied = Configuration.model_validate({"site": Site.read(out / "site.yaml")})
    assert applied.lesion_threshold == site["lesion_threshold"]
    assert list(applied.ct_class_bounds) == site["ct_class_bounds"]
    origin = Origin((LUNG, LESION), 0.5, 0.3, applied)
    assert "the site's calibration is marked as not trusted" in origin.notes
    records = site["calibration"]
    assert records["ct_class_bounds"]["trusted"] is True
    assert records["lesion_threshold"]["trusted"] is False
    assert records["trusted"] is False


def test_bounds_ascend_even_where_a_class_was_never_read() -> None:
    shares, classes = np.array([0.1, 0.2, 0.8, 0.9]), np.array([1, 1, 4, 4])
    low, middle, high = fitted(shares, classes)
    assert 0 < low < middle < high < 1


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("ct_class", "CT-7", "'CT-7' is none of CT-0"),
        ("severity_percent", "170", "must be 0 to 100"),
        ("severity_percent", "high", "is not a number"),
    ],
)
def test_a_bad_reading_is_refused_by_name(
    column: str, value: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datalist = _readings(tmp_path, 12, (0.25, 0.5, 0.75))
    frame = pd.read_csv(datalist, dtype=str)
    frame.loc[5, column] = value
    frame.to_csv(datalist, index=False)
    code = _run("classes", datalist, tmp_path / "out")
    _assert_refused(code, tmp_path, capsys, "case 5", message)


def test_one_class_only_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.read_csv(_readings(tmp_path, 12, (0.25, 0.5, 0.75))).assign(ct_class="CT-1")
    frame.to_csv(tmp_path / "readings.csv", index=False)
    code = _run("classes", tmp_path / "readings.csv", tmp_path / "out")
    _assert_refused(code, tmp_path, capsys, "one CT class only")
