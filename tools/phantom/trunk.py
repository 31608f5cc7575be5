"""Skin, fat and muscles of the trunk, the shoulders and the arms."""

from __future__ import annotations

from functools import partial

import numpy as np

from .build import (
    BODY_LATTICE,
    CAVITY,
    CAVITY_EGG,
    SIDES,
    TRUNK,
    Build,
    couch_sag,
    mirrored,
    section,
)
from .shapes import FAR, Array, Capsules, ellipsoid, smooth_max, smooth_min


def body_wall(build: Build, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return skin, muscles and the distance to sheets of fat in them, on `BODY_LATTICE`."""
    lattice = BODY_LATTICE
    x, y, z = lattice.points
    trunk = section(TRUNK, x, y, z, 0.04)
    trunk += np.float32(6 * (1 - build.muscle))
    wall_noise = lattice.noise(rng, 14.0)
    shoulders = lattice.full()
    muscle = trunk
    second = lattice.full()
    arms = _arms(build)
    for part in (*_girdle(build), arms):
        distance = lattice.full()
        lattice.unite_capsules(distance, part, margin=60.0)
        if build.arms_up or part is not arms:
            np.minimum(shoulders, distance, out=shoulders)
        second = np.minimum(second, np.maximum(muscle, distance))
        muscle = np.minimum(muscle, distance)
    # Sheets of fat: where two muscles meet, and between the ribs and the muscles on them.
    wall = section(CAVITY, x, y, z, CAVITY_EGG)
    sheets = np.where(second < 3, second - muscle, FAR)
    on_ribs = np.abs(wall - np.float32(12.5)) + np.maximum(np.float32(2) - 3 * wall_noise, 0)
    sheets = np.minimum(sheets, on_ribs)
    lower = np.clip((40 - z) / 200, 0, 1)
    front = np.clip(-y / 100, -0.5, 1)
    thicker = 1 + np.float32(0.45) * lower + np.float32(0.2) * front
    fat = (np.float32(build.fat_mm) * thicker).astype(np.float32)
    body = smooth_min(trunk - fat, shoulders - np.float32(build.fat_mm * 0.9 + 1), 34.0)
    if build.sex == "F":
        volume = 0.8 + build.fat_mm / 30
        half = (62 * volume**0.4, 25 * volume**0.8, 62 * volume**0.4)
        for side in SIDES.values():
            centre = np.array([side * 86, -88 - build.fat_mm * 0.7, -8])
            breast = partial(ellipsoid, centre=centre, half=half)
            lattice.unite(body, (centre - 105, centre + 105), breast, fillet=40.0)
    body += np.float32(1.2) * lattice.noise(rng, 45.0)
    # The table flattens the back.
    back = np.float32(116 + 0.55 * build.fat_mm)
    body = smooth_max(body, y + couch_sag(x) - back, 22.0)
    if not build.arms_up:
        # Arms beside the trunk touch it without growing into it.
        beside = lattice.full()
        lattice.unite_capsules(beside, arms, margin=60.0)
        body = smooth_min(body, beside - np.float32(0.35 * build.fat_mm + 2), 4.0)
    return body, np.maximum(muscle, body + np.float32(2.5)), sheets


def _girdle(build: Build) -> list[Capsules]:
    """Return the muscles of shoulders and back."""
    muscles = []
    for side in SIDES.values():
        for path, radius in (
            ([[70, 40, 118], [120, 32, 116], [160, 18, 122]], [34, 42, 40]),
            ([[104, 82, 30], [124, 66, 75], [150, 30, 118]], [12, 26, 30]),
            ([[122, 62, -60], [132, 54, 0], [140, 44, 90]], [9, 13, 16]),
            ([[40, 92, 20], [66, 88, 80], [100, 60, 126]], [10, 16, 22]),
            ([[30, -70, 60], [45, -62, 70], [95, -52, 84], [150, -6, 122]], [9, 15, 20, 28]),
            ([[28, 84, -240], [30, 94, -120], [31, 100, 0], [26, 94, 120]], [20, 20, 19, 17]),
        ):
            radii = np.array(radius) * np.sqrt(build.muscle)
            muscles.append(Capsules.chain(mirrored(path, side), radii))
    return muscles


def _arms(build: Build) -> Capsules:
    """Return the arms, above the head or beside the trunk."""
    if build.arms_up:
        path = [[168, 12, 128], [184, 8, 168], [180, -4, 330]]
    else:
        path = [[172, 14, 118], [206, 16, 70], [224, 22, -330]]
    radii = np.array([40, 44, 38]) * build.muscle
    return Capsules.join([Capsules.chain(mirrored(path, side), radii) for side in SIDES.values()])
