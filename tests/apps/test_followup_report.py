"""A study whose folder holds priors: what report and ``result.json`` say, and what they refuse."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from dated_study import foreign_seg, save, study_on
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from small_study import SmallStudy
from validators import (
    dcentvfy_errors,
    dciodvfy_errors,
    dcmqi_report,
    dsrdump,
    pixelmed_sr_errors,
)

from ct_triage.configuration import Configuration
from ct_triage.fhir import build_fhir
from ct_triage.followup import LUNGS, FollowUp
from ct_triage.followup_priors import MAX_PRIORS, follow_up_on
from ct_triage.followup_reading import read_header, read_time_point
from ct_triage.report import build_report
from ct_triage.result_json import build_result
from ct_triage.results import summarise

SCHEMA = Path(__file__).parents[2] / "apps" / "ct_triage" / "docs" / "result.schema.json"
LUNG = Code("39607008", "SCT", "Lung")


def _follow_up(folder: Path, study: SmallStudy) -> FollowUp:
    return follow_up_on(folder, study.volume, study.findings)


def _report(study: SmallStudy, follow_up: FollowUp) -> Dataset:
    return build_report(
        study.volume,
        study.segments,
        study.seg(),
        study.findings,
        study.quality,
        study.origin,
        follow_up,
    )


def _result(study: SmallStudy, follow_up: FollowUp) -> dict[str, Any]:
    return build_result(
        study.volume,
        {"seg": study.seg(), "report": _report(study, follow_up)},
        study.findings,
        study.quality,
        study.origin,
        follow_up,
    )


@pytest.fixture
def priors(tmp_path: Path) -> Path:
    """One prior as a segmentation, the next as a report; the lesion grows, then shrinks."""
    save(study_on("20200301", 3).seg(), tmp_path / "priors" / "deep" / "first.dcm")
    save(study_on("20200311", 7).report(), tmp_path / "priors" / "second.dcm")
    return tmp_path / "priors"


@pytest.fixture
def study() -> SmallStudy:
    return study_on("20200401", 2)


def test_json_follows_the_schema_and_tells_the_course(priors: Path, study: SmallStudy) -> None:
    result = json.loads(json.dumps(_result(study, _follow_up(priors, study))))
    jsonschema.validate(result, json.loads(SCHEMA.read_text()))
    course = result["follow_up"]
    assert [point["days_since_first"] for point in course["time_points"]] == [0, 10, 31]
    assert [c["right_lung"]["response"] for c in course["changes"]] == [
        "progression",
        "positive response",
    ]
    assert {c["left_lung"]["response"] for c in course["changes"]} == {"stable"}
    for lung in ("right_lung", "left_lung", "both_lungs"):
        assert course["time_points"][2][lung] == result["findings"][lung]
        shares = [point[lung]["lesion_share_percent"] for point in course["time_points"]]
        for change, earlier, later in zip(course["changes"], shares, shares[1:], strict=False):
            points = change[lung]["lesion_share_change_percentage_points"]
            assert points == pytest.approx(later - earlier)
    text = summarise(result)
    assert "after 21 days: right lung positive response (-" in text
    assert "20200" not in json.dumps(course).replace(".20200", ""), "a date"


def test_the_report_is_valid_and_refers_to_every_study(
    priors: Path, study: SmallStudy, tmp_path: Path
) -> None:
    report = _report(study, _follow_up(priors, study))
    file = save(report, tmp_path / "sr.dcm")
    assert dciodvfy_errors(file) == []
    assert "Progression" in dsrdump(file)
    (current,) = report.CurrentRequestedProcedureEvidenceSequence
    assert current.StudyInstanceUID == study.volume.headers[0].StudyInstanceUID
    found = {
        item.StudyInstanceUID: [
            instance.ReferencedSOPInstanceUID
            for series in item.ReferencedSeriesSequence
            for instance in series.ReferencedSOPSequence
        ]
        for item in report.PertinentOtherEvidenceSequence
    }
    first, second = study_on("20200301", 3), study_on("20200311", 7)
    # The second was measured in a report, whose numbers are tied to a segmentation.
    assert found == {
        first.volume.headers[0].StudyInstanceUID: [first.seg().SOPInstanceUID],
        second.volume.headers[0].StudyInstanceUID: [
            second.seg().SOPInstanceUID,
            second.report().SOPInstanceUID,
        ],
    }


def test_the_report_follows_its_templates(priors: Path, study: SmallStudy, tmp_path: Path) -> None:
    report = _report(study, _follow_up(priors, study))
    assert pixelmed_sr_errors(save(report, tmp_path / "sr.dcm")) == []


def test_the_report_agrees_with_the_study(priors: Path, study: SmallStudy, tmp_path: Path) -> None:
    report = save(_report(study, _follow_up(priors, study)), tmp_path / "sr.dcm")
    assert dcentvfy_errors([report, *study.write_source(tmp_path)]) == []


def test_dcmqi_reads_change_and_response(priors: Path, study: SmallStudy, tmp_path: Path) -> None:
    follow_up = _follow_up(priors, study)
    change = _result(study, follow_up)["follow_up"]["changes"][1]
    file = save(_report(study, follow_up), tmp_path / "sr.dcm")
    groups = dcmqi_report(file, tmp_path)["Measurements"]
    for group, lung in zip(groups[:3], ("right_lung", "left_lung", "both_lungs"), strict=True):
        numbers = {
            item["quantity"]["CodeValue"]: float(item["value"])
            for item in group["measurementItems"]
        }
        assert numbers["SHARE_CHANGE"] == change[lung]["lesion_share_change_percentage_points"]
        assert numbers["CORR_VOLUME"] == change[lung]["corrected_lesion_volume_ml"]
        assert numbers["CORR_CHANGE"] == change[lung]["corrected_lesion_volume_change_ml"]
        said = {
            item["conceptCode"]["CodeValue"]: item["conceptValue"]
            for item in group["qualitativeEvaluations"]
        }
        assert said["RESPONSE"]["CodeMeaning"].lower().startswith(change[lung]["response"])
    assert said["112048"]["CodeValue"] == "268910001", "the patient condition improved"
    # The priors' own values, tied to their own segmentations.
    for prior in (study_on("20200301", 3), study_on("20200311", 7)):
        uid = prior.seg().SOPInstanceUID
        own = [group for group in groups if group["segmentationSOPInstanceUID"] == uid]
        assert [group["ReferencedSegment"] for group in own] == [1, 2, 3]
    assert len({group["TrackingUniqueIdentifier"] for group in groups}) == len(groups)


def test_a_report_with_priors_can_itself_be_a_prior(
    priors: Path, study: SmallStudy, tmp_path: Path
) -> None:
    file = save(_report(study, _follow_up(priors, study)), tmp_path / "sr.dcm")
    lungs = read_time_point(file, read_header(file)).lungs
    for lung, found in lungs.items():
        wanted = getattr(study.findings, lung)
        assert found.lung_volume_ml == pytest.approx(wanted.lung_volume_ml, abs=1e-3)
        assert found.lesion_volume_ml == pytest.approx(wanted.lesion_volume_ml, abs=1e-3)


def test_fhir_tells_the_changes_and_no_other_studies_findings(
    priors: Path, study: SmallStudy
) -> None:
    follow_up = _follow_up(priors, study)
    report = _report(study, follow_up)
    fhir = build_fhir(study.volume, report, study.origin)
    text = json.dumps(fhir)
    DiagnosticReport.model_validate_json(text)
    changes = _result(study, follow_up)["follow_up"]["changes"][1]
    observations = {item["id"]: item for item in fhir["contained"]}
    references = ["#group-1", "#group-2", "#group-3", "#evaluation-1"]
    assert [item["reference"] for item in fhir["result"]] == references
    for number, lung in enumerate(("right_lung", "left_lung", "both_lungs"), 1):
        group = observations[f"group-{number}"]
        assert str(study.seg().SOPInstanceUID) in group["derivedFrom"][1]["identifier"]["value"]
        members = {
            member["code"]["coding"][0]["code"]: member
            for member in (observations[m["reference"][1:]] for m in group["hasMember"])
        }
        change = changes[lung]["lesion_share_change_percentage_points"]
        assert members["SHARE_CHANGE"]["valueQuantity"]["value"] == change
        response = members["RESPONSE"]["valueCodeableConcept"]["coding"][0]["display"]
        assert response.lower().startswith(changes[lung]["response"])
    for prior in (study_on("20200301", 3), study_on("20200311", 7)):
        assert str(prior.seg().SOPInstanceUID) not in text
    assert fhir["id"] != build_fhir(study.volume, study.report(), study.origin)["id"]


def test_a_prior_of_a_site_with_its_own_scheme_is_the_same_prior(
    study: SmallStudy, tmp_path: Path
) -> None:
    prior = study_on("20200301", 7)
    names = Configuration.model_validate(
        {
            "private_scheme": {
                "designator": "99NORTH",
                "version": "7",
                "responsible_organization": "North",
            }
        }
    )
    report = replace(prior, origin=replace(prior.origin, configuration=names)).report()
    save(report, tmp_path / "north" / "sr.dcm")
    save(prior.report(), tmp_path / "own" / "sr.dcm")
    one, other = (_follow_up(tmp_path / name, study).time_points[0] for name in ("north", "own"))
    assert one.lungs == other.lungs
    assert set(one.lungs) == {"right_lung", "left_lung", "both_lungs"}
    # Another's scheme of that designator is not ours, whatever its codes are called.
    report.CodingSchemeIdentificationSequence[0].CodingSchemeUID = "1.2.3"
    save(report, tmp_path / "foreign" / "sr.dcm")
    assert set(_follow_up(tmp_path / "foreign", study).time_points[0].lungs) == {"both_lungs"}


def test_every_group_of_an_identified_study_says_which_study_it_is_of(
    priors: Path, study: SmallStudy, tmp_path: Path
) -> None:
    identified = replace(study, covid19_probability=0.25)
    report = _report(identified, _follow_up(priors, identified))
    file = save(report, tmp_path / "sr.dcm")
    assert dciodvfy_errors(file) == []
    assert pixelmed_sr_errors(file) == []
    fhir = build_fhir(study.volume, report, study.origin)
    groups = [f"#group-{n}" for n in range(1, 5)]
    assert [item["reference"] for item in fhir["result"]] == [*groups, "#evaluation-1"]
    assert read_time_point(file, read_header(file)).lungs.keys() == set(LUNGS)


def test_the_scheme_of_changes_is_that_of_the_configuration(
    priors: Path, study: SmallStudy
) -> None:
    names = Configuration.model_validate({"private_scheme": {"designator": "99NORTH"}})
    site = replace(study, origin=replace(study.origin, configuration=names))
    text = str(_report(site, _follow_up(priors, site)))
    assert "'99NORTH'" in text
    assert "99CTTRIAGE" not in text


def test_a_probability_does_not_hide_the_segments_of_a_prior(
    study: SmallStudy, tmp_path: Path
) -> None:
    prior = replace(study_on("20200301", 7), covid19_probability=0.75)
    save(prior.report(), tmp_path / "priors" / "sr.dcm")
    follow_up = _follow_up(tmp_path / "priors", study)
    assert set(follow_up.time_points[0].regions) == {"right_lung", "left_lung", "both_lungs"}


def test_a_prior_without_sides_is_compared_as_a_whole(study: SmallStudy, tmp_path: Path) -> None:
    s = study_on("20200301", 7).segments
    masks = [
        (s.right_lung | s.left_lung, LUNG, None, None),
        (s.lesion, Code("112120", "DCM", "Ground glass opacity"), None, LUNG),
    ]
    save(foreign_seg(study_on("20200301", 7), masks), tmp_path / "priors" / "prior.dcm")
    follow_up = _follow_up(tmp_path / "priors", study)
    result = json.loads(json.dumps(_result(study, follow_up)))
    jsonschema.validate(result, json.loads(SCHEMA.read_text()))
    (change,) = result["follow_up"]["changes"]
    assert change["right_lung"] is None
    assert change["both_lungs"]["response"] == "positive response"
    file = save(_report(study, follow_up), tmp_path / "sr.dcm")
    assert dciodvfy_errors(file) == []
    assert pixelmed_sr_errors(file) == []


@pytest.mark.parametrize("prior_segments", [True, False])
def test_a_report_without_segments_ties_no_prior_to_its_own(
    prior_segments: bool, study: SmallStudy, tmp_path: Path
) -> None:
    without = Configuration.model_validate({"outputs": {"seg": False}})
    study, prior = (
        replace(s, origin=replace(s.origin, configuration=without))
        for s in (study, study_on("20200301", 7))
    )
    made = study_on("20200301", 7).seg() if prior_segments else prior.report()
    save(made, tmp_path / "priors" / "prior.dcm")
    follow_up = _follow_up(tmp_path / "priors", study)
    report = build_report(
        study.volume,
        study.segments,
        None,
        study.findings,
        study.quality,
        study.origin,
        follow_up,
    )
    file = save(report, tmp_path / "sr.dcm")
    assert dciodvfy_errors(file) == []
    assert pixelmed_sr_errors(file) == []
    # Nor is the prior tied to this study's segments where it has its own: those stand apart.
    assert ("Previous Findings" in dsrdump(file)) is prior_segments
    # The prior is told of and among the evidence nevertheless.
    (other,) = report.PertinentOtherEvidenceSequence
    assert other.StudyInstanceUID == prior.volume.headers[0].StudyInstanceUID
    assert len(read_time_point(file, read_header(file)).lungs) == len(LUNGS)


def test_a_prior_without_segments_beside_a_current_segmentation(
    study: SmallStudy, tmp_path: Path
) -> None:
    """Groups of one container are held against one template, so the prior's stand in another."""
    without = Configuration.model_validate({"outputs": {"seg": False}})
    prior = study_on("20200301", 7)
    prior = replace(prior, origin=replace(prior.origin, configuration=without))
    save(prior.report(), tmp_path / "priors" / "prior.dcm")
    report = _report(study, _follow_up(tmp_path / "priors", study))
    file = save(report, tmp_path / "sr.dcm")
    assert dciodvfy_errors(file) == []
    assert pixelmed_sr_errors(file) == []
    assert "Previous Findings" in dsrdump(file)
    groups = dcmqi_report(file, tmp_path)["Measurements"]
    assert [group["ReferencedSegment"] for group in groups] == [1, 2, 3]
    apart = report.ContentSequence[-1]
    assert apart.ConceptNameCodeSequence[0].CodeValue == "18834-2"
    assert len(apart.ContentSequence) == len(LUNGS)
    # What such a report measures itself is not taken from them.
    told = read_time_point(file, read_header(file)).lungs
    for lung in LUNGS:
        wanted = getattr(study.findings, lung).lesion_volume_ml
        assert told[lung].lesion_volume_ml == pytest.approx(wanted, abs=1e-3)


