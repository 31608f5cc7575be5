"""The patient: every organ as an implicit shape in the canonical frame, drawn from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from . import chest
from .build import BODY_LATTICE, CAVITY, CAVITY_EGG, CHEST_LATTICE, SIDES, Build, dome, section
from .shapes import Array, Capsules, smooth_max, smooth_min
from .skeleton import skeleton
from .trunk import body_wall


@dataclass
class Patient:
    """One patient's organs in the canonical frame.

    Fields are signed distances in mm, negative inside: `body`, `muscle` and `sheets` (of fat
    between muscles) on `BODY_LATTICE`, the others on `CHEST_LATTICE`. `diaphragm` is negative
    above the domes, `fissures` and `minor_fissure` are positive above. `texture` (fine noise)
    and `capillaries` (0 to 1) are periodic cubes with steps of 1 mm.
    """

    build: Build
    body: Array
    muscle: Array
    sheets: Array
    cavity: Array
    diaphragm: Array
    paraspinal: Array
    blood: Array
    heart: Array
    liver: Array
    spleen: Array
    stomach: Array
    lungs: dict[str, Array]
    fissures: dict[str, Array]
    minor_fissure: Array
    airways: Capsules
    oesophagus: Capsules
    vessels: Capsules
    bronchi: Capsules
    bones: Capsules
    cartilage: Capsules
    blades: NDArray[np.float64]
    surface_y: tuple[float, float]
    texture: Array
    capillaries: Array


@lru_cache(maxsize=1)
def draw_patient(seed: int) -> Patient:
    """Draw a patient's healthy anatomy from a seed.

    The last patient (150 MB) is kept, for those who scan it on several grids: treat it as
    read-only.
    """
    rng = np.random.default_rng([seed, 1])
    build = Build.draw(rng)
    body, muscle, sheets = body_wall(build, rng)
    x, y, z = CHEST_LATTICE.points
    cavity = section(CAVITY, x, y, z, CAVITY_EGG)
    # The domes slope, so their height overstates the distance.
    diaphragm = (dome(build, x, y) - z) * np.float32(0.62)

    tubes, airways, oesophagus = chest.great_vessels(build)
    blood = CHEST_LATTICE.full()
    CHEST_LATTICE.unite_capsules(blood, tubes)
    heart = chest.heart(build, cavity, diaphragm)
    paraspinal = chest.paraspinal()
    between = chest.mediastinum(build, blood, heart, airways, oesophagus)
    between = smooth_min(between, paraspinal, 10.0)
    space = smooth_max(smooth_max(cavity, diaphragm, 3.0), -between, 4.0)
    middle = chest.midline(build, y)
    lungs = {
        name: np.maximum(space, (middle - x) * np.float32(side)) for name, side in SIDES.items()
    }
    fissures, minor_fissure = chest.fissures(lungs, rng)
    liver, spleen, stomach = chest.belly(-diaphragm, cavity)
    vessels, bronchi = chest.trees(lungs, rng)
    bones, cartilage, blades = skeleton(build, rng)
    return Patient(
        build=build,
        body=body,
        muscle=muscle,
        sheets=sheets,
        cavity=cavity,
        diaphragm=diaphragm,
        paraspinal=paraspinal,
        blood=blood,
        heart=heart,
        liver=liver,
        spleen=spleen,
        stomach=stomach,
        lungs=lungs,
        fissures=fissures,
        minor_fissure=minor_fissure,
        airways=airways,
        oesophagus=oesophagus,
        vessels=vessels,
        bronchi=bronchi,
        bones=bones,
        cartilage=cartilage,
        blades=blades,
        surface_y=_surface(body),
        texture=_periodic_noise(rng, 1.1),
        capillaries=_capillaries(rng),
    )


def _surface(body: Array) -> tuple[float, float]:
    """Return the foremost and hindmost y of the chest's skin, mm."""
    middle = body.shape[0] // 2
    rows = (body[middle - 20 : middle + 20] < 0).any(axis=(0, 2))
    y = BODY_LATTICE.axis(1)[rows]
    return float(y[0]), float(y[-1])


def _capillaries(rng: np.random.Generator) -> Array:
    """Return a periodic cube of thin winding threads, 0 to 1.

    Two smooth fields vanish together on curves: a cheap stand-in for the thousands of vessels
    that are too small for the trees.
    """
    squares = _periodic_noise(rng, 2.6) ** 2 + _periodic_noise(rng, 2.6) ** 2
    return np.exp(squares * np.float32(-1 / (2 * 0.3**2)))


def _periodic_noise(rng: np.random.Generator, correlation_mm: float) -> Array:
    white = rng.standard_normal((96, 96, 96), dtype=np.float32)
    field = ndimage.gaussian_filter(white, correlation_mm, mode="wrap")
    return field / field.std()
