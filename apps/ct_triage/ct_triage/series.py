"""Find the chest CT series in a folder of any nesting and mixture."""

import hashlib
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from ct_triage.configuration import SeriesChoice
from ct_triage.errors import NoSeriesError, Refusal
from ct_triage.preference import preference

logger = logging.getLogger(__name__)

MULTI_FRAME_CT = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
SAFE_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]{0,63}")
MIN_SLICES = 10
MIN_COVERAGE_MM = 100.0
# Within a third of a turn of the patient's long axis a slice still shows both lungs.
MIN_AXIAL_COSINE = 0.8
# How many numbers each attribute must have to place a slice in the patient.
GEOMETRY = {
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
    "Rows": 1,
    "Columns": 1,
}


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
    acquisition : int or None
        Acquisition Number, where the series holds others of the same place.
    """

    uid: str
    files: tuple[Path, ...]
    headers: tuple[Dataset, ...]
    notes: tuple[str, ...] = ()
    acquisition: int | None = None

    @property
    def slice_normal(self) -> npt.NDArray[np.float64]:
        """Unit vector along which the first instance's slices are stacked, in LPS."""
        orientation = np.asarray(self.headers[0].ImageOrientationPatient, dtype=float)
        return np.cross(orientation[:3], orientation[3:])

    @property
    def coverage_mm(self) -> float:
        """Distance between the outermost slices along the slice normal."""
        positions = [np.asarray(h.ImagePositionPatient, dtype=float) for h in self.headers]
        return float(np.ptp(np.asarray(positions) @ self.slice_normal))

    @property
    def label(self) -> str:
        """A name for messages that holds no patient data: the number and the UID."""
        return f"series {self.headers[0].get('SeriesNumber', '?')} ({self.uid})"

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
        return name if self.acquisition is None else f"{name}-acquisition-{self.acquisition}"


def find_series(folder: Path, choice: SeriesChoice | None = None) -> Series:
    """Return the series of a folder that suits the models best.

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
        If no series can be used; it holds the reason for each CT series found.
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

    The parameters and errors are those of :func:`find_series`. A series that holds several
    acquisitions of the same place counts as several.
    """
    rules = choice.rules if choice else None
    usable: list[tuple[int, Series]] = []
    refusals = []
    for uid, instances in sorted(_ct_instances(folder).items()):
        for series, refusal in _as_series(uid, instances):
            rank = rules.rank(series.headers[0]) if rules and series.headers else 0
            if not refusal and rank is None:
                refusal = f"{series.label} matches none of the selection rules"
            if refusal:
                headers = [header for _, header in instances]
                number = _series_number(headers)
                refusals.append(Refusal(uid, number, len(headers), refusal))
            else:
                usable.append((rank or 0, series))
    if not usable:
        reasons = "; ".join(refusal.reason for refusal in refusals)
        raise NoSeriesError(f"{folder}: no usable chest CT series: {reasons}", tuple(refusals))
    usable.sort(key=lambda ranked: (-ranked[0], *preference(ranked[1])), reverse=True)
    return tuple(series for _, series in usable), tuple(refusals)


def _ct_instances(folder: Path) -> dict[str, list[tuple[Path, Dataset]]]:
    """Collect the CT images below a folder by Series Instance UID, each instance once."""
    instances: dict[str, dict[str, tuple[Path, Dataset]]] = defaultdict(dict)
    n_dicom = 0
    for file in _files_below(folder):
        header = _read_header(file)
        if header is None:
            continue
        n_dicom += 1
        if header.get("SOPClassUID") in (CTImageStorage, *MULTI_FRAME_CT):
            uid = str(header.get("SeriesInstanceUID", ""))
            instances[uid].setdefault(str(header.get("SOPInstanceUID", "")), (file, header))
    if not n_dicom:
        raise NoSeriesError(f"{folder}: no DICOM files here; give the folder of a CT study")
    if not instances:
        raise NoSeriesError(
            f"{folder}: none of the {n_dicom} DICOM files is a CT image; give the folder of a CT"
            " study"
        )
    return {uid: list(by_instance.values()) for uid, by_instance in instances.items()}


