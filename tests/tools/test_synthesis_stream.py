"""Studies drawn while training: the same by number, shared among workers, left-out patients."""

from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.transforms import Compose, Orientationd, SelectItemsd
from torch.utils.data import DataLoader

from tools.synthesis import studies
from tools.synthesis.stream import SyntheticStudies


@pytest.fixture
def lungs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(studies, "PIXEL_MM", 8.0)
    z, y, x = np.mgrid[-150:150:10.0, -160:160:8.0, -190:190:8.0]
    lung = ((abs(x) - 75) / 60) ** 2 + (y / 90) ** 2 + (z / 120) ** 2 < 1
    ct = np.where(lung, -850, np.where(np.hypot(x / 170, y / 130) < 1, 40, -1000))
    for name in ("a", "b", "c"):
        for kind, voxels in (("ct", ct), ("lung", lung), ("lesion", lung & False)):
            stored = voxels.astype(np.int16).transpose(2, 1, 0)
            image = nibabel.Nifti1Image(stored, np.diag([-8.0, -8.0, 10.0, 1.0]))
            nibabel.save(image, tmp_path / f"{name}_{kind}.nii.gz")
    return tmp_path


def test_patients_and_diagnoses_come_equally_often(lungs: Path) -> None:
    dataset = SyntheticStudies([lungs], length=8, leave_out=["b"])
    drawn = list(dataset)
    pairs = Counter((study["name"].split(".")[0], study["diagnosis"]) for study in drawn)
    assert pairs == {(p, d): 1 for p in "ac" for d in studies.DIAGNOSES}
    for study in drawn:
        assert len({study[key].shape for key in ("image", "lung", "lesion", "opacity")}) == 1
        assert not study["lesion"][study["lung"] == 0].any()
    again = SyntheticStudies([lungs], leave_out=["b"]).draw(4)
    np.testing.assert_array_equal(again["image"], drawn[4]["image"])
    other = SyntheticStudies([lungs], seed=1, leave_out=["b"]).draw(4)
    assert other["image"].shape != again["image"].shape or (other["image"] != again["image"]).any()


def test_workers_share_the_studies_and_transforms_know_the_axes(lungs: Path) -> None:
    transform = Compose(
        [Orientationd("image", "PLS", labels=None), SelectItemsd(["name", "image"])]
    )
    dataset = SyntheticStudies([lungs], length=5, transform=transform)
    seen = list(DataLoader(dataset, batch_size=None, num_workers=2))
    numbers = sorted(int(study["name"].rsplit("-", 1)[1]) for study in seen)
    assert numbers == [0, 1, 2, 3, 4]
    straight = dataset.draw(0)["image"][0].numpy()
    turned = next(s["image"] for s in seen if s["name"].endswith("-0"))[0]
    np.testing.assert_array_equal(turned, straight.transpose(1, 0, 2)[::-1, ::-1])


def test_a_folder_without_patients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no patient without lesions"):
        SyntheticStudies([tmp_path])
