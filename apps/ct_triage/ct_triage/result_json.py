"""The findings of a study as a small JSON document; ``docs/result.schema.json`` describes it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydicom.dataset import Dataset

from ct_triage import __version__, provenance
from ct_triage.followup import FollowUp, follow_up_numbers
from ct_triage.measurements import involvement_numbers, severity_score
from ct_triage.provenance import ModelIdentity
from ct_triage.severity import Findings
from ct_triage.volume import Volume

SCHEMA_VERSION = "1.1"
NO_FOLLOW_UP = FollowUp()


def build_result(
    volume: Volume,
    seg: Dataset,
    report: Dataset,
    findings: Findings,
    models: Sequence[ModelIdentity],
    follow_up: FollowUp = NO_FOLLOW_UP,
) -> dict[str, Any]:
    """Gather the findings with the same numbers as the report, without patient name or ID.

    Parameters
    ----------
    volume : Volume
        The source images.
    seg, report : Dataset
        The DICOM results, for their UIDs.
    findings : Findings
        What was measured.
    models : sequence of ModelIdentity
        The models in the order they ran.
    follow_up : FollowUp
        Earlier studies of the patient.
    """
    first = volume.headers[0]
    result = {
        "schema_version": SCHEMA_VERSION,
        "application": {"name": provenance.APPLICATION, "version": __version__},
        "models": [asdict(model) for model in models],
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
        },
        "outputs": {"seg": _identify(seg), "report": _identify(report)},
        "notes": [*volume.notes, *follow_up.notes],
    }
    if follow_up.time_points:
        result["follow_up"] = follow_up_numbers(follow_up)
    return result


def _identify(instance: Dataset) -> dict[str, str]:
    return {
        "sop_class_uid": str(instance.SOPClassUID),
        "sop_instance_uid": str(instance.SOPInstanceUID),
        "series_instance_uid": str(instance.SeriesInstanceUID),
    }
