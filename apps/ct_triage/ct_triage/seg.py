"""The masks of a study as one DICOM segmentation (PS3.3 A.51)."""

from dataclasses import dataclass

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from highdicom.sr import CodedConcept
from pydicom.config import disable_value_validation
from pydicom.sr.coding import Code

from ct_triage import codes, provenance
from ct_triage.provenance import Origin
from ct_triage.severity import Segments
from ct_triage.volume import Volume

SERIES_NUMBER_OFFSET = 91


@dataclass(frozen=True, slots=True)
class SegmentKind:
    """What one of the three segments is; its number is its place in ``SEGMENT_KINDS``.

    Attributes
    ----------
    label : str
        Segment label, and tracking identifier in segmentation and report (TID 4108).
    category, structure, laterality : Code
        What it is and on which side of the patient.
    rgb : tuple of 3 ints
        Recommended colour, 0..255.
    """

    label: str
    category: Code
    structure: Code
    laterality: Code
    rgb: tuple[int, int, int]


RIGHT_LUNG = SegmentKind(
    "right lung", codes.ANATOMICAL_STRUCTURE, codes.LUNG, codes.RIGHT, (77, 142, 214)
)
LEFT_LUNG = SegmentKind(
    "left lung", codes.ANATOMICAL_STRUCTURE, codes.LUNG, codes.LEFT, (80, 190, 145)
)
LESION = SegmentKind(
    "lung lesions", codes.ABNORMAL_STRUCTURE, codes.LESION, codes.BOTH, (235, 80, 30)
)
SEGMENT_KINDS = (RIGHT_LUNG, LEFT_LUNG, LESION)


class _MaskStack(np.ndarray):
    """Masks that are summed in eight bits.

    highdicom adds the segments up to see whether they overlap. numpy would widen each voxel to 64
    bits for that, which is the largest array of a whole run; three masks never exceed three.
    """

    def sum(self, axis: int) -> "_MaskStack":  # type: ignore[override]
        return super().sum(axis=axis, dtype=np.uint8)


# Real archives send UIDs that break the rules; they must be referred to as they are.
@disable_value_validation()
def build_seg(volume: Volume, segments: Segments, origin: Origin) -> Segmentation:
    """Write the lungs and lesions of a study as one BINARY segmentation on the source grid.

    All three segments are always described. One without voxels has no frames, so that a reader
    finds "lung lesions" in every study and none in a healthy one.

    Parameters
    ----------
    volume : Volume
        The source images.
    segments : Segments
        Masks (slices, rows, columns) on the volume's grid.
    origin : Origin
        What they were made with.
    """
    # Stored segment by segment, but indexed with the segment last, as highdicom wants it.
    stack = np.moveaxis(segments.stack.view(np.uint8), 0, -1)
    moment = provenance.content_moment(volume)
    seg = Segmentation(
        source_images=provenance.source_images(volume),
        pixel_array=stack.view(_MaskStack),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _describe(number, kind, origin, tracking_uid(kind, volume, origin))
            for number, kind in enumerate(SEGMENT_KINDS, 1)
        ],
        **provenance.instance_attributes(volume, origin, "SEG", SERIES_NUMBER_OFFSET),
        content_label="LUNGS_LESIONS",
        content_description="Right lung, left lung and lung lesions",
        series_description="CT triage: lungs and lesions, not for clinical use",
        content_date=moment.date(),
        content_time=moment.time(),
    )
    dimensions = provenance.derive_uid("SEG dimensions", volume, origin)
    # In place of highdicom's random Dimension Organization UID (PS3.3 C.7.6.17).
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    if volume.frames:
        _refer_to_frames(seg, volume.frames)
    seg.BodyPartExamined = "CHEST"
    provenance.finish(seg, volume)
    return seg


def tracking_uid(kind: SegmentKind, volume: Volume, origin: Origin) -> str:
    """UID that a segment is tracked by, here and in the report."""
    return provenance.derive_uid(f"tracking {kind.label}", volume, origin)


def _refer_to_frames(seg: Segmentation, frames: tuple[int, ...]) -> None:
    """Turn references to slices of the volume into references to frames of its source."""
    # Frames of several segments may share an item, which is to be turned once.
    sources = {
        id(source): source
        for groups in seg.PerFrameFunctionalGroupsSequence
        for derivation in groups.DerivationImageSequence
        for source in derivation.SourceImageSequence
    }
    for source in sources.values():
        source.ReferencedFrameNumber = frames[source.ReferencedFrameNumber - 1] + 1


def _describe(
    number: int, kind: SegmentKind, origin: Origin, tracking_uid: str
) -> SegmentDescription:
    lung_model, lesion_model, *_ = origin.models
    model, parameters = (
        (lesion_model, origin.lesion_parameters)
        if kind is LESION
        else (lung_model, origin.lung_parameters)
    )
    description = SegmentDescription(
        segment_number=number,
        segment_label=kind.label,
        segmented_property_category=kind.category,
        segmented_property_type=kind.structure,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=model.name,
            family=codes.ARTIFICIAL_INTELLIGENCE,
            version=model.version,
            source=origin.configuration.manufacturer.name,
            parameters=parameters,
        ),
        tracking_uid=tracking_uid,
        tracking_id=kind.label,
        display_color=CIELabColor.from_rgb(*kind.rgb),
    )
    laterality = [CodedConcept.from_code(kind.laterality)]
    if kind.structure == codes.LUNG:
        # PS3.3 table C.8.20-4: the side of an organ modifies its property type.
        structure = description.SegmentedPropertyTypeCodeSequence[0]
        structure.SegmentedPropertyTypeModifierCodeSequence = laterality
    else:
        # PS3.3 table 10-7: what is found in an organ names the organ as its region.
        region = CodedConcept.from_code(codes.LUNG)
        region.AnatomicRegionModifierSequence = laterality
        description.AnatomicRegionSequence = [region]
    return description
