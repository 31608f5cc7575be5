"""Measure the lungs and lesions of an earlier study from its segmentation or report.

Made by this application or any other: what counts is that a DICOM SEG has coded segments of lungs
and lung lesions, or that a TID 1500 report has coded volumes of them. Nothing in a prior is
trusted: whatever is wrong with one ends in :class:`UnusablePriorError`.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.sr.codedict import codes as dicom_codes
from pydicom.sr.coding import Code
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedSRStorage,
    SegmentationStorage,
)
from pydicom.valuerep import DA, TM
from scipy import ndimage

from ct_triage import codes
from ct_triage.codes import PrivateCodes
from ct_triage.followup import Instance, Region, TimePoint
from ct_triage.followup_codes import (
    Side,
    code_of,
    is_lung,
    is_lung_lesion,
    is_opacity,
    lung_side,
    side_of,
)
from ct_triage.severity import Involvement

# Not in pydicom's dictionary yet.
LABEL_MAP_SEGMENTATION = UID("1.2.840.10008.5.1.4.1.1.66.7")
SEGMENTATION_CLASSES = (SegmentationStorage, LABEL_MAP_SEGMENTATION)
REPORT_CLASSES = (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)

# A prior beyond these is no chest CT, and would cost more memory or time than the study itself.
MAX_FRAMES = 20_000
MAX_FRAME_PIXELS = 2048 * 2048
MAX_VOXELS = 2**31
MAX_FILE_BYTES = 1024 * 1024 * 1024
# Deflated data is unpacked as a whole and can grow a thousandfold.
MAX_DEFLATED_BYTES = 1024 * 1024
MAX_REPORT_BYTES = 64 * 1024 * 1024
MAX_SLICE_MM = 50.0
# The largest lungs ever measured hold about nine litres.
MAX_LUNG_ML = 20_000.0
# Positions are written with a few decimals, so frames of one slice differ in the last digits.
POSITION_DECIMALS = 2

_MEASUREMENT_GROUP = dicom_codes.DCM.MeasurementGroup
_FINDING = dicom_codes.DCM.Finding
_FINDING_SITE = dicom_codes.SCT.FindingSite
_LATERALITY = dicom_codes.SCT.Laterality
_TIME_POINT_ORDER = dicom_codes.DCM.TimePointOrder
_SUBJECT_TIME_POINT = dicom_codes.DCM.SubjectTimePointIdentifier
_REFERENCED_SEGMENT = dicom_codes.DCM.ReferencedSegment
_SOURCE_SERIES = dicom_codes.DCM.SourceSeriesForSegmentation
_ORGANS = (Code("113343008", "SCT", "Organ"), codes.ANATOMICAL_STRUCTURE)
_ML_PER_UNIT = {"ml": 1.0, "mL": 1.0, "cm3": 1.0, "mm3": 0.001, "l": 1000.0, "L": 1000.0}


class UnusablePriorError(Exception):
    """Why an object cannot serve as a prior: a clause without patient data."""


def prior_class(file: Path) -> str:
    """Return the SOP class of a file that may be a prior, by its preamble alone; '' for others."""
    try:
        if not file.is_file():
            return ""
        with file.open("rb") as stream:
            if stream.read(132)[128:] != b"DICM":
                return ""
        sop_class = str(read_file_meta_info(file).get("MediaStorageSOPClassUID", ""))
    except Exception:  # pydicom raises whatever a broken file makes it stumble over
        return ""
    return sop_class if sop_class in (*SEGMENTATION_CLASSES, *REPORT_CLASSES) else ""


def read_header(file: Path) -> Dataset:
    """Read what says whose object it is and when its study was.

    Raises
    ------
    UnusablePriorError
        If the file cannot be read or lacks a UID or its study's date.
    """
    try:
        _require_bounded(file)
        header = dcmread(
            file,
            stop_before_pixels=True,
            specific_tags=[
                "SOPClassUID",
                "SOPInstanceUID",
                "StudyInstanceUID",
                "SeriesInstanceUID",
                "StudyDate",
                "StudyTime",
                "ContentDate",
                "ContentTime",
                "PatientID",
                "IssuerOfPatientID",
                "PatientBirthDate",
            ],
        )
        uids = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID")
        complete = all(str(header.get(keyword) or "") for keyword in uids)
    except UnusablePriorError:
        raise
    except Exception as error:  # as above
        raise UnusablePriorError(f"it cannot be read ({type(error).__name__})") from error
    if not complete:
        raise UnusablePriorError("it lacks its UIDs")
    return header


def _require_bounded(file: Path) -> None:
    """Refuse a file that may take more memory than a study before it is even understood."""
    size = file.stat().st_size
    deflated = read_file_meta_info(file).TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    if size > MAX_FILE_BYTES or (deflated and size > MAX_DEFLATED_BYTES):
        raise UnusablePriorError("it is too large to be opened safely")


def study_moment(header: Dataset) -> datetime:
    """Return when a study was; midnight where the time is not given.

    Raises
    ------
    UnusablePriorError
        If the header gives no date.
    """
    try:
        date = DA(header.get("StudyDate"))
        time = TM(header.get("StudyTime") or None)
    except (ValueError, TypeError, AttributeError) as error:
        raise UnusablePriorError("it has no readable study date") from error
    if not date:
        raise UnusablePriorError("it has no study date")
    return datetime.combine(date, time.replace(tzinfo=None) if time else datetime.min.time())


def read_time_point(file: Path, header: Dataset) -> TimePoint:
    """Measure a prior's lungs and lesions.

    Parameters
    ----------
    file : Path
        A DICOM SEG or a TID 1500 report.
    header : Dataset
        What :func:`read_header` read of it.

    Raises
    ------
    UnusablePriorError
        If it is broken, or does not tell the volumes of the lungs and of their lesions.
    """
    moment = study_moment(header)
    try:
        segmentation = header.SOPClassUID in SEGMENTATION_CLASSES
        measured = _measure_segmentation(file) if segmentation else _measure_report(file)
        _require_credible(measured.lungs)
    except UnusablePriorError:
        raise
    except Exception as error:  # DICOM libraries raise whatever they stumble over
        raise UnusablePriorError(f"it cannot be read ({type(error).__name__})") from error
    instance = _instance(header)
    return TimePoint(
        moment,
        instance.study_instance_uid,
        measured.lungs,
        instance,
        measured.regions,
        measured.notes,
    )


def _instance(header: Dataset) -> Instance:
    return Instance(
        str(header.StudyInstanceUID),
        str(header.SeriesInstanceUID),
        str(header.SOPClassUID),
        str(header.SOPInstanceUID),
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    lungs: dict[str, Involvement]
    regions: dict[str, Region] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _require_credible(lungs: dict[str, Involvement]) -> None:
    for lung in lungs.values():
        volumes = (lung.lung_volume_ml, lung.lesion_volume_ml)
        # Reports are rounded, each number on its own.
        if not all(0 <= v <= MAX_LUNG_ML for v in volumes) or volumes[1] > volumes[0] * 1.001:
            raise UnusablePriorError("its volumes cannot be those of lungs and their lesions")
    if not lungs["both_lungs"].lung_volume_ml:
        raise UnusablePriorError("its lungs are empty")


# --- Segmentations -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Roles:
    """Segment numbers by what they show."""

    right: frozenset[int]
    left: frozenset[int]
    lungs: frozenset[int]
    lesion: frozenset[int]


def _roles(seg: Dataset) -> _Roles:
    sides: dict[Side | None, set[int]] = defaultdict(set)
    lesion = set()
    for segment in seg.SegmentSequence:
        types = segment.SegmentedPropertyTypeCodeSequence
        kind = code_of(types)
        regions = segment.get("AnatomicRegionSequence")
        if is_lung(kind):
            assert kind is not None
            laterality = code_of(types[0].get("SegmentedPropertyTypeModifierCodeSequence"))
            if laterality is None and regions:
                laterality = code_of(regions[0].get("AnatomicRegionModifierSequence"))
            sides[lung_side(kind, laterality)].add(int(segment.SegmentNumber))
        elif is_lung_lesion(kind, code_of(regions)):
            lesion.add(int(segment.SegmentNumber))
    right, left, both = (frozenset(sides[side]) for side in (Side.RIGHT, Side.LEFT, None))
    if not (right and left) and not both:
        raise UnusablePriorError("it has no segments that are coded as lungs")
    if not lesion:
        raise UnusablePriorError("it has no segment that is coded as lung lesions")
    return _Roles(right, left, right | left | both, frozenset(lesion))


def _measure_segmentation(file: Path) -> _Measured:
    header = dcmread(file, stop_before_pixels=True)
    n_frames = int(header.get("NumberOfFrames", 0))
    pixels = int(header.Rows) * int(header.Columns)
    if n_frames > MAX_FRAMES or pixels > MAX_FRAME_PIXELS or pixels * n_frames > MAX_VOXELS:
        raise UnusablePriorError("it is larger than any chest CT")
    if len(header.PerFrameFunctionalGroupsSequence) != n_frames:
        raise UnusablePriorError("its frames do not match their descriptions")
    roles = _roles(header)
    # A deflated file has no frames to find before it is unpacked.
    lazy = header.file_meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian
    seg = hd.seg.segread(file, lazy_frame_retrieval=lazy)
    positions, normal, pixel_mm2, in_plane_mm = _frame_geometry(seg)
    step_mm = _slice_step_mm(seg, positions @ normal)

    by_position: dict[tuple[float, ...], list[int]] = defaultdict(list)
    for index, position in enumerate(np.round(positions, POSITION_DECIMALS).tolist()):
        by_position[tuple(position)].append(index)
    counts: dict[str, _Counts] = {
        "right_lung": _Counts(),
        "left_lung": _Counts(),
        "both_lungs": _Counts(),
    }
    outside = 0
    for frames in by_position.values():
        masks = _slice_masks(seg, frames, roles)
        lesion = masks["lesion"]
        for lung, count in counts.items():
            count.lung += _count(masks[lung])
            count.lesion += _count(masks[lung] & lesion)
        beyond = lesion & ~masks["both_lungs"]
        if beyond.any():
            outside += _count(beyond)
            _count_nearest(beyond, masks, in_plane_mm, counts)

    # Lungs that exclude their lesions are drawn around them; a lesion that leaks out is not.
    exclusive = outside > counts["both_lungs"].lesion
    voxel_ml = pixel_mm2 * step_mm / 1000.0
    lungs = {
        lung: Involvement(
            (count.lung + exclusive * count.nearest) * voxel_ml,
            (count.lesion + exclusive * count.nearest) * voxel_ml,
        )
        for lung, count in counts.items()
    }
    if not (roles.right and roles.left):
        lungs = {"both_lungs": lungs["both_lungs"]}
    return _Measured(
        lungs,
        _whole_segments(seg, roles),
        ("a prior's lungs leave out their lesions, which were added to the nearer lung",)
        if exclusive
        else (),
    )


def _whole_segments(seg: Dataset, roles: _Roles) -> dict[str, Region]:
    series = seg.get("ReferencedSeriesSequence")
    if not series or not series[0].get("SeriesInstanceUID"):
        return {}
    source = str(series[0].SeriesInstanceUID)
    numbers = {"right_lung": roles.right, "left_lung": roles.left, "both_lungs": roles.lesion}
    return {
        lung: Region(_instance(seg), next(iter(found)), source)
        for lung, found in numbers.items()
        if len(found) == 1
    }


@dataclass(slots=True)
class _Counts:
    """Voxels of a lung, of the lesions in it, and of lesions outside all lungs but nearest it."""

    lung: int = 0
    lesion: int = 0
    nearest: int = 0


def _slice_masks(
    seg: hd.seg.Segmentation, frames: list[int], roles: _Roles
) -> dict[str, npt.NDArray[np.bool_]]:
    """Masks (rows, columns) of one slice: the lungs, both and the lesions."""
    numbers = {
        "right_lung": roles.right,
        "left_lung": roles.left,
        "both_lungs": roles.lungs,
        "lesion": roles.lesion,
    }
    masks = {name: np.zeros((seg.Rows, seg.Columns), dtype=bool) for name in numbers}
    for index in frames:
        if seg.SegmentationType == "LABELMAP":
            frame = seg.get_stored_frame(index + 1)
            for name, wanted in numbers.items():
                masks[name] |= np.isin(frame, list(wanted))
            continue
        group = seg.PerFrameFunctionalGroupsSequence[index]
        number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        names = [name for name, wanted in numbers.items() if number in wanted]
        if not names:
            continue
        # Of a FRACTIONAL segment at least half, as PS3.3 C.8.20.2.3 leaves it to the reader.
        half = seg.get("MaximumFractionalValue", 1) / 2
        frame = seg.get_stored_frame(index + 1) >= half
        for name in names:
            masks[name] |= frame
    return masks


def _count_nearest(
    beyond: npt.NDArray[np.bool_],
    masks: dict[str, npt.NDArray[np.bool_]],
    in_plane_mm: tuple[float, float],
    counts: dict[str, _Counts],
) -> None:
    """Give the lesion voxels of a slice that are in no lung to the lung nearest to each."""
    counts["both_lungs"].nearest += _count(beyond)
    right, left = masks["right_lung"], masks["left_lung"]
    if not (right | left).any():
        return
    to_right, to_left = (
        ndimage.distance_transform_edt(~lung, sampling=in_plane_mm)[beyond]
        if lung.any()
        else np.inf
        for lung in (right, left)
    )
    nearer_right = np.broadcast_to(to_right <= to_left, beyond.sum())
    counts["right_lung"].nearest += _count(nearer_right)
    counts["left_lung"].nearest += _count(~nearer_right)


def _count(mask: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _frame_geometry(
    seg: Dataset,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float, tuple[float, float]]:
    """Positions (frames, 3) in mm, the slice normal, and the pixels' area and spacing."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    groups = seg.PerFrameFunctionalGroupsSequence

    def item(keyword: str, index: int = 0) -> Dataset:
        holder = shared if keyword in shared else groups[index]
        return holder[keyword].value[0]

    positions = np.array(
        [item("PlanePositionSequence", i).ImagePositionPatient for i in range(len(groups))],
        dtype=float,
    ).reshape(-1, 3)
    if not len(positions):
        raise UnusablePriorError("its lungs are empty")
    orientation = np.array(item("PlaneOrientationSequence").ImageOrientationPatient, dtype=float)
    row_mm, column_mm = (float(v) for v in item("PixelMeasuresSequence").PixelSpacing)
    credible = 0 < row_mm < MAX_SLICE_MM and 0 < column_mm < MAX_SLICE_MM
    if not (credible and np.isfinite(positions).all() and np.isfinite(orientation).all()):
        raise UnusablePriorError("its geometry is not that of a CT")
    normal = np.cross(orientation[:3], orientation[3:])
    return positions, normal, row_mm * column_mm, (row_mm, column_mm)


