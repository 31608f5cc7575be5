"""Synthetic studies from a folder of real ones: NAME_{ct,lung,lesion}.nii.gz."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .bodies import rescanned, reshaped
from .lesions import insert_lesions, worsen_lesions

WORSENED_FROM_SHARE = 0.005
"""Patients with lesions above this share of the lungs get the variants ``own`` from them."""

VARIANTS = (
    *("covid19", "own", "severe", "own", "bacterial", "own", "severe", "own"),
    *("nodules", "own", "bands", "own", "severe", "own", "effusion", "own"),
)
"""What the variants of a patient show, in turn: a disease, or his own lesions made worse."""

HEALTHY_UP_TO_SHARE = 0.001
"""Patients with lesions in no more of the lungs may show any diagnosis."""

DIAGNOSES = ("covid19", "bacterial", "nodules", "normal")
COVID19_SHARES = (0.03, 0.6)
"""Least and largest share of the lungs in studies with a diagnosis."""

SLICES_MM = (5.0, 8.0)
PIXEL_MM = 2.0
GROUND_GLASS, CONSOLIDATION = 1, 2


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


def healthy_patients(folder: Path) -> list[str]:
    """Return the patients of a folder whose lungs hold next to no lesions.

    Parameters
    ----------
    folder
        Folder of NAME_ct.nii.gz, NAME_lung.nii.gz, NAME_lesion.nii.gz.
    """
    healthy = []
    for path in sorted(folder.glob("*_ct.nii.gz")):
        patient = path.name.removesuffix("_ct.nii.gz")
        lungs, lesions = (
            np.asarray(_nifti(folder / f"{patient}_{kind}.nii.gz").dataobj) > 0
            for kind in ("lung", "lesion")
        )
        if (lesions & lungs).sum() <= HEALTHY_UP_TO_SHARE * lungs.sum():
            healthy.append(patient)
    return healthy


@dataclass(frozen=True, slots=True)
class DiagnosedStudy:
    """A study drawn into real lungs, with its truth.

    Arrays are (slices to the head, rows to the back, columns to the patient's left).

    Attributes
    ----------
    ct_hu : int16 array
    lungs, ground_glass, consolidation : bool arrays
    spacing_mm : (slices, rows, columns)
    """

    ct_hu: NDArray[np.int16]
    lungs: NDArray[np.bool_]
    ground_glass: NDArray[np.bool_]
    consolidation: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]

    def sides(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return the right and the left lung.

        The lungs' two largest pieces are the two lungs; smaller ones go with the nearer. Lungs
        that touch are parted at the column that least of them lies on.
        """
        pieces, count = ndimage.label(self.lungs)
        columns = np.arange(self.lungs.shape[2])
        sizes = np.bincount(pieces.ravel(), minlength=3)[1:]
        largest = np.argsort(sizes)[::-1][:2]
        if sizes[largest[1]] < 0.1 * sizes[largest[0]]:
            profile = self.lungs.sum((0, 1))
            middle = slice(len(columns) // 3, 2 * len(columns) // 3)
            cut = middle.start + int(np.argmin(profile[middle]))
            left = self.lungs & (columns > cut)
            return self.lungs & ~left, left
        centres = ndimage.center_of_mass(self.lungs, pieces, range(1, count + 1))
        across = np.array([centre[2] for centre in centres])
        low, high = sorted(across[largest])
        left = np.isin(pieces, 1 + np.flatnonzero(across > (low + high) / 2))
        return self.lungs & ~left, left


def draw_diagnosed_study(
    source: Path,
    patient: str,
    diagnosis: str,
    seed: int,
    *,
    share: float | None = None,
    pictures: bool = True,
) -> DiagnosedStudy:
    """Draw a diagnosis into the lungs of a healthy patient.

    The patient is given another body and another scanner (`reshaped`, `rescanned`). What few
    lesions he has of his own are not in the masks.

    Parameters
    ----------
    source, patient
        Folder and name of the patient, one of `healthy_patients`.
    diagnosis
        One of `DIAGNOSES`.
    seed
        The same arguments give the same study.
    share
        Wanted share of the lungs that is ill, 0..1; drawn when None.
    pictures
        Let some studies be 8-bit or equalised pictures turned back to HU.
    """
    ct, lungs, _, spacing_mm, _ = read_patient(source, patient)
    random = np.random.default_rng([zlib.crc32(patient.encode()), DIAGNOSES.index(diagnosis), seed])
    target_mm = (float(random.uniform(*SLICES_MM)), PIXEL_MM, PIXEL_MM)
    ct, lungs = reshaped(ct, lungs, spacing_mm, target_mm, random)
    if diagnosis == "covid19" and share is None:
        share = float(np.exp(random.uniform(*np.log(COVID19_SHARES))))
    ct, glass, solid = insert_lesions(ct, lungs, target_mm, diagnosis, random, share)
    ct = rescanned(ct, target_mm, random, pictures=pictures)
    return DiagnosedStudy(_stored(ct), lungs, glass, solid, target_mm)


def write_diagnosed_study(
    source: Path, patient: str, folder: Path, name: str, diagnosis: str, seed: int
) -> None:
    """Write a study of `draw_diagnosed_study`.

    The files are NAME_ct, NAME_lung, NAME_lesion and NAME_opacity_seg.nii.gz (1 ground glass,
    2 consolidation), in pixels of 2 mm and slices of 5 to 8 mm.
    """
    study = draw_diagnosed_study(source, patient, diagnosis, seed)
    masks = {
        "lung": study.lungs,
        "lesion": study.ground_glass | study.consolidation,
        "opacity_seg": GROUND_GLASS * study.ground_glass + CONSOLIDATION * study.consolidation,
    }
    _write(folder, name, np.diag([*study.spacing_mm[::-1], 1.0]), study.ct_hu, masks)


def _write_study(source: Path, folder: Path, patient: str, variant: int) -> str:
    ct, lungs, lesions, spacing_mm, affine = read_patient(source, patient)
    random = np.random.default_rng([zlib.crc32(patient.encode()), variant])
    disease = VARIANTS[variant % len(VARIANTS)]
    if disease == "own" and (lesions & lungs).sum() > WORSENED_FROM_SHARE * lungs.sum():
        ct = worsen_lesions(ct, lungs, lesions, spacing_mm, random)
    else:
        disease = "covid19" if disease == "own" else disease
        ct, glass, solid = insert_lesions(ct, lungs, spacing_mm, disease, random)
        lesions = lesions | glass | solid
    name = f"{patient}.synthetic-{variant}"
    _write(folder, name, affine, ct, {"lung": lungs, "lesion": lesions})
    return name


def _nifti(path: Path) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_filename(path)


def read_patient(
    source: Path, patient: str
) -> tuple[NDArray, NDArray[np.bool_], NDArray[np.bool_], tuple[float, ...], NDArray]:
    """Read CT, lungs, lesions (slices up, rows back, columns left), spacing and RAS affine."""
    images = {
        kind: nibabel.as_closest_canonical(_nifti(source / f"{patient}_{kind}.nii.gz"))
        for kind in ("ct", "lung", "lesion")
    }
    ct, lungs, lesions = (_to_slices(np.asarray(image.dataobj)) for image in images.values())
    spacing_mm = images["ct"].header.get_zooms()[::-1]
    return ct, lungs > 0, lesions > 0, spacing_mm, images["ct"].affine


def _write(folder: Path, name: str, affine: NDArray, ct: NDArray, masks: dict) -> None:
    """Write NAME_ct.nii.gz as int16 HU and the masks as uint8, given as in `read_patient`."""
    files = {"ct": _stored(ct)}
    files |= {kind: mask.astype(np.uint8) for kind, mask in masks.items()}
    for kind, voxels in files.items():
        nibabel.save(
            nibabel.Nifti1Image(from_slices(voxels), affine), folder / f"{name}_{kind}.nii.gz"
        )


def _stored(ct_hu: NDArray) -> NDArray[np.int16]:
    return np.clip(np.round(ct_hu), -1024, 3071).astype(np.int16)


def _to_slices(voxels: NDArray) -> NDArray:
    """Turn axes (right, anterior, superior) to (slices up, rows back, columns left)."""
    return voxels.transpose(2, 1, 0)[:, ::-1, ::-1]


def from_slices(voxels: NDArray) -> NDArray:
    """Turn (slices up, rows back, columns left) to (right, anterior, superior)."""
    return voxels[:, ::-1, ::-1].transpose(2, 1, 0)
