"""Studies with diagnoses, as the classifying bundles take them."""

import csv
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tools.datasets import diagnosed
from tools.synthesis import studies


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients")
    z, y, x = np.mgrid[-150:150:6.0, -160:160:5.0, -190:190:5.0]
    lungs = ((abs(x) - 75) / 60) ** 2 + (y / 90) ** 2 + (z / 120) ** 2 < 1
    body = (x / 170) ** 2 + (y / 130) ** 2 < 1
    ct = np.where(lungs, -850, np.where(body, 40, -1000)).astype(np.int16)
    for name, share in (("a", 0), ("b", 0), ("ill", 0.2)):
        lesions = lungs & (z < np.quantile(z[lungs], share))
        for kind, voxels in (("ct", ct), ("lung", lungs), ("lesion", lesions)):
            stored = voxels.astype(np.int16).transpose(2, 1, 0)
            image = nibabel.Nifti1Image(stored, np.diag([-5.0, -5.0, 6.0, 1.0]))
            nibabel.save(image, folder / f"{name}_{kind}.nii.gz")
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "diagnoses.csv").open() as stream:
        return list(csv.DictReader(stream))


def read(folder: Path, name: str) -> dict[str, nibabel.Nifti1Image]:
    return {
        part: nibabel.Nifti1Image.from_filename(folder / f"{name}_{part}.nii.gz")
        for part in ("ct", "lung", "lesion", "opacity_seg")
    }


def test_each_phantom_has_its_masks_and_its_diagnosis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosed, "SPACING_MM", 10.0)
    assert diagnosed.main([str(tmp_path), "--count", "2", "--unseen", "1"]) == 0
    rows = table(tmp_path)
    assert rows == [
        {"name": "seen-000-covid19", "diagnosis": "covid19"},
        {"name": "unseen-001-bacterial", "diagnosis": "bacterial"},
    ]
    for row in rows:
        images = read(tmp_path, row["name"])
        values = {part: np.asarray(image.dataobj) for part, image in images.items()}
        assert np.array_equal(values["opacity_seg"] > 0, values["lesion"] > 0)
        assert set(np.unique(values["opacity_seg"])) <= {0, 1, 2}
        assert np.allclose(images["opacity_seg"].affine, images["ct"].affine)


def test_healthy_patients_give_every_diagnosis_equally_often(
    patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "PIXEL_MM", 8.0)
    options = ["--count", "0", "--unseen", "0", "--studies", "4", "--unseen-patients", "b"]
    assert diagnosed.main([str(tmp_path), "--lungs", str(patients), *options]) == 0
    rows = table(tmp_path)
    shares = Counter((row["name"].split(".")[0], row["diagnosis"]) for row in rows)
    # The ill patient's lungs must never be called anything else.
    assert shares == {
        (patient, diagnosis): 1
        for patient in ("seen-a", "unseen-b")
        for diagnosis in ("covid19", "bacterial", "nodules", "normal")
    }
    for row in rows:
        images = read(tmp_path, row["name"])
        lung, lesion, opacity = (
            np.asarray(images[part].dataobj) for part in ("lung", "lesion", "opacity_seg")
        )
        assert len({image.shape for image in images.values()}) == 1
        assert not lesion[lung == 0].any()
        assert np.array_equal(opacity > 0, lesion > 0)
        assert lesion.any() == (row["diagnosis"] in ("covid19", "bacterial"))
        assert -1100 < np.median(np.asarray(images["ct"].dataobj)[lung > 0]) < -300
        assert 1.0 < lung.sum() * np.prod(images["ct"].header.get_zooms()) / 1e6 < 8.0


def test_a_seed_gives_one_study_and_another_seed_another(
    patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "PIXEL_MM", 8.0)
    names = {"first": 7, "again": 7, "other": 8}
    for name, seed in names.items():
        studies.write_diagnosed_study(patients, "a", tmp_path, name, "covid19", seed)
    first, again, other = (
        np.asarray(nibabel.load(tmp_path / f"{name}_ct.nii.gz").dataobj) for name in names
    )
    assert np.array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


@pytest.mark.parametrize(
    "options",
    [
        ["--count", "0"],
        ["--count", "3", "--unseen", "4"],
        ["--studies", "3"],
        ["--lungs", "nowhere"],
    ],
)
def test_impossible_numbers_are_refused(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error:
        diagnosed.main([str(tmp_path), *options])
    assert error.value.code == 2
    assert not list(tmp_path.iterdir())
