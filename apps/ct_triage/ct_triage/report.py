"""The findings of a study as a measurement report (PS3.16 TID 1500) in Comprehensive 3D SR."""

from collections.abc import Sequence
from functools import partial

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
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from ct_triage import __version__, codes, provenance
from ct_triage.measurements import involvement_numbers, severity_score
from ct_triage.provenance import ModelIdentity
from ct_triage.seg import LEFT_LUNG, LESION, RIGHT_LUNG, SEGMENT_KINDS, SegmentKind
from ct_triage.severity import Findings, Involvement, Segments
from ct_triage.volume import Volume

SERIES_NUMBER_OFFSET = 92
DISCLAIMER = "Computed by research software without human review. Not for clinical use."

# What the numbers are called inside a lung's group and inside the lesions' group: in each,
# "Volume" is that of the segment which the group refers to.
_LUNG_MEASUREMENTS = {
    "lung_volume_ml": (codes.VOLUME, codes.CUBIC_CENTIMETRE),
    "lesion_volume_ml": (codes.LESION_VOLUME, codes.CUBIC_CENTIMETRE),
    "lesion_share_percent": (codes.LESION_SHARE, codes.PERCENT),
}
_LESION_MEASUREMENTS = {
    "lung_volume_ml": (codes.LUNG_VOLUME, codes.CUBIC_CENTIMETRE),
    "lesion_volume_ml": (codes.VOLUME, codes.CUBIC_CENTIMETRE),
    "lesion_share_percent": (codes.LESION_SHARE, codes.PERCENT),
}


# Real archives send UIDs that break the rules; they must be referred to as they are.
@disable_value_validation()
def build_report(
    volume: Volume,
    segments: Segments,
    seg: Segmentation,
    findings: Findings,
    models: Sequence[ModelIdentity],
) -> Comprehensive3DSR:
    """Report the findings, with each group of them tied to a segment of ``seg``.

    There is one group per segment (TID 1411), in every study: right lung, left lung and lesions.
    The severity of the study is in the lesions' group, where readers of measurement groups find
    it; in a healthy patient that group says that lesions are absent.

    Parameters
    ----------
    volume : Volume
        The source images.
    segments : Segments
        Masks (slices, rows, columns) on the volume's grid.
    seg : Segmentation
        What :func:`ct_triage.seg.build_seg` made of them.
    findings : Findings
        What was measured.
    models : sequence of 2 ModelIdentity
        The lung model and the lesion model.
    """
    lung_model, lesion_model = models
    images = provenance.source_images(volume)
    uid = partial(provenance.derive_uid, volume=volume, models=models)
    moment = provenance.content_moment(volume)
    content = MeasurementReport(
        observation_context=_observation_context(models),
        procedure_reported=codes.CT_PROCEDURE,
        title=dicom_codes.cid7021.ImagingMeasurementReport,
        # A multi-frame source is one image.
        referenced_images=[images[i] for i in _key_slices(segments)] if images[1:] else images,
        imaging_measurements=[
            _group(seg, RIGHT_LUNG, lung_model, _measure(findings.right_lung, _LUNG_MEASUREMENTS)),
            _group(seg, LEFT_LUNG, lung_model, _measure(findings.left_lung, _LUNG_MEASUREMENTS)),
            _group(
                seg,
                LESION,
                lesion_model,
                [*_measure(findings.both_lungs, _LESION_MEASUREMENTS), _score(findings)],
                _evaluate(findings),
            ),
        ],
    )
    content[0].ContentSequence.append(_comments([DISCLAIMER, *volume.notes]))
    report = Comprehensive3DSR(
        evidence=[*images, seg],
        content=content,
        series_instance_uid=uid("SR series"),
        series_number=provenance.series_number(volume, SERIES_NUMBER_OFFSET),
        sop_instance_uid=uid("SR"),
        instance_number=1,
        manufacturer=provenance.MANUFACTURER,
        manufacturer_model_name=provenance.APPLICATION,
        software_versions=provenance.software_versions(models),
        device_serial_number=provenance.device_serial_number(models),
        # Complete as far as the software goes, but no person has looked at it.
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="CT triage: severity report, not for clinical use",
        content_date=moment.date(),
        content_time=moment.time(),
        coding_schemes=[codes.private_scheme()],
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    provenance.finish(report, volume)
    return report


def _observation_context(models: Sequence[ModelIdentity]) -> ObservationContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=provenance.device_uid(models),
        name=provenance.APPLICATION,
        manufacturer_name=provenance.MANUFACTURER,
        model_name=f"{provenance.APPLICATION} {__version__}",
        serial_number=provenance.device_serial_number(models),
    )
    return ObservationContext(
        observer_device_context=ObserverContext(dicom_codes.DCM.Device, device)
    )


def _group(
    seg: Segmentation,
    kind: SegmentKind,
    model: ModelIdentity,
    measurements: list[Measurement],
    evaluations: Sequence[QualitativeEvaluation] = (),
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Measurement group of one segment (TID 1411), tracked by what the segment is tracked by."""
    number = SEGMENT_KINDS.index(kind) + 1
    segment = seg.get_segment_description(number)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=segment.tracking_uid, identifier=segment.tracking_id
        ),
        finding_type=kind.structure,
        finding_sites=[FindingSite(codes.LUNG, laterality=kind.laterality)],
        referenced_segment=ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=number,
            source_series=SourceSeriesForSegmentation(
                seg.ReferencedSeriesSequence[0].SeriesInstanceUID
            ),
        ),
        algorithm_id=AlgorithmIdentification(
            model.name,
            model.version,
            parameters=[f"{provenance.WEIGHTS_PARAMETER}={model.sha256}"],
        ),
        measurements=measurements,
        qualitative_evaluations=evaluations,
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


def _measure(involvement: Involvement, names: dict[str, tuple[Code, Code]]) -> list[Measurement]:
    numbers = involvement_numbers(involvement)
    return [Measurement(name, numbers[key], unit) for key, (name, unit) in names.items()]


def _score(findings: Findings) -> Measurement:
    return Measurement(codes.SEVERITY_SCORE, severity_score(findings), codes.PERCENT)


def _evaluate(findings: Findings) -> list[QualitativeEvaluation]:
    has_lesions = findings.both_lungs.lesion_volume_ml > 0
    category = findings.severity_category
    return [
        QualitativeEvaluation(codes.PRESENCE, codes.PRESENT if has_lesions else codes.ABSENT),
        QualitativeEvaluation(codes.SEVERITY_CATEGORY, codes.CATEGORIES[category]),
        QualitativeEvaluation(codes.SEVERITY, codes.SEVERITIES[category]),
    ]


def _comments(texts: Sequence[str]) -> ContainerContentItem:
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
