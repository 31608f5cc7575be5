"""The table of the bundles: what it says of evaluations, and that it stays where it belongs."""

import shutil
from pathlib import Path

import pytest

from tools.model_table import figures, table
from tools.model_table.__main__ import main
from tools.phantom import Grid, build_phantom, write_nifti

REPOSITORY = Path(__file__).parents[2]
MARKS = f"before\n{table.BEGIN}\n{table.END}\nafter\n"


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    file = tmp_path / "README.md"
    file.write_text(MARKS)
    return file


def test_rows_stand_between_the_marks_and_can_be_read_back(readme: Path) -> None:
    row = [table.name_cell("lung_segmentation"), *map(str, range(1, len(table.COLUMNS)))]
    for _ in range(2):
        table.write_rows(readme, {"lung_segmentation": row}, "how")
        assert table.read_rows(readme) == {"lung_segmentation": row}
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count("how\n") == 1


def test_a_file_without_the_marks_is_named(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(f"{table.END}\n{table.BEGIN}\n")
    with pytest.raises(ValueError, match=r"README\.md lacks the lines"):
        table.read_rows(file)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("medseg/case1", "medseg/case8", "lctsc/S1"):
        file = folder / f"{name}_ct.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder


def test_dice_is_averaged_over_each_collection_and_counted(data: Path, tmp_path: Path) -> None:
    raw = tmp_path / "mean_dice_raw.csv"
    rows = [f"{data}/medseg/case1_ct.nii.gz,0.5", f"{data}/medseg/case8_ct.nii.gz,0.75"]
    raw.write_text("\n".join(["filename,class0", *rows, f"{data}/lctsc/S1_ct.nii.gz,nan"]))
    assert figures.figures_of([raw], data, True) == "MedSeg 0.625 (2)"
    assert figures.figures_of([raw], data, False) == "Dice 0.625 (2)"


def test_figures_of_studies_are_named(data: Path, tmp_path: Path) -> None:
    studies, summary = tmp_path / "studies.csv", tmp_path / "summary.csv"
    studies.write_text("name,dice\ncase1,0.5\ncase8,\n")
    summary.write_text("figure,value\nroc_auc_all,0.875\nmean_dice,0.5\n")
    said = figures.figures_of([studies, summary], data, True)
    assert said == "MedSeg 0.500 (1), ROC AUC of COVID-19 0.88"
    summary.write_text("accuracy,f1,study_accuracy\n0.8,0.7,0.6\n")
    said = figures.figures_of([summary], data, True)
    assert said == "accuracy of slices 0.80, of studies 0.60"


def test_a_tree_without_real_patients_is_named(
    readme: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--tree", str(tmp_path / "none"), "--readme", str(readme)])
    assert "holds none of lctsc" in capsys.readouterr().err
    assert readme.read_text() == MARKS


@pytest.mark.slow
def test_a_bundle_is_measured_and_others_stay_as_they_were(readme: Path, tmp_path: Path) -> None:
    grid = Grid.axial((12, 64, 64), (24.0, 5.6, 5.6))
    for name in ("case8", "case1"):
        write_nifti(build_phantom(grid, "covid19", 3), tmp_path / "tree" / "medseg", name)
    bundles = tmp_path / "bundles"
    for name in ("lung_segmentation", "lesion_segmentation_2d"):
        shutil.copytree(REPOSITORY / "bundles" / name, bundles / name)
    (bundles / "lesion_segmentation_2d" / "models" / "SHA256SUMS").unlink()
    options = ["--tree", tmp_path / "tree", "--bundles", bundles, "--readme", readme]
    small = ["--phantoms", 1, "--slices", 8, "--matrix", 128, "--threads", 1]
    assert main([str(word) for word in [*options, *small]]) == 0
    rows = table.read_rows(readme)
    assert rows["lesion_segmentation_2d"][1] == table.NO_WEIGHTS
    assert rows["mask_rcnn_classifier"][1] == table.NO_WEIGHTS
    _, parameters, size, kind, real, phantoms, seconds, memory = rows["lung_segmentation"]
    assert (parameters, kind) == ("3.7 M", "slices at 2 x 2 mm")
    weights = REPOSITORY / "bundles" / "lung_segmentation" / "models" / "model.pt"
    assert size == f"{weights.stat().st_size / 1e6:.1f} MB"
    # case1 is trained on, so it is not unseen.
    assert real.startswith("MedSeg 0.9")
    assert real.endswith("(1)")
    assert phantoms.startswith("Dice 0.9")
    assert float(seconds) > 0
    assert 0.3 < float(memory.removesuffix(" GB")) < 6
    assert str(tmp_path) not in readme.read_text()
