"""Every study that is no chest CT, or a broken one, is refused or flagged; no good one is."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from gate_corpus import BAD, GOOD, Bad, phantom

from ct_triage.errors import TriageError
from ct_triage.lungs import segment_lungs
from ct_triage.network import SliceNetwork
from ct_triage.quality import Quality, assess_quality
from ct_triage.reading import read_volume
from ct_triage.review import review_lungs
from ct_triage.series import find_series
from ct_triage.volume import Volume
from tools.phantom import write_dicom_series

REPOSITORY = Path(__file__).parents[3]
SHARED_DATA = Path(os.environ.get("SHARED_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="module")
def network() -> SliceNetwork:
    return SliceNetwork.load(REPOSITORY / "bundles" / "lung_segmentation")


@pytest.fixture(scope="module")
def good_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    write_dicom_series(phantom(), folder / "series")
    return folder


def _judged(volume: Volume, network: SliceNetwork) -> Quality:
    lungs = segment_lungs(volume, network)
    return assess_quality(review_lungs(volume, *lungs), *lungs)


@pytest.mark.parametrize("bad", [pytest.param(bad, id=name) for name, bad in BAD.items()])
def test_a_bad_study_is_refused_or_flagged(
    bad: Bad, good_study: Path, network: SliceNetwork, tmp_path: Path
) -> None:
    study = shutil.copytree(good_study, tmp_path / "study")
    bad.make(study)
    if bad.exit_code:
        with pytest.raises(TriageError) as refusal:
            _judged(read_volume(find_series(study)), network)
        assert refusal.value.exit_code == bad.exit_code
        assert re.search(bad.reasons[0], str(refusal.value))
        return
    quality = _judged(read_volume(find_series(study)), network)
    assert {reason.code for reason in quality.reasons} & set(bad.reasons)
    assert quality.verdict == bad.verdict


@pytest.mark.parametrize("options", [pytest.param(o, id=name) for name, o in GOOD.items()])
def test_a_good_study_is_not_flagged(
    options: dict[str, Any], network: SliceNetwork, tmp_path: Path
) -> None:
    write_dicom_series(phantom(**options), tmp_path / "study")
    quality = _judged(read_volume(find_series(tmp_path / "study")), network)
    assert quality.reasons == ()


REAL = (
    "covid_ct_md/P001",
    "covid_ct_md/normal001",
    *(f"lctsc/S1-{number}_ct.nii.gz" for number in (101, 102, 103, 201, 202)),
    *(f"medseg/case{number}_ct.nii.gz" for number in (1, 2, 3, 6, 8, 9)),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_real_chest_is_not_flagged(name: str, network: SliceNetwork) -> None:
    file = SHARED_DATA / name
    if not file.exists():
        pytest.skip(f"real CT is not at {SHARED_DATA}; set SHARED_DATA to its folder")
    if file.is_dir():
        volume = read_volume(find_series(file))
    else:
        image = nibabel.load(file)
        hu = np.asarray(image.dataobj).transpose(2, 1, 0).clip(-1024, 3071)
        # Axes (x, y, z) in RAS to (slice, row, column) in LPS.
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine[:, [2, 1, 0, 3]]
        volume = Volume(np.ascontiguousarray(hu).astype(np.int16), affine, ({},))
    assert _judged(volume, network).reasons == ()
