"""Kaggle "Finding and Measuring Lungs in CT Data": slices and a few volumes with lungs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .base import LUNG, Case, DatasetError, PublishedSet, list_files, require

_NUMBER = re.compile(r"(?:ID|IMG)_(\d+)")
_TITLE = "Finding and Measuring Lungs in CT Data"
_LICENCE = "not verified; the Kaggle page decides"
_CITATION = "Mader 2017, kaggle.com/kmader/finding-lungs-in-ct-data"
_CAUTION = (
    "IDs are taken for patients; the volumes may be of the same patients as slices of that ID, so "
    "do not train on one list and test on the other; take any value of a mask above 0 as lung"
)


def read_slices(root: Path) -> Iterator[Case]:
    """Yield the slices: ``2d_images/ID_NNNN_Z_NNNN.tif``, masks of that name in ``2d_masks``.

    Layout: public loaders that agree. Not verified: that an ID is a patient; the IDs 0000 to
    0266 are as many as slices.
    """
    for image in list_files(root / "2d_images", "*.tif"):
        mask = root / "2d_masks" / image.name
        require([mask])
        yield Case(patient=_patient(image), image=image, lung=mask)


def read_volumes(root: Path) -> Iterator[Case]:
    """Yield the volumes: ``3d_images/IMG_NNNN.nii.gz`` with ``3d_images/MASK_NNNN.nii.gz``.

    Layout: public loaders that agree. Not verified: the number of volumes.
    """
    for image in list_files(root / "3d_images", "IMG_*.nii*"):
        mask = image.with_name(image.name.replace("IMG_", "MASK_"))
        require([mask])
        yield Case(patient=_patient(image), image=image, lung=mask)


def _patient(image: Path) -> str:
    found = _NUMBER.match(image.name)
    if not found:
        raise DatasetError(f"{image} is not named ID_NNNN_Z_NNNN.tif or IMG_NNNN.nii.gz")
    return found.group(1)


KAGGLE_LUNGS = PublishedSet(
    name="kaggle_lungs",
    title=f"{_TITLE}, slices",
    licence=_LICENCE,
    citation=_CITATION,
    count=267,
    supervision=("lung",),
    read=read_slices,
    lung_values=LUNG,
    caution=_CAUTION,
)
KAGGLE_LUNGS_3D = PublishedSet(
    name="kaggle_lungs_3d",
    title=f"{_TITLE}, volumes",
    licence=_LICENCE,
    citation=_CITATION,
    count=0,
    supervision=("lung",),
    read=read_volumes,
    lung_values=LUNG,
    caution=_CAUTION,
)
