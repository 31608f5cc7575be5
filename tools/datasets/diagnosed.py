"""Phantoms with a diagnosis each: ``python -m tools.datasets.diagnosed OUTPUT --count 90``.

The collections in reach name no study's disease other than COVID-19, so networks that tell
diseases apart are trained on these.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from tqdm import tqdm

from tools.phantom import Grid, Phantom, build_phantom, write_nifti

from .phantoms import KERNELS

DISEASES = ("covid19", "bacterial", "covid19", "nodules", "normal")
FIRST_SEED = 9000
"""Apart from the seeds of `phantoms`, of tests and of demonstrations."""

SPACING_MM = 2.0
GROUND_GLASS, CONSOLIDATION = 1, 2


def write_diagnosed_phantoms(folder: Path, count: int, unseen: int) -> None:
    """Write phantoms in 2 mm pixels and slices of 5 to 8 mm, and ``diagnoses.csv``.

    Each is NAME_ct, NAME_lung, NAME_lesion as `write_nifti` has them, and
    NAME_opacity_seg.nii.gz with 1 in ground glass and 2 in consolidation. ``diagnoses.csv`` has
    the columns name and diagnosis (covid19, bacterial, nodules or normal).

    Parameters
    ----------
    folder
        Where to write.
    count
        How many; patient n is the same for every count and `unseen`.
    unseen
        How many of them, the last ones, are named ``unseen-...`` to be kept out of training; the
        others are named ``seen-...``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in tqdm(range(count), desc="phantoms", disable=None):
        seed = FIRST_SEED + index
        random = np.random.default_rng(seed)
        thickness_mm = float(random.uniform(5, 8))
        slices, pixels = round(320 / thickness_mm), round(400 / SPACING_MM)
        grid = Grid.axial((slices, pixels, pixels), (thickness_mm, SPACING_MM, SPACING_MM))
        disease = DISEASES[index % len(DISEASES)]
        phantom = build_phantom(
            grid,
            disease,
            seed,
            kernel=str(random.choice(KERNELS)),
            noise_hu=float(random.uniform(5, 30)),
        )
        name = f"{'seen' if index < count - unseen else 'unseen'}-{index:03d}-{disease}"
        write_nifti(phantom, folder, name)
        write_opacities(phantom, folder, name)
        rows.append((name, disease))
    with (folder / "diagnoses.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("name", "diagnosis"), *rows])


def write_opacities(phantom: Phantom, folder: Path, name: str) -> None:
    """Write NAME_opacity_seg.nii.gz beside a phantom's files, on their grid."""
    opacity = GROUND_GLASS * phantom.ground_glass + CONSOLIDATION * phantom.consolidation
    ct = nibabel.Nifti1Image.from_filename(folder / f"{name}_ct.nii.gz")
    image = nibabel.Nifti1Image(opacity.astype(np.uint8).transpose(2, 1, 0), ct.affine)
    nibabel.save(image, folder / f"{name}_opacity_seg.nii.gz")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.datasets.diagnosed",
        description="Write phantoms of COVID-19, bacterial pneumonia, nodules and normal lungs.",
    )
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=90, help="how many (90)")
    parser.add_argument(
        "--unseen", type=int, default=20, help="how many of them to name unseen-... (20)"
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.unseen <= options.count or options.count < 1:
        parser.error("--count must be at least 1 and --unseen lie between 0 and --count")
    write_diagnosed_phantoms(options.output, options.count, options.unseen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
