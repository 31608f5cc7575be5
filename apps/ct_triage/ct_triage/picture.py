"""The findings as a picture: slices of the CT, and the same with the segments drawn over them.

As DICOM it is a Secondary Capture (PS3.3 A.8.1), for viewers that show no segmentations.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from highdicom.sc import SCImage
from pydicom.config import disable_value_validation
from pydicom.valuerep import DA, TM
from scipy import ndimage

from ct_triage import provenance
from ct_triage.network import AxialView
from ct_triage.provenance import Origin
from ct_triage.seg import LESION, SEGMENT_KINDS
from ct_triage.severity import BoolMask, Segments
from ct_triage.volume import Volume

SERIES_NUMBER_OFFSET = 93
LUNG_WINDOW_HU = (-1250, 250)
PANEL_PIXELS = 320
N_AXIAL = 4
MARGIN_MM = 25.0
# How much of a segment's colour covers the CT; what lies in a lung must show through it.
OPACITY = {kind.label: 0.5 if kind is LESION else 0.25 for kind in SEGMENT_KINDS}

Picture = npt.NDArray[np.uint8]


def draw_picture(volume: Volume, masks: Mapping[int, BoolMask], n_axial: int = N_AXIAL) -> Picture:
    """Draw axial slices and a coronal one, plain above, with the segments below.

    Only the segments and what lies around them is drawn, as large as it goes. Axial slices are
    evenly spaced through the segments, the one nearest to the head first; the coronal slice is the
    one with most lesion. Each panel is square, its pixels are square in the patient, and the
    patient's right is on its left.

    Parameters
    ----------
    volume : Volume
        The study.
    masks : mapping of segment number to bool array (slices, rows, columns)
        Masks on the volume's grid; the number of a segment is its place in ``SEGMENT_KINDS``,
        from 1.
    n_axial : int
        How many axial slices.

    Returns
    -------
    uint8 array (2 * PANEL_PIXELS, (n_axial + 1) * PANEL_PIXELS, 3)
        Red, green and blue.
    """
    view = AxialView.of(volume)
    on_view = {number: view.of_mask(mask) for number, mask in masks.items()}
    everything: BoolMask = np.logical_or.reduce(list(on_view.values()))
    shown = _surroundings(everything, view.spacing_mm)
    voxels = view.voxels[shown]
    on_view = {number: mask[shown] for number, mask in on_view.items()}
    everything = everything[shown]
    filled = np.flatnonzero(everything.any(axis=(1, 2)))
    if not len(filled):
        filled = np.arange(len(everything))
    slices = np.linspace(filled[0], filled[-1], n_axial + 2)[1:-1].round().astype(int)[::-1]
    lesion = on_view.get(SEGMENT_KINDS.index(LESION) + 1, everything)
    of_interest = lesion if lesion.any() else everything
    coronal = int(np.argmax(of_interest.sum(axis=(0, 2))))
    slice_mm, row_mm, column_mm = view.spacing_mm

    columns = [
        _panels(voxels[index], {n: m[index] for n, m in on_view.items()}, row_mm, column_mm)
        for index in slices
    ]
    # The head above.
    planes = {n: m[::-1, coronal] for n, m in on_view.items()}
    columns.append(_panels(voxels[::-1, coronal], planes, slice_mm, column_mm))
    return np.concatenate(columns, axis=1)


# Real archives send UIDs that break the rules; they must be referred to as they are.
@disable_value_validation()
def build_picture(volume: Volume, segments: Segments, origin: Origin) -> SCImage:
    """Draw the segments of a study as a Secondary Capture.

    Parameters
    ----------
    volume : Volume
        The source images.
    segments : Segments
        Masks (slices, rows, columns) on the volume's grid.
    origin : Origin
        What they were made with.
    """
    masks = (segments.right_lung, segments.left_lung, segments.lesion)
    moment = provenance.content_moment(volume)
    picture = SCImage(
        pixel_array=draw_picture(volume, dict(enumerate(masks, 1))),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=str(volume.headers[0].StudyInstanceUID),
        **provenance.instance_attributes(volume, origin, "picture", SERIES_NUMBER_OFFSET),
        series_description="CT triage: picture of lungs and lesions, not for clinical use",
    )
    # Made by a workstation, of slices that stand in two planes, at no time of its own.
    picture.ConversionType = "WSD"
    picture.PatientOrientation = []
    del picture.DateOfSecondaryCapture
    del picture.TimeOfSecondaryCapture
    picture.ContentDate, picture.ContentTime = DA(moment.date()), TM(moment.time())
    picture.BodyPartExamined = "CHEST"
    picture.BurnedInAnnotation = "NO"
    picture.DerivationDescription = "CT slices above, with right lung, left lung, lesions below"
    provenance.finish(picture, volume)
    return picture


def _surroundings(
    mask: BoolMask, spacing_mm: tuple[float, float, float]
) -> tuple[slice, slice, slice]:
    """Box of a mask with ``MARGIN_MM`` around it; everything where the mask is empty."""
    box = ndimage.find_objects(mask.view(np.uint8)) or [tuple(slice(0, n) for n in mask.shape)]
    margins = [int(np.ceil(MARGIN_MM / mm)) for mm in spacing_mm]
    slices, rows, columns = (
        slice(max(0, side.start - margin), side.stop + margin)
        for side, margin in zip(box[0], margins, strict=True)
    )
    return slices, rows, columns


def _panels(
    hu: npt.NDArray[np.int16], masks: Mapping[int, BoolMask], row_mm: float, column_mm: float
) -> Picture:
    """Return a slice (rows, columns) as one panel above the other: plain, and drawn over."""
    low, high = LUNG_WINDOW_HU
    grey = _square((hu.astype(np.float32) - low) / (high - low), row_mm, column_mm, "bilinear")
    plain = np.repeat(grey.clip(0, 1)[..., None], 3, axis=2)
    drawn = plain.copy()
    for number in sorted(masks):
        kind = SEGMENT_KINDS[number - 1]
        inside = _square(masks[number].astype(np.float32), row_mm, column_mm, "nearest") > 0
        opacity = OPACITY[kind.label]
        # Not over what was drawn before: a lesion has one colour in either lung.
        drawn[inside] = (1 - opacity) * plain[inside] + opacity * np.array(kind.rgb) / 255
    both = np.concatenate([plain, drawn])
    return (255 * both).round().astype(np.uint8)


def _square(
    plane: npt.NDArray[np.floating], row_mm: float, column_mm: float, mode: str
) -> npt.NDArray[np.float32]:
    """Fit (rows, columns) into the middle of a panel, with pixels that are square in mm."""
    height_mm, width_mm = plane.shape[0] * row_mm, plane.shape[1] * column_mm
    scale = PANEL_PIXELS / max(height_mm, width_mm)
    size = (max(1, round(height_mm * scale)), max(1, round(width_mm * scale)))
    smooth = {"antialias": True} if mode == "bilinear" else {}
    image = torch.from_numpy(np.ascontiguousarray(plane, dtype=np.float32))[None, None]
    fitted = F.interpolate(image, size, mode=mode, **smooth)[0, 0].numpy()
    panel = np.zeros((PANEL_PIXELS, PANEL_PIXELS), np.float32)
    top, left = ((PANEL_PIXELS - side) // 2 for side in size)
    panel[top : top + size[0], left : left + size[1]] = fitted
    return panel
