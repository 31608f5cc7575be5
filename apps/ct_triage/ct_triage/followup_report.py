"""Follow-up in a measurement report: a group per lung and study, with change and response."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from highdicom.sr import (
    ContainerContentItem,
    ContentSequence,
    FindingSite,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceSeriesForSegmentation,
    TimePointContext,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset

from ct_triage import codes, provenance
from ct_triage.codes import PrivateCodes
from ct_triage.followup import LUNGS, Change, FollowUp, Instance, TimePoint
from ct_triage.measurements import measure_lesions, measure_lung
from ct_triage.seg import LEFT_LUNG, LESION, RIGHT_LUNG, SegmentKind

Group = MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations

# The volumes of both lungs are told with the lesions, as they are for a study without priors.
KINDS: Mapping[str, SegmentKind] = {
    "right_lung": RIGHT_LUNG,
    "left_lung": LEFT_LUNG,
    "both_lungs": LESION,
}


def evidence_of(point: TimePoint) -> list[Dataset]:
    """Return the objects that a study was measured in, and those that they refer to."""
    instances = [region.segmentation for region in point.regions.values()]
    if point.instance:
        instances.append(point.instance)
    return [_evidence(instance) for instance in dict.fromkeys(instances)]


def _evidence(instance: Instance) -> Dataset:
    """Describe an object by what an evidence sequence needs (PS3.3 C.17.2.1)."""
    evidence = Dataset()
    evidence.StudyInstanceUID = instance.study_instance_uid
    evidence.SeriesInstanceUID = instance.series_instance_uid
    evidence.SOPClassUID = instance.sop_class_uid
    evidence.SOPInstanceUID = instance.sop_instance_uid
    return evidence


def time_point_context(follow_up: FollowUp, index: int) -> TimePointContext:
    """Place a study among the others by its date and its number, from 1 (TID 1502).

    The number is an identifier, because validators take Time Point Order for a measurement.
    """
    return TimePointContext(
        time_point=follow_up.time_points[index].moment.date().isoformat(),
        subject_time_point_identifier=str(index + 1),
    )


def change_measurements(
    follow_up: FollowUp, index: int, lung: str, private: PrivateCodes
) -> list[Measurement]:
    """How a lung changed since the study before; nothing where it cannot be told."""
    change = _change(follow_up, index, lung)
    if change is None:
        return []
    return [
        Measurement(private.lesion_share_change, change.share_change_points, codes.PERCENT),
        Measurement(
            private.corrected_lesion_volume,
            change.corrected_lesion_volume_ml,
            codes.CUBIC_CENTIMETRE,
        ),
        Measurement(
            private.corrected_lesion_volume_change,
            change.corrected_volume_change_ml,
            codes.CUBIC_CENTIMETRE,
        ),
    ]


def response_evaluations(
    follow_up: FollowUp, index: int, lung: str, private: PrivateCodes
) -> list[QualitativeEvaluation]:
    """Class of that change; for both lungs also in standard words for the patient."""
    change = _change(follow_up, index, lung)
    if change is None:
        return []
    evaluations = [QualitativeEvaluation(private.response, private.responses[change.response])]
    if lung == "both_lungs":
        condition = codes.CONDITIONS[change.response]
        evaluations.append(QualitativeEvaluation(codes.CURRENT_RESPONSE, condition))
    return evaluations


def time_point_groups(
    follow_up: FollowUp, index: int, private: PrivateCodes, *, tied: bool = True
) -> list[Group]:
    """Measurement groups of a study that was measured in a segmentation or a report.

    A group is tied to its segment (TID 1411) where the study's segmentation has one for it;
    otherwise, and with ``tied=False``, it has no region (TID 1501) and its object is among the
    report's evidence.
    """
    return [
        _group(follow_up, index, lung, private, tied=tied)
        for lung in LUNGS
        if lung in follow_up.time_points[index].lungs
    ]


def _group(
    follow_up: FollowUp, index: int, lung: str, private: PrivateCodes, *, tied: bool
) -> Group:
    point, kind = follow_up.time_points[index], KINDS[lung]
    instance = point.instance
    assert instance is not None
    measure = measure_lesions if lung == "both_lungs" else measure_lung
    identifier = f"{kind.label} {index + 1}"
    content: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(
            uid=provenance.uid_of("time point", instance.sop_instance_uid, lung),
            identifier=identifier,
        ),
        "time_point_context": time_point_context(follow_up, index),
        "finding_type": kind.structure,
        "finding_sites": [FindingSite(codes.LUNG, laterality=kind.laterality)],
        "measurements": [
            *measure(point.lungs[lung], private),
            *change_measurements(follow_up, index, lung, private),
        ],
        "qualitative_evaluations": response_evaluations(follow_up, index, lung, private),
    }
    region = point.regions.get(lung) if tied else None
    if region is None:
        return MeasurementsAndQualitativeEvaluations(**content)
    segment = ReferencedSegment(
        sop_class_uid=region.segmentation.sop_class_uid,
        sop_instance_uid=region.segmentation.sop_instance_uid,
        segment_number=region.segment_number,
        source_series=SourceSeriesForSegmentation(region.source_series_uid),
    )
    return VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **content)


def _change(follow_up: FollowUp, index: int, lung: str) -> Change | None:
    return follow_up.changes[index - 1][lung] if index > 0 else None


def prior_groups(
    follow_up: FollowUp, private: PrivateCodes, *, tied: bool
) -> tuple[list[Group], list[Group]]:
    """Return the groups of all studies but the last, by date.

    Validators hold all groups of a container against one template, so groups with a region (see
    :func:`time_point_groups`) and groups without one stand in different containers.

    Parameters
    ----------
    follow_up : FollowUp
        The studies.
    private : PrivateCodes
        Codes of the report.
    tied : bool
        Whether the last study's groups have a region.

    Returns
    -------
    tuple of 2 lists
        What goes among the groups of the last study, and what :func:`previous_findings` holds.
    """
    groups = list(
        chain.from_iterable(
            time_point_groups(follow_up, index, private)
            for index in range(len(follow_up.time_points) - 1)
        )
    )
    with_region = [
        isinstance(group, VolumetricROIMeasurementsAndQualitativeEvaluations) for group in groups
    ]
    alike = [group for group, has in zip(groups, with_region, strict=True) if has == tied]
    apart = [group for group, has in zip(groups, with_region, strict=True) if has != tied]
    return alike, apart


def previous_findings(groups: Sequence[Group]) -> ContainerContentItem:
    """Hold groups without a region apart from groups that have one, or the other way round.

    TID 1500 asks for one container of measurement groups, and validators hold all of them against
    one template. The template is extensible, so these go under a heading of CID 7001.
    """
    container = ContainerContentItem(
        codes.PREVIOUS_FINDINGS, relationship_type=RelationshipTypeValues.CONTAINS
    )
    container.ContentSequence = ContentSequence([item for group in groups for item in group])
    return container
