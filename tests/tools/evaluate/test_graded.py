"""The graded cohort: even shares, patients kept out, and figures that follow from its table."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from tools.evaluate import cohort, graded
from tools.evaluate.__main__ import main
from tools.evaluate.graded import PHANTOMS, REAL, measure, plan

COMMON = {"slices": 16, "matrix": 64, "models": Path("models"), "identified_by": None}


@pytest.fixture(scope="module")
def lungs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two patients, S1-102 without lesions and S1-201 with some."""
    folder = tmp_path_factory.mktemp("lungs")
    z, y, x = np.mgrid[-150:150:6.0, -160:160:5.0, -190:190:5.0]
    lung = ((abs(x) - 75) / 60) ** 2 + (y / 90) ** 2 + (z / 120) ** 2 < 1
    body = (x / 170) ** 2 + (y / 130) ** 2 < 1
    ct = np.where(lung, -850, np.where(body, 40, -1000))
    for name, lesion in (("S1-102", lung & False), ("S1-201", lung & (y > 0))):
        for kind, voxels in (("ct", ct), ("lung", lung), ("lesion", lesion)):
            image = nibabel.Nifti1Image(
                voxels.astype(np.int16).transpose(2, 1, 0), np.diag([-5.0, -5.0, 6.0, 1.0])
            )
            nibabel.save(image, folder / f"{name}_{kind}.nii.gz")
    return folder


def test_shares_are_even_and_kinds_take_turns(tmp_path: Path) -> None:
    patients = [(tmp_path, "a"), (tmp_path, "b")]
    studies = plan(12, 6, patients, folder=tmp_path, **COMMON)
    shares = [study.share for study in studies[:12]]
    assert np.allclose(np.diff(shares), (0.6 - 0.01) / 11)
    assert {study.share for study in studies[12:]} == {None}
    assert [study.patient for study in studies[:5]] == ["", "a", "", "b", ""]
    # Identification is on real lungs alone.
    assert all(study.patient for study in studies[12:])
    assert len({study.seed for study in studies}) == 18
    assert not any(study.patient for study in plan(6, 3, [], folder=tmp_path, **COMMON))


def test_a_study_in_real_lungs_has_its_truth_by_side(lungs: Path, tmp_path: Path) -> None:
    (*_, study) = plan(2, 0, [(lungs, "S1-102")], folder=tmp_path, **COMMON)
    phantom = study.draw()
    assert phantom.lesion.sum() / phantom.lung.sum() == pytest.approx(0.6, abs=0.1)
    shares = phantom.right_lung.sum() / phantom.lung.sum()
    assert 0.4 < shares < 0.6
    centre = phantom.grid.to_patient(np.argwhere(phantom.right_lung).mean(axis=0))
    assert centre[0] < 0  # the patient's right in LPS
    again = study.draw()
    np.testing.assert_array_equal(phantom.hu, again.hu)


def test_figures_follow_from_the_table() -> None:
    truth = np.linspace(1, 60, 20)
    table = pd.DataFrame(
        {
            "class": ["covid19"] * 20 + ["bacterial"] * 5 + ["normal"] * 5,
            "truth_severity_percent": [*truth, *[0.0] * 10],
            "severity_percent": [*(truth + 2), *[0.0] * 10],
            "probability": [0.9] * 20 + [0.95] * 5 + [0.1] * 5,
        }
    )
    kinds = pd.Series([PHANTOMS, REAL] * 10 + [REAL] * 10)
    found = measure(table, kinds, resamples=50).set_index(["figure", "studies"])
    assert found.loc[("Spearman of severity", "all"), "value"] == pytest.approx(1)
    error = found.loc[("mean absolute error of severity", REAL)]
    assert (error["value"], error["low"], error["high"], error["n"]) == pytest.approx((2, 2, 2, 10))
    assert found.loc[("AUC of probability against bacterial", REAL), "value"] == 0
    assert found.loc[("AUC of probability against normal", REAL), "value"] == 1
    assert found.loc[("AUC of probability against bacterial, normal", REAL), "value"] == 0.5
    goals = found["met"].dropna().groupby("figure").agg(set)
    assert goals.to_dict() == {
        "Spearman of severity": {"yes"},
        "mean absolute error of severity": {"yes"},
        "AUC of probability against bacterial": {"no"},
        "AUC of probability against normal": {"yes"},
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--studies", "2"], "--studies must be at least 6"),
        (["--others", "-1"], "--others must not be negative"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--models", "nowhere"], "is no bundle with weights"),
        (["--lungs", "nowhere"], "nowhere holds no NAME_ct.nii.gz"),
    ],
)
def test_bad_options_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["graded", "--output", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err


def test_lungs_with_lesions_are_refused(
    lungs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--lungs", str(lungs), "--output", str(tmp_path / "out")]
    assert main(["graded", *options]) == 2
    assert "no S1-201 without lesions" in capsys.readouterr().err


@pytest.mark.slow
def test_a_graded_cohort_is_made_run_and_measured(
    lungs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_by_one(studies: list, workers: int, quiet: bool, work: Callable) -> None:
        assert (workers, quiet) == (2, True)
        for study in studies:
            work(study)

    monkeypatch.setattr(cohort, "process_all", one_by_one)
    options = ["--lungs", str(lungs), "--patients", "S1-102", "--studies", "6", "--others", "3"]
    options += ["--slices", "24", "--matrix", "128", "--identify-by", "none"]
    output = tmp_path / "out"
    assert main(["graded", *options, "--output", str(output), "--quiet"]) == 0
    summary = pd.read_csv(output / "summary.csv").set_index(["figure", "studies"])
    cases = pd.read_csv(output / "cases.csv").query("`class` == 'covid19'")
    error = abs(cases["severity_percent"] - cases["truth_severity_percent"]).mean()
    row = summary.loc[("mean absolute error of severity", "all")]
    assert row["value"] == pytest.approx(error)
    assert row["low"] <= row["value"] <= row["high"]
    assert summary.loc[("Spearman of severity", "all"), "value"] > 0.5
    assert ("AUC of severity against bacterial, nodules, normal", REAL) in summary.index
    assert (output / "severity.png").exists()
    assert len(list(output.glob("worst_*.png"))) == 4
    # What is done is not done again.
    monkeypatch.setattr(graded.GradedStudy, "draw", None)
    monkeypatch.setattr(cohort, "Pipeline", None)
    assert main(["graded", *options, "--output", str(output), "--quiet"]) == 0
