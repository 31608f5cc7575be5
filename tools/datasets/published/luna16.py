"""LUNA16: 888 LIDC-IDRI scans with automatic lung masks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .base import Case, DatasetError, PublishedSet, list_files, list_folders, require

_DATA_FILE = re.compile(rb"^ElementDataFile\s*=\s*(.+?)\s*$", re.MULTILINE)
_HEADER_BYTES = 4096
"""A MetaImage header is a dozen lines; behind ``LOCAL`` the pixels follow in the same file."""


def read_luna16(root: Path) -> Iterator[Case]:
    """Yield the scans of the subsets that were unpacked.

    ``subset0`` to ``subset9`` hold ``SERIES_UID.mhd`` with ``.raw``, ``seg-lungs-LUNA16`` holds
    masks as ``.mhd`` of the same names; each header names the file with its pixels, which must
    be there too. ``subset`` is the publisher's fold for ten-fold cross-validation.

    Layout: luna16.grand-challenge.org/Data and many public loaders (``subset*/*.mhd``,
    ``seg-lungs-LUNA16/*.mhd``). Not verified: which patient a scan is of. The names hold only
    the series; LIDC-IDRI has slightly more scans than patients, so a few patients may
    count as two.
    """
    masks = root / "seg-lungs-LUNA16"
    require([masks])
    for subset in list_folders(root, "subset[0-9]"):
        for image in list_files(subset, "*.mhd"):
            mask = masks / image.name
            require([mask])
            require([_data_file(image), _data_file(mask)])
            extra = {"subset": int(subset.name[-1])}
            yield Case(patient=image.stem, image=image, lung=mask, extra=extra)


def _data_file(header: Path) -> Path:
    with header.open("rb") as lines:
        found = _DATA_FILE.search(lines.read(_HEADER_BYTES))
    if not found:
        raise DatasetError(f"{header} names no ElementDataFile")
    name = found.group(1).decode("utf-8", "replace")
    return header if name == "LOCAL" else header.parent / name


LUNA16 = PublishedSet(
    name="luna16",
    title="LUNA16 (LUng Nodule Analysis 2016)",
    licence="CC BY 4.0; LIDC-IDRI CC BY 3.0 (luna16.grand-challenge.org/Data)",
    citation="Setio et al. 2017, doi:10.1016/j.media.2017.06.015; Armato et al. 2011, "
    "doi:10.1118/1.3528204",
    count=888,
    supervision=("lung",),
    read=read_luna16,
    lung_values={3: "lung", 4: "lung", 5: "trachea (not verified)"},
    caution="masks were made by an algorithm: CoRSAI (4.2) excludes 19 scans, the multitask paper "
    "(3.4) 7; take values 3 and 4 as lungs (which is left was not verified)",
)
