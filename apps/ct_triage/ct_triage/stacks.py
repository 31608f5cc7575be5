"""Divide the images of a series into stacks: sets with one image at each position.

A series may hold more than one: a scout beside the slices, the phases of a contrast study, the
same scan with two kernels. Only what tells them apart beyond doubt divides them; what stays
doubled is refused when the volume is read.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from ct_triage.scanning import value_of, values_of

# Positions are written with a few decimals, so neighbours never agree to the last digit.
DUPLICATE_MM = 0.01
# Slices whose normals differ by more than a tenth of a degree or so are not parallel.
_SAME_DIRECTION = 1e-3
MAX_STACKS = 64
# Two halves of a chest that share a few positions are no two stacks of one chest.
MIN_SHARED_COVERAGE = 0.8
# What two reconstructions or two phases differ in, most telling first.
DISTINGUISHING = (
    "ConvolutionKernel",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "PixelSpacing",
    "Rows",
    "ReconstructionDiameter",
    "SliceThickness",
    "ReconstructionAlgorithm",
    "FilterType",
    "KVP",
    "ImageType",
    "ContrastBolusAgent",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "SeriesTime",
    "SeriesDescription",
)


@dataclass(frozen=True, slots=True)
class Image:
    """One slice: a file, or a frame of one.

    Attributes
    ----------
    file : Path
        Where the pixels are.
    header : Dataset
        Attributes without pixel data, under the keywords of the CT Image IOD.
    frame : int or None
        Number of the frame in its file, from 0; None in a single-frame file.
    """

    file: Path
    header: Dataset
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class Stack:
    """Parallel images of one series, and how they were told from its others."""

    images: tuple[Image, ...]
    notes: tuple[str, ...] = ()


def divide(images: Sequence[Image]) -> list[Stack]:
    """Divide images that have a readable position into stacks.

    By orientation first; then, where positions occur more than once, by the first attribute of
    ``DISTINGUISHING``, or the first two, that leaves every position once; then by the runs of
    instance numbers. Stacks of one attribute are ordered by its value, so that equally good ones
    are always taken in the same order.
    """
    stacks = []
    for parallel in _by_orientation(images):
        n_others = len(images) - len(parallel)
        notes = (
            (f"{n_others} images of another orientation in the same series were left out",)
            if n_others
            else ()
        )
        stacks += [replace(s, notes=(*notes, *s.notes)) for s in _by_position(parallel)]
    return stacks


def slice_normal(header: Dataset) -> npt.NDArray[np.float64]:
    """Vector along which an image's parallels are stacked, in LPS."""
    orientation = np.asarray(header.ImageOrientationPatient, dtype=float)
    return np.cross(orientation[:3], orientation[3:])


def _by_orientation(images: Sequence[Image]) -> list[list[Image]]:
    groups: list[tuple[npt.NDArray[np.float64], list[Image]]] = []
    for image in images:
        orientation = np.asarray(image.header.ImageOrientationPatient, dtype=float)
        for known, group in groups:
            if np.abs(known - orientation).max() < _SAME_DIRECTION:
                group.append(image)
                break
        else:
            # A hostile series has as many orientations as images; comparing stays linear.
            if len(groups) == MAX_STACKS:
                groups[-1][1].append(image)
            else:
                groups.append((orientation, [image]))
    return [group for _, group in groups]


def _by_position(images: list[Image]) -> list[Stack]:
    if not _has_duplicates(images):
        return [Stack(tuple(images))]
    for size in (1, 2):
        for keywords in combinations(DISTINGUISHING, size):
            parts = _group(images, keywords)
            if _is_division(parts):
                return _named(parts, " and ".join(keywords))
    parts = _runs_of_instance_numbers(images)
    if _is_division(parts):
        return _named(parts, "their instance numbers")
    return [Stack(tuple(images))]


def _named(parts: list[list[Image]], how: str) -> list[Stack]:
    return [
        Stack(
            tuple(part),
            (
                f"the series holds {len(parts)} stacks at the same positions, told apart by {how};"
                f" stack {number} in ascending order was used",
            ),
        )
        for number, part in enumerate(parts, 1)
    ]


def _is_division(parts: list[list[Image]]) -> bool:
    """Whether every part is a stack and covers what the others cover."""
    if not 2 <= len(parts) <= MAX_STACKS:
        return False
    if any(_has_duplicates(part) for part in parts):
        return False
    places_mm = [_along_normal(part) for part in parts]
    whole_mm = np.ptp(np.concatenate(places_mm))
    return all(np.ptp(part) >= MIN_SHARED_COVERAGE * whole_mm for part in places_mm)


def _has_duplicates(images: Sequence[Image]) -> bool:
    return bool((np.diff(np.sort(_along_normal(images))) < DUPLICATE_MM).any())


def _along_normal(images: Sequence[Image]) -> npt.NDArray[np.float64]:
    positions = [np.asarray(image.header.ImagePositionPatient, float) for image in images]
    return np.asarray(positions) @ slice_normal(images[0].header)


def _group(images: Sequence[Image], keywords: tuple[str, ...]) -> list[list[Image]]:
    groups: dict[tuple[str, ...], list[Image]] = defaultdict(list)
    for image in images:
        key = tuple("/".join(values_of(image.header, keyword)) for keyword in keywords)
        groups[key].append(image)
    return [groups[key] for key in sorted(groups, key=_ascending)]


def _ascending(key: tuple[str, ...]) -> tuple[tuple[float, str], ...]:
    """Numbers by size, other texts by alphabet behind them."""

    def part(text: str) -> tuple[float, str]:
        try:
            return float(text), ""
        except ValueError:
            return float("inf"), text

    return tuple(part(text) for text in key)


def _runs_of_instance_numbers(images: Sequence[Image]) -> list[list[Image]]:
    """Cut the images, in the order of their numbers, where the table goes back to its start."""
    try:
        numbers = [int(value_of(image.header, "InstanceNumber")) for image in images]
    except (TypeError, ValueError):
        return []
    ordered = [images[i] for i in np.argsort(numbers, kind="stable")]
    if len(set(numbers)) < len(numbers):
        return []
    steps_mm = np.diff(_along_normal(ordered))
    direction = np.sign(np.median(steps_mm))
    parts = [[ordered[0]]]
    for image, step in zip(ordered[1:], steps_mm, strict=True):
        if step * direction < 0:
            parts.append([])
        parts[-1].append(image)
    return parts
