"""How far lesions stand out: ``python -m tools.synthesis.contrast TREE/medseg TREE/coronacases``.

Drawn ground glass should be as dense, beside the lung around it, as what readers mark in patients.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .lesions import VISIBLE_MM, air_hu, mean_around
from .studies import read_patient

QUANTILES = (0.05, 0.5, 0.95)


def rises_hu(
    ct_hu: NDArray[np.floating],
    lungs: NDArray[np.bool_],
    lesions: NDArray[np.bool_],
    spacing_mm: Sequence[float],
) -> NDArray[np.floating]:
    """Return by how much each voxel of the lesions is denser than the healthy lung around it.

    Parameters
    ----------
    ct_hu, lungs, lesions
        Arrays (slices, rows, columns); lesions outside of the lungs are left aside, as is the rim
        of one voxel around lesions, which is neither.
    spacing_mm
        (slices, rows, columns)

    Returns
    -------
    float array
        One value a voxel, means over some `lesions.VISIBLE_MM`; empty where nothing is ill.
    """
    lesions = lesions & lungs
    healthy = lungs & ~ndimage.binary_dilation(lesions)
    if not lesions.any() or not healthy.any():
        return np.empty(0)
    ct = ct_hu.astype(np.float32)
    rise = ct - air_hu(ct, healthy, spacing_mm)
    return mean_around(rise, lesions, VISIBLE_MM, spacing_mm)[lesions]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a patient; returns 0, or 2 where a folder holds none or a mask is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.synthesis.contrast",
        description="Print by how many HU lesions are denser than the healthy lung around them.",
    )
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="folder of NAME_ct, NAME_lung and NAME_lesion.nii.gz",
    )
    options = parser.parse_args(arguments)
    print(f"{'patient':<28}{'% ill':>8}" + "".join(f"{f'{q:.0%}':>8}" for q in QUANTILES))
    for folder in options.folders:
        files = sorted(folder.glob("*_ct.nii.gz"))
        if not files:
            print(f"error: {folder} holds no NAME_ct.nii.gz", file=sys.stderr)
            return 2
        for file in files:
            name = file.name.removesuffix("_ct.nii.gz")
            try:
                ct, lungs, lesions, spacing_mm, _ = read_patient(folder, name)
            except FileNotFoundError as error:
                print(f"error: {name} lacks a mask: {error}", file=sys.stderr)
                return 2
            rises = rises_hu(ct, lungs, lesions, spacing_mm)
            share = 100 * rises.size / max(1, lungs.sum())
            cells = np.quantile(rises, QUANTILES) if rises.size else []
            print(f"{name:<28}{share:>8.1f}" + "".join(f"{cell:>8.0f}" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