def test_without_priors_nothing_is_said(study: SmallStudy, tmp_path: Path) -> None:
    follow_up = _follow_up(tmp_path, study)
    assert follow_up == FollowUp()
    assert "follow_up" not in _result(study, follow_up)
    assert _report(study, follow_up).SOPInstanceUID == study.report().SOPInstanceUID


def test_other_priors_models_or_settings_give_another_report(
    priors: Path, study: SmallStudy
) -> None:
    follow_up = _follow_up(priors, study)
    origin, (lung, lesion) = study.origin, study.origin.models
    others = (
        {"models": (lung, replace(lesion, sha256="c3" * 32))},
        {"lesion_threshold": 0.3},
        {"configuration": Configuration.model_validate({"thresholds": {"min_lesion_ml": 0.2}})},
    )
    reports = [
        study.report(),
        _report(study, follow_up),
        *(_report(replace(study, origin=replace(origin, **other)), follow_up) for other in others),
    ]
    assert len({report.SOPInstanceUID for report in reports}) == len(reports)
    assert _report(study, follow_up).SOPInstanceUID == reports[1].SOPInstanceUID


def _rename(dataset: Dataset) -> None:
    dataset.PatientID = "ANOTHER"


def _other_birth_date(dataset: Dataset) -> None:
    dataset.PatientBirthDate = "20010203"


