"""Files and the command line of the phantom."""

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from tools.phantom import Grid, Phantom, build_phantom, write_dicom_series, write_nifti
from tools.phantom.__main__ import main


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    grid = Grid.axial((6, 48, 60), (40, 8.1, 6.3), "FFP", rotation_deg=(9, 4, -5))
    return build_phantom(grid, "covid19", seed=2, severity=0.3)


def test_dicom_geometry_is_the_grids(phantom: Phantom, tmp_path: Path) -> None:
    paths = write_dicom_series(phantom, tmp_path)
    assert len(paths) == 6
    for i, path in enumerate(paths):
        image = pydicom.dcmread(path)
        row_mm, column_mm = map(float, image.PixelSpacing)
        rightwards = np.array(image.ImageOrientationPatient[:3], dtype=float)
        downwards = np.array(image.ImageOrientationPatient[3:], dtype=float)
        affine = np.eye(4)
        affine[:3, 1] = downwards * row_mm
        affine[:3, 2] = rightwards * column_mm
        affine[:3, 3] = np.array(image.ImagePositionPatient, dtype=float)
        for corner in ((0, 0), (47, 59)):
            found = (affine @ [0, *corner, 1])[:3]
            np.testing.assert_allclose(found, phantom.grid.to_patient((i, *corner)), atol=1e-6)
        hu = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        np.testing.assert_array_equal(hu, phantom.hu[i])
        assert image.PatientPosition == "FFP"
        assert (image.Rows, image.Columns) == (48, 60)


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
def test_orientations_are_those_of_scanners(position: str) -> None:
    expected = {
        "HFS": [1, 0, 0, 0, 1, 0],
        "HFP": [-1, 0, 0, 0, -1, 0],
        "FFS": [-1, 0, 0, 0, 1, 0],
        "FFP": [1, 0, 0, 0, -1, 0],
    }
    grid = Grid.axial((4, 8, 8), (1, 1, 1), position)
    found = [*grid.affine[:3, 2], *grid.affine[:3, 1]]
    np.testing.assert_allclose(found, expected[position], atol=1e-12)


def test_one_seed_writes_identical_files(phantom: Phantom, tmp_path: Path) -> None:
    first = write_dicom_series(phantom, tmp_path / "a")
    second = write_dicom_series(phantom, tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_identifiers_tell_instances_and_series_apart(phantom: Phantom, tmp_path: Path) -> None:
    one = [pydicom.dcmread(p) for p in write_dicom_series(phantom, tmp_path / "a")]
    two = [pydicom.dcmread(p) for p in write_dicom_series(phantom, tmp_path / "b", series_number=3)]
    assert len({d.SOPInstanceUID for d in one + two}) == 12
    assert len({d.SeriesInstanceUID for d in one + two}) == 2
    assert len({d.StudyInstanceUID for d in one + two}) == 1
    assert len({d.FrameOfReferenceUID for d in one + two}) == 1
    assert one[0].PatientName == "Phantom^Covid19"
    assert one[0].BodyPartExamined == "CHEST"


def test_instances_can_be_numbered_and_named_out_of_order(phantom: Phantom, tmp_path: Path) -> None:
    paths = write_dicom_series(
        phantom, tmp_path, reverse_instance_numbers=True, shuffle_file_names=True
    )
    assert [pydicom.dcmread(p).InstanceNumber for p in paths] == [6, 5, 4, 3, 2, 1]
    assert sorted(paths) != paths


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) not installed")
@pytest.mark.parametrize("disease", ["covid19", "normal"])
def test_dciodvfy_finds_nothing(disease: str, tmp_path: Path) -> None:
    small = build_phantom(Grid.axial((2, 16, 16), (9, 25, 25)), disease, seed=2)
    for path in write_dicom_series(small, tmp_path):
        found = subprocess.run(
            ["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False
        )
        assert "Error" not in found.stdout + found.stderr
        assert "Warning" not in found.stdout + found.stderr


def test_nifti_is_placed_in_ras(phantom: Phantom, tmp_path: Path) -> None:
    names = [p.name for p in write_nifti(phantom, tmp_path, "case")]
    assert names == ["case_ct.nii.gz", "case_lung.nii.gz", "case_lesion.nii.gz"]
    image, lung, lesion = (nibabel.load(tmp_path / n) for n in names)
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), phantom.hu)
    for mask, truth in ((lung, phantom.lung), (lesion, phantom.lesion)):
        assert mask.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(mask.dataobj).transpose(2, 1, 0), truth)
    ras = image.affine @ [7, 5, 3, 1]
    np.testing.assert_allclose(ras[:3] * [-1, -1, 1], phantom.grid.to_patient((3, 5, 7)), atol=1e-4)


def test_command_line_writes_a_series_and_its_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "case7"
    arguments = [str(out), "--slices", "4", "--matrix", "32", "--seed", "2", "--truth"]
    assert main([*arguments, "--disease", "bacterial", "--patient-position", "HFP"]) == 0
    assert len(list(out.glob("*.dcm"))) == 4
    assert (tmp_path / "case7_lesion.nii.gz").exists()
    assert "4 slices" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--severity", "7"], "severity"),
        (["--slices", "0"], "slices"),
        (["--matrix", "-4"], "matrix"),
        (["--spacing", "1", "0", "1"], "spacing"),
        (["--seed", "-1"], "seed"),
        (["--disease", "flu"], "disease"),
        (["--noise", "nan"], "noise"),
    ],
)
def test_command_line_names_what_is_wrong(
    arguments: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    try:
        code = main([str(tmp_path / "x"), *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert word in capsys.readouterr().err.splitlines()[-1]


def test_command_line_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.phantom", str(tmp_path), "--severity", "7"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: severity")


def test_command_line_cannot_write_into_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "taken").write_text("")
    assert main([str(tmp_path / "taken"), "--slices", "1", "--matrix", "16", "--seed", "2"]) != 0
    assert capsys.readouterr().err.startswith("error: ")
