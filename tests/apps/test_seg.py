"""The segmentation as other programs read it: valid, in its place, and the same every time."""

import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from small_study import (
    MODELS,
    ORIENTATIONS,
    ORIGIN,
    UUID_TEXT,
    SmallStudy,
    small_study,
    study_with_uuid_text,
)
from validators import dcentvfy_errors, dciodvfy_errors, dcmqi_segments

from ct_triage.configuration import Configuration
from ct_triage.seg import build_seg
from ct_triage.severity import Segments
from ct_triage.volume import Volume


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Dataset], Path]:
    def write_seg(seg: Dataset) -> Path:
        seg.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
        return tmp_path / "seg.dcm"

    return write_seg


def _masks(file: Path, study: SmallStudy) -> dict[int, np.ndarray]:
    """Masks by segment number, as highdicom finds them for the source's slices."""
    seg = hd.seg.segread(file)
    uids = [header.SOPInstanceUID for header in study.volume.headers]
    frames = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    return {number: frames[..., i] > 0 for i, number in enumerate(seg.segment_numbers)}


def _assert_masks(file: Path, study: SmallStudy) -> None:
    found = _masks(file, study)
    assert found.keys() == study.masks.keys()
    for number, mask in study.masks.items():
        assert np.array_equal(found[number], mask), f"segment {number}"


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_masks_are_read_back_where_they_were(
    orientation: str, write: Callable[[Dataset], Path]
) -> None:
    study = small_study(orientation)
    file = write(study.seg())
    _assert_masks(file, study)
    assert dciodvfy_errors(file) == []


# dcmqi has no grid for slices that are sheared against their normal.
@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS.keys() - {"gantry tilt"}))
def test_dcmqi_finds_the_same_voxels_at_the_same_place(
    orientation: str, write: Callable[[Dataset], Path], tmp_path: Path
) -> None:
    study = small_study(orientation)
    images = dcmqi_segments(write(study.seg()), tmp_path / "dcmqi")
    assert images.keys() == study.masks.keys()
    for number, mask in study.masks.items():
        voxels = np.argwhere(images[number].get_fdata() > 0)
        assert len(voxels) == mask.sum()
        found_lps = [-1, -1, 1] * _centre(voxels, images[number].affine)
        assert found_lps == pytest.approx(_centre(np.argwhere(mask), study.volume.affine), abs=1e-3)


def _centre(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return affine[:3, :3] @ voxels.mean(axis=0) + affine[:3, 3]


def test_segments_are_coded_coloured_tracked_and_say_who_made_them() -> None:
    segments = small_study().seg().SegmentSequence
    assert [s.SegmentLabel for s in segments] == ["right lung", "left lung", "lung lesions"]
    assert [s.SegmentedPropertyTypeCodeSequence[0].CodeValue for s in segments] == [
        "39607008",
        "39607008",
        "52988006",
    ]
    sides = [
        s.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
        for s in segments[:2]
    ]
    assert [side.CodeMeaning for side in sides] == ["Right", "Left"]
    assert segments[2].AnatomicRegionSequence[0].CodeMeaning == "Lung"
    assert len({tuple(s.RecommendedDisplayCIELabValue) for s in segments}) == 3
    assert len({s.TrackingUID for s in segments}) == 3
    for segment, model in zip(segments, (MODELS[0], *MODELS), strict=True):
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (model.name, model.version)
        assert model.sha256 in algorithm.AlgorithmParameters


def test_it_refers_to_its_source(write: Callable[[Dataset], Path]) -> None:
    study = small_study()
    seg = dcmread(write(study.seg()))
    source = study.volume.headers
    assert seg.SegmentationType == "BINARY"
    assert seg.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert seg.FrameOfReferenceUID == source[0].FrameOfReferenceUID
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source[0].SeriesInstanceUID
    referenced = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert referenced == {header.SOPInstanceUID for header in source}
    with_voxels = sum(mask.any(axis=(1, 2)).sum() for mask in study.masks.values())
    assert seg.NumberOfFrames == with_voxels, "empty frames are left out"
    positions = {header.SOPInstanceUID: header.ImagePositionPatient for header in source}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert positions[image.ReferencedSOPInstanceUID] == position
    assert seg.PatientName == "Small^Study"
    assert seg.PatientAge == "070Y"
    assert seg.SeriesNumber == 491


def test_it_agrees_with_the_series_about_patient_and_study(
    write: Callable[[Dataset], Path], tmp_path: Path
) -> None:
    study = small_study()
    assert dcentvfy_errors([write(study.seg()), *study.write_source(tmp_path)]) == []


@pytest.mark.parametrize(
    "lacking",
    [{"lesions": False}, {"right_lung": False}, {"lesions": False, "right_lung": False}],
    ids=["no lesions", "no right lung", "neither"],
)
def test_a_segment_without_voxels_is_described_and_empty(
    lacking: dict[str, bool], write: Callable[[Dataset], Path], tmp_path: Path
) -> None:
    study = small_study(**lacking)
    file = write(study.seg())
    _assert_masks(file, study)
    assert dciodvfy_errors(file) == []
    counts = {
        number: np.count_nonzero(image.get_fdata())
        for number, image in dcmqi_segments(file, tmp_path / "dcmqi").items()
    }
    assert counts == {number: mask.sum() for number, mask in study.masks.items()}


OPTIONAL = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ContentDate",
    "ContentTime",
    "SeriesNumber",
    "SliceThickness",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
    "SpecificCharacterSet",
)


