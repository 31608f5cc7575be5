"""Phantoms for training: exact truth, and diseases that the collections lack."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tools.phantom import varied_phantom, write_nifti

DISEASES = ("covid19", "normal", "covid19", "bacterial", "covid19", "nodules")
KERNELS = ("soft", "standard", "sharp")
MOST_SLICES = 80
FIRST_SEED = 5000
"""Tests and demonstrations use small seeds: none of them is ever trained on."""


def write_phantoms(folder: Path, count: int) -> Iterable[str]:
    """Write `count` phantoms of changing disease, patient and scanner (`varied_phantom`).

    Parameters
    ----------
    folder
        Where to write.
    count
        How many; the first n are the same for every count.
    """
    for index in range(count):
        disease = DISEASES[index % len(DISEASES)]
        phantom = varied_phantom(FIRST_SEED + index, disease, most_slices=MOST_SLICES)
        name = f"phantom-{index:02d}-{disease}"
        write_nifti(phantom, folder, name)
        yield name
