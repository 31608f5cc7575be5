"""Phantoms for training: exact truth, and diseases that the collections lack."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tools.phantom import Grid, build_phantom, write_nifti

DISEASES = ("covid19", "normal", "covid19", "bacterial", "covid19", "nodules")
KERNELS = ("soft", "standard", "sharp")
FIRST_SEED = 5000
"""Tests and demonstrations use small seeds: none of them is ever trained on."""


def write_phantoms(folder: Path, count: int) -> Iterable[str]:
    """Write `count` phantoms of changing disease, spacing, thickness, noise and kernel.

    Parameters
    ----------
    folder
        Where to write.
    count
        How many; the first n are the same for every count.
    """
    for index in range(count):
        random = np.random.default_rng(FIRST_SEED + index)
        disease = DISEASES[index % len(DISEASES)]
        thickness_mm = float(random.choice([3.0, 4.0, 5.0, 6.0]))
        spacing_mm = float(random.uniform(1.3, 2.0))
        pixels = round(400 / spacing_mm)
        grid = Grid.axial(
            (round(330 / thickness_mm), pixels, pixels), (thickness_mm, spacing_mm, spacing_mm)
        )
        phantom = build_phantom(
            grid,
            disease=disease,
            seed=FIRST_SEED + index,
            kernel=str(random.choice(KERNELS)),
            noise_hu=float(random.uniform(5, 30)),
        )
        name = f"phantom-{index:02d}-{disease}"
        write_nifti(phantom, folder, name)
        yield name
