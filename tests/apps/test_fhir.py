"""``result.fhir.json``: valid FHIR, and the same findings as the report it is mapped from."""

import json
from typing import Any

import pytest
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from small_study import NOISY, SmallStudy, small_study, study_with_uuid_text

from ct_triage.configuration import Configuration

MULTITASK = {"models": {"lesions": "multitask_triage"}, "identification": True}


def _observations(fhir: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["id"]: item for item in fhir["contained"] if item["resourceType"] == "Observation"}


def _code(concept: dict[str, Any]) -> tuple[str, str]:
    coding = concept["coding"][0]
    return coding["system"], coding["code"]


@pytest.fixture(
    params=[
        {},
        {"lesions": False},
        {"reasons": (NOISY,)},
        {"without": ("PatientID", "AccessionNumber", "ContentDate", "StudyDate")},
        {"configuration": Configuration.model_validate(MULTITASK), "covid19_probability": 0.25},
        {"configuration": Configuration.model_validate({"outputs": {"seg": False, "sr": False}})},
    ],
    ids=["lesions", "healthy", "noisy", "bare headers", "identification", "alone"],
)
def study(request: pytest.FixtureRequest) -> SmallStudy:
    return small_study(**request.param)


def test_it_is_valid_fhir(study: SmallStudy) -> None:
    """R4B, whose DiagnosticReport, Observation and Device are those of R4."""
    text = json.dumps(study.fhir())
    assert json.loads(DiagnosticReport.model_validate_json(text).model_dump_json()) == json.loads(
        text
    )


def test_every_reference_has_its_target_and_every_target_a_reference(study: SmallStudy) -> None:
    """The rule dom-3 of contained resources, which no validator here checks."""
    fhir = study.fhir()
    ids = [item["id"] for item in fhir["contained"]]
    text = json.dumps(fhir)
    referenced = [part.split('"')[0] for part in text.split('"reference": "#')[1:]]
    assert sorted(set(referenced)) == sorted(ids)
    assert len(ids) == len(set(ids))


def test_numbers_are_those_of_result_json() -> None:
    study = small_study()
    findings = study.result()["findings"]
    fhir = study.fhir()
    observations = _observations(fhir)
    references = ["#group-1", "#group-2", "#group-3", "#evaluation-1"]
    assert [item["reference"] for item in fhir["result"]] == references
    for number, key in enumerate(("right_lung", "left_lung", "both_lungs"), 1):
        members = [
            observations[member["reference"].removeprefix("#")]
            for member in observations[f"group-{number}"]["hasMember"]
        ]
        values = [m["valueQuantity"]["value"] for m in members if "valueQuantity" in m]
        expected = list(findings[key].values())
        assert values == expected + ([findings["severity_score_percent"]] if number == 3 else [])
    (category,) = fhir["conclusionCode"]
    assert category["coding"][0]["code"] == findings["severity_category"]
    assert "Not for clinical use" in fhir["conclusion"]


def test_codes_sites_and_algorithms() -> None:
    fhir = small_study().fhir()
    observations = _observations(fhir)
    lung = observations["group-1"]
    assert _code(lung["valueCodeableConcept"]) == ("http://snomed.info/sct", "39607008")
    assert _code(lung["bodySite"]) == ("http://snomed.info/sct", "3341006")
    assert observations["group-3"]["bodySite"]["text"] == "Lung, bilateral"
    volume = observations["group-1-1"]
    assert _code(volume["code"]) == ("http://snomed.info/sct", "118565006")
    assert volume["valueQuantity"]["code"] == "cm3"
    share = _code(observations["group-1-3"]["code"])
    assert share[0].startswith("urn:oid:2.25.")
    assert share[1] == "LESION_SHARE"
    devices = {i["id"]: i for i in fhir["contained"] if i["resourceType"] == "Device"}
    device = devices[observations["group-3"]["device"]["reference"].removeprefix("#")]
    assert device["deviceName"][0]["name"] == "lesion_segmentation_2d"
    assert device["version"] == [{"value": "4.5.6"}]


def test_patient_order_and_study_are_named_by_their_identifiers() -> None:
    study = small_study()
    fhir = study.fhir()
    assert fhir["subject"]["identifier"]["value"] == "SMALL"
    assert fhir["basedOn"][0]["identifier"]["value"] == "A7"
    assert fhir["effectiveDateTime"] == "2020-03-11"
    assert fhir["status"] == "preliminary"
    header = study.volume.headers[0]
    value = fhir["imagingStudy"][0]["identifier"]["value"]
    assert value == f"urn:oid:{header.StudyInstanceUID}"
    assert {"system": "urn:dicom:uid", "value": f"urn:oid:{study.report().SOPInstanceUID}"} in fhir[
        "identifier"
    ]
    segment = _observations(fhir)["group-1"]["derivedFrom"][1]
    assert segment["identifier"]["value"] == f"urn:oid:{study.seg().SOPInstanceUID}"
    assert segment["display"] == "segment 1"
    assert "Small" not in json.dumps(fhir), "the patient's name is not needed"


def test_identification_is_a_group_of_its_own() -> None:
    settings = Configuration.model_validate(MULTITASK)
    fhir = small_study(configuration=settings, covid19_probability=0.25).fhir()
    observations = _observations(fhir)
    group = observations["group-4"]
    assert _code(group["valueCodeableConcept"]) == ("http://snomed.info/sct", "840539006")
    (member,) = group["hasMember"]
    probability = observations[member["reference"].removeprefix("#")]
    assert _code(probability["code"])[1] == "122157"
    assert probability["valueQuantity"]["value"] == 25


def test_quality_of_the_series_is_among_the_results() -> None:
    fhir = small_study(reasons=(NOISY,)).fhir()
    observations = _observations(fhir)
    verdict, finding = observations["evaluation-1"], observations["evaluation-2"]
    assert _code(verdict["code"])[1] == "130550"
    assert _code(verdict["valueCodeableConcept"]) == ("http://www.radlex.org", "RID13")
    assert _code(finding["valueCodeableConcept"])[1] == "130578"
    assert NOISY.text in fhir["conclusion"]


def test_without_the_report_it_does_not_claim_to_be_it() -> None:
    settings = Configuration.model_validate({"outputs": {"seg": False, "sr": False}})
    fhir = small_study(configuration=settings).fhir()
    assert len(fhir["identifier"]) == 1
    assert all(len(o.get("derivedFrom", [{}])) == 1 for o in _observations(fhir).values())


@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
def test_uuid_text_is_no_oid() -> None:
    fhir = study_with_uuid_text().fhir()
    assert fhir["imagingStudy"][0]["identifier"]["value"].startswith("urn:uuid:b4a3f6d2-")