def _later(dataset: Dataset) -> None:
    dataset.StudyDate = "20200402"


def _same_day(dataset: Dataset) -> None:
    dataset.StudyDate = "20200401"


def _no_uids(dataset: Dataset) -> None:
    dataset.SeriesInstanceUID = ""


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_rename, "another patient's"),
        (_other_birth_date, "another patient's"),
        (_later, "not of an earlier date"),
        (_same_day, "not of an earlier date"),
        (_no_uids, "lacks its UIDs"),
    ],
)
def test_what_must_not_be_compared_is_left_out_with_a_note(
    spoil: Callable[[Dataset], None], reason: str, study: SmallStudy, tmp_path: Path
) -> None:
    prior = dcmread(save(study_on("20200301").seg(), tmp_path / "good.dcm"))
    spoil(prior)
    save(prior, tmp_path / "priors" / "prior.dcm")
    follow_up = _follow_up(tmp_path / "priors", study)
    assert not follow_up.time_points
    assert reason in follow_up.notes[0]
    assert "ANOTHER" not in follow_up.notes[0]
    assert follow_up.notes[0] in _result(study, follow_up)["notes"]
    file = save(_report(study, follow_up), tmp_path / "sr.dcm")
    assert follow_up.notes[0].encode() in file.read_bytes()


