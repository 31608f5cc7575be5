"""The findings of a study as a small JSON document; ``docs/result.schema.json`` describes it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydicom.dataset import Dataset

from ct_triage import __version__, codes, provenance
from ct_triage.followup import NO_FOLLOW_UP, FollowUp, follow_up_numbers
from ct_triage.measurements import (
    class_probabilities_percent,
    covid19_probability_percent,
    involvement_numbers,
    severity_score,
)
from ct_triage.provenance import Origin
from ct_triage.quality import Quality, quality_numbers
from ct_triage.severity import Findings
from ct_triage.volume import Volume

SCHEMA_VERSION = "1.2"


def build_result(
    volume: Volume,
    outputs: Mapping[str, Dataset | None],
    findings: Findings,
    quality: Quality,
    origin: Origin,
    follow_up: FollowUp = NO_FOLLOW_UP,
) -> dict[str, Any]:
    """Gather the findings with the same numbers as the report, without patient name or ID.

    Parameters
    ----------
    volume : Volume
        The source images.
    outputs : mapping of str to Dataset or None
        The DICOM results by name, for their UIDs; None for what is not written.
    findings : Findings
        What was measured.
    quality : Quality
        How far that can be relied on.
    origin : Origin
        What they were made with.
    follow_up : FollowUp
        Earlier studies of the patient.
    """
    first = volume.headers[0]
    result = {
        "schema_version": SCHEMA_VERSION,
        "application": {"name": provenance.APPLICATION, "version": __version__},
        "models": [asdict(model) for model in origin.models],
        "settings": _settings(origin),
        "source": {
            "study_instance_uid": str(first.StudyInstanceUID),
            "series_instance_uid": str(first.SeriesInstanceUID),
            "instances": len(volume.headers),
        },
        "findings": {
            "right_lung": involvement_numbers(findings.right_lung),
            "left_lung": involvement_numbers(findings.left_lung),
            "both_lungs": involvement_numbers(findings.both_lungs),
            "severity_score_percent": severity_score(findings),
            "severity_category": findings.severity_category,
            **_identification(findings, origin),
            **_slice_classification(findings),
        },
        "quality": quality_numbers(quality),
        "outputs": {
            name: _identify(instance) for name, instance in outputs.items() if instance is not None
        },
        "notes": [*volume.notes, *origin.notes, *follow_up.notes],
    }
    if follow_up.time_points:
        result["follow_up"] = follow_up_numbers(follow_up)
    return result


def _identification(findings: Findings, origin: Origin) -> dict[str, Any]:
    if not origin.configuration.identification:
        return {}
    return {
        "identification": {
            "condition": codes.COVID_19.meaning,
            "probability_percent": covid19_probability_percent(findings),
        }
    }


def _slice_classification(findings: Findings) -> dict[str, Any]:
    classes = findings.slice_classes
    if classes is None:
        return {}
    return {
        "slice_classification": {
            "class": classes.category,
            "probabilities_percent": class_probabilities_percent(classes),
            "slices": classes.slices,
        }
    }


def _settings(origin: Origin) -> dict[str, Any]:
    """Return the numbers that the findings depend on besides the models' weights."""
    configuration = origin.configuration
    site = configuration.site
    return {
        "configuration_sha256": configuration.sha256,
        "lung_threshold": origin.lung_threshold,
        "lesion_threshold": origin.lesion_threshold,
        "min_lesion_ml": configuration.thresholds.min_lesion_ml,
        "ct_class_bounds": list(configuration.ct_class_bounds),
        "site": site and site.model_dump(mode="json", exclude_none=True),
    }


def _identify(instance: Dataset) -> dict[str, str]:
    return {
        "sop_class_uid": str(instance.SOPClassUID),
        "sop_instance_uid": str(instance.SOPInstanceUID),
        "series_instance_uid": str(instance.SeriesInstanceUID),
    }