def _series_number(headers: Sequence[Dataset]) -> int | None:
    """Series Number; real archives also send text, which could be anything."""
    number = headers[0].get("SeriesNumber") if headers else None
    return int(number) if isinstance(number, int) else None


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if name != "DICOMDIR")


def _read_header(file: Path) -> Dataset | None:
    """Read a file's attributes up to the pixels; None where it is no DICOM image."""
    try:
        with file.open("rb") as stream:
            start = stream.read(132)
        # Without the preamble a data set starts with its first tag: group 0002 or 0008.
        bare = start[:2] in (b"\x02\x00", b"\x08\x00")
        if start[128:] != b"DICM" and not bare:
            return None
        header = dcmread(file, stop_before_pixels=True, force=bare)
        return header if "SOPClassUID" in header else None
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        logger.warning("%s: skipped, it cannot be read (%s)", file, type(error).__name__)
        return None


def _as_series(uid: str, instances: list[tuple[Path, Dataset]]) -> Iterator[tuple[Series, str]]:
    """Make a series, or one for each acquisition; with each, why it cannot be used, or ''."""
    multi_frame = [f for f, h in instances if h.SOPClassUID in MULTI_FRAME_CT]
    if multi_frame:
        name = multi_frame[0].name
        yield (
            Series(uid, (), ()),
            f"{name} is a multi-frame CT; convert it to single-frame images",
        )
        return
    slices = [(f, h) for f, h in instances if "LOCALIZER" not in h.get("ImageType", [])]
    placed = [(f, h) for f, h in slices if _has_geometry(h)]
    notes = []
    if len(slices) < len(instances):
        notes.append(f"{len(instances) - len(slices)} localizer images were left out")
    if len(placed) < len(slices):
        notes.append(
            f"{len(slices) - len(placed)} images without a readable position were left out"
        )
    series = Series(uid, tuple(f for f, _ in placed), tuple(h for _, h in placed), tuple(notes))
    for acquisition in _acquisitions(series):
        yield acquisition, _why_unusable(acquisition)


def _why_unusable(series: Series) -> str:
    if len(series.files) < MIN_SLICES:
        return (
            f"series {series.uid} has {len(series.files)} slices with a position, at least"
            f" {MIN_SLICES} are needed"
        )
    if abs(series.slice_normal[2]) < MIN_AXIAL_COSINE:
        return f"{series.label} is not axial"
    if series.coverage_mm < MIN_COVERAGE_MM:
        return (
            f"{series.label} covers {series.coverage_mm:.0f} mm, at least {MIN_COVERAGE_MM:.0f} mm"
            " are needed"
        )
    return ""


def _acquisitions(series: Series) -> list[Series]:
    """Part a series whose acquisitions show the same place, as phases do; others stay whole."""
    by_number: dict[int, list[int]] = defaultdict(list)
    for index, header in enumerate(series.headers):
        try:
            by_number[int(header.AcquisitionNumber)].append(index)
        except (AttributeError, TypeError, ValueError):
            return [series]
    places = [tuple(header.ImagePositionPatient) for header in series.headers]
    within = [len({places[i] for i in members}) == len(members) for members in by_number.values()]
    if len(by_number) < 2 or len(set(places)) == len(places) or not all(within):
        return [series]
    return [
        replace(
            series,
            files=tuple(series.files[i] for i in members),
            headers=tuple(series.headers[i] for i in members),
            notes=(
                *series.notes,
                f"acquisition {number} of the {len(by_number)} in the series was taken",
            ),
            acquisition=number,
        )
        for number, members in sorted(by_number.items())
    ]


def _has_geometry(header: Dataset) -> bool:
    try:
        return all(
            np.asarray(header[keyword].value, dtype=float).size == count
            for keyword, count in GEOMETRY.items()
        )
    except (KeyError, TypeError, ValueError):
        return False
