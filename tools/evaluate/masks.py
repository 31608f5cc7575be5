"""Masks from NIfTI or DICOM SEG on one grid, whatever order each file stores it in."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError
from pydicom.sr.coding import Code

from ct_triage import codes

NIFTI_SUFFIXES = (".nii", ".nii.gz")
# NIfTI keeps affines in single precision, which is a few micrometres at the scale of a body.
POSITION_TOLERANCE = 1e-3
SEGMENTS = ("lesion", "lung", "right lung", "left lung")
_RIGHT_LUNG, _LEFT_LUNG = Code("3341006", "SCT", ""), Code("44029006", "SCT", "")
_LESIONS = (
    codes.LESION,
    Code("112120", "DCM", ""),
    Code("112001", "DCM", ""),
    Code("95436008", "SCT", ""),
    Code("233604007", "SCT", ""),
    Code("840539006", "SCT", ""),
)


class EvaluationError(Exception):
    """A problem the user can act on, in one line that names the file or case."""


@dataclass(frozen=True, slots=True)
class MaskFile:
    """Where a mask is: a file, and in it a label value (NIfTI) or a segment (DICOM SEG).

    Attributes
    ----------
    file : Path
        NIfTI volume or DICOM segmentation.
    part : str
        Label value of a NIfTI label map, or label of a segment; empty where the file holds one
        mask or the segment is found by its code.
    """

    file: Path
    part: str = ""

    @classmethod
    def parse(cls, text: str, folder: Path) -> MaskFile:
        """Read ``FILE`` or ``FILE#PART``; FILE is relative to a folder."""
        file, _, part = text.partition("#")
        return cls(folder / file, part)

    def __str__(self) -> str:
        return f"{self.file}#{self.part}" if self.part else str(self.file)

    @property
    def is_nifti(self) -> bool:
        """Whether the name is that of a NIfTI file."""
        return self.file.name.endswith(NIFTI_SUFFIXES)


def read_mask(source: MaskFile, segment: str = "lesion") -> hd.Volume:
    """Read a binary mask with its place in the patient (LPS, mm).

    Parameters
    ----------
    source : MaskFile
        Where it is.
    segment : str
        One of ``SEGMENTS``: what to look for in a DICOM SEG, unless the source names a part. A
        single segment with another code is taken for it.

    Returns
    -------
    highdicom.Volume
        bool voxels. A SEG reaches from the first to the last slice that has a frame.

    Raises
    ------
    EvaluationError
        If the file cannot be read, is not binary, or has no such part.
    """
    if source.is_nifti:
        return _read_nifti_mask(source)
    return _read_segment(source, segment)


def read_image(file: Path) -> hd.Volume:
    """Read a NIfTI volume of any values with its place in the patient (LPS, mm).

    Raises
    ------
    EvaluationError
        If the file cannot be read or has not three axes.
    """
    try:
        image: Any = nibabel.load(file)
        array = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        raise EvaluationError(f"{file}: cannot be read as NIfTI; check or replace it") from error
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise EvaluationError(f"{file}: has {array.ndim} axes, a volume has 3")
    return hd.Volume(
        array, image.affine, coordinate_system="PATIENT", from_reference_convention="RAS"
    )


def has_segment(source: MaskFile, segment: str) -> bool:
    """Tell whether a file is a DICOM SEG in which a segment's code says that it is of a kind.

    Raises
    ------
    EvaluationError
        If the file cannot be read.
    """
    if source.is_nifti:
        return False
    seg, _ = _read_seg(source.file, source.file.stat().st_mtime)
    return any(_is_segment(seg.get_segment_description(n), segment) for n in seg.segment_numbers)


def read_probabilities(file: Path) -> hd.Volume:
    """Read a NIfTI map of probabilities.

    Raises
    ------
    EvaluationError
        If the file cannot be read or a value lies outside 0 to 1.
    """
    volume = read_image(file)
    if not (np.nanmin(volume.array) >= 0 and np.nanmax(volume.array) <= 1):
        raise EvaluationError(f"{file}: not a probability map, values must lie in 0 to 1")
    return volume


def on_common_grid(volumes: Sequence[hd.Volume], sources: Sequence[MaskFile]) -> list[hd.Volume]:
    """Bring masks of one study onto one grid without resampling.

    Axes are reordered and turned. A NIfTI mask gives the grid; segmentations, which leave out
    empty slices, are filled up to it, or to what they cover together where there is no NIfTI.

    Returns
    -------
    list of highdicom.Volume
        In the order of the volumes, all of one shape and affine.

    Raises
    ------
    EvaluationError
        If two of them do not lie on the same grid.
    """
    complete = [i for i, source in enumerate(sources) if source.is_nifti]
    first = complete[0] if complete else 0
    reference: hd.VolumeGeometry = volumes[first].get_geometry()
    if not complete:
        for volume in volumes:
            reference = _united(reference, volume)
    found = []
    for index, (volume, source) in enumerate(zip(volumes, sources, strict=True)):
        try:
            placed = volume.match_geometry(reference, tol=POSITION_TOLERANCE)
        except RuntimeError as error:
            raise _different_grids(source, sources[first], volume, volumes[first]) from error
        resized = sorted(volume.spatial_shape) != sorted(reference.spatial_shape)
        # Turning and padding cannot make up for another spacing, and matching does not tell.
        respaced = not placed.geometry_equal(reference, tol=POSITION_TOLERANCE)
        if respaced or (index in complete and resized):
            raise _different_grids(source, sources[first], volume, volumes[first])
        if np.count_nonzero(placed.array) != np.count_nonzero(volume.array):
            raise EvaluationError(
                f"{source}: reaches beyond the grid of {sources[first]}; both must show one series"
            )
        found.append(placed)
    return found


