"""The training tree: one folder a collection, NAME_{ct,lung,lesion}.nii.gz a patient."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel
import numpy as np

from tools.synthesis.studies import write_synthetic

from .coronacases import write_coronacases
from .phantoms import write_phantoms

REAL = ("lctsc", "medseg", "coronacases")
SYNTHETIC = {f"{name}_synthetic": name for name in REAL}
NAMES = (*REAL, *SYNTHETIC, "phantoms")
SAME_PATIENT = {"case3": "case2"}
"""Volumes of MedSeg that are another reconstruction of a patient."""
CORONACASES_FILE = Path("covid19_ct_seg20", "coronacases_slices.npz")


class DatasetError(Exception):
    """A collection is not where it should be; the message names the path."""


def build_tree(
    source: Path,
    output: Path,
    names: Iterable[str] = NAMES,
    *,
    phantoms: int = 32,
    variants: int = 4,
    report: Callable[[str], None] = print,
) -> None:
    """Build the tree; parts that exist are written again.

    Parameters
    ----------
    source
        Folder with ``lctsc``, ``medseg`` and ``covid19_ct_seg20``.
    output
        Folder of the tree: ``output/<name>/NAME_ct.nii.gz`` in HU, ``NAME_lung.nii.gz`` and
        ``NAME_lesion.nii.gz`` as 0 and 1.
    names
        Parts to build, out of `NAMES`.
    phantoms
        How many phantoms to draw.
    variants
        How many synthetic studies to draw from each real patient.
    report
        Called with a line of text after each patient.

    Raises
    ------
    DatasetError
        When a part's source is missing or holds nothing.
    """
    for name in names:
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        if name == "phantoms":
            patients = write_phantoms(folder, phantoms)
        elif name in SYNTHETIC:
            patients = write_synthetic(_existing(output / SYNTHETIC[name]), folder, variants)
        elif name == "coronacases":
            patients = write_coronacases(_existing(source / CORONACASES_FILE), folder)
        else:
            patients = _link_nifti(_existing(source / name), folder)
        for patient in patients:
            report(f"{name}: {patient}")


def patient_of(name: str) -> str:
    """Return whose volume it is; synthetic ones, NAME.synthetic-N, are of the patient NAME."""
    patient = name.split(".")[0]
    return SAME_PATIENT.get(patient, patient)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise DatasetError(f"{path} does not exist; give the collections' folder with --source")
    return path


def _link_nifti(source: Path, folder: Path) -> Iterable[str]:
    """Link the volumes of one collection; patients without lesion masks get an empty one.

    Collections from before the pandemic hold no COVID-19 lesions, so a mask of zeros is their
    truth (multitask paper 4.3, "2D U-Net+").
    """
    volumes = sorted(source.glob("*_ct.nii.gz"))
    if not volumes:
        raise DatasetError(f"{source} holds no NAME_ct.nii.gz")
    for volume in volumes:
        name = volume.name.removesuffix("_ct.nii.gz")
        for kind in ("ct", "lung", "lesion"):
            link = folder / f"{name}_{kind}.nii.gz"
            target = source / link.name
            link.unlink(missing_ok=True)
            if target.exists():
                link.symlink_to(target.resolve())
            elif kind == "lesion":
                image = nibabel.Nifti1Image.from_filename(volume)
                zeros = np.zeros(image.shape, np.uint8)
                nibabel.save(nibabel.Nifti1Image(zeros, image.affine), link)
            else:
                raise DatasetError(f"{target} does not exist")
        yield name
