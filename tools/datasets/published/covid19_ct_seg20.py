"""COVID-19-CT-Seg: 20 volumes with lungs and lesions (Zenodo 3757476)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .base import LESION, Case, PublishedSet, list_files, nifti_file, nifti_stem, require

_RADIOPAEDIA = re.compile(r"radiopaedia_\d+")


def read_covid19_ct_seg20(root: Path) -> Iterator[Case]:
    """Yield the volumes of the four unpacked archives.

    ``COVID-19-CT-Seg_20cases`` holds ``coronacases_NNN.nii.gz`` and
    ``radiopaedia_CASE_STUDY_SERIES.nii.gz``; ``Lung_Mask`` and ``Infection_Mask`` hold masks of
    the same names. ``Lung_and_Infection_Mask``, both in one, is given as ``lung_and_lesion``
    where it was unpacked.

    Layout: neuro-ml/COVID-19-Triage ``README.md`` and ``scripts/prepare_medseg.py`` (the names of
    the 20 volumes), haydengunraj/COVIDNet-CT ``docs/dataset.md``. Not verified: that the
    second number of a radiopaedia name is the study and the third the series. Volumes with the
    same first number (10 and 29) are taken for one patient, which is on the safe side.
    """
    for image in list_files(root / "COVID-19-CT-Seg_20cases", "*.nii*"):
        name = nifti_stem(image)
        lung = nifti_file(root / "Lung_Mask", name)
        lesion = nifti_file(root / "Infection_Mask", name)
        require([lung, lesion])
        both = nifti_file(root / "Lung_and_Infection_Mask", name)
        radiopaedia = _RADIOPAEDIA.match(name)
        yield Case(
            patient=radiopaedia.group() if radiopaedia else name,
            image=image,
            lung=lung,
            lesion=lesion,
            extra={"lung_and_lesion": both} if both.exists() else {},
        )


COVID19_CT_SEG20 = PublishedSet(
    name="covid19_ct_seg20",
    title="COVID-19 CT Lung and Infection Segmentation Dataset",
    licence="not settled: CC BY 4.0 in one list (sfu-db/covid19-datasets), CC BY-NC-SA 4.0 in "
    "another (COVIDNet-CT); the Zenodo record decides",
    citation="Ma et al. 2020, doi:10.5281/zenodo.3757476; Ma et al. 2021, doi:10.1002/mp.14676",
    count=20,
    supervision=("lesion", "lung"),
    read=read_covid19_ct_seg20,
    lung_values={1: "left lung", 2: "right lung"},
    lesion_values=LESION,
    caution="radiopaedia volumes are stored flipped against the coronacases (COVID-19-Triage flips "
    "them) and may hold grey values in place of HU (not verified: look at their range); some of "
    "these patients may be in medseg9 too",
)
