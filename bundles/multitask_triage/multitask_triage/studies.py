"""Which studies there are, and which head each of them teaches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel

from .shared import held_out, read_diagnoses

CT, LUNG, LESION = "_ct.nii.gz", "_lung.nii.gz", "_lesion.nii.gz"
UNKNOWN = -1


def find_studies(folder: str | Path) -> list[dict[str, Any]]:
    """List the studies below a folder with what is known of each.

    A study is NAME_ct.nii.gz, with NAME_lung.nii.gz and NAME_lesion.nii.gz beside it where there
    are such masks. Files named ``diagnoses.csv`` with the columns name and diagnosis, anywhere
    below the folder, tell the disease of studies in their own folder: "covid19" is COVID-19, any
    other text is something else.

    Returns
    -------
    list of dict
        "name", "image", "collection" (name of the folder), "diagnosis" ("" where unknown),
        "covid19" (1, 0 or -1 where unknown), and "lung" and "lesion" where there are masks.

    Raises
    ------
    SystemExit
        With one line where a table lacks a column, a name stands in it twice, or a mask has
        another shape than its CT.
    """
    studies = []
    diagnoses: dict[Path, dict[str, str]] = {}
    for ct in sorted(Path(folder).rglob("*" + CT)):
        name = ct.name.removesuffix(CT)
        if ct.parent not in diagnoses:
            diagnoses[ct.parent] = read_diagnoses(ct.parent)
        diagnosis = diagnoses[ct.parent].get(name, "")
        study = {
            "name": name,
            "collection": ct.parent.name,
            "image": str(ct),
            "diagnosis": diagnosis,
            "covid19": int(diagnosis == "covid19") if diagnosis else UNKNOWN,
        }
        for key, suffix in (("lung", LUNG), ("lesion", LESION)):
            mask = ct.with_name(name + suffix)
            if mask.is_file():
                _check_shape(ct, mask)
                study[key] = str(mask)
        studies.append(study)
    return studies


def training_samples(
    studies: Iterable[Mapping[str, Any]],
    patterns: Sequence[str],
    lesion_diagnoses: Collection[str],
    repeats: Mapping[str, float],
) -> list[dict[str, Any]]:
    """List what training draws from; a study is in it once for each head that it can teach.

    Parameters
    ----------
    studies
        From `find_studies`.
    patterns
        Studies to leave out, see `held_out`; with a patient NAME go the studies NAME.ANYTHING that
        were drawn from it.
    lesion_diagnoses
        Diagnoses of studies whose lesion masks teach the segmentation head; "" is unknown.
    repeats
        Weight of collections in the segmentation head's half, 1 where not given.

    Returns
    -------
    list of dict
        The study, "supervises_lesion" (1 for the segmentation, 0 for the identification head) and
        "weight": how often to draw it, so that half of the samples teach either head, and half of
        those for identification are COVID-19 (paper 4.4).
    """
    studies = list(studies)
    patients = [{"name": study["name"].split(".")[0]} for study in studies]
    kept_out = {study["name"] for study in held_out([*studies, *patients], patterns)}
    groups: dict[str, list[tuple[Mapping[str, Any], float]]] = {
        "lesion": [],
        "covid19": [],
        "other": [],
    }
    for study in studies:
        if kept_out & {study["name"], study["name"].split(".")[0]}:
            continue
        share = repeats.get(study["collection"], 1.0)
        if "lesion" in study and study["diagnosis"] in lesion_diagnoses and share > 0:
            groups["lesion"].append((study, share))
        if study["covid19"] != UNKNOWN:
            groups["covid19" if study["covid19"] else "other"].append((study, 1.0))
    shares = {"lesion": 0.5, "covid19": 0.25, "other": 0.25}
    return [
        {
            **study,
            "supervises_lesion": int(name == "lesion"),
            "weight": shares[name] * share / sum(share for _, share in group),
        }
        for name, group in groups.items()
        for study, share in group
    ]


def with_lung_masks(images: Iterable[str]) -> list[dict[str, str]]:
    """Give each CT its lung mask where there is one.

    The mask of NAME.nii.gz or NAME_ct.nii.gz, and of a DICOM folder NAME, is NAME_lung.nii.gz
    beside it, on the same grid.

    Raises
    ------
    SystemExit
        With one line where a mask has another shape than its NIfTI file.
    """
    data = []
    for image in map(Path, images):
        mask = image.with_name(image.name.removesuffix(".nii.gz").removesuffix("_ct") + LUNG)
        study = {"image": str(image)}
        if mask.is_file():
            if image.is_file():
                _check_shape(image, mask)
            study["lung"] = str(mask)
        data.append(study)
    return data


def _check_shape(ct: Path, mask: Path) -> None:
    shapes = [nibabel.Nifti1Image.from_filename(path).shape[:3] for path in (ct, mask)]
    if shapes[0] != shapes[1]:
        raise SystemExit(
            f"error: {mask} has the shape {shapes[1]}, its CT {shapes[0]}; "
            "give a mask on the grid of the CT or remove it"
        )
