"""The training tree, from miniature collections and, where they are, the real ones."""

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tools.datasets.__main__ import main
from tools.datasets.coronacases import FIRST_SLICES, grey_to_hu
from tools.datasets.tree import DatasetError, build_tree

SHARED_DATA = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def volume(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 2, 2), np.int16), np.eye(4)), path)


def test_a_missing_collection_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--source", str(tmp_path), "--output", str(tmp_path / "out"), "--only", "lctsc"]
    assert main(arguments) != 0
    assert str(tmp_path / "lctsc") in capsys.readouterr().err


def test_a_volume_without_lungs_is_refused(tmp_path: Path) -> None:
    volume(tmp_path / "lctsc" / "a_ct.nii.gz")
    with pytest.raises(DatasetError, match="a_lung"):
        build_tree(tmp_path, tmp_path / "out", ["lctsc"])


def test_patients_without_lesion_masks_get_an_empty_one(tmp_path: Path) -> None:
    for kind in ("ct", "lung"):
        volume(tmp_path / "lctsc" / f"a_{kind}.nii.gz")
    for _ in range(2):  # a second run writes the same again
        build_tree(tmp_path, tmp_path / "out", ["lctsc"])
    folder = tmp_path / "out" / "lctsc"
    assert (folder / "a_ct.nii.gz").is_symlink()
    assert not np.asarray(nibabel.load(folder / "a_lesion.nii.gz").dataobj).any()


def test_grey_values_come_near_to_hounsfield_units() -> None:
    grey = np.full((4, 10, 10), 180, np.uint8)
    lung = np.zeros(grey.shape, bool)
    lung[:, 2:6, 2:6] = True
    grey[lung] = 60
    hu = grey_to_hu(grey, lung, np.zeros_like(lung))
    assert np.all(hu[lung] == -850)
    assert np.all(hu[~lung] == 40)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"{SHARED_DATA} is absent")
def test_coronacases_come_apart_into_ten_patients(tmp_path: Path) -> None:
    build_tree(SHARED_DATA, tmp_path, ["coronacases"])
    names = sorted(path.name for path in (tmp_path / "coronacases").glob("*_ct.nii.gz"))
    assert len(names) == 10
    for index, name in enumerate(names):
        folder = tmp_path / "coronacases"
        ct = nibabel.load(folder / name)
        lung = np.asarray(nibabel.load(folder / name.replace("_ct", "_lung")).dataobj) > 0
        assert ct.shape[2] == FIRST_SLICES[index + 1] - FIRST_SLICES[index]
        assert -900 < np.median(np.asarray(ct.dataobj)[lung]) < -700
