"""Find the chest CT series in a folder of any nesting and mixture."""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
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

from ct_triage.errors import NoSeriesError

logger = logging.getLogger(__name__)

MULTI_FRAME_CT = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
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
CHEST_WORDS = re.compile(r"chest|thor|lung|pulmo|covid|грудн|легк", re.IGNORECASE)
OTHER_BODY_WORDS = re.compile(r"head|brain|skull|neck|spine|pelvis|leg|knee|foot", re.IGNORECASE)


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
    """

    uid: str
    files: tuple[Path, ...]
    headers: tuple[Dataset, ...]
    notes: tuple[str, ...] = ()

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


def find_series(folder: Path) -> Series:
    """Return the series of a folder that suits the models best.

    Parameters
    ----------
    folder : Path
        A study: DICOM files at any depth, beside anything else. Symbolic links to folders are not
        followed.

    Raises
    ------
    NoSeriesError
        If no series can be used; the message gives the reason for each CT series found.
    """
    instances: dict[str, dict[str, tuple[Path, Dataset]]] = defaultdict(dict)
    n_dicom = 0
    refusals = []
    for file in _files_below(folder):
        header = _read_header(file)
        if header is None:
            continue
        n_dicom += 1
        if header.get("SOPClassUID") == CTImageStorage:
            uid = str(header.get("SeriesInstanceUID", ""))
            instances[uid].setdefault(str(header.get("SOPInstanceUID", "")), (file, header))
        elif header.get("SOPClassUID") in MULTI_FRAME_CT:
            refusals.append(f"{file.name} is a multi-frame CT; convert it to single-frame images")
    if not n_dicom:
        raise NoSeriesError(f"{folder}: no DICOM files here; give the folder of a CT study")
    if not instances and not refusals:
        raise NoSeriesError(
            f"{folder}: none of the {n_dicom} DICOM files is a CT image; give the folder of a CT"
            " study"
        )

    usable = []
    for uid, by_instance in sorted(instances.items()):
        series, refusal = _as_series(uid, list(by_instance.values()))
        if refusal:
            refusals.append(refusal)
        else:
            usable.append(series)
    if not usable:
        raise NoSeriesError(f"{folder}: no usable chest CT series: {'; '.join(refusals)}")
    usable.sort(key=_preference, reverse=True)
    chosen = usable[0]
    if len(usable) > 1:
        note = f"{chosen.label} was chosen among {len(usable)} usable CT series"
        chosen = Series(chosen.uid, chosen.files, chosen.headers, (*chosen.notes, note))
    return chosen


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


def _as_series(uid: str, instances: list[tuple[Path, Dataset]]) -> tuple[Series, str]:
    """Drop what is no slice, and say why the rest cannot be used, or ''."""
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
    if len(placed) < MIN_SLICES:
        return series, (
            f"series {uid} has {len(placed)} slices with a position, at least {MIN_SLICES} are"
            " needed"
        )
    if abs(series.slice_normal[2]) < MIN_AXIAL_COSINE:
        return series, f"{series.label} is not axial"
    if series.coverage_mm < MIN_COVERAGE_MM:
        return series, (
            f"{series.label} covers {series.coverage_mm:.0f} mm, at least {MIN_COVERAGE_MM:.0f} mm"
            " are needed"
        )
    return series, ""


def _has_geometry(header: Dataset) -> bool:
    try:
        return all(
            np.asarray(header[keyword].value, dtype=float).size == count
            for keyword, count in GEOMETRY.items()
        )
    except (KeyError, TypeError, ValueError):
        return False


def _preference(series: Series) -> tuple[float, ...]:
    """Sort key: chest before other regions, original, full coverage, then thin slices."""
    first = series.headers[0]
    words = " ".join(
        str(first.get(word, ""))
        for word in ("BodyPartExamined", "SeriesDescription", "ProtocolName", "StudyDescription")
    )
    region = bool(CHEST_WORDS.search(words)) - bool(OTHER_BODY_WORDS.search(words))
    original = "ORIGINAL" in first.get("ImageType", [])
    # Coverage counts in steps, so that one slice more does not outweigh the slice thickness.
    return (region, original, round(series.coverage_mm / 50), len(series.files))