def test_without_a_patient_id_no_prior_is_the_patients(tmp_path: Path) -> None:
    save(study_on("20200301", PatientID="").seg(), tmp_path / "prior.dcm")
    follow_up = _follow_up(tmp_path, study_on("20200401", PatientID=""))
    assert not follow_up.time_points
    assert "no Patient ID" in follow_up.notes[0]


def test_a_broken_prior_gives_way_to_another_object_of_its_study(
    study: SmallStudy, tmp_path: Path
) -> None:
    prior = study_on("20200301", 7)
    seg = dcmread(save(prior.seg(), tmp_path / "good.dcm"))
    seg.PixelData = seg.PixelData[:100]
    save(seg, tmp_path / "priors" / "seg.dcm")
    save(prior.report(), tmp_path / "priors" / "sr.dcm")
    follow_up = _follow_up(tmp_path / "priors", study)
    assert follow_up.time_points[0].instance.sop_instance_uid == prior.report().SOPInstanceUID
    assert "cannot be read" in follow_up.notes[0]


def test_a_rerun_finds_its_own_results_and_says_nothing(study: SmallStudy, tmp_path: Path) -> None:
    save(study.seg(), tmp_path / "seg.dcm")
    save(study.report(), tmp_path / "sr.dcm")
    assert _follow_up(tmp_path, study) == FollowUp()


def test_a_long_history_is_cut_to_its_latest_studies(study: SmallStudy, tmp_path: Path) -> None:
    for day in range(1, MAX_PRIORS + 3):
        save(study_on(f"202003{day:02d}").report(), tmp_path / f"{day}.dcm")
    follow_up = _follow_up(tmp_path, study)
    assert len(follow_up.time_points) == MAX_PRIORS + 1
    assert follow_up.time_points[0].moment.day == 3
    assert follow_up.notes[0].startswith("2 prior object(s) left out: only the")
