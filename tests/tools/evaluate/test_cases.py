"""Bad datalists are refused by name before anything is computed."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from tools.evaluate.cases import check_masks, check_two_groups, read_datalist, rows_of
from tools.evaluate.masks import EvaluationError, MaskFile

PAIR = ("prediction", "truth")


def mask_file(path: Path, shape: tuple[int, int, int] = (4, 5, 6), value: int = 1) -> str:
    array = np.zeros(shape, np.uint8)
    array[1:3, 1:3, 1:3] = value
    nibabel.save(nibabel.Nifti1Image(array, np.diag([2, 2, 5, 1])), path)
    return path.name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("t1", "t2", "p1", "p2"):
        mask_file(tmp_path / f"{name}.nii.gz")
    return tmp_path


def cases(**changes: object) -> list[dict[str, object]]:
    """Two cases, the second with changes."""
    return [
        {"case": "c1", "truth": "t1.nii.gz", "prediction": "p1.nii.gz"},
        {"case": "c2", "truth": "t2.nii.gz", "prediction": "p2.nii.gz", **changes},
    ]


def test_csv_and_json_say_the_same(folder: Path) -> None:
    rows = cases(training="seed 1")
    (folder / "a.json").write_text(json.dumps({"cases": rows}))
    (folder / "b.json").write_text(json.dumps(rows))
    pd.DataFrame(rows).to_csv(folder / "c.csv", index=False)
    read = [
        read_datalist(folder / name, PAIR, ("training", "class"))
        for name in ("a.json", "b.json", "c.csv")
    ]
    assert list(rows_of(read[0])) == list(rows_of(read[1])) == list(rows_of(read[2]))
    assert read[0]["truth"][1] == MaskFile(folder / "t2.nii.gz")
    assert list(read[0]["patient"]) == ["c1", "c2"]
    assert "class" not in read[0]
    check_masks(read[0], PAIR, ("lesion", "lesion"), quiet=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": None}, "case c2 has no prediction"),
        ({"prediction": "gone.nii.gz"}, r"case c2: prediction .*gone\.nii\.gz does not exist"),
        ({"case": "c1"}, "c1 is listed twice"),
        ({"dice": 1}, "unknown column 'dice'"),
        ({"probability": "high"}, "case c2: probability 'high' is not a number"),
        ({"probability": "nan"}, "case c2: probability 'nan' is not a number"),
    ],
)
def test_bad_lists_are_refused(folder: Path, changes: dict, message: str) -> None:
    (folder / "list.json").write_text(json.dumps(cases(**changes)))
    with pytest.raises(EvaluationError, match=rf"list\.json: .*{message}"):
        read_datalist(folder / "list.json", PAIR, ("probability",))


def test_a_patient_in_two_folds_is_refused(folder: Path) -> None:
    rows = [{**row, "patient": "P7", "fold": n} for n, row in enumerate(cases())]
    (folder / "list.json").write_text(json.dumps(rows))
    with pytest.raises(EvaluationError, match="patient P7 is in two folds"):
        read_datalist(folder / "list.json", PAIR, ("fold",))
    for row in rows:
        row["training"] = f"seed {row['fold']}"
    (folder / "list.json").write_text(json.dumps(rows))
    assert len(read_datalist(folder / "list.json", PAIR, ("fold", "training"))) == 2


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [
        ((4, 5, 7), 1, r"case c2: .*p2\.nii\.gz: geometry differs from .*t2|case c2: .*t2\.nii"),
        ((4, 5, 6), 3, r"case c2: .*p2\.nii\.gz: label is not binary, values are 0, 3"),
    ],
)
def test_bad_masks_are_refused(folder: Path, shape: tuple, value: int, message: str) -> None:
    mask_file(folder / "p2.nii.gz", shape, value)
    (folder / "list.json").write_text(json.dumps(cases()))
    frame = read_datalist(folder / "list.json", PAIR)
    with pytest.raises(EvaluationError, match=message):
        check_masks(frame, PAIR, ("lesion", "lesion"), quiet=True)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["covid19"] * 2, "one class only"),
        (["normal"] * 2, "no case of class covid19, only normal"),
    ],
)
def test_one_class_is_refused(classes: list[str], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        check_two_groups(pd.DataFrame({"class": classes}), "class", "covid19", Path("list.csv"))


@pytest.mark.parametrize("text", ["", "[]", "[1]", '{"cases": 3}', "{"])
def test_what_is_no_list_of_cases_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"list\.json"):
        read_datalist(tmp_path / "list.json", PAIR)
    (tmp_path / "list.csv").write_text("")
    with pytest.raises(EvaluationError, match=r"list\.csv"):
        read_datalist(tmp_path / "list.csv", PAIR)
