"""``result.json`` follows its published schema and holds what the other results hold."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from small_study import INVERTED, MODELS, NOISY, small_study

from ct_triage import __version__

SCHEMA = Path(__file__).parents[2] / "apps" / "ct_triage" / "docs" / "result.schema.json"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


@pytest.mark.parametrize("lesions", [True, False])
def test_it_follows_the_schema(schema: dict[str, Any], lesions: bool) -> None:
    study = small_study(lesions=lesions, notes=("a repair",))
    result = json.loads(json.dumps(study.result()))
    jsonschema.validate(result, schema)
    assert result["notes"] == ["a repair"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.pop("models"),
        lambda r: r.update(patient_name="Small^Study"),
        lambda r: r["findings"].update(severity_category="CT-5"),
        lambda r: r["findings"]["left_lung"].update(lesion_share_percent=101.0),
        lambda r: r["findings"]["left_lung"].update(lung_volume_ml="12"),
        lambda r: r["models"][0].update(sha256="unknown"),
        lambda r: r["quality"].update(verdict="good"),
        lambda r: r["quality"].update(reasons=[{"code": "mood", "text": "", "value": 1}]),
    ],
)
def test_the_schema_refuses_what_is_wrong(
    schema: dict[str, Any], spoil: Callable[[dict[str, Any]], None]
) -> None:
    result = copy.deepcopy(small_study().result())
    spoil(result)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(result, schema)


def test_quality_gives_each_reason_with_its_numbers(schema: dict[str, Any]) -> None:
    assert small_study().result()["quality"]["verdict"] == "acceptable"
    result = small_study(reasons=(NOISY, INVERTED)).result()
    jsonschema.validate(result, schema)
    quality = result["quality"]
    assert quality["verdict"] == "unreliable"
    assert quality["reasons"][0] == {
        "code": "noise",
        "text": NOISY.text,
        "value": 400.0,
        "limit": 150.0,
    }
    assert quality["distance"] == 2.5


def test_findings_are_those_of_the_masks() -> None:
    study = small_study(spacing_mm=(5.0, 1.25, 0.8))
    voxel_ml = 0.005
    findings = study.result()["findings"]
    for side, lung in (
        ("right_lung", study.segments.right_lung),
        ("left_lung", study.segments.left_lung),
        ("both_lungs", study.segments.right_lung | study.segments.left_lung),
    ):
        lesion = lung & study.segments.lesion
        assert findings[side] == pytest.approx(
            {
                "lung_volume_ml": lung.sum() * voxel_ml,
                "lesion_volume_ml": lesion.sum() * voxel_ml,
                "lesion_share_percent": 100 * lesion.sum() / lung.sum(),
            },
            abs=1e-3,
        )
    shares = [findings[side]["lesion_share_percent"] for side in ("right_lung", "left_lung")]
    assert findings["severity_score_percent"] == max(shares) > min(shares) > 0
    assert findings["severity_category"] == "CT-1"


def test_a_healthy_patient_is_ct_0_without_lesions() -> None:
    findings = small_study(lesions=False).result()["findings"]
    assert findings["severity_category"] == "CT-0"
    assert findings["severity_score_percent"] == 0
    assert findings["both_lungs"]["lesion_volume_ml"] == 0
    assert findings["both_lungs"]["lung_volume_ml"] > 0


def test_a_missing_lung_has_no_share() -> None:
    findings = small_study(right_lung=False).result()["findings"]
    assert set(findings["right_lung"].values()) == {0}
    assert findings["both_lungs"] == findings["left_lung"]


def test_it_says_what_it_came_from_and_what_it_belongs_to() -> None:
    study = small_study()
    result = study.result()
    assert result["application"] == {"name": "ct_triage", "version": __version__}
    assert [(m["name"], m["version"], m["sha256"]) for m in result["models"]] == [
        (m.name, m.version, m.sha256) for m in MODELS
    ]
    headers = study.volume.headers
    assert result["source"] == {
        "study_instance_uid": headers[0].StudyInstanceUID,
        "series_instance_uid": headers[0].SeriesInstanceUID,
        "instances": len(headers),
    }
    for name, instance in (("seg", study.seg()), ("report", study.report())):
        assert result["outputs"][name]["sop_instance_uid"] == instance.SOPInstanceUID
        assert result["outputs"][name]["series_instance_uid"] == instance.SeriesInstanceUID


def test_it_does_not_identify_the_patient() -> None:
    study = small_study(
        PatientName="Marker^Name", PatientID="MARKER-ID", PatientBirthDate="19470411"
    )
    text = json.dumps(study.result())
    assert not [marker for marker in ("Marker", "MARKER-ID", "19470411") if marker in text]


def test_the_same_input_gives_the_same_result() -> None:
    assert small_study().result() == small_study().result()
