"""Figures against goals: exact on painted masks, by patient, and the same from the application."""

import json
from pathlib import Path

import matplotlib.image
import nibabel
import numpy as np
import pandas as pd
import pytest
from oracle import painted, write_oracle_models

from tools.evaluate.__main__ import main
from tools.evaluate.goals import against_goals
from tools.phantom import Grid, build_phantom, write_nifti

SHAPE = (20, 20, 10)
MASKS = ("prediction", "truth", "prediction_lung", "truth_lung")


def _write(folder: Path, case: str, **masks: np.ndarray) -> dict[str, str]:
    row = {"case": case}
    for name, mask in masks.items():
        image = nibabel.Nifti1Image(mask.astype(np.uint8), np.diag([-2.0, -2.0, 5.0, 1.0]))
        row[name] = f"{case}_{name}.nii.gz"
        nibabel.save(image, folder / row[name])
    return row


def _box(start: int, stop: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[start:stop, 5:15, 2:8] = True
    return mask


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    """Write a patient with two volumes, and a healthy one with a false lesion."""
    lung = _box(0, 20)
    rows = [
        # Lesion Dice 2 * 4 / (5 + 5), shares both 25 %; outside of the lungs it does not count.
        _write(
            tmp_path,
            "a1",
            prediction=_box(1, 6) | ~lung,
            truth=_box(0, 5),
            prediction_lung=lung,
            truth_lung=lung,
        ),
        # Dice 1, but the predicted lungs are half of the true ones.
        _write(
            tmp_path,
            "a2",
            prediction=_box(0, 5),
            truth=_box(0, 5),
            prediction_lung=_box(0, 10),
            truth_lung=lung,
        ),
        _write(
            tmp_path,
            "b",
            prediction=_box(0, 2),
            truth=lung & False,
            prediction_lung=lung,
            truth_lung=lung,
        ),
    ]
    frame = pd.DataFrame(rows).assign(patient=["a", "a", "b"])
    frame.to_csv(tmp_path / "cases.csv", index=False)
    return tmp_path / "cases.csv"


def test_figures_are_of_patients_and_goals_are_named(datalist: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["goals", str(datalist), "--output", str(out), "--quiet"]) == 0
    found = pd.read_csv(out / "goals.csv").set_index("figure")
    cases = pd.read_csv(out / "cases.csv").set_index("case")
    assert cases["lesion_dice"].tolist() == pytest.approx([0.8, 1, 0])
    assert cases["lung_dice"].tolist() == pytest.approx([1, 2 / 3, 1])
    assert cases["error_points"].tolist() == pytest.approx([0, 25, 10])
    assert found.loc["lesion Dice, mean", ["patients", "value"]].tolist() == pytest.approx([1, 0.9])
    assert found.loc["lung Dice with lesions", "value"] == pytest.approx(5 / 6)
    assert found.loc["error of the lesion share (points)", "value"] == pytest.approx(12.5)
    assert found.loc["false share, worst (%)", "value"] == pytest.approx(10)
    assert found["met"].to_dict() == {
        "lung Dice without lesions": "yes",
        "lung Dice with lesions": "no",
        "lesion Dice, mean": "yes",
        "lesion Dice, worst": "yes",
        "error of the lesion share (points)": "no",
        "false share, worst (%)": "no",
    }
    pictures = sorted(out.glob("failing_*.png"))
    # Lungs of a2, share of a2, false share of b.
    assert [p.name for p in pictures] == [
        "failing_lesion_2.png",
        "failing_lesion_3.png",
        "failing_lung_1.png",
    ]
    assert matplotlib.image.imread(pictures[0]).std() > 0.05


def test_intervals_are_over_patients() -> None:
    random = np.random.default_rng(0)
    dice = random.uniform(0.5, 0.9, 40)
    cases = pd.DataFrame(
        {"patient": [f"p{i}" for i in range(40)], "lesion_dice": dice, "truth_percent": 10.0}
    )
    (mean, worst) = against_goals(cases, 500).to_dict("records")
    error = dice.std() / 40**0.5
    assert mean["value"] == pytest.approx(dice.mean())
    assert mean["high"] - mean["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert worst["value"] == worst["low"] == dice.min()
    doubled = against_goals(pd.concat([cases, cases]), 500).to_dict("records")
    assert doubled == [mean, worst]


def test_a_case_without_lungs_is_refused(
    datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pd.read_csv(datalist).drop(columns="truth_lung").to_csv(datalist, index=False)
    assert main(["goals", str(datalist), "--output", str(tmp_path / "out")]) == 2
    assert "case a1 has no truth_lung, and no SEG" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    grid = Grid.axial((24, 96, 96), (12.0, 4.0, 4.0))
    ill, healthy = (painted(build_phantom(grid, disease, 7)) for disease in ("covid19", "normal"))
    for name, phantom in (("case2", ill), ("case3", ill), ("free", healthy)):
        write_nifti(phantom, folder / "phantoms", name)
    # As `tools.datasets` has it: the CT is elsewhere, a mask of zeros beside the link.
    ct = folder / "phantoms" / "free_ct.nii.gz"
    ct.symlink_to(ct.rename(tmp_path_factory.mktemp("collection") / ct.name))
    return folder


@pytest.mark.parametrize(
    "names", [["lesion_segmentation_2d"], ["lesion_segmentation_2d", "multitask_triage"]]
)
def test_the_application_is_right_with_networks_that_are(
    names: list[str], tree: Path, tmp_path: Path
) -> None:
    models = write_oracle_models(tmp_path / "models")
    for name in names:
        configs = models / name / "configs"
        configs.mkdir()
        (configs / "metadata.json").write_text(json.dumps({"name": name}))
    options = ["--lungs", str(models / "lung_segmentation"), "--threshold", "0.5"]
    options += ["--bundle", *(str(models / name) for name in names)]
    out = tmp_path / "out"
    assert main(["application", str(tree), *options, "--output", str(out), "--quiet"]) == 0
    cases = pd.read_csv(out / "cases.csv")
    # Two volumes of one patient.
    assert cases["patient"].tolist() == ["case2", "case2", "free"]
    assert (cases["lung_dice"] > 0.97).all()
    assert (cases["lesion_dice"][:2] > 0.9).all()
    assert cases["lesion_dice_true_lungs"].tolist() == pytest.approx(
        cases["lesion_dice"].tolist(), abs=0.05
    )
    assert (cases["error_points"] < 1).all()
    # The masks are files on the grid of the CT, which the datalist leads to.
    assert main(["goals", str(out / "datalist.csv"), "--output", str(out / "again")]) == 0
    again = pd.read_csv(out / "again" / "cases.csv")
    pd.testing.assert_frame_equal(again, cases.drop(columns="lesion_dice_true_lungs"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "nobody"], "holds no nobody_ct.nii.gz"),
        (["--bundle", "nowhere"], "nowhere: is no lesion bundle"),
        (["--lungs", "nowhere"], "nowhere"),
        (["--weights", "1"], "--weights takes a number from 1 on for each --bundle"),
        (["--weights", "0", "1"], "--weights takes a number from 1 on for each --bundle"),
    ],
)
def test_bad_options_are_refused(
    options: list[str], message: str, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert main(["application", str(tree), *options, "--output", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
