"""The findings of a study as a measurement report (PS3.16 TID 1500) in Comprehensive 3D SR."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from highdicom.seg import Segmentation
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
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

from ct_triage import __version__, codes, provenance
from ct_triage.codes import PrivateCodes
from ct_triage.followup import NO_FOLLOW_UP, FollowUp
from ct_triage.followup_report import (
    KINDS,
    Group,
    change_measurements,
    evidence_of,
    previous_findings,
    prior_groups,
    response_evaluations,
    time_point_context,
)
from ct_triage.measurements import (
    covid19_probability_percent,
    measure_classes,
    measure_lesions,
    measure_lung,
    severity_score,
)
from ct_triage.provenance import ModelIdentity, Origin
from ct_triage.quality import Quality
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
    quality: Quality,
    origin: Origin,
    follow_up: FollowUp = NO_FOLLOW_UP,
) -> Comprehensive3DSR:
    """Report the findings, with each group of them tied to a segment of ``seg``.

    There is one group per segment (TID 1411), in every study: right lung, left lung and lesions.
    The severity of the study is in the lesions' group, where readers of measurement groups find
    it; in a healthy patient that group says that lesions are absent. The probability of COVID-19,
    where it is known, and what a classification of the slices says are in groups of their own,
    with the lesions as their region.

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
    quality : Quality
        How far that can be relied on.
    origin : Origin
        What they were made with.
    follow_up : FollowUp
        Earlier studies of the patient: each has groups of its own after those of this study,
        which then tell what has changed.
    """
    images = provenance.source_images(volume)
    moment = provenance.content_moment(volume)
    earlier, earlier_apart = prior_groups(follow_up, origin.codes, tied=seg is not None)
    content = MeasurementReport(
        observation_context=observation_context(origin),
        procedure_reported=codes.CT_PROCEDURE,
        title=dicom_codes.cid7021.ImagingMeasurementReport,
        # A multi-frame source is one image.
        referenced_images=[images[i] for i in _key_slices(segments)] if images[1:] else images,
        imaging_measurements=[
            *_groups(volume, seg, findings, origin, follow_up),
            *earlier,
        ],
    )
    content[0].ContentSequence.append(
        qualitative_evaluations(
            [
                DISCLAIMER,
                *(reason.text for reason in quality.reasons),
                *volume.notes,
                *origin.notes,
                *follow_up.notes,
            ],
            _quality_evaluations(quality, origin.codes),
        )
    )
    if earlier_apart:
        content[0].ContentSequence.append(previous_findings(earlier_apart))
    # Findings on other priors are other findings, though the images are the same.
    priors = [point.instance.sop_instance_uid for point in follow_up.time_points if point.instance]
    report = Comprehensive3DSR(
        evidence=[
            *images,
            *([] if seg is None else [seg]),
            *chain.from_iterable(map(evidence_of, follow_up.time_points)),
        ],
        content=content,
        **provenance.instance_attributes(volume, origin, "SR", SERIES_NUMBER_OFFSET, *priors),
        # Complete as far as the software goes, but no person has looked at it.
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="CT triage: severity report, not for clinical use",
        content_date=moment.date(),
        content_time=moment.time(),
        coding_schemes=[origin.codes.identification],
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
    lung_model, lesion_model, *others = origin.models
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

    def tracked(name: str) -> TrackingIdentifier:
        uid = provenance.derive_uid(f"tracking {name}", volume, origin)
        return TrackingIdentifier(uid=uid, identifier=name)

    probability = covid19_probability_percent(findings)
    if probability is not None:
        measurement = Measurement(codes.PROBABILITY, probability, codes.PERCENT)
        groups.append(
            group(
                LESION,
                by_lesion,
                [measurement],
                finding_type=codes.COVID_19,
                tracking_identifier=tracked("COVID-19"),
            )
        )
    if findings.slice_classes is not None:
        category = private.study_classes[findings.slice_classes.category]
        groups.append(
            group(
                LESION,
                _algorithm(others[0], origin.slice_parameters),
                measure_classes(findings.slice_classes, private),
                [QualitativeEvaluation(private.study_class, category)],
                finding_type=codes.PNEUMONIA,
                tracking_identifier=tracked("classes of slices"),
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


def _quality_evaluations(quality: Quality, private: PrivateCodes) -> list[CodeContentItem]:
    """Return the verdict on the series, and each kind of reason for it once."""
    kinds = dict.fromkeys(reason.code for reason in quality.reasons)
    pairs = [
        (codes.SERIES_QUALITY, codes.QUALITY_VERDICTS[quality.verdict]),
        *((codes.QUALITY_FINDING, private.quality_findings[kind]) for kind in kinds),
    ]
    contains = RelationshipTypeValues.CONTAINS
    return [CodeContentItem(name, value, relationship_type=contains) for name, value in pairs]


def qualitative_evaluations(
    texts: Sequence[str], evaluations: Sequence[CodeContentItem] = ()
) -> ContainerContentItem:
    """Say things of the study as a whole, in codes and in free text (TID 1500 row 12)."""
    container = ContainerContentItem(
        codes.QUALITATIVE_EVALUATIONS, relationship_type=RelationshipTypeValues.CONTAINS
    )
    # The source's character set is kept, and any of them holds ASCII.
    comments = [
        TextContentItem(
            codes.COMMENT,
            text.encode("ascii", "replace").decode(),
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
        for text in texts
    ]
    container.ContentSequence = ContentSequence([*evaluations, *comments])
    return container
