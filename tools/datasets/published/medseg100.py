"""MedSeg's 100 axial slices (the CovidCTSegmentation of CoRSAI 5.5)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import nibabel
from nibabel.filebasedimages import ImageFileError

from .base import LESION_KINDS, LUNG, Case, DatasetError, PublishedSet, nifti_file, require

BLOCK = 10
"""Slices kept together where nothing tells the patients."""


def read_medseg100(root: Path) -> Iterator[Case]:
    """Yield one case a slice; ``slice`` is the index on the third axis of image and masks.

    ``tr_im.nii.gz``, ``tr_mask.nii.gz`` and ``tr_lungmasks_updated.nii.gz`` each hold all
    slices of all patients, columns x rows x slices.

    The files do not tell the patients. The publisher offers a table of slice number and SIRM
    case number: saved below `root` as the only ``.csv``, it gives the patients. Without
    it, blocks of ten neighbours stay together, because slices of a case follow one another; a
    patient across the border of two blocks may then be in two folds.

    Layout: file names in the loaders of several public repositories, all by these three
    names; values of the masks and the table's existence: MedSeg's page, as quoted by
    public repositories. Not verified: the table's name, header and first number (the columns are
    taken to be slice and case, from 0 or from 1, with or without a header).
    """
    names = ("tr_im", "tr_lungmasks_updated", "tr_mask")
    image, lung, lesion = (nifti_file(root, name) for name in names)
    require([image, lung, lesion])
    shapes = {_shape(path) for path in (image, lung, lesion)}
    if len(shapes) > 1 or len(shape := shapes.pop()) != 3:
        raise DatasetError(f"{image}, {lung.name} and {lesion.name} are not of one 3D shape")
    count = shape[2]
    tables = sorted(root.glob("*.csv"))
    if len(tables) == 1:
        patients = _read_patients(tables[0], count)
    else:
        patients = [f"block-{index // BLOCK:02d}" for index in range(count)]
    for index, patient in enumerate(patients):
        yield Case(patient, image, lung=lung, lesion=lesion, extra={"slice": index})


def _shape(path: Path) -> tuple[int, ...]:
    try:
        return cast(nibabel.Nifti1Image, nibabel.load(path)).shape
    except (ImageFileError, OSError, EOFError) as error:
        raise DatasetError(f"{path} is not a NIfTI file: {error}") from None


def _read_patients(table: Path, count: int) -> list[str]:
    """Case of each slice; rows that do not begin with a number are headers or notes."""
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        rows = [row for row in csv.reader(lines) if len(row) > 1 and row[0].strip().isdigit()]
    cases = {int(row[0]): row[1].strip() for row in rows}
    first = min(cases, default=0)
    numbers = list(range(first, first + count))
    if first > 1 or sorted(cases) != numbers:
        raise DatasetError(f"{table} does not give a case to each of {count} slices, 'slice,case'")
    return [f"case-{cases[number]}" for number in numbers]


MEDSEG100 = PublishedSet(
    name="medseg100",
    title="MedSeg COVID-19 CT segmentation dataset, 100 axial slices",
    licence='segmentations "freely" with acknowledgement (MedSeg\'s page); terms of the images '
    "of the Italian Society of Radiology (SIRM) not verified",
    citation="MedSeg and SIRM, medicalsegmentation.com/covid19",
    count=100,
    supervision=("lesion", "lung"),
    read=read_medseg100,
    lung_values=LUNG,
    lesion_values=LESION_KINDS,
    caution="pictures brought back to HU; only with MedSeg's table of slices and cases (.csv in "
    "the root) are folds by patient, otherwise by blocks of ten slices",
)
