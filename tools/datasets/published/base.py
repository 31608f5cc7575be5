"""What every reader of a published collection gives, and the checks that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tools.datasets.tree import DatasetError

Supervision = Literal["category", "lung", "lesion"]
Split = Literal["training", "validation", "test"]

LUNG = {1: "lung"}
LESION = {1: "lesion"}
LESION_KINDS = {1: "ground-glass opacity", 2: "consolidation", 3: "pleural effusion"}


@dataclass(frozen=True)
class Case:
    """One image of a collection with the truth that its publisher gives.

    Paths lie below the root that the reader was given. Nothing is opened for its pixels: values,
    axis order and geometry are the publisher's.

    Attributes
    ----------
    patient
        Whoever was scanned, unique in the collection. Cases of one patient share it.
    image
        A file, a folder with one DICOM series, or the slices of one scan in their order.
    lung, lesion
        Mask files; None where the publisher gives none. `PublishedSet` says what values mean.
    category
        Index into the collection's categories, None where the publisher gives no class.
    split
        The publisher's own split; everything is training where there is none.
    extra
        More of what the publisher tells, under the name it has in the datalist. Paths are
        written like the masks', all else must be numbers or lists of numbers: MONAI takes a
        text for a path as soon as a file of that name exists.
    """

    patient: str
    image: Path | tuple[Path, ...]
    lung: Path | None = None
    lesion: Path | None = None
    category: int | None = None
    split: Split = "training"
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedSet:
    """A published collection and how to read it.

    Attributes
    ----------
    name
        What the command line calls it.
    title
        What its publisher calls it.
    licence
        Terms and where they were read; "not verified" where they were not.
    citation
        What to cite, and where to get it.
    count
        How many cases the publisher ships, so that half a download is noticed; 0 where this
        was not verified.
    supervision
        What can become MONAI's "label", the usual choice first.
    read
        Yields the cases below a root; raises `DatasetError` with one line that names what is
        missing.
    categories
        Names of the classes; a case's category is an index into them.
    lung_values, lesion_values
        What the values of the masks mean; 0 is background.
    caution
        What a user must know before training or splitting, in a sentence.
    """

    name: str
    title: str
    licence: str
    citation: str
    count: int
    supervision: tuple[Supervision, ...]
    read: Callable[[Path], Iterator[Case]]
    categories: tuple[str, ...] = ()
    lung_values: Mapping[int, str] = field(default_factory=dict)
    lesion_values: Mapping[int, str] = field(default_factory=dict)
    caution: str = ""


def require(paths: Iterable[Path]) -> None:
    """Raise a `DatasetError` that names the first of the paths that do not exist."""
    missing = [path for path in paths if not path.exists()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DatasetError(f"missing: {missing[0]}{more}")


def list_files(folder: Path, *patterns: str) -> list[Path]:
    """Files of a folder that match any of the patterns, sorted by name.

    Hidden files are left out: archives packed on macOS carry a "._NAME" beside each file.

    Raises
    ------
    DatasetError
        When the folder is missing or holds none.
    """
    require([folder])
    found = {p for pattern in patterns for p in folder.glob(pattern) if p.name[0] != "."}
    if not found:
        raise DatasetError(f"{folder} holds no {' or '.join(patterns)}")
    return sorted(found)


def list_folders(folder: Path, pattern: str = "*") -> list[Path]:
    """Folders in a folder that match, sorted by name.

    Raises
    ------
    DatasetError
        When the folder is missing or holds none.
    """
    require([folder])
    found = sorted(p for p in folder.glob(pattern) if p.is_dir() and p.name[0] != ".")
    if not found:
        raise DatasetError(f"{folder} holds no folder {pattern}")
    return found


def nifti_stem(path: Path) -> str:
    """Name of a NIfTI file without ``.nii`` or ``.nii.gz``."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def nifti_file(folder: Path, stem: str) -> Path:
    """Path of ``stem.nii.gz`` in a folder, or of ``stem.nii`` where only that exists.

    Browsers and mirrors unpack the publishers' ``.nii.gz`` without being asked.
    """
    packed, plain = folder / f"{stem}.nii.gz", folder / f"{stem}.nii"
    return plain if plain.exists() and not packed.exists() else packed
