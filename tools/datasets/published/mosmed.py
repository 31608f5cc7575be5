"""MosMedData COVID19_1110: studies by severity, 50 of them with lesion masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .base import (
    LESION,
    Case,
    DatasetError,
    PublishedSet,
    list_files,
    nifti_file,
    nifti_stem,
)

CATEGORIES = ("CT-0", "CT-1", "CT-2", "CT-3", "CT-4")


def read_mosmed(root: Path) -> Iterator[Case]:
    """Yield the studies below the archive's folder ``COVID19_1110``.

    ``studies/CT-0`` to ``studies/CT-4`` hold ``study_NNNN.nii.gz``, one study a patient;
    ``masks`` holds ``study_NNNN_mask.nii.gz`` for study_0255 to study_0304, all CT-1.

    Layout: public loaders that agree, neuro-ml/amid ``amid/covid_1110.py`` and
    haydengunraj/COVIDNet-CT ``docs/dataset.md`` (``COVID19_1110/studies``,
    ``COVID19_1110/masks``); numbers of studies: multitask paper 3.1.
    """
    masks = {nifti_stem(p).removesuffix("_mask") for p in list_files(root / "masks", "*_mask.nii*")}
    studies = [
        (category, study)
        for category, name in enumerate(CATEGORIES)
        for study in list_files(root / "studies" / name, "study_*.nii*")
    ]
    if orphans := sorted(masks - {nifti_stem(study) for _, study in studies}):
        raise DatasetError(f"{root / 'studies'} holds no {orphans[0]}, which has a mask")
    for category, study in studies:
        name = nifti_stem(study)
        mask = nifti_file(root / "masks", f"{name}_mask") if name in masks else None
        yield Case(patient=name, image=study, lesion=mask, category=category)


MOSMED = PublishedSet(
    name="mosmed",
    title="MosMedData: Chest CT Scans with COVID-19 Related Findings (COVID19_1110)",
    licence="CC BY-NC-ND 3.0 (medRxiv abstract)",
    citation="Morozov et al. 2020, doi:10.1101/2020.05.20.20100362, mosmed.ai/datasets",
    count=1110,
    supervision=("category", "lesion"),
    read=read_mosmed,
    categories=CATEGORIES,
    lesion_values=LESION,
    caution="every tenth slice of a study, 8 mm apart; a study without a mask may hold lesions",
)
