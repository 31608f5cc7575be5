"""Enhanced and legacy-converted CT: every frame as if it were an image of its own.

PS3.3 A.38 and A.70 keep what differs between slices in functional groups (C.7.6.16). Laid flat,
under the keywords of the CT Image IOD, a frame is read by the same code as a file.
"""

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from ct_triage.limits import MAX_SLICES
from ct_triage.scanning import value_of

# Functional group macro -> its attributes, under the keyword that a CT Image has for them.
_GROUPS = {
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {"PixelSpacing": "PixelSpacing", "SliceThickness": "SliceThickness"},
    "PixelValueTransformationSequence": {
        "RescaleIntercept": "RescaleIntercept",
        "RescaleSlope": "RescaleSlope",
        "RescaleType": "RescaleType",
    },
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "FrameContentSequence": {
        "FrameAcquisitionNumber": "AcquisitionNumber",
        "FrameAcquisitionDateTime": "AcquisitionDateTime",
        "TemporalPositionIndex": "TemporalPositionIndex",
    },
    "CTReconstructionSequence": {
        "ConvolutionKernel": "ConvolutionKernel",
        "ReconstructionAlgorithm": "ReconstructionAlgorithm",
    },
    "CardiacSynchronizationSequence": {
        "NominalPercentageOfCardiacPhase": "NominalPercentageOfCardiacPhase"
    },
}


def frame_headers(header: Dataset) -> list[Dataset]:
    """Return one flat header per frame of a multi-frame CT, in the order of the frames.

    Attributes that a frame's own groups lack are those of the shared groups, and a frame without
    a position has a header without one.

    Raises
    ------
    ValueError
        If the number of frames is missing or out of bounds, or is not that of the groups.
    """
    n_frames = int(value_of(header, "NumberOfFrames", 0))
    if not 0 < n_frames <= MAX_SLICES:
        raise ValueError(f"{n_frames} frames")
    per_frame = value_of(header, "PerFrameFunctionalGroupsSequence", [])
    if len(per_frame) != n_frames:
        raise ValueError(f"{n_frames} frames with {len(per_frame)} functional groups")
    shared = value_of(header, "SharedFunctionalGroupsSequence", [])
    # A slice is a data set of its own; a copy would share its elements.
    common = header[:]
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if keyword in common:
            del common[keyword]
    for groups in shared:
        _lay_flat(groups, common)
    headers = []
    for groups in per_frame:
        frame = common[:]
        _lay_flat(groups, frame)
        headers.append(frame)
    return headers


def _lay_flat(groups: Dataset, header: Dataset) -> None:
    for group, keywords in _GROUPS.items():
        for item in value_of(groups, group, []):
            for source, target in keywords.items():
                value = value_of(item, source)
                if value is not None:
                    # A new element: the one that is there may belong to other frames too.
                    header.add_new(target, dictionary_VR(target), value)
