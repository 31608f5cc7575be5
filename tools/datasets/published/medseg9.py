"""MedSeg's nine Radiopaedia volumes with lungs and lesions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .base import (
    LESION_KINDS,
    LUNG,
    Case,
    PublishedSet,
    list_files,
    nifti_file,
    nifti_stem,
    require,
)


def read_medseg9(root: Path) -> Iterator[Case]:
    """Yield the volumes of the three unpacked archives.

    ``rp_im``, ``rp_lung_msk`` and ``rp_msk`` hold ``1.nii.gz`` to ``9.nii.gz``.

    Layout: neuro-ml/amid ``amid/medseg9.py`` and neuro-ml/COVID-19-Triage ``README.md``.
    Not verified: that the nine volumes are nine patients, as the cascaded paper (table 2) says.
    """
    for image in list_files(root / "rp_im", "*.nii*"):
        name = nifti_stem(image)
        lung, lesion = (nifti_file(root / folder, name) for folder in ("rp_lung_msk", "rp_msk"))
        require([lung, lesion])
        yield Case(patient=name, image=image, lung=lung, lesion=lesion)


MEDSEG9 = PublishedSet(
    name="medseg9",
    title="MedSeg COVID-19 CT segmentation dataset, 9 Radiopaedia volumes",
    licence='segmentations "freely" with acknowledgement (MedSeg\'s page), CC0 in neuro-ml/amid; '
    "images of Radiopaedia are CC BY-NC-SA 3.0: treat as non-commercial",
    citation="MedSeg, medicalsegmentation.com/covid19; figshare record not verified",
    count=9,
    supervision=("lesion", "lung"),
    read=read_medseg9,
    lung_values=LUNG,
    lesion_values=LESION_KINDS,
    caution="8-bit pictures brought back to HU; some patients may be in covid19_ct_seg20 too",
)
