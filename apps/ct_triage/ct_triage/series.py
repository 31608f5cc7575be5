"""Find the chest CT series in a folder of any nesting and mixture."""

import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from ct_triage.configuration import SeriesChoice
from ct_triage.errors import NoSeriesError, Refusal
from ct_triage.limits import MAX_MATRIX, MAX_SLICES, MAX_VOXELS
from ct_triage.multiframe import frame_headers
from ct_triage.preference import preference, region
from ct_triage.scanning import Scan, scan_folder, text_of, uid_of, value_of, values_of
from ct_triage.stacks import Image, Stack, divide, slice_normal

logger = logging.getLogger(__name__)

MULTI_FRAME_CT = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
SAFE_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]{0,63}")
MIN_SLICES = 10
MIN_COVERAGE_MM = 100.0
# Within a third of a turn of the patient's long axis a slice still shows both lungs.
MIN_AXIAL_COSINE = 0.8
# Enough to see what is wrong with a folder, in one line that still fits a log.
MAX_REASONS = 8
# How many numbers each attribute must have to place a slice in the patient.
GEOMETRY = {
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
    "Rows": 1,
    "Columns": 1,
}
# Direction cosines are written with a few decimals.
MAX_COSINE_ERROR = 0.01


@dataclass(frozen=True, slots=True)
class Series:
    """The image instances of one CT series, without localizers, in no particular order.

    Attributes
    ----------
    uid : str
        Series Instance UID, exactly as stored.
    files : tuple of Path
        One file per instance.
    headers : tuple of Dataset
        The instances without pixel data, parallel to ``files``.
    notes : tuple of str
        What was left out, for the report.
    frames : tuple of int
        Number of each instance's frame in its file, from 0; empty for single-frame files.
    part : int or None
        Number among the usable stacks and multi-frame instances of the series, from 1; None where
        there is but one.
    """

    uid: str
    files: tuple[Path, ...]
    headers: tuple[Dataset, ...]
    notes: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()
    part: int | None = None

    @property
    def slice_normal(self) -> npt.NDArray[np.float64]:
        """Unit vector along which the first instance's slices are stacked, in LPS."""
        return slice_normal(self.headers[0])

    @property
    def coverage_mm(self) -> float:
        """Distance between the outermost slices along the slice normal."""
        positions = [np.asarray(h.ImagePositionPatient, dtype=float) for h in self.headers]
        return float(np.ptp(np.asarray(positions) @ self.slice_normal))

    @property
    def label(self) -> str:
        """A name for messages that holds no patient data: the number and the UID."""
        return f"series {'?' if self.number is None else self.number} ({self.uid})"

    @property
    def number(self) -> int | None:
        """Series Number; None where that is missing or no number."""
        return _series_number(self.headers)

    @property
    def folder_name(self) -> str:
        """A name for a folder of results: the UID, or a hash where that is no safe name."""
        name = self.uid
        if not SAFE_NAME.fullmatch(name):
            name = hashlib.sha256(name.encode()).hexdigest()[:32]
        return name if self.part is None else f"{name}-part-{self.part}"


def find_series(folder: Path, choice: SeriesChoice | None = None) -> Series:
    """Return the series of a folder that suits the models best.

    A series that holds several stacks (phases, kernels, a scout) counts as several.

    Parameters
    ----------
    folder : Path
        A study: DICOM files at any depth, beside anything else. Symbolic links to folders are not
        followed.
    choice : SeriesChoice, optional
        Selection rules; a series of an earlier selection comes before one of a later.

    Raises
    ------
    NoSeriesError
        If no series can be used; it holds the reason for each CT series found. Also if the images
        are of more than one patient.
    """
    usable, _ = find_every_series(folder, choice)
    chosen = usable[0]
    if len(usable) > 1:
        note = f"{chosen.label} was chosen among {len(usable)} usable CT series"
        chosen = replace(chosen, notes=(*chosen.notes, note))
    return chosen


