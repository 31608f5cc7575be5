"""CNCB-NCOV (CC-CCII): classified scans, and a part with lesions drawn in slices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from .base import Case, DatasetError, PublishedSet, list_files, list_folders, require

CATEGORIES = ("control", "common pneumonia", "COVID-19")
_FOLDERS = ("Normal", "CP", "NCP")
_PICTURES = ("*.png", "*.jpg", "*.jpeg")
_LICENCE = "CC BY 3.0 CN (COVIDNet-CT docs/licenses_acknowledgements.md)"
_CITATION = "Zhang et al. 2020, doi:10.1016/j.cell.2020.04.045, ncov-ai.big.ac.cn/download"


def read_cncb(root: Path) -> Iterator[Case]:
    """Yield one case a scan: its slices in order, and which of them show lesions.

    ``CP``, ``NCP`` and ``Normal`` hold ``PATIENT/SCAN/SLICE.png`` (some ``.jpg``).
    ``lesions_slices.csv`` names a slice a line, as ``CLASS/PATIENT/SCAN/SLICE``, below the
    header ``imgpath``: ``lesion_slices`` are the indices of these among the image's slices. Lines
    of scans that were not unpacked are passed over.

    Layout: haydengunraj/COVIDNet-CT ``docs/dataset.md``, ``dataset_construction/cncb.py`` and
    ``metadata/cncb_extra_lesions_slices.csv``. Not verified: the columns of the publisher's
    ``metadata.csv`` and ``unzip_filenames.csv``, which are not needed and not read.
    """
    listed = _read_lesion_slices(root / "lesions_slices.csv")
    require(root / name for name in _FOLDERS)
    for category, folder in enumerate(_FOLDERS):
        for patient in list_folders(root / folder):
            for scan in list_folders(patient):
                slices = list_files(scan, *_PICTURES)
                names = [path.name for path in slices]
                lesions = listed.get(scan.relative_to(root).as_posix(), [])
                require(scan / name for name in lesions)
                yield Case(
                    patient=f"{folder}-{patient.name}",
                    image=tuple(slices),
                    category=category,
                    extra={"lesion_slices": sorted(names.index(name) for name in lesions)},
                )


def _read_lesion_slices(path: Path) -> dict[str, list[str]]:
    """Names of slices with lesions, by scan folder (``CLASS/PATIENT/SCAN``)."""
    require([path])
    listed = defaultdict(list)
    lines = path.read_text("utf-8-sig", errors="replace").split()
    for number, line in enumerate(lines[1:], 2):
        scan, _, name = line.rpartition("/")
        if scan.count("/") != 2:
            raise DatasetError(f"{path} line {number} is not CLASS/PATIENT/SCAN/SLICE: {line!r}")
        listed[scan].append(name)
    return dict(listed)


def read_cncb_lesions(root: Path) -> Iterator[Case]:
    """Yield the slices with lesions drawn (COVID-CT-Mask-Net paper 2.1: 750 of 150 patients).

    ``ct_lesion_seg/image/PATIENT/SLICE.jpg`` has its mask in
    ``ct_lesion_seg/mask/PATIENT/SLICE.png``.

    Layout: one public loader (``ct_lesion_seg``, pictures and masks in folders of patients).
    Not verified: the values of the masks; the paper tells of lungs, ground glass and
    consolidation.
    """
    base = root / "ct_lesion_seg"
    require([base / "mask"])
    for patient in list_folders(base / "image"):
        for image in list_files(patient, *_PICTURES):
            mask = base / "mask" / patient.name / f"{image.stem}.png"
            require([mask])
            yield Case(patient=patient.name, image=image, lesion=mask)


CNCB = PublishedSet(
    name="cncb",
    title="CNCB 2019nCoVR AI diagnosis dataset (CC-CCII), classified scans",
    licence=_LICENCE,
    citation=_CITATION,
    count=0,
    supervision=("category",),
    read=read_cncb,
    categories=CATEGORIES,
    caution="8-bit pictures, not HU; COVIDx-CT (exclude_list.txt) leaves some patients out",
)
CNCB_LESIONS = PublishedSet(
    name="cncb_lesions",
    title="CNCB 2019nCoVR AI diagnosis dataset (CC-CCII), slices with lesions drawn",
    licence=_LICENCE,
    citation=_CITATION,
    count=750,
    supervision=("lesion",),
    read=read_cncb_lesions,
    lesion_values={
        1: "lung (not verified)",
        2: "ground-glass opacity (not verified)",
        3: "consolidation (not verified)",
    },
    caution="8-bit pictures, not HU; look at a few masks before trusting their values",
)
