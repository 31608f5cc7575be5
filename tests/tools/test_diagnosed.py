"""Phantoms with diagnoses, as the classifying bundles take them."""

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tools.datasets import diagnosed


def test_each_phantom_has_its_masks_and_its_diagnosis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosed, "SPACING_MM", 10.0)
    assert diagnosed.main([str(tmp_path), "--count", "2", "--unseen", "1"]) == 0
    with (tmp_path / "diagnoses.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [
        {"name": "seen-000-covid19", "diagnosis": "covid19"},
        {"name": "unseen-001-bacterial", "diagnosis": "bacterial"},
    ]
    for row in rows:
        images = {
            part: nibabel.Nifti1Image.from_filename(tmp_path / f"{row['name']}_{part}.nii.gz")
            for part in ("ct", "lesion", "opacity_seg")
        }
        values = {part: np.asarray(image.dataobj) for part, image in images.items()}
        assert np.array_equal(values["opacity_seg"] > 0, values["lesion"] > 0)
        assert set(np.unique(values["opacity_seg"])) <= {0, 1, 2}
        assert np.allclose(images["opacity_seg"].affine, images["ct"].affine)


@pytest.mark.parametrize("options", [["--count", "0"], ["--count", "3", "--unseen", "4"]])
def test_impossible_numbers_are_refused(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error:
        diagnosed.main([str(tmp_path), *options])
    assert error.value.code == 2
    assert not list(tmp_path.iterdir())
