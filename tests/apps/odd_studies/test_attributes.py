"""Whatever attribute is missing, empty or nonsense: a result, or one clear refusal."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import config, dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from series_edits import edit
from small_study import ACCEPTABLE, ORIGIN

from ct_triage.errors import TriageError
from ct_triage.fhir import build_fhir
from ct_triage.picture import build_picture
from ct_triage.reading import read_volume
from ct_triage.report import build_report
from ct_triage.result_json import build_result
from ct_triage.results import RESULT_FILES, write_results
from ct_triage.seg import build_seg
from ct_triage.series import find_series
from ct_triage.severity import Segments, assess_severity
from tools.phantom import Grid, Phantom, write_dicom_series

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SHAPE = (12, 16, 16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve slices of air and tissue."""
    right, left, lesion = np.zeros((3, *SHAPE), bool)
    right[2:10, 3:13, 2:7], left[2:10, 3:13, 9:14], lesion[4:6, 5:8, 3:5] = True, True, True
    hu = np.where(right | left, -800, 40).astype(np.int16)
    grid = Grid.axial(SHAPE, (10.0, 20.0, 20.0))
    folder = tmp_path_factory.mktemp("source")
    write_dicom_series(
        Phantom(grid, hu, right, left, lesion, lesion & False, "covid19", 1, "O", 60, "soft"),
        folder / "series",
    )
    return folder


def _keywords(source: Path) -> list[str]:
    return [e.keyword for e in dcmread(next(source.rglob("*.dcm"))) if e.keyword != "PixelData"]


def _remove(dataset: Dataset, keyword: str) -> None:
    del dataset[keyword]


def _clear(dataset: Dataset, keyword: str) -> None:
    dataset[keyword].value = None


def _spoil(dataset: Dataset, keyword: str) -> None:
    tag = dataset[keyword].tag
    if keyword == "SpecificCharacterSet":
        # The writer of this test needs it.
        return
    with pytest.MonkeyPatch.context() as patch:
        # The bytes as they are; a reader takes them for what the dictionary says they are.
        patch.setattr(config, "replace_un_with_known_vr", False)
        dataset[tag] = DataElement(tag, "UN", b"?\xe9\\\x01 1e999 ")


def _deliver(study: Path, output: Path) -> None:
    """All that the application makes of a study, with given masks."""
    volume = read_volume(find_series(study))
    n_slices, rows, columns = volume.voxels.shape
    masks = np.zeros((3, n_slices, rows, columns), bool)
    masks[0, 2:10, 3:13, 2:7] = masks[1, 2:10, 3:13, 9:14] = masks[2, 4:6, 5:8, 3:5] = True
    segments = Segments(*masks)
    findings = assess_severity(segments, volume.voxel_volume_ml)
    seg = build_seg(volume, segments, ORIGIN)
    report = build_report(volume, segments, seg, findings, ACCEPTABLE, ORIGIN)
    picture = build_picture(volume, segments, ORIGIN)
    outputs = {"seg": seg, "report": report, "picture": picture}
    result = build_result(volume, outputs, findings, ACCEPTABLE, ORIGIN)
    fhir = build_fhir(volume, report, ORIGIN)
    names = ("seg.dcm", "sr.dcm", "picture.dcm", "result.json", "result.fhir.json")
    results = dict(zip(names, (seg, report, picture, result, fhir), strict=True))
    assert set(results) < set(RESULT_FILES)
    write_results(output, results)


@pytest.mark.parametrize(
    "change",
    [_remove, *(pytest.param(more, marks=pytest.mark.slow) for more in (_clear, _spoil))],
)
def test_every_attribute_in_turn(
    change: Callable[[Dataset, str], None], source: Path, tmp_path: Path
) -> None:
    crashes, refusals = {}, {}
    files = {file.name: file.read_bytes() for file in (source / "series").iterdir()}
    study = tmp_path / "study"
    study.mkdir()
    for number, keyword in enumerate(_keywords(source)):
        for name, content in files.items():
            (study / name).write_bytes(content)
        edit(study, lambda _, dataset, keyword=keyword: change(dataset, keyword))
        try:
            _deliver(study, tmp_path / f"out{number}")
        except TriageError as error:
            refusals[keyword] = str(error)
        except Exception as error:
            crashes[keyword] = repr(error)
    assert crashes == {}
    assert not [told for told in refusals.values() if len(told.splitlines()) != 1]
    # Nothing else is needed.
    assert set(refusals) <= {
        *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
        *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
        *("SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation"),
        *("BitsAllocated", "BitsStored", "HighBit", "RescaleIntercept", "RescaleSlope"),
        "RescaleType",
    }
