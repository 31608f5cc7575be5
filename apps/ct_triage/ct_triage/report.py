"""The findings of a study as a measurement report (PS3.16 TID 1500) in Comprehensive 3D SR."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from highdicom.seg import Segmentation
from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.config import disable_value_validation
from pydicom.sr.codedict import codes as dicom_codes
from pydicom.uid import ExplicitVRLittleEndian

from ct_triage import __version__, codes, provenance
from ct_triage.codes import PrivateCodes
from ct_triage.followup import NO_FOLLOW_UP, FollowUp
from ct_triage.followup_report import (
    KINDS,
    Group,
    change_measurements,
    evidence_of,
    prior_groups,
    response_evaluations,
    time_point_context,
)
from ct_triage.measurements import (
    covid19_probability_percent,
    measure_lesions,
    measure_lung,
    severity_score,
)
from ct_triage.provenance import ModelIdentity, Origin
from ct_triage.seg import LESION, SEGMENT_KINDS, SegmentKind, tracking_uid
from ct_triage.severity import Findings, Segments
from ct_triage.volume import Volume

SERIES_NUMBER_OFFSET = 92
DISCLAIMER = "Computed by research software without human review. Not for clinical use."


# Real archives send UIDs that break the rules; they must be referred to as they are.
@disable_value_validation()
def build_report(
    volume: Volume,
    segments: Segments,
    seg: Segmentation | None,
    findings: Findings,
    origin: Origin,
    follow_up: FollowUp = NO_FOLLOW_UP,
) -> Comprehensive3DSR:
    """Report the findings, with each group of them tied to a segment of ``seg``.

    There is one group per segment (TID 1411), in every study: right lung, left lung and lesions.
    The severity of the study is in the lesions' group, where readers of measurement groups find
    it; in a healthy patient that group says that lesions are absent. The probability of COVID-19,
    where it is known, is in a group of its own, with the lesions as its region.

    Parameters
    ----------
    volume : Volume
        The source images.
    segments : Segments
        Masks (slices, rows, columns) on the volume's grid.
    seg : Segmentation or None
        What :func:`ct_triage.seg.build_seg` made of them. Without it the groups stand alone
        (TID 1501): a report must not refer to an object that nobody will find.
    findings : Findings
        What was measured.
    origin : Origin
        What they were made with.
    follow_up : FollowUp
        Earlier studies of the patient: each has groups of its own after those of this study,
        which then tell what has changed.
    """
    images = provenance.source_images(volume)
    uid = partial(provenance.derive_uid, volume=volume, origin=origin)
    moment = provenance.content_moment(volume)
    priors = [point.instance for point in follow_up.time_points if point.instance]
    # Findings on other priors are other findings, though the images are the same.
    purpose = " ".join(["SR", *(prior.sop_instance_uid for prior in priors)])
    content = MeasurementReport(
        observation_context=observation_context(origin),
        procedure_reported=codes.CT_PROCEDURE,
        title=dicom_codes.cid7021.ImagingMeasurementReport,
        # A multi-frame source is one image.
        referenced_images=[images[i] for i in _key_slices(segments)] if images[1:] else images,
        imaging_measurements=[
            *_groups(volume, seg, findings, origin, follow_up),
            *prior_groups(follow_up, origin.codes, tied=seg is not None),
        ],
    )
    content[0].ContentSequence.append(
        comments([DISCLAIMER, *volume.notes, *origin.notes, *follow_up.notes])
    )
    report = Comprehensive3DSR(
        evidence=[
            *images,
            *([] if seg is None else [seg]),
            *chain.from_iterable(map(evidence_of, follow_up.time_points)),
        ],
        content=content,
        series_instance_uid=uid("SR series"),
        series_number=provenance.series_number(volume, SERIES_NUMBER_OFFSET),
        sop_instance_uid=uid(purpose),
        instance_number=1,
        manufacturer=origin.configuration.manufacturer.name,
        manufacturer_model_name=origin.configuration.manufacturer.model_name,
        software_versions=provenance.software_versions(origin),
        device_serial_number=provenance.device_serial_number(origin),
        # Complete as far as the software goes, but no person has looked at it.
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="CT triage: severity report, not for clinical use",
        content_date=moment.date(),
        content_time=moment.time(),
        coding_schemes=[origin.codes.identification],
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    provenance.finish(report, volume)
    return report


def observation_context(origin: Origin) -> ObservationContext:
    """Name this application, with its models and settings, as the observer (TID 1001)."""
    manufacturer = origin.configuration.manufacturer
    device = DeviceObserverIdentifyingAttributes(
        uid=provenance.device_uid(origin),
        name=manufacturer.model_name,
        manufacturer_name=manufacturer.name,
        model_name=f"{manufacturer.model_name} {__version__}",
        serial_number=provenance.device_serial_number(origin),
    )
    return ObservationContext(
        observer_device_context=ObserverContext(dicom_codes.DCM.Device, device)
    )


def _groups(
    volume: Volume,
    seg: Segmentation | None,
    findings: Findings,
    origin: Origin,
    follow_up: FollowUp,
) -> list[Group]:
    """Return the groups of this study: each lung, the lesions, and the probability of COVID-19."""
    private = origin.codes
    lung_model, lesion_model = origin.models
    by_lung = _algorithm(lung_model, origin.lung_parameters)
    by_lesion = _algorithm(lesion_model, origin.lesion_parameters)
    last = len(follow_up.time_points) - 1
    context = time_point_context(follow_up, last) if follow_up.time_points else None
    group = partial(_group, volume, seg, origin, time_point_context=context)

    def since_prior(
        lung: str,
        algorithm: AlgorithmIdentification,
        measurements: list[Measurement],
        evaluations: Sequence[QualitativeEvaluation] = (),
    ) -> Group:
        return group(
            KINDS[lung],
            algorithm,
            [*measurements, *change_measurements(follow_up, last, lung, private)],
            [*evaluations, *response_evaluations(follow_up, last, lung, private)],
        )

    score = Measurement(private.severity_score, severity_score(findings), codes.PERCENT)
    groups: list[Group] = [
        since_prior("right_lung", by_lung, measure_lung(findings.right_lung, private)),
        since_prior("left_lung", by_lung, measure_lung(findings.left_lung, private)),
        since_prior(
            "both_lungs",
            by_lesion,
            [*measure_lesions(findings.both_lungs, private), score],
            _evaluate(findings, private),
        ),
    ]
    probability = covid19_probability_percent(findings)
    if probability is not None:
        tracking = TrackingIdentifier(
            uid=provenance.derive_uid("tracking COVID-19", volume, origin), identifier="COVID-19"
        )
        measurement = Measurement(codes.PROBABILITY, probability, codes.PERCENT)
        groups.append(
            group(
                LESION,
                by_lesion,
                [measurement],
                finding_type=codes.COVID_19,
                tracking_identifier=tracking,
            )
        )
    return groups


def _algorithm(model: ModelIdentity, parameters: dict[str, str]) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        model.name,
        model.version,
        parameters=[f"{name}={value}" for name, value in parameters.items()],
    )


def _group(
    volume: Volume,
    seg: Segmentation | None,
    origin: Origin,
    kind: SegmentKind,
    algorithm: AlgorithmIdentification,
    measurements: list[Measurement],
    evaluations: Sequence[QualitativeEvaluation] = (),
    **instead: Any,
) -> Group:
    """Measurement group of one segment, tracked by what the segment is tracked by.

    ``instead`` adds to what the group says or replaces it, for a finding that the segment is the
    evidence of.
    """
    common: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(
            uid=tracking_uid(kind, volume, origin), identifier=kind.label
        ),
        "finding_type": kind.structure,
        "finding_sites": [FindingSite(codes.LUNG, laterality=kind.laterality)],
        "algorithm_id": algorithm,
        "measurements": measurements,
        "qualitative_evaluations": evaluations,
        **instead,
    }
    if seg is None:
        return MeasurementsAndQualitativeEvaluations(**common)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=SEGMENT_KINDS.index(kind) + 1,
            source_series=SourceSeriesForSegmentation(
                seg.ReferencedSeriesSequence[0].SeriesInstanceUID
            ),
        ),
        **common,
    )


def _key_slices(segments: Segments) -> list[int]:
    """First and last slice and the one with most lesion, or most lung in a healthy patient.

    An image library of every slice would repeat the source series' headers at a cost: validators
    and viewers need half a minute for sixty entries.
    """
    areas = segments.lesion.sum(axis=(1, 2))
    if not areas.any():
        areas = (segments.right_lung | segments.left_lung).sum(axis=(1, 2))
    return sorted({0, int(np.argmax(areas)), len(areas) - 1})


def _evaluate(findings: Findings, private: PrivateCodes) -> list[QualitativeEvaluation]:
    has_lesions = findings.both_lungs.lesion_volume_ml > 0
    category = findings.severity_category
    return [
        QualitativeEvaluation(codes.PRESENCE, codes.PRESENT if has_lesions else codes.ABSENT),
        QualitativeEvaluation(private.severity_category, private.categories[category]),
        QualitativeEvaluation(codes.SEVERITY, codes.SEVERITIES[category]),
    ]


def comments(texts: Sequence[str]) -> ContainerContentItem:
    """Qualitative Evaluations, TID 1500 row 12: the one place where it allows free text."""
    container = ContainerContentItem(
        codes.QUALITATIVE_EVALUATIONS, relationship_type=RelationshipTypeValues.CONTAINS
    )
    # The source's character set is kept, and any of them holds ASCII.
    container.ContentSequence = ContentSequence(
        [
            TextContentItem(
                codes.COMMENT,
                text.encode("ascii", "replace").decode(),
                relationship_type=RelationshipTypeValues.CONTAINS,
            )
            for text in texts
        ]
    )
    return container
