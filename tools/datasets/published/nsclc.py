"""NSCLC-Radiomics (TCIA) with the thoracic cavities and effusions of Kiser (PleThora)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .base import Case, DatasetError, PublishedSet, list_folders, require


def read_nsclc(root: Path) -> Iterator[Case]:
    """Yield the patients of the TCIA tree, most of them with a mask of the thoracic cavity.

    ``NSCLC-Radiomics/LUNG1-NNN`` holds studies and series of ``.dcm`` at whatever depth the
    download tool made; the image is the folder with the most files, since RTSTRUCT and SEG
    are one file each. ``Thoracic_Cavities/LUNG1-NNN`` holds
    ``LUNG1-NNN_thor_cav_primary_reviewer.nii.gz``, given as the lung mask (402 patients).
    ``Effusions/LUNG1-NNN``, where unpacked, holds ``LUNG1-NNN_effusion_first_reviewer.nii.gz``
    for the 78 patients that have one, given as ``effusion``.

    Layout: neuro-ml/COVID-19-Triage ``README.md``; file names: public loaders that agree. Not
    verified: the names of other reviewers' cavities. Second reviewers' effusions are not read.
    """
    cavities, effusions = root / "Thoracic_Cavities", root / "Effusions"
    require([cavities])
    for patient in list_folders(root / "NSCLC-Radiomics", "LUNG1-*"):
        name = patient.name
        cavity = cavities / name / f"{name}_thor_cav_primary_reviewer.nii.gz"
        effusion = effusions / name / f"{name}_effusion_first_reviewer.nii.gz"
        if cavity.parent.exists():
            require([cavity])
        yield Case(
            patient=name,
            image=_largest_series(patient),
            lung=cavity if cavity.exists() else None,
            extra={"effusion": effusion} if effusion.exists() else {},
        )


def _largest_series(patient: Path) -> Path:
    series = Counter(path.parent for path in sorted(patient.rglob("*.dcm")))
    if not series:
        raise DatasetError(f"{patient} holds no .dcm")
    return series.most_common(1)[0][0]


NSCLC = PublishedSet(
    name="nsclc",
    title="NSCLC-Radiomics with PleThora thoracic cavities and effusions",
    licence="images CC BY 3.0 in neuro-ml/amid, TCIA's page decides; masks: not verified",
    citation="Aerts et al. 2014, doi:10.1038/ncomms5006; Kiser et al. 2020, doi:10.1002/mp.14424",
    count=422,
    supervision=("lung",),
    read=read_nsclc,
    lung_values={1: "thoracic cavity"},
    caution="the cavity holds tumour, effusion, atelectasis and hilum too; no COVID-19 (before "
    "2020); values of the mask other than 0 and 1 not ruled out, so take all above 0",
)
