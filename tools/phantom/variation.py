"""One seed, one patient and one scanner: phantoms as varied as what hospitals send."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .grid import Grid
from .phantom import Phantom, build_phantom
from .scanner import KERNELS

THICKNESS_MM = (0.6, 10.0)
_LENGTH_MM = 330.0


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How a patient is scanned; see `tools.phantom.build_phantom`."""

    grid: Grid
    kernel: str
    noise_hu: float
    contrast_hu: float
    motion_mm: float
    metal: bool


def draw_acquisition(
    seed: int, pixel_mm: tuple[float, float] = (1.3, 2.0), most_slices: int = 120
) -> Acquisition:
    """Draw a scanner and a protocol.

    Sections are 0.6 to 10 mm thick. They overlap, touch, or lie apart, as in high-resolution CT,
    so that no more than `most_slices` cover the chest. The field of view, 300 to 460 mm, may cut
    off arms and chest wall. Body, breath, arms and fat belong to the patient, whom
    `build_phantom` draws from the same seed.

    Parameters
    ----------
    seed
        Non-negative integer.
    pixel_mm
        Least and greatest distance of pixels.
    most_slices
        How many slices at most.
    """
    random = np.random.default_rng([seed, 6])
    thickness_mm = float(np.exp(random.uniform(*np.log(THICKNESS_MM))))
    overlap = random.uniform(0.5, 1) if random.random() < 0.3 else 1.0
    distance_mm = max(thickness_mm * overlap, _LENGTH_MM / most_slices)
    spacing_mm = float(random.uniform(*pixel_mm))
    pixels = round(random.uniform(300, 460) / spacing_mm)
    centre_mm = random.normal(0, (8, 8, 6))
    grid = Grid.axial(
        (round(_LENGTH_MM / distance_mm), pixels, pixels),
        (distance_mm, spacing_mm, spacing_mm),
        "HFP" if random.random() < 0.1 else "HFS",
        rotation_deg=tuple(random.normal(0, (1, 1, 3))),
        centre_mm=tuple(centre_mm),
        slice_thickness_mm=thickness_mm,
    )
    # Thin sections are given more dose, or nobody could read them.
    noise_hu = random.uniform(5, 35) * min(1.0, (thickness_mm / 2) ** 0.5)
    return Acquisition(
        grid,
        kernel=str(random.choice(list(KERNELS))),
        noise_hu=float(noise_hu),
        contrast_hu=float(random.uniform(60, 300)) if random.random() < 0.3 else 0.0,
        motion_mm=float(random.uniform(1, 5)) if random.random() < 0.25 else 0.0,
        metal=bool(random.random() < 0.1),
    )


def varied_phantom(
    seed: int,
    disease: str = "covid19",
    severity: float | None = None,
    *,
    pixel_mm: tuple[float, float] = (1.3, 2.0),
    most_slices: int = 120,
) -> Phantom:
    """Draw a patient and a scanner from one seed, and scan the one with the other.

    Parameters
    ----------
    seed, disease, severity
        As in `tools.phantom.build_phantom`.
    pixel_mm, most_slices
        As in `draw_acquisition`.
    """
    scanned = draw_acquisition(seed, pixel_mm, most_slices)
    return build_phantom(
        scanned.grid,
        disease,
        seed,
        severity,
        kernel=scanned.kernel,
        noise_hu=scanned.noise_hu,
        contrast_hu=scanned.contrast_hu,
        motion_mm=scanned.motion_mm,
        metal=scanned.metal,
    )