def find_every_series(
    folder: Path, choice: SeriesChoice | None = None
) -> tuple[tuple[Series, ...], tuple[Refusal, ...]]:
    """Return every series of a folder that can be used, best first, and why others cannot.

    The parameters and errors are those of :func:`find_series`.
    """
    scan = scan_folder(folder)
    closed = f" ({scan.n_closed} folders of it cannot be read)" if scan.n_closed else ""
    if not scan.instances:
        raise NoSeriesError(f"{folder}{closed}: no DICOM files here; give the folder of a CT study")
    images, refusals = _ct_images(scan)
    if not images and not refusals:
        raise NoSeriesError(
            f"{folder}{closed}: none of the {len(scan.instances)} DICOM files is a CT image; give"
            " the folder of a CT study"
        )
    _require_one_patient(folder, images)
    usable: list[tuple[int, Series]] = []
    for (uid, _), group in sorted(images.items()):
        candidates, reasons = _candidates(uid, group)
        for series in candidates:
            rank = choice.rules.rank(series.headers[0]) if choice and choice.rules else 0
            if rank is None:
                reasons.append(f"{series.label} matches none of the selection rules")
            else:
                usable.append((rank, replace(series, notes=(*series.notes, *scan.notes))))
        refusals += [_refuse(uid, group, reason) for reason in reasons]
    if not usable:
        told = "; ".join(refusal.reason for refusal in refusals[:MAX_REASONS])
        if len(refusals) > MAX_REASONS:
            told += f"; and {len(refusals) - MAX_REASONS} more"
        raise NoSeriesError(f"{folder}{closed}: no usable chest CT series: {told}", tuple(refusals))
    numbered = _numbered([series for _, series in usable])
    ranked = [(rank, series) for (rank, _), series in zip(usable, numbered, strict=True)]
    ranked.sort(key=lambda entry: (-entry[0], *preference(entry[1])), reverse=True)
    return tuple(series for _, series in ranked), tuple(refusals)


def _refuse(uid: str, images: list[Image], reason: str) -> Refusal:
    return Refusal(uid, _series_number([image.header for image in images]), len(images), reason)


def _series_number(headers: Sequence[Dataset]) -> int | None:
    """Series Number; real archives also send text, which could be anything."""
    number = value_of(headers[0], "SeriesNumber") if headers else None
    return int(number) if isinstance(number, int) else None


def _numbered(found: list[Series]) -> list[Series]:
    """Give those that share a Series Instance UID numbers, in the order given."""
    totals = Counter(series.uid for series in found)
    seen: Counter[str] = Counter()
    numbered = []
    for series in found:
        seen[series.uid] += 1
        is_whole = totals[series.uid] == 1
        numbered.append(series if is_whole else replace(series, part=seen[series.uid]))
    return numbered


def _ct_images(scan: Scan) -> tuple[dict[tuple[str, str], list[Image]], list[Refusal]]:
    """Collect slices by Series Instance UID, and say which multi-frame files have none.

    Each multi-frame instance is a series of its own, told apart by the second part of the key: a
    segmentation refers to the frames of one.
    """
    images: dict[tuple[str, str], list[Image]] = defaultdict(list)
    unusable = []
    for file, header in scan.instances:
        storage = text_of(header, "SOPClassUID")
        uid = text_of(header, "SeriesInstanceUID")
        if storage == CTImageStorage:
            images[uid, ""].append(Image(file, header))
        elif storage in MULTI_FRAME_CT:
            try:
                frames = frame_headers(header)
            except Exception as error:  # functional groups of any shape
                logger.debug("%s: %s", file.name, type(error).__name__)
                reason = f"{file.name} is a multi-frame CT without usable frames"
                unusable.append(_refuse(uid, [Image(file, header)], reason))
                continue
            images[uid, text_of(header, "SOPInstanceUID")] = [
                Image(file, frame, number) for number, frame in enumerate(frames)
            ]
    return images, unusable


def _require_one_patient(folder: Path, images: dict[tuple[str, str], list[Image]]) -> None:
    """Refuse a folder from which the report could go to the wrong patient."""
    headers = [image.header for group in images.values() for image in group]
    ids = {text_of(header, "PatientID") for header in headers} - {""}
    if not ids:
        ids = {text_of(h, "PatientName") + text_of(h, "PatientBirthDate") for h in headers}
    if len(ids) > 1:
        reason = f"the CT images are of {len(ids)} patients; give one patient's study"
        refusals = (_refuse(uid, group, reason) for (uid, _), group in sorted(images.items()))
        raise NoSeriesError(f"{folder}: {reason}", tuple(refusals))


