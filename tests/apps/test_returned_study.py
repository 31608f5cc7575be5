"""The whole study that a system gets back, CT and results, for every variant of the configuration.

Held against dciodvfy, dcentvfy, dcmqi, dsrdump and PixelMed.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from oracle import painted
from pydicom import dcmread
from pydicom.uid import generate_uid
from validators import (
    dcentvfy_errors,
    dciodvfy_errors,
    dcmqi_report,
    dcmqi_segments,
    dsrdump,
    pixelmed_sr_errors,
)

from ct_triage.configuration import Configuration
from ct_triage.pipeline import Pipeline
from ct_triage.runs import run_every_series
from tools.phantom import Grid, build_phantom, write_dicom_series

pytestmark = pytest.mark.slow

SCHEMA = Path(__file__).parents[2] / "apps" / "ct_triage" / "docs" / "result.schema.json"
IDENTIFIED = {"models": {"lesions": "multitask_triage"}, "identification": True}
ALL_OUTPUTS = {"seg": True, "sr": True, "json": True, "fhir": True, "picture": True}
NONE = dict.fromkeys(ALL_OUTPUTS, False)
SITE = {"site": "North", "lesion_threshold": 0.5, "ct_class_bounds": [0.1, 0.2, 0.3]}
NAMES = {
    "private_scheme": {"designator": "99HOSP", "name": "Hospital", "version": "2"},
    "manufacturer": {"name": "Hospital", "model_name": "triage"},
}
VARIANTS: dict[str, Mapping[str, Any]] = {
    "default": {},
    "three dimensions": {"models": {"lesions": "lesion_segmentation_3d"}},
    "ensemble": {"models": {"lesions": "lesion_ensemble"}},
    "identification": IDENTIFIED,
    "slice classification": {"slice_classification": True},
    "everything": {**IDENTIFIED, "slice_classification": True, "outputs": ALL_OUTPUTS},
    "site": {"site": SITE},
    "thresholds": {"thresholds": {"lung": 0.5, "lesion": 0.5, "min_lesion_ml": 5.0}},
    "names": NAMES,
    "picture": {"outputs": {"picture": True}},
    "picture alone": {"outputs": {**NONE, "picture": True}},
    "report alone": {"outputs": {**NONE, "sr": True}, **IDENTIFIED, "slice_classification": True},
    "segmentation alone": {"outputs": {**NONE, "seg": True}},
    "no lesions": {"thresholds": {"min_lesion_ml": 1e6}},
    "no follow-up": {"follow_up": False},
    "every series": {"series": {"take": "every"}},
}
WITH_PRIOR = ("default", "report alone", "everything")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    phantom = painted(build_phantom(Grid.axial((16, 96, 96), (20.0, 4.0, 4.0)), "covid19", seed=3))
    folder = tmp_path_factory.mktemp("returned") / "study"
    write_dicom_series(phantom, folder)
    return folder


@pytest.fixture(scope="module")
def prior(
    study: Path, oracle_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Segmentation and reports of the patient's study of three weeks before."""
    folder = tmp_path_factory.mktemp("prior")
    earlier = shutil.copytree(study, folder / "study")
    for file in earlier.glob("*.dcm"):
        dataset = dcmread(file)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(dataset, keyword, generate_uid(entropy_srcs=["prior", dataset[keyword].value]))
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=["prior", dataset.SOPInstanceUID])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
            setattr(dataset, keyword, "20200311")
        dataset.save_as(file)
    Pipeline(earlier, folder / "out", oracle_models).run()
    alone = Configuration.model_validate({"outputs": {**NONE, "sr": True}})
    Pipeline(earlier, folder / "alone", oracle_models, alone).run()
    return {
        "seg": folder / "out" / "seg.dcm",
        "sr": folder / "out" / "sr.dcm",
        "sr without segments": folder / "alone" / "sr.dcm",
    }


def _returned(study: Path, out: Path, models: Path, settings: Mapping[str, Any]) -> list[Path]:
    """Run the application; returns the DICOM objects among its results."""
    pipeline = Pipeline(study, out, models, Configuration.model_validate(settings))
    if pipeline.configuration.series.take == "every":
        assert run_every_series(pipeline).failure is None
    else:
        pipeline.run()
    return sorted(out.rglob("*.dcm"))


def _assert_clean(files: list[Path], study: Path, scratch: Path) -> None:
    """Hold each object, and all of them with the CT as one study, against the validators."""
    images = sorted(study.glob("*.dcm"))
    assert dcentvfy_errors([*images, *files]) == []
    for file in [images[0], *files]:
        assert dciodvfy_errors(file) == [], file.name
    for file in files:
        if file.name == "seg.dcm":
            _assert_same_voxels(file, scratch)
        elif file.name == "sr.dcm":
            assert pixelmed_sr_errors(file) == []
            assert "Imaging Measurement Report" in dsrdump(file)
            assert len(dcmqi_report(file, scratch)["Measurements"]) >= 3
    for file in scratch.rglob("result.json"):
        jsonschema.validate(json.loads(file.read_text()), json.loads(SCHEMA.read_text()))


def _assert_same_voxels(file: Path, scratch: Path) -> None:
    """dcmqi finds as many voxels in each segment as were written."""
    seg = dcmread(file)
    numbers = [
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for frame in seg.PerFrameFunctionalGroupsSequence
    ]
    frames = np.atleast_3d(seg.pixel_array)
    written: Counter[int] = Counter()
    for number, frame in zip(numbers, frames, strict=True):
        written[number] += int(frame.sum())
    found = {
        number: np.count_nonzero(np.asarray(image.dataobj))
        for number, image in dcmqi_segments(file, scratch / "dcmqi").items()
    }
    assert {number: count for number, count in found.items() if count} == written


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_returns_a_clean_study(
    name: str, study: Path, oracle_models: Path, tmp_path: Path
) -> None:
    files = _returned(study, tmp_path / "out", oracle_models, VARIANTS[name])
    outputs = Configuration.model_validate(VARIANTS[name]).outputs
    expected = {"seg.dcm": outputs.seg, "sr.dcm": outputs.sr, "picture.dcm": outputs.picture}
    assert {file.name for file in files} == {name for name, wanted in expected.items() if wanted}
    _assert_clean(files, study, tmp_path)


@pytest.mark.parametrize("name", WITH_PRIOR)
@pytest.mark.parametrize("kind", ["seg", "sr", "sr without segments"])
def test_with_a_prior_a_variant_returns_a_clean_study(
    name: str, kind: str, study: Path, prior: dict[str, Path], oracle_models: Path, tmp_path: Path
) -> None:
    with_prior = shutil.copytree(study, tmp_path / "study")
    (with_prior / "prior").mkdir()
    shutil.copy(prior[kind], with_prior / "prior")
    files = _returned(with_prior, tmp_path / "out", oracle_models, VARIANTS[name])
    (report,) = [dcmread(file) for file in files if file.name == "sr.dcm"]
    assert "PertinentOtherEvidenceSequence" in report
    _assert_clean(files, with_prior, tmp_path)