def _slice_step_mm(seg: Dataset, along_normal: npt.NDArray[np.float64]) -> float:
    """Distance between slices: between the frames, or as written where there is one slice."""
    heights = np.unique(np.round(along_normal, POSITION_DECIMALS))
    if len(heights) > 1:
        step_mm = float(np.median(np.diff(heights)))
    else:
        shared = seg.SharedFunctionalGroupsSequence[0]
        holder = shared if "PixelMeasuresSequence" in shared else seg
        measures = holder.PixelMeasuresSequence[0]
        step_mm = float(measures.get("SpacingBetweenSlices") or measures.SliceThickness)
    if not 0 < step_mm < MAX_SLICE_MM:
        raise UnusablePriorError("its geometry is not that of a CT")
    return step_mm


# --- Reports -------------------------------------------------------------------------------------


def _measure_report(file: Path) -> _Measured:
    if file.stat().st_size > MAX_REPORT_BYTES:
        raise UnusablePriorError("it is larger than any measurement report")
    report = dcmread(file)
    private = PrivateCodes.of(report)
    groups = [_Group.of(item) for item in _measurement_groups(report)]
    # A report on several studies numbers them; the last one is its own.
    newest = max((group.order for group in groups), default=0.0)
    groups = [group for group in groups if group.order == newest]

    lung_ml: dict[Side | None, float] = {}
    lesion_ml: dict[Side | None, float] = {}
    opacity_ml: dict[Side | None, float] = defaultdict(float)
    disease_ml: dict[Side | None, float] = defaultdict(float)
    for group in groups:
        volume_ml = group.volume_ml(codes.VOLUME)
        if group.is_lung:
            if volume_ml is not None:
                lung_ml[group.side] = lung_ml.get(group.side, 0.0) + volume_ml
            inside_ml = group.volume_ml(private.lesion_volume)
            if inside_ml is not None:
                lesion_ml[group.side] = inside_ml
        elif is_lung_lesion(group.finding, group.site) and volume_ml is not None:
            assert group.finding is not None
            kind = opacity_ml if is_opacity(group.finding) else disease_ml
            kind[group.side] += volume_ml
    # Opacities are parts of the disease: where it is measured as a whole they would count twice.
    for side, measured_ml in (disease_ml or opacity_ml).items():
        lesion_ml.setdefault(side, measured_ml)

    if not lung_ml:
        raise UnusablePriorError("it has no measurement group with the volume of a lung")
    if not lesion_ml:
        raise UnusablePriorError("it has no measurement group with the volume of lung lesions")
    lungs = {}
    if {Side.RIGHT, Side.LEFT} <= lung_ml.keys() & lesion_ml.keys():
        lungs = {s.value: Involvement(lung_ml[s], lesion_ml[s]) for s in Side}
    lungs["both_lungs"] = Involvement(_total(lung_ml), _total(lesion_ml))
    return _Measured(lungs, _whole_regions(groups, _evidence(report)))


