"""iCTCF (HUST-19): patients with a CT scan and their clinical outcome."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from .base import Case, DatasetError, PublishedSet, list_files, list_folders

CATEGORIES = (
    "Control",
    "Control (Community-acquired pneumonia)",
    "Suspected",
    "Suspected (COVID-19-confirmed later)",
    "Mild",
    "Regular",
    "Severe",
    "Critically ill",
)
_OUTCOME = "Morbidity outcome"


def read_ictcf(root: Path) -> Iterator[Case]:
    """Yield the patients whose scans were unpacked.

    ``Patient N/CT`` holds ``IMG-0001-00001.jpg`` and so on (given as the list of slices), or
    ``.dcm`` (given as the folder). The only ``.csv`` in the root holds the table of the web
    site: the patient (``Patient N``) in the first column, the class in ``Morbidity
    outcome``. A patient who is not in it has no category.

    Layout: haydengunraj/COVIDNet-CT ``docs/dataset.md`` (iCTCF data in JPEG form); column and
    outcomes: public code that reads the table. Not verified: the table's file name, since the
    publisher shows it as a web page that users save, and the names of ``.dcm`` files.
    """
    tables = list_files(root, "*.csv")
    if len(tables) > 1:
        raise DatasetError(f"{tables[0]} and {tables[1].name}: keep only the table of outcomes")
    outcomes = _read_outcomes(tables[0])
    for patient in list_folders(root, "Patient *"):
        folder = patient / "CT"
        slices = list_files(folder, "*.jpg", "*.dcm")
        yield Case(
            patient=patient.name,
            image=folder if slices[0].suffix == ".dcm" else tuple(slices),
            category=outcomes.get(patient.name),
        )


def _read_outcomes(table: Path) -> dict[str, int]:
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        header, *rows = list(csv.reader(lines)) or [[]]
    if _OUTCOME not in header:
        raise DatasetError(f"{table} has no column {_OUTCOME!r}")
    column = header.index(_OUTCOME)
    outcomes = {}
    for number, row in enumerate(rows, 2):
        if len(row) <= column:
            raise DatasetError(f"{table} line {number} ends before {_OUTCOME!r}")
        if row[column] not in CATEGORIES:
            raise DatasetError(f"{table} line {number} has an unknown outcome {row[column]!r}")
        outcomes[row[0]] = CATEGORIES.index(row[column])
    return outcomes


ICTCF = PublishedSet(
    name="ictcf",
    title="Integrative CT Images and Clinical Features for COVID-19 (iCTCF, HUST-19)",
    licence="not verified; ngdc.cncb.ac.cn/ictcf decides",
    citation="Ning et al. 2020, doi:10.1038/s41551-020-00633-5, ngdc.cncb.ac.cn/ictcf",
    count=0,
    supervision=("category",),
    read=read_ictcf,
    categories=CATEGORIES,
    caution="JPEG slices are 8-bit pictures, not HU; not all of the 1521 patients have a scan",
)
