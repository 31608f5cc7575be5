"""Synthetic studies from a folder of real ones: NAME_{ct,lung,lesion}.nii.gz."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from .lesions import insert_lesions, worsen_lesions

WORSENED_FROM_SHARE = 0.005
"""Patients with lesions above this share of the lungs get every second variant from them."""


def write_synthetic(source: Path, folder: Path, variants: int) -> Iterable[str]:
    """Write `variants` studies for each patient of a folder, named ``NAME.synthetic-0`` and on.

    What precedes the dot is the patient: a synthetic study belongs on the same side of a split
    as the patient whose lungs it shows.

    Parameters
    ----------
    source
        Folder of NAME_ct.nii.gz, NAME_lung.nii.gz, NAME_lesion.nii.gz.
    folder
        Where to write the same three files for each study.
    variants
        How many studies a patient; the first n are the same for every number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    patients = sorted(p.name.removesuffix("_ct.nii.gz") for p in source.glob("*_ct.nii.gz"))
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as workers:
        jobs = [
            workers.submit(_write_study, source, folder, patient, variant)
            for patient in patients
            for variant in range(variants)
        ]
        for job in jobs:
            yield job.result()


def _write_study(source: Path, folder: Path, patient: str, variant: int) -> str:
    images = {
        kind: nibabel.as_closest_canonical(nibabel.load(source / f"{patient}_{kind}.nii.gz"))
        for kind in ("ct", "lung", "lesion")
    }
    ct, lungs, lesions = (_to_slices(np.asarray(image.dataobj)) for image in images.values())
    lungs, lesions = lungs > 0, lesions > 0
    spacing_mm = images["ct"].header.get_zooms()[::-1]
    random = np.random.default_rng([zlib.crc32(patient.encode()), variant])
    if variant % 2 and (lesions & lungs).sum() > WORSENED_FROM_SHARE * lungs.sum():
        ct = worsen_lesions(ct, lungs, lesions, spacing_mm, random)
    else:
        disease = "bacterial" if variant % 5 == 4 else "covid19"
        ct, glass, solid = insert_lesions(ct, lungs, spacing_mm, disease, random)
        lesions = lesions | glass | solid
    name = f"{patient}.synthetic-{variant}"
    affine = images["ct"].affine
    for kind, voxels in (
        ("ct", np.round(ct).astype(np.int16)),
        ("lung", lungs.astype(np.uint8)),
        ("lesion", lesions.astype(np.uint8)),
    ):
        nibabel.save(
            nibabel.Nifti1Image(_from_slices(voxels), affine), folder / f"{name}_{kind}.nii.gz"
        )
    return name


def _to_slices(voxels: NDArray) -> NDArray:
    """Turn axes (right, anterior, superior) to (slices up, rows back, columns left)."""
    return voxels.transpose(2, 1, 0)[:, ::-1, ::-1]


def _from_slices(voxels: NDArray) -> NDArray:
    """Undo `_to_slices`."""
    return voxels[:, ::-1, ::-1].transpose(2, 1, 0)
