"""The course of a patient's studies as a measurement report (PS3.16 TID 1500)."""

from highdicom.sr import Comprehensive3DSR, MeasurementReport
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dicom_codes
from pydicom.uid import ExplicitVRLittleEndian

from ct_triage import codes, provenance
from ct_triage.followup_report import (
    evidence_of,
    previous_findings,
    prior_groups,
    time_point_groups,
)
from ct_triage.provenance import Origin
from ct_triage.report import DISCLAIMER, observation_context, qualitative_evaluations
from tools.followup.studies import StudySeries

# After those of the application's own results.
SERIES_NUMBER_OFFSET = 5
# No model runs, and names are those of the default configuration.
ORIGIN = Origin()


# Real archives send UIDs that break the rules; they must be referred to as they are.
@disable_value_validation()
def build_follow_up_report(studies: StudySeries) -> Comprehensive3DSR:
    """Report every study and what changed since the one before it.

    The report belongs to the latest study and refers to the segmentation or report of each.
    """
    follow_up, latest = studies.follow_up, studies.latest
    points = follow_up.time_points
    # Groups of one container are all tied to segments, or none is.
    tied = set(points[-1].lungs) <= set(points[-1].regions)
    earlier, earlier_apart = prior_groups(follow_up, ORIGIN.codes, tied=tied)
    manufacturer = ORIGIN.configuration.manufacturer
    content = MeasurementReport(
        observation_context=observation_context(ORIGIN),
        procedure_reported=codes.CT_PROCEDURE,
        title=dicom_codes.cid7021.ImagingMeasurementReport,
        imaging_measurements=[
            *time_point_groups(follow_up, len(points) - 1, ORIGIN.codes, tied=tied),
            *earlier,
        ],
    )
    content[0].ContentSequence.append(qualitative_evaluations([DISCLAIMER, *follow_up.notes]))
    if earlier_apart:
        content[0].ContentSequence.append(previous_findings(earlier_apart))
    instances = [point.instance.sop_instance_uid for point in points if point.instance]
    report = Comprehensive3DSR(
        evidence=[
            _with_patient(evidence, latest)
            for point in reversed(points)
            for evidence in evidence_of(point)
        ],
        content=content,
        series_instance_uid=provenance.uid_of("follow-up series", instances),
        series_number=int(latest.get("SeriesNumber") or 0) + SERIES_NUMBER_OFFSET,
        sop_instance_uid=provenance.uid_of("follow-up", instances),
        instance_number=1,
        manufacturer=manufacturer.name,
        manufacturer_model_name=manufacturer.model_name,
        software_versions=provenance.software_versions(ORIGIN),
        device_serial_number=provenance.device_serial_number(ORIGIN),
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="CT triage: follow-up, not for clinical use",
        content_date=points[-1].moment.date(),
        content_time=points[-1].moment.time(),
        coding_schemes=[ORIGIN.codes.identification],
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    provenance.finish_for(report, latest)
    return report


def _with_patient(evidence: Dataset, latest: Dataset) -> Dataset:
    """Add what highdicom reads of the first evidence: patient and study, as far as they go."""
    for keyword in provenance.IDENTIFYING_KEYWORDS:
        setattr(evidence, keyword, latest.get(keyword))
    return evidence
