"""The slices of COVID-19-CT-Seg, taken apart into patients and brought near to HU.

The collection's copy in reach is a stack of 8-bit, contrast-equalised slices of many patients
without marks between them. Looking at the pictures gives the table `FIRST_SLICES`: ten
coronacases patients, feet to head each, seen as radiologists look. The slices from 624 on show
four more patients with the spine on top. They come from Radiopaedia, as do the MedSeg volumes;
whether some are the same people cannot be told, so they are left out: a split by patient would
not be safe with them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

FIRST_SLICES = (0, 80, 140, 199, 255, 313, 348, 395, 485, 541, 624)
"""Where the patients begin; the last entry is the end of the tenth."""

SPACING_MM = (1.45, 1.45, 3.0)
"""Columns, rows, slices. Not published: chosen so that lungs are 230 to 300 mm wide."""

LUNG_HU, SOFT_TISSUE_HU, AIR_HU, WHITE_HU = -850.0, 40.0, -1000.0, 400.0


def write_coronacases(source: Path, folder: Path) -> Iterable[str]:
    """Write a volume a patient; yields the patients' names.

    Parameters
    ----------
    source
        The npz with ``image`` (slices, rows, columns) uint8 and ``lung``, ``lesion`` bit-packed
        on the last axis.
    folder
        Where to write.
    """
    with np.load(source) as arrays:
        image = arrays["image"]
        masks = {k: np.unpackbits(arrays[k], axis=-1).astype(bool) for k in ("lung", "lesion")}
    for number, (first, end) in enumerate(itertools.pairwise(FIRST_SLICES), 1):
        name = f"coronacases-{number:02d}"
        grey, lung, lesion = (a[first:end] for a in (image, masks["lung"], masks["lesion"]))
        _save(grey_to_hu(grey, lung, lesion), folder / f"{name}_ct.nii.gz")
        _save(lung.astype(np.uint8), folder / f"{name}_lung.nii.gz")
        _save(lesion.astype(np.uint8), folder / f"{name}_lesion.nii.gz")
        yield name


def grey_to_hu(
    grey: NDArray[np.uint8], lung: NDArray[np.bool_], lesion: NDArray[np.bool_]
) -> NDArray[np.int16]:
    """Map a patient's grey values to HU so that lung and soft tissue lie where they should.

    Two anchors are found in the patient, the median of the lungs without lesions and the
    commonest value well above it (soft tissue); between them the map is linear. Contrast
    equalisation is local, so the result is a likeness, good for variety in training and for
    nothing else.

    Parameters
    ----------
    grey
        8-bit values, any shape.
    lung, lesion
        Masks of the same shape.

    Returns
    -------
    NDArray
        HU, -1000 to 400.
    """
    healthy = float(np.median(grey[lung & ~lesion]))
    counts = np.bincount(grey[~lung], minlength=256)
    bright = round(healthy) + 50
    soft = bright + int(np.argmax(counts[bright:250]))
    table = np.interp(
        np.arange(256), (0, healthy, soft, 255), (AIR_HU, LUNG_HU, SOFT_TISSUE_HU, WHITE_HU)
    )
    return np.round(table).astype(np.int16)[grey]


def _save(slices: NDArray, path: Path) -> None:
    """Save (slices, rows, columns), feet first, seen from the feet, as NIfTI."""
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    nibabel.save(nibabel.Nifti1Image(slices.transpose(2, 1, 0), affine), path)
