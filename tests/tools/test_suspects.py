"""The suspects command: a wrong label comes first."""

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tools.phantom import Grid, build_phantom, write_nifti
from tools.suspects import SuspectsError, halves
from tools.suspects.__main__ import main

BUNDLE = Path(__file__).parents[2] / "bundles" / "lung_segmentation"


def test_halves_share_nobody_and_leave_out_nobody() -> None:
    names = [f"patient-{i}" for i in range(7)]
    first, second = halves(names, seed=3)
    assert sorted(first + second) == names
    assert {len(first), len(second)} == {3, 4}
    assert halves(list(reversed(names)), seed=3) == (first, second)
    assert halves(names, seed=4) != (first, second)


def test_one_patient_cannot_be_split() -> None:
    with pytest.raises(SuspectsError, match="two patients"):
        halves(["alone"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bundle", "nowhere"], "nowhere/configs/train.json does not exist"),
        (["--bundle", str(BUNDLE), "--variant", "none"], "none.json does not exist"),
        (["--bundle", str(BUNDLE)], "holds no NAME_lung.nii.gz"),
    ],
)
def test_what_is_missing_is_named_in_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*options, "--dataset", str(tmp_path), "--output", str(tmp_path / "out")])
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_wrong_label_is_ranked_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tree = tmp_path / "tree"
    tree.mkdir()
    phantom = build_phantom(Grid.axial((16, 64, 64), (18.0, 5.6, 5.6)), "normal", 21)
    names = [f"patient-{i}" for i in range(4)]
    for name in names:
        write_nifti(phantom, tree, name)
    wrong = tree / "patient-2_lung.nii.gz"
    image = nibabel.Nifti1Image.from_filename(wrong)
    mask = np.asarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.roll(mask, 24, axis=0), image.affine), wrong)

    code = main(
        [
            *("--bundle", str(BUNDLE), "--dataset", str(tree), "--output", str(tmp_path / "out")),
            *("--count", "1", "--max_epochs", "30", "--val_interval", "30"),
            *("--spacing_mm", "[6.0,6.0]", "--train#slice_size", "[64,64]"),
        ]
    )

    assert code == 0
    printed = capsys.readouterr().out
    assert str(wrong) in printed
    with (tmp_path / "out" / "suspects.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["name"] == "patient-2"
    assert sorted(row["name"] for row in rows) == names
    assert float(rows[1]["dice"]) > float(rows[0]["dice"]) + 0.1