@pytest.mark.parametrize("keyword", [*OPTIONAL, "all of them"])
def test_headers_may_lack_what_is_optional(keyword: str, write: Callable[[Dataset], Path]) -> None:
    study = small_study(without=OPTIONAL if keyword == "all of them" else (keyword,))
    file = write(study.seg())
    _assert_masks(file, study)
    assert dciodvfy_errors(file) == []


@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
def test_uids_that_break_the_rules_are_referred_to_as_they_are(
    write: Callable[[Dataset], Path],
) -> None:
    study = study_with_uuid_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = study.seg()
    seg = dcmread(write(built))
    assert seg.StudyInstanceUID == seg.FrameOfReferenceUID == UUID_TEXT
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == UUID_TEXT
    images = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert images[3].ReferencedSOPInstanceUID == f"{UUID_TEXT}-3"
    assert seg.SOPInstanceUID.is_valid
    assert seg.SeriesInstanceUID.is_valid


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientBirthDate", "1950"),
        ("PatientSex", "UNKNOWN"),
        ("StudyDate", "2020.03.11"),
        ("ContentDate", "yesterday"),
        ("ContentTime", "noon"),
        ("SeriesNumber", "-3"),
        ("AccessionNumber", "longer than the sixteen characters"),
        ("PatientName", "no caret"),
    ],
)
def test_identifying_attributes_are_passed_on_as_they_are(
    keyword: str, value: str, write: Callable[[Dataset], Path]
) -> None:
    study = small_study(**{keyword: value})
    seg = dcmread(write(study.seg()))
    _assert_masks(write(study.seg()), study)
    if not keyword.startswith(("Content", "Series")):
        assert str(seg[keyword].value) == value


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 144", "Пациент^Анна"),
        ("ISO_IR 192", "Äneas^Jérôme"),
        ("GB18030", "王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ],
    ids=["Cyrillic", "Unicode", "Chinese", "Japanese"],
)
def test_names_keep_their_letters(
    character_set: str | list[str], name: str, write: Callable[[Dataset], Path]
) -> None:
    study = small_study(SpecificCharacterSet=character_set, PatientName=name)
    assert dcmread(write(study.seg())).PatientName == name


def test_orientations_may_differ_in_the_last_digits(write: Callable[[Dataset], Path]) -> None:
    study = small_study()
    study.volume.headers[3].ImageOrientationPatient = [0.9999999, 1e-6, 0, -1e-6, 1, 0]
    _assert_masks(write(study.seg()), study)


def test_no_array_is_made_that_is_wider_than_the_masks() -> None:
    """The segmentation must not be what decides how much memory a study takes."""
    small_study().seg()  # highdicom loads its dictionaries at the first call
    small = small_study(Rows=512, Columns=512)
    headers = small.volume.headers
    shape = (len(headers), 512, 512)
    lung = np.zeros(shape, dtype=bool)
    lung[:, 100:400, 100:400] = True
    volume = Volume(np.zeros(shape, np.int16), small.volume.affine, headers)
    tracemalloc.start()
    build_seg(volume, Segments(lung, lung, lung), ORIGIN)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6.5 * lung.nbytes


def test_the_same_input_gives_the_same_bytes(write: Callable[[Dataset], Path]) -> None:
    first, second = (write(small_study().seg()).read_bytes() for _ in range(2))
    assert first == second


def test_other_models_settings_or_images_give_other_uids() -> None:
    study = small_study()
    lung, lesion = MODELS
    retrained = (lung, type(lesion)(lesion.name, lesion.version, "c3" * 32))
    late_slice = small_study()
    late_slice.volume.headers[-1].SOPInstanceUID = "1.2.3"
    other_settings = Configuration(thresholds={"min_lesion_ml": 0.2})
    segs = [
        study.seg(),
        build_seg(study.volume, study.segments, replace(ORIGIN, models=retrained)),
        build_seg(study.volume, study.segments, replace(ORIGIN, configuration=other_settings)),
        build_seg(study.volume, study.segments, replace(ORIGIN, lesion_threshold=0.3)),
        late_slice.seg(),
    ]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({seg[keyword].value for seg in segs}) == len(segs)
