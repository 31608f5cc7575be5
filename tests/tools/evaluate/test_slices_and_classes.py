"""Slices, percentage of infection, severity classes and classes of images."""

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import classification_report

from tools.evaluate.__main__ import main
from tools.evaluate.slices import percentage_of_infection
from tools.evaluate.statistics import binary_metrics, class_metrics

AFFINE = np.diag([1.0, 1.0, 5.0, 1.0])
LUNG = np.zeros((10, 8, 8), bool)
LUNG[1:9, 2:6, 2:6] = True


def lesion(*shares_by_slice: int) -> np.ndarray:
    """Put so many lesion voxels (of 16 of lung) into slices 1, 2, ..."""
    mask = np.zeros_like(LUNG)
    for index, count in enumerate(shares_by_slice, 1):
        mask[index, 2:6, 2:6] = np.arange(16).reshape(4, 4) < count
    return mask


def save(folder: Path, name: str, mask: np.ndarray) -> str:
    image = nibabel.Nifti1Image(mask.transpose(2, 1, 0).astype(np.uint8), AFFINE)
    nibabel.save(image, folder / f"{name}.nii.gz")
    return f"{name}.nii.gz"


def test_percentage_of_infection_is_the_mean_over_slices_with_lung() -> None:
    assert percentage_of_infection(lesion(16, 8), LUNG) == pytest.approx(100 * 1.5 / 8)
    assert percentage_of_infection(~LUNG, LUNG) == 0
    assert percentage_of_infection(lesion(16), np.zeros_like(LUNG)) == 0


def test_slices_command(tmp_path: Path) -> None:
    truths = [lesion(4, 4, 4), lesion(*[8] * 8), lesion(), lesion(*[14] * 8)]
    found = [lesion(0, 4, 4, 1), lesion(*[8] * 8), lesion(1), lesion(*[11] * 8)]
    lung = save(tmp_path, "lung", LUNG)
    rows = [
        {
            "case": f"c{index}",
            "truth": save(tmp_path, f"t{index}", truth),
            "prediction": save(tmp_path, f"p{index}", prediction),
            "truth_lung": lung,
            "prediction_lung": lung,
        }
        for index, (truth, prediction) in enumerate(zip(truths, found, strict=True))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "list.csv", index=False)
    output = tmp_path / "out"
    assert main(["slices", str(tmp_path / "list.csv"), "--output", str(output)]) == 0
    (row,) = pd.read_csv(output / "slices.csv").to_dict("records")
    true, called = (np.concatenate([m.any(axis=(1, 2)) for m in ms]) for ms in (truths, found))
    assert row["slices"] == 40
    assert row["sensitivity"] == pytest.approx((true & called).sum() / true.sum())
    assert row["specificity"] == pytest.approx((~true & ~called).sum() / (~true).sum())
    assert row["precision"] == pytest.approx((true & called).sum() / called.sum())
    matrix = pd.read_csv(output / "severity_confusion.csv").set_index("truth")
    # 50 % is CT-2, 14/16 CT-4, found as 11/16 CT-3, and a single voxel is no CT-0.
    assert matrix.at["CT-1", "CT-1"] == 1
    assert matrix.at["CT-2", "CT-2"] == 1
    assert matrix.at["CT-0", "CT-1"] == 1
    assert matrix.at["CT-4", "CT-3"] == 1
    assert matrix.to_numpy().sum() == 4
    infection = pd.read_csv(output / "infection.csv")
    assert infection["truth_infection_percent"][1] == pytest.approx(50)
    overall = pd.read_csv(output / "severity_overall.csv").set_index("metric")
    assert overall.at["overall accuracy", "mean"] == 0.5
    assert overall.at["overall accuracy", "low"] < 0.5 < overall.at["overall accuracy", "high"]


def test_a_reference_class_goes_before_the_masks_and_must_be_one(tmp_path: Path, capsys) -> None:
    mask, lung = save(tmp_path, "m", lesion(4)), save(tmp_path, "lung", LUNG)
    row = {"truth": mask, "prediction": mask, "prediction_lung": lung, "reference_class": "CT-2"}
    frame = pd.DataFrame([{"case": "a", **row}, {"case": "b", **row}])
    frame.to_csv(tmp_path / "list.csv", index=False)
    arguments = ["slices", str(tmp_path / "list.csv"), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    matrix = pd.read_csv(tmp_path / "out" / "severity_confusion.csv").set_index("truth")
    assert matrix.at["CT-2", "CT-1"] == 2
    frame.assign(reference_class="mild").to_csv(tmp_path / "list.csv", index=False)
    assert main(arguments) == 2
    assert "case a: reference_class 'mild' is none of CT-0" in capsys.readouterr().err


def test_class_table_equals_scikit_learn() -> None:
    random = np.random.default_rng(3)
    labels = ["a", "b", "c"]
    truth, predicted = random.choice(labels, (2, 200)).tolist()
    found = class_metrics(truth, predicted, labels).set_index("class")
    expected = classification_report(truth, predicted, output_dict=True)
    for label in labels:
        assert found.at[label, "precision"] == pytest.approx(expected[label]["precision"])
        assert found.at[label, "sensitivity"] == pytest.approx(expected[label]["recall"])
        assert found.at[label, "f1"] == pytest.approx(expected[label]["f1-score"])
    weighted = expected["weighted avg"]
    assert found.at["average", "f1"] == pytest.approx(weighted["f1-score"])
    assert found.at["average", "sensitivity"] == pytest.approx(expected["accuracy"])


@pytest.mark.parametrize(
    ("truth", "predicted", "undefined"),
    [
        ([0, 0], [0, 0], {"precision", "sensitivity", "f1"}),
        ([1, 1], [1, 1], {"specificity"}),
        ([1, 0], [0, 0], {"precision"}),
    ],
)
def test_a_metric_without_denominator_is_not_a_number(
    truth: list, predicted: list, undefined: set
) -> None:
    found = binary_metrics(truth, predicted)
    assert {name for name, value in found.items() if np.isnan(value)} == undefined


def test_classes_command(tmp_path: Path, capsys) -> None:
    truth = ["covid19"] * 4 + ["pneumonia"] * 3 + ["normal"] * 3
    predicted = ["covid19"] * 3 + ["pneumonia"] * 4 + ["normal"] * 3
    frame = pd.DataFrame({"case": range(10), "class": truth, "predicted_class": predicted})
    frame.to_csv(tmp_path / "list.csv", index=False)
    arguments = ["classes", str(tmp_path / "list.csv"), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    table = pd.read_csv(tmp_path / "out" / "classes_1_classes.csv").set_index("class")
    assert table.at["covid19", "sensitivity"] == 0.75
    assert table.at["pneumonia", "precision"] == 0.75
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("metric")
    assert summary.at["overall accuracy", "mean"] == pytest.approx(0.9)
    for change, message in (
        ({"class": "normal"}, "one class only"),
        ({"predicted_class": "flu"}, "predicted_class 'flu' is no class of the truth"),
    ):
        frame.assign(**change).to_csv(tmp_path / "list.csv", index=False)
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