def _different_grids(
    one: MaskFile, other: MaskFile, volume: hd.Volume, reference: hd.Volume
) -> EvaluationError:
    return EvaluationError(
        f"{one}: geometry differs from {other} (shape {volume.spatial_shape} and "
        f"{reference.spatial_shape}, spacing {_mm(volume)} and {_mm(reference)} mm); "
        "resample one of them first"
    )


def _mm(volume: hd.Volume) -> tuple[float, ...]:
    return tuple(round(float(value), 3) for value in volume.spacing)


def _united(reference: hd.VolumeGeometry, volume: hd.Volume) -> hd.VolumeGeometry:
    """Extend a grid so that it holds another volume on the same lattice."""
    size = np.array(volume.spatial_shape)
    corners = np.array([[0, 0, 0], size - 1])
    indices = reference.map_reference_to_indices(volume.map_indices_to_reference(corners))
    low, high = indices.min(axis=0), indices.max(axis=0)
    before = np.maximum(0, np.round(-low)).astype(int)
    after = np.maximum(0, np.round(high - np.array(reference.spatial_shape) + 1)).astype(int)
    return reference.pad([(int(b), int(a)) for b, a in zip(before, after, strict=True)])


def _read_nifti_mask(source: MaskFile) -> hd.Volume:
    volume = read_image(source.file)
    if source.part:
        try:
            value = float(source.part)
        except ValueError:
            raise EvaluationError(
                f"{source}: {source.part!r} is not a label value; write FILE#2 for label 2"
            ) from None
        return volume.with_array(volume.array == value)
    values = np.unique(volume.array)
    if not np.isin(values, (0, 1)).all():
        shown = ", ".join(f"{value:g}" for value in values[:5])
        more = ", ..." if len(values) > 5 else ""
        raise EvaluationError(
            f"{source}: label is not binary, values are {shown}{more}; choose one with FILE#VALUE"
        )
    return volume.with_array(volume.array.astype(bool))


@functools.lru_cache(maxsize=2)
def _read_seg(file: Path, _modified: float) -> tuple[hd.seg.Segmentation, hd.Volume | None]:
    """Read a SEG and all its segments, (slices, rows, columns, segments); None has no frame.

    The segments of one file are asked for one after another, so the last files are kept.
    """
    try:
        with disable_value_validation():
            seg = hd.seg.Segmentation.from_dataset(dcmread(file), copy=False)
            frames = int(seg.get("NumberOfFrames", 0))
            volume = seg.get_volume(combine_segments=False) if frames else None
    except (OSError, InvalidDicomError, ValueError, AttributeError, RuntimeError) as error:
        raise EvaluationError(
            f"{file}: cannot be read as a DICOM segmentation of one series; it takes NIfTI "
            "(.nii, .nii.gz) or DICOM SEG"
        ) from error
    return seg, volume


def _read_segment(source: MaskFile, segment: str) -> hd.Volume:
    try:
        modified = source.file.stat().st_mtime
    except OSError as error:
        raise EvaluationError(f"{source.file}: cannot be read ({error.strerror})") from error
    seg, volume = _read_seg(source.file, modified)
    if volume is None:
        raise EvaluationError(f"{source.file}: the segmentation has no frames, so it has no grid")
    wanted = _segment_numbers(seg, source, segment)
    index = [list(seg.segment_numbers).index(number) for number in wanted]
    mask: NDArray = np.any(volume.array[..., index], axis=-1)
    return hd.Volume(mask, volume.affine, coordinate_system="PATIENT")


def _segment_numbers(seg: hd.seg.Segmentation, source: MaskFile, segment: str) -> list[int]:
    described = [seg.get_segment_description(number) for number in seg.segment_numbers]
    if source.part:
        found = [d.segment_number for d in described if d.segment_label == source.part]
    else:
        found = [d.segment_number for d in described if _is_segment(d, segment)]
        known = any(_is_segment(d, kind) for d in described for kind in SEGMENTS)
        if len(described) == 1 and not known:
            found = list(seg.segment_numbers)
    if not found:
        labels = ", ".join(repr(d.segment_label) for d in described)
        raise EvaluationError(
            f"{source.file}: no segment {source.part or segment!r} among {labels}; "
            "name it as FILE#LABEL"
        )
    return found


def _is_segment(description: hd.seg.SegmentDescription, segment: str) -> bool:
    structure = description.segmented_property_type
    if segment == "lesion":
        return any(structure == code for code in _LESIONS)
    modifiers = structure.get("SegmentedPropertyTypeModifierCodeSequence", [])
    sides = {str(item.CodeValue) for item in modifiers}
    is_lung = structure == codes.LUNG
    right = structure == _RIGHT_LUNG or (is_lung and codes.RIGHT.value in sides)
    left = structure == _LEFT_LUNG or (is_lung and codes.LEFT.value in sides)
    return {"right lung": right, "left lung": left, "lung": right or left or is_lung}[segment]
