"""The table of the bundles: what it says of evaluations, and that it stays where it belongs."""

import re
import shutil
from pathlib import Path

import pytest

from tools.bundles.generate import BUNDLE_NAMES
from tools.model_table import table, words
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
    rows = [f"{data}/medseg/case1_ct.nii.gz,0.5,0.5", f"{data}/medseg/case8_ct.nii.gz,0.75,0.75"]
    lines = ["filename,class0,mean", *rows, f"{data}/lctsc/S1_ct.nii.gz,nan,nan"]
    raw.write_text("\n".join(lines))
    assert words.figures_of([raw], data, True) == "MedSeg 0.625 (2)"
    assert words.figures_of([raw], data, False) == "Dice 0.625 (2)"
    raw.write_text("\n".join(lines[:2]))
    assert words.figures_of([raw], data, True) == "MedSeg 0.500 (1)"
    raw.write_text("\n".join([lines[0], lines[-1]]))
    assert words.figures_of([raw], data, True) == "none"


def _interval(said: str, title: str) -> tuple[float, float, float]:
    """Return a figure and its interval."""
    found = re.search(rf"{title} (\d\.\d+) \[(\d\.\d\d), (\d\.\d\d)\]", said)
    assert found, said
    value, low, high = map(float, found.groups())
    return value, low, high


def test_three_patients_give_an_interval_and_two_do_not(data: Path, tmp_path: Path) -> None:
    studies = tmp_path / "studies.csv"
    medseg = {f"case{n}": 0.1 * n for n in (1, 2, 3, 8)}
    for name in medseg:
        (data / "medseg" / f"{name}_ct.nii.gz").touch()

    def said(*names: str) -> str:
        rows = [f"{name},{medseg[name]:.1f}" for name in names]
        studies.write_text("\n".join(["name,dice", *rows]))
        return words.figures_of([studies], data, True)

    assert _interval(said("case1", "case2", "case8"), "MedSeg") == (0.367, 0.1, 0.8)
    # case2 and case3 are of one patient.
    assert said("case2", "case3", "case8") == "MedSeg 0.433 (3)"


def test_areas_and_accuracies_are_named_with_their_intervals(data: Path, tmp_path: Path) -> None:
    studies, slices = tmp_path / "studies.csv", tmp_path / "slices.csv"
    rows = [("p1.1", 1, 0.9), ("p2", 1, 0.4), ("p1.2", 0, 0.1), ("p3", 0, 0.5), ("p4", 0, 0.2)]
    lines = [f"{name},{ill},{score},{ill}" for name, ill, score in rows]
    studies.write_text("\n".join(["name,covid19,probability,dice", *lines]))
    said = words.figures_of([studies], data, False)
    assert said.endswith(" (5)")
    # Five of six pairs are in order.
    area, low, high = _interval(said, "ROC AUC of COVID-19")
    assert area == 0.83
    assert low < area < high == 1
    studies.write_text("study,truth,class\na,x,x\nb,y,x\nc,x,x\n")
    slices.write_text("study,truth,class\na,x,x\na,x,x\nb,y,y\nb,y,x\nc,x,x\n")
    said = words.figures_of([slices, studies], data, False)
    value, low, high = _interval(said, "accuracy of slices")
    assert (value, low, high) == (0.8, 0.5, 1.0)
    assert _interval(said, "of studies") == (0.67, 0, 1)


def test_what_is_not_measured_says_why(readme: Path, tmp_path: Path) -> None:
    """A bundle may have weights and no row yet, or a row from before it had weights."""
    bundles = tmp_path / "bundles"
    old = {name: table.empty_row(name, table.NO_WEIGHTS) for name in BUNDLE_NAMES}
    old["lung_segmentation"][1:3] = "3.7 M", "15.0 MB"
    del old["multitask_triage"]
    table.write_rows(readme, old, "how")
    for name in ("lung_segmentation", "lesion_ensemble", "multitask_triage"):
        (bundles / name / "models").mkdir(parents=True)
        (bundles / name / "models" / "SHA256SUMS").touch()
    only = ["--only", "lesion_segmentation_2d", "--bundles", str(bundles)]
    assert main(["--tree", str(tmp_path), "--readme", str(readme), *only]) == 0
    assert {name: row[1] for name, row in table.read_rows(readme).items()} == {
        **dict.fromkeys(BUNDLE_NAMES, table.NO_WEIGHTS),
        "lung_segmentation": "3.7 M",
        "lesion_ensemble": table.NOT_MEASURED,
        "multitask_triage": table.NOT_MEASURED,
    }


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
    small = ["--phantoms", 3, "--slices", 8, "--matrix", 128, "--threads", 1]
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
    dice, low, high = _interval(phantoms, "Dice")
    assert phantoms.endswith("(3)")
    assert 0.9 < low <= dice <= high < 1
    assert float(seconds) > 0
    assert 0.3 < float(memory.removesuffix(" GB")) < 6
    assert str(tmp_path) not in readme.read_text()
