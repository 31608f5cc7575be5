"""COVIDx-CT: slices of three classes with the publisher's train, validation and test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .base import Case, DatasetError, PublishedSet, Split, list_files

_SPLITS: dict[str, Split] = {"train": "training", "val": "validation", "test": "test"}
_SLICE_NUMBER = re.compile(r"[-_]?\d+$")
_PATIENT = re.compile(
    r"(?:(?:NCP|CP|Normal)_\d+|LIDC-IDRI-\d+|volume-covid19-A-\d+|radiopaedia_\d+|.*?patient\d+)"
    r"(?=[-_])"
)
"""Patients in the names that COVIDNet-CT gives to slices of its sources."""


def read_covidx_ct(root: Path) -> Iterator[Case]:
    """Yield one case a slice, in the publisher's splits; ``bbox`` is the body.

    ``train_COVIDx_CT*.txt``, ``val_*`` and ``test_*`` (with a version: ``-2A``) hold lines of
    ``FILE CLASS XMIN YMIN XMAX YMAX``, pixels, class 0 normal, 1 pneumonia, 2 COVID-19. The
    slices lie in one folder: `root` itself or one below it (``2A_images`` from Kaggle).

    Layout: haydengunraj/COVIDNet-CT ``dataset.py``, ``docs/dataset.md``, ``splits/v1`` and the
    construction code for names of slices, of which the patient is a part. Not verified:
    patients in names of sources without such code; there a name without its slice number counts.
    """
    tables = {split: _split_file(root, prefix) for prefix, split in _SPLITS.items()}
    parsed = {split: list(_parse(path)) for split, path in tables.items()}
    folder = _image_folder(root, parsed["training"][0][0])
    # One listing in place of a question a file: there are 425 thousand.
    present = {path.name for path in folder.iterdir()}
    for split, lines in parsed.items():
        missing = [name for name, _, _ in lines if name not in present]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DatasetError(f"missing: {folder / missing[0]}{more}, see {tables[split].name}")
    for split, lines in parsed.items():
        for name, category, box in lines:
            yield Case(
                patient=patient_of(name),
                image=folder / name,
                category=category,
                split=split,
                extra={"bbox": box},
            )


def patient_of(name: str) -> str:
    """Patient in a slice's file name, ``CP_1769`` of ``CP_1769_3516_0011.png``."""
    found = _PATIENT.match(name)
    return found.group() if found else _SLICE_NUMBER.sub("", Path(name).stem)


def _split_file(root: Path, prefix: str) -> Path:
    found = list_files(root, f"{prefix}_COVIDx[-_]CT*.txt")
    if len(found) > 1:
        raise DatasetError(f"{found[0]} and {found[1].name}: keep the files of one version")
    return found[0]


def _parse(path: Path) -> Iterator[tuple[str, int, list[int]]]:
    lines = path.read_text("utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        name, *numbers = line.split() or [""]
        if len(numbers) != 5 or not all(n.isdecimal() for n in numbers) or int(numbers[0]) > 2:
            raise DatasetError(f"{path} line {number} is not 'FILE CLASS XMIN YMIN XMAX YMAX'")
        category, *box = map(int, numbers)
        yield name, category, box
    if not lines:
        raise DatasetError(f"{path} is empty")


def _image_folder(root: Path, name: str) -> Path:
    for folder in (root, *sorted(root.glob("*/"))):
        if (folder / name).exists():
            return folder
    raise DatasetError(f"{root} and its folders do not hold {name}, the first slice to train on")


COVIDX_CT = PublishedSet(
    name="covidx_ct",
    title="COVIDx-CT",
    licence="that of its sources, from CC BY to CC BY-NC-ND (COVIDNet-CT "
    "docs/licenses_acknowledgements.md)",
    citation="Gunraj et al. 2020, doi:10.3389/fmed.2020.608525, "
    "github.com/haydengunraj/COVIDNet-CT",
    # Versions differ: 104 thousand slices in the first, 425 thousand in 3A.
    count=0,
    supervision=("category",),
    read=read_covidx_ct,
    categories=("normal", "pneumonia", "COVID-19"),
    caution="8-bit pictures, not HU; folds are made of the publisher's training part only",
)
