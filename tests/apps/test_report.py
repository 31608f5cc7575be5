"""The report as other programs read it: valid, complete, and equal to ``result.json``."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from small_study import (
    DISTANT,
    INVERTED,
    MODELS,
    NOISY,
    UUID_TEXT,
    SmallStudy,
    small_study,
    study_with_uuid_text,
)
from validators import (
    dcentvfy_errors,
    dciodvfy_errors,
    dcmqi_report,
    dsrdump,
    pixelmed_sr_errors,
)

from ct_triage.quality import Reason
from ct_triage.severity import Findings, Involvement

STUDIES: dict[str, dict[str, Any]] = {
    "lesions": {},
    "healthy": {"lesions": False},
    "no right lung": {"right_lung": False},
    "gantry tilt": {"orientation": "gantry tilt"},
    "bare headers": {"without": ("PatientName", "PatientBirthDate", "StudyDate", "ContentDate")},
    "poor": {"reasons": (NOISY, DISTANT)},
    "repaired": {"notes": ("the slices are sheared", "Rescale Slope is missing")},
}


@pytest.fixture(params=STUDIES.values(), ids=STUDIES.keys())
def study(request: pytest.FixtureRequest) -> SmallStudy:
    return small_study(**request.param)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Dataset], Path]:
    def write_report(report: Dataset) -> Path:
        report.save_as(tmp_path / "sr.dcm", enforce_file_format=True)
        return tmp_path / "sr.dcm"

    return write_report


def test_it_is_a_valid_object(study: SmallStudy, write: Callable[[Dataset], Path]) -> None:
    file = write(study.report())
    assert dciodvfy_errors(file) == []
    assert "Imaging Measurement Report" in dsrdump(file)


# Seconds each, and the other studies have the same content tree.
@pytest.mark.parametrize("name", ["healthy", "poor", "repaired"])
def test_it_follows_its_templates(name: str, write: Callable[[Dataset], Path]) -> None:
    assert pixelmed_sr_errors(write(small_study(**STUDIES[name]).report())) == []


def test_it_agrees_with_the_series_about_patient_and_study(
    write: Callable[[Dataset], Path], tmp_path: Path
) -> None:
    study = small_study()
    study.seg().save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    files = [write(study.report()), tmp_path / "seg.dcm", *study.write_source(tmp_path)]
    assert dcentvfy_errors(files) == []


def test_dcmqi_reads_the_numbers_of_result_json(
    study: SmallStudy, write: Callable[[Dataset], Path], tmp_path: Path
) -> None:
    findings = study.result()["findings"]
    right, left, lesions = dcmqi_report(write(study.report()), tmp_path)["Measurements"]

    for group, lung in ((right, findings["right_lung"]), (left, findings["left_lung"])):
        assert _numbers(group) == {
            ("SCT", "118565006"): (lung["lung_volume_ml"], "cm3"),
            ("99CTTRIAGE", "LESION_VOLUME"): (lung["lesion_volume_ml"], "cm3"),
            ("99CTTRIAGE", "LESION_SHARE"): (lung["lesion_share_percent"], "%"),
        }
    both = findings["both_lungs"]
    assert _numbers(lesions) == {
        ("99CTTRIAGE", "LUNG_VOLUME"): (both["lung_volume_ml"], "cm3"),
        ("SCT", "118565006"): (both["lesion_volume_ml"], "cm3"),
        ("99CTTRIAGE", "LESION_SHARE"): (both["lesion_share_percent"], "%"),
        ("99CTTRIAGE", "SEVERITY_SCORE"): (findings["severity_score_percent"], "%"),
    }
    category = _evaluations(lesions)["99CTTRIAGE", "SEVERITY_CT"]
    assert category["CodeValue"] == findings["severity_category"]


def test_groups_name_organ_side_segment_and_algorithm(
    write: Callable[[Dataset], Path], tmp_path: Path
) -> None:
    study = small_study()
    seg = study.seg()
    groups = dcmqi_report(write(study.report()), tmp_path)["Measurements"]
    assert [g["Finding"]["CodeMeaning"] for g in groups] == ["Lung", "Lung", "Lesion"]
    assert {g["FindingSite"]["CodeMeaning"] for g in groups} == {"Lung"}
    assert [g["Laterality"]["CodeMeaning"] for g in groups] == ["Right", "Left", "Bilateral"]
    assert [g["ReferencedSegment"] for g in groups] == [1, 2, 3]
    assert {g["segmentationSOPInstanceUID"] for g in groups} == {seg.SOPInstanceUID}
    assert {g["SourceSeriesForImageSegmentation"] for g in groups} == {
        study.volume.headers[0].SeriesInstanceUID
    }
    assert [(g["TrackingIdentifier"], g["TrackingUniqueIdentifier"]) for g in groups] == [
        (segment.TrackingID, segment.TrackingUID) for segment in seg.SegmentSequence
    ]
    for group, model in zip(groups, (MODELS[0], *MODELS), strict=True):
        # dcmqi keeps the first of the parameters.
        assert group["measurementAlgorithmIdentification"] == {
            "AlgorithmName": model.name,
            "AlgorithmVersion": model.version,
            "AlgorithmParameters": [f"weights_sha256={model.sha256}"],
        }


def test_each_group_names_the_thresholds_that_it_depends_on() -> None:
    groups = _find(small_study().report(), "Measurement Group")
    parameters = [_texts(group, "Algorithm Parameters")[1:] for group in groups]
    lesions = ["threshold=0.45", "min_lesion_ml=0.1", "ct_class_bounds_percent=25/50/75"]
    assert parameters == [["threshold=0.5"], ["threshold=0.5"], lesions]


@pytest.mark.parametrize(
    ("lesions", "presence", "severity"), [(True, "Present", "Mild"), (False, "Absent", "None")]
)
def test_presence_and_severity_are_told_in_standard_codes_too(
    lesions: bool, presence: str, severity: str, write: Callable[[Dataset], Path], tmp_path: Path
) -> None:
    groups = dcmqi_report(write(small_study(lesions=lesions).report()), tmp_path)["Measurements"]
    evaluations = _evaluations(groups[2])
    assert evaluations["DCM", "121052"]["CodeMeaning"] == presence
    assert evaluations["SCT", "246112005"]["CodeMeaning"] == severity


def test_observer_title_template_and_language(
    write: Callable[[Dataset], Path], tmp_path: Path
) -> None:
    """What no validator misses when it is wrong or not there."""
    file = write(small_study().report())
    observer = dcmqi_report(file, tmp_path)["observerContext"]
    assert observer["ObserverType"] == "DEVICE"
    assert observer["DeviceObserverName"] == "ct_triage"
    assert observer["DeviceObserverManufacturer"] == "ct-triage-bundles"
    assert observer["DeviceObserverUID"].startswith("2.25.")
    report = dcmread(file)
    assert report.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert _texts(report, "Device Observer Model Name") == ["ct_triage 0.1.0"]
    assert "en-US" in str(report.ContentSequence[0])
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99CTTRIAGE"


def test_evidence_is_the_whole_series_and_the_segmentation(
    write: Callable[[Dataset], Path],
) -> None:
    study = small_study()
    report = dcmread(write(study.report()))
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    assert evidence.StudyInstanceUID == study.volume.headers[0].StudyInstanceUID
    referenced = {
        instance.ReferencedSOPInstanceUID
        for series in evidence.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    images = {header.SOPInstanceUID for header in study.volume.headers}
    assert referenced == images | {study.seg().SOPInstanceUID}


def test_the_image_library_shows_the_ends_and_the_most_affected_slice() -> None:
    study = small_study()
    areas = study.segments.lesion.sum(axis=(1, 2))
    library = _find(study.report(), "Image Library")[0]
    shown = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in _walk(library)
        if item.ValueType == "IMAGE"
    ]
    wanted = [0, int(areas.argmax()), len(areas) - 1]
    assert shown == [study.volume.headers[index].SOPInstanceUID for index in wanted]


def test_it_says_what_it_is_not_and_what_was_repaired(study: SmallStudy) -> None:
    disclaimer, *notes = _texts(study.report(), "Comment")
    assert "Not for clinical use" in disclaimer
    reasons = [reason.text for reason in study.quality.reasons]
    assert notes == [*reasons, *study.volume.notes]


@pytest.mark.parametrize(
    ("reasons", "verdict", "findings"),
    [
        ((), "RID12", []),
        ((NOISY, NOISY), "RID13", [("DCM", "130578", "Poor SNR")]),
        (
            (DISTANT, INVERTED),
            "RID14",
            [
                ("99CTTRIAGE", "UNKNOWN_KIND", "Unlike the studies the models know"),
                ("DCM", "111219", "Inappropriate image processing"),
            ],
        ),
    ],
)
def test_quality_of_the_series_is_coded(
    reasons: tuple[Reason, ...], verdict: str, findings: list[tuple[str, str, str]]
) -> None:
    report = small_study(reasons=reasons).report()
    (quality,) = _find(report, "Imaging Series Quality")
    assert quality.ConceptNameCodeSequence[0].CodeValue == "130550"
    assert quality.ConceptCodeSequence[0].CodingSchemeDesignator == "RADLEX"
    assert quality.ConceptCodeSequence[0].CodeValue == verdict
    found = [item.ConceptCodeSequence[0] for item in _find(report, "Quality Finding")]
    assert [(c.CodingSchemeDesignator, c.CodeValue, c.CodeMeaning) for c in found] == findings


def test_it_is_complete_but_neither_verified_nor_final() -> None:
    report = small_study().report()
    assert report.CompletionFlag == "COMPLETE"
    assert report.VerificationFlag == "UNVERIFIED"
    assert report.PreliminaryFlag == "PRELIMINARY"


@pytest.mark.parametrize(
    ("category", "severity"),
    [
        ("CT-0", "None"),
        ("CT-1", "Mild"),
        ("CT-2", "Moderate"),
        ("CT-3", "Severe"),
        ("CT-4", "Severe"),
    ],
)
def test_every_category_has_its_codes(
    category: str, severity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lung = Involvement(2000.0, 100.0)
    findings = Findings(lung, lung, category)
    monkeypatch.setattr(SmallStudy, "findings", findings)
    report = small_study().report()
    (item,) = _find(report, "CT severity category")
    assert item.ConceptCodeSequence[0].CodeValue == category
    (item,) = _find(report, "Severity")
    assert item.ConceptCodeSequence[0].CodeMeaning == severity


def test_numbers_fit_a_decimal_string() -> None:
    for item in _walk(small_study(spacing_mm=(1 / 3, 2 / 3, 1 / 7)).report()):
        if item.ValueType == "NUM":
            assert len(str(item.MeasuredValueSequence[0].NumericValue)) <= 16


@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
def test_uids_that_break_the_rules_are_referred_to_as_they_are(
    write: Callable[[Dataset], Path],
) -> None:
    study = study_with_uuid_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = study.report()
    report = dcmread(write(built))
    assert report.StudyInstanceUID == UUID_TEXT
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert series[0].SeriesInstanceUID == UUID_TEXT
    assert series[0].ReferencedSOPSequence[3].ReferencedSOPInstanceUID == f"{UUID_TEXT}-3"
    assert report.SOPInstanceUID.is_valid


def test_the_same_input_gives_the_same_bytes(write: Callable[[Dataset], Path]) -> None:
    first, second = (write(small_study().report()).read_bytes() for _ in range(2))
    assert first == second


def _walk(item: Dataset) -> list[Dataset]:
    children = list(item.get("ContentSequence", []))
    return children + [descendant for child in children for descendant in _walk(child)]


def _find(report: Dataset, name: str) -> list[Dataset]:
    return [i for i in _walk(report) if i.ConceptNameCodeSequence[0].CodeMeaning == name]


def _texts(report: Dataset, name: str) -> list[str]:
    return [item.TextValue for item in _find(report, name)]


def _numbers(group: dict[str, Any]) -> dict[tuple[str, str], tuple[float, str]]:
    """Value and unit by coding scheme and code of a measurement."""
    return {
        _key(item["quantity"]): (float(item["value"]), item["units"]["CodeValue"])
        for item in group["measurementItems"]
    }


def _evaluations(group: dict[str, Any]) -> dict[tuple[str, str], dict[str, str]]:
    return {
        _key(item["conceptCode"]): item["conceptValue"] for item in group["qualitativeEvaluations"]
    }


def _key(code: dict[str, str]) -> tuple[str, str]:
    return code["CodingSchemeDesignator"], code["CodeValue"]