def _whole_regions(groups: list["_Group"], evidence: dict[str, Instance]) -> dict[str, Region]:
    """Return the segments that measurement groups are tied to, where a lung has one group."""
    regions: dict[str, list[Region | None]] = defaultdict(list)
    for group in groups:
        if group.volume_ml(codes.VOLUME) is None:
            # The segment may be the evidence of something else as well.
            continue
        if group.is_lung and group.side:
            regions[group.side.value].append(group.region(evidence))
        elif is_lung_lesion(group.finding, group.site):
            regions["both_lungs"].append(None if group.side else group.region(evidence))
    return {lung: found[0] for lung, found in regions.items() if len(found) == 1 and found[0]}


def _evidence(report: Dataset) -> dict[str, Instance]:
    """Place of each object that a report refers to, by its SOP Instance UID."""
    return {
        str(item.ReferencedSOPInstanceUID): Instance(
            str(study.StudyInstanceUID),
            str(series.SeriesInstanceUID),
            str(item.ReferencedSOPClassUID),
            str(item.ReferencedSOPInstanceUID),
        )
        for keyword in (
            "CurrentRequestedProcedureEvidenceSequence",
            "PertinentOtherEvidenceSequence",
        )
        for study in report.get(keyword) or ()
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def _total(by_side: dict[Side | None, float]) -> float:
    """Both lungs: as measured together, or the sum of the sides."""
    if None in by_side:
        return by_side[None]
    if len(by_side) < len(Side):
        raise UnusablePriorError("it measures one lung only")
    return sum(by_side.values())


def _measurement_groups(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", []):
        if code_of(child.get("ConceptNameCodeSequence")) == _MEASUREMENT_GROUP:
            yield child
        else:
            yield from _measurement_groups(child)


@dataclass(frozen=True, slots=True)
class _Group:
    """One measurement group of a report (TID 1410, 1411 or 1501)."""

    finding: Code | None
    site: Code | None
    laterality: Code | None
    order: float
    numbers: list[tuple[Code, float, str]]
    segment: Dataset | None
    source_series_uid: str

    @classmethod
    def of(cls, container: Dataset) -> "_Group":
        finding = site = laterality = None
        segment = None
        order, source = 0.0, ""
        numbers = []
        for item in container.get("ContentSequence", []):
            name = code_of(item.get("ConceptNameCodeSequence"))
            if name is None:
                continue
            if name == _FINDING:
                finding = code_of(item.get("ConceptCodeSequence"))
            elif name == _FINDING_SITE:
                site = code_of(item.get("ConceptCodeSequence"))
                laterality = _modifier(item, _LATERALITY)
            elif name == _SUBJECT_TIME_POINT:
                order = _number(item.get("TextValue"))
            elif name == _REFERENCED_SEGMENT and item.get("ReferencedSOPSequence"):
                segment = item.ReferencedSOPSequence[0]
            elif name == _SOURCE_SERIES:
                source = str(item.get("UID", ""))
            elif item.get("ValueType") == "NUM" and item.get("MeasuredValueSequence"):
                measured = item.MeasuredValueSequence[0]
                value = float(measured.NumericValue)
                if name == _TIME_POINT_ORDER:
                    order = value
                units: Any = measured.get("MeasurementUnitsCodeSequence")
                unit = code_of(units)
                numbers.append((name, value, unit.value if unit else ""))
        return cls(finding, site, laterality, order, numbers, segment, source)

    @property
    def is_lung(self) -> bool:
        """Whether the group measures a lung: named as finding, or as the site of an organ."""
        organ = self.finding is None or any(self.finding == organ for organ in _ORGANS)
        return is_lung(self.finding) or (organ and is_lung(self.site))

    @property
    def side(self) -> Side | None:
        """Side of the patient; None for both or where it is not given."""
        for code in (self.finding, self.site):
            if code is not None and is_lung(code):
                side = lung_side(code, self.laterality)
                if side:
                    return side
        return side_of(self.laterality)

    def region(self, evidence: dict[str, Instance]) -> Region | None:
        """Return the segment that the group measures, if the report tells where to find it."""
        if self.segment is None or not self.source_series_uid:
            return None
        instance = evidence.get(str(self.segment.ReferencedSOPInstanceUID))
        number = self.segment.get("ReferencedSegmentNumber")
        if instance is None or not isinstance(number, int):
            return None
        return Region(instance, number, self.source_series_uid)

    def volume_ml(self, name: Code) -> float | None:
        """Return a volume of the group by the name of its measurement, None where it has none."""
        for number_name, value, unit in self.numbers:
            if number_name == name:
                if unit not in _ML_PER_UNIT:
                    raise UnusablePriorError("its volumes are in no unit of volume")
                return value * _ML_PER_UNIT[unit]
        return None


def _number(text: str | None) -> float:
    return float(text) if text and text.isdecimal() else 0.0


def _modifier(item: Dataset, name: Code) -> Code | None:
    for child in item.get("ContentSequence", []):
        if code_of(child.get("ConceptNameCodeSequence")) == name:
            return code_of(child.get("ConceptCodeSequence"))
    return None