def _candidates(uid: str, images: list[Image]) -> tuple[list[Series], list[str]]:
    """Drop what is no slice, divide the rest into stacks, and say which cannot be used."""
    name = f"series {uid or 'without a UID'}"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        n_without = sum(not uid_of(image.header, keyword) for image in images)
        if n_without:
            return [], [f"{name} has {n_without} images without a {keyword}"]
    studies = {text_of(image.header, "StudyInstanceUID") for image in images}
    if len(studies) > 1:
        return [], [f"{name} has images of {len(studies)} studies; send each as its own series"]
    images, n_conflicts = _without_copies(images)
    if n_conflicts:
        return [], [f"{name} has {n_conflicts} SOP Instance UIDs that stand for several images"]
    slices = [i for i in images if "LOCALIZER" not in values_of(i.header, "ImageType")]
    placed = [image for image in slices if _has_geometry(image.header)]
    notes = []
    if len(slices) < len(images):
        notes.append(f"{len(images) - len(slices)} localizer images were left out")
    if len(placed) < len(slices):
        notes.append(
            f"{len(slices) - len(placed)} images without a readable position were left out"
        )
    n_repaired = sum(_repair_geometry(image.header) for image in placed)
    if n_repaired:
        notes.append(f"{n_repaired} images have geometry of the wrong value representation")
    if len(placed) < MIN_SLICES:
        return [], [
            f"{name} has {len(placed)} slices with a position, at least {MIN_SLICES} are needed"
        ]
    usable, refusals = [], []
    for stack in divide(placed):
        series = _as_series(uid, stack, notes)
        refusal = _refusal(series)
        if refusal:
            refusals.append(refusal)
        else:
            usable.append(series)
    return usable, refusals


def _without_copies(images: list[Image]) -> tuple[list[Image], int]:
    """Keep one of each instance, and count UIDs that different images share."""
    kept: dict[tuple[str, int | None], Image] = {}
    conflicts = set()
    for image in images:
        uid = text_of(image.header, "SOPInstanceUID")
        known = kept.setdefault((uid, image.frame), image)
        keywords = ("ImagePositionPatient", "InstanceNumber", "Rows", "Columns")
        if any(values_of(known.header, k) != values_of(image.header, k) for k in keywords):
            conflicts.add(uid)
    return list(kept.values()), len(conflicts)


def _as_series(uid: str, stack: Stack, notes: list[str]) -> Series:
    return Series(
        uid,
        tuple(image.file for image in stack.images),
        tuple(image.header for image in stack.images),
        (*notes, *stack.notes),
        tuple(image.frame for image in stack.images if image.frame is not None),
    )


def _refusal(series: Series) -> str:
    """Why a series cannot be used, or ''."""
    first = series.headers[0]
    n_slices = len(series.headers)
    if n_slices < MIN_SLICES:
        return f"{series.label} has {n_slices} parallel slices, at least {MIN_SLICES} are needed"
    if abs(series.slice_normal[2]) < MIN_AXIAL_COSINE:
        return f"{series.label} is not axial"
    if series.coverage_mm < MIN_COVERAGE_MM:
        return (
            f"{series.label} covers {series.coverage_mm:.0f} mm, at least {MIN_COVERAGE_MM:.0f} mm"
            " are needed"
        )
    if region(first) < 0:
        return f"{series.label} is of another part of the body than the chest by its description"
    largest = max(max(h.Rows, h.Columns) for h in series.headers)
    if (
        largest > MAX_MATRIX
        or n_slices > MAX_SLICES
        or n_slices * first.Rows * first.Columns > MAX_VOXELS
    ):
        return (
            f"{series.label} has {n_slices} slices of up to {largest} pixels a side, more than any"
            " chest CT"
        )
    return ""


def _has_geometry(header: Dataset) -> bool:
    """Whether an image can be placed: numbers of the right count, and sane ones."""
    try:
        numbers = {k: _numbers(header, k) for k in GEOMETRY}
    except Exception:  # values are converted on access, and raise whatever the converter meets
        return False
    if any(numbers[k].size != n or not np.isfinite(numbers[k]).all() for k, n in GEOMETRY.items()):
        return False
    across, down = numbers["ImageOrientationPatient"].reshape(2, 3)
    products = np.array([across @ across - 1, down @ down - 1, across @ down])
    sizes = [*numbers["PixelSpacing"], *numbers["Rows"], *numbers["Columns"]]
    return bool(np.abs(products).max() < MAX_COSINE_ERROR and min(sizes) > 0)


def _numbers(header: Dataset, keyword: str) -> npt.NDArray[np.float64]:
    value = header[keyword].value
    return np.asarray(value.split("\\") if isinstance(value, str) else value, dtype=float).ravel()


def _repair_geometry(header: Dataset) -> bool:
    """Give geometry of a wrong value representation the right one; tell whether it had to."""
    wrong = [k for k in GEOMETRY if dictionary_VR(k) != header[k].VR]
    for keyword in wrong:
        vr = dictionary_VR(keyword)
        numbers = _numbers(header, keyword).tolist()
        value = int(numbers[0]) if vr == "US" else [f"{number:.10g}" for number in numbers]
        header[keyword] = DataElement(header[keyword].tag, vr, value)
    return bool(wrong)
