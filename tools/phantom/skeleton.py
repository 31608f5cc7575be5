"""Ribs, sternum, shoulder blades, collar bones, arms and vertebrae."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .build import SIDES, Build, mirrored, spine_y, sternum_y, vertebra_half, wall_points
from .shapes import Array, Capsules, superellipse

_LEVELS = 14
FIRST_LEVEL_Z = 126.0
LEVEL_STEP = 24.5


def skeleton(
    build: Build, rng: np.random.Generator
) -> tuple[Capsules, Capsules, NDArray[np.float64]]:
    """Return bones, cartilages and the scapular blades (n, 3 corners, 3) without vertebrae."""
    bones, cartilages = _ribs(rng)
    heights = np.linspace(90, 62, 4)
    path = [[0, sternum_y(z), z] for z in heights]
    bones.append(Capsules.chain(path, 6.5, (0.25, 1, 1)))
    heights = np.linspace(55, -72, 10)
    path = [[0, sternum_y(z), z] for z in heights]
    bones.append(Capsules.chain(path, 6.0, (0.32, 1, 1)))
    cartilages.append(
        Capsules.chain([[0, sternum_y(-76), -76], [0, sternum_y(-98) + 3, -98]], 3.5, (0.5, 1, 1))
    )
    blades = []
    lift = 12.0 if build.arms_up else 0.0
    for side in SIDES.values():
        top = wall_points(side, 50 + lift / 3, 108.0, 17.0)
        bottom = wall_points(side, 58 + lift, -8.0, 15.0)
        middle = wall_points(side, 47 + lift, 62.0, 20.0)
        socket = mirrored([148, 16, 104 + lift], side)
        neck = mirrored([133, 28, 98 + lift], side)
        acromion = mirrored([158, 22, 132 + lift], side)
        spine = mirrored([100, 92, 92 + lift / 2], side)
        blades += [[top, middle, neck], [middle, bottom, neck], [middle, spine, neck]]
        bones += [
            Capsules.chain([top, middle, bottom], [3.0, 2.4, 3.5]),
            Capsules.chain([bottom, neck], [3.6, 5.0]),
            Capsules.chain([neck, socket], [8.0, 11.0], (1, 0.8, 0.7)),
            Capsules.chain([spine, acromion], [3.5, 5.5]),
        ]
        collar = [
            [20, sternum_y(92) - 1, 97],
            [62, -40, 106 + lift / 2],
            [110, -12, 122 + lift],
            [150, 14, 132 + lift],
        ]
        bones.append(Capsules.chain(mirrored(collar, side), [8.0, 5.6, 5.4, 6.0]))
        head_z = 112 + lift
        head = [[174, 10, head_z], [174, 11, head_z + 1]]
        bones.append(Capsules.chain(mirrored(head, side), 21.0))
        if build.arms_up:
            shaft = [head[0], [184, 8, head_z + 40], [180, -4, head_z + 200]]
        else:
            shaft = [head[0], [202, 14, head_z - 42], [222, 22, head_z - 430]]
        bones.append(Capsules.chain(mirrored(shaft, side), [15.0, 12.0, 10.5]))
    for level in range(-4, _LEVELS):
        z = FIRST_LEVEL_Z - LEVEL_STEP * level
        y = float(spine_y(z))
        bones.append(
            Capsules.chain([[0, y + 17, z - 3], [0, y + 40, z - 19]], [2.6, 3.2], (1, 1, 0.55))
        )
        for side in SIDES.values():
            process = [[10, y + 8, z - 1], [31, y + 20, z + 2]]
            bones.append(Capsules.chain(mirrored(process, side), [3.6, 4.2]))
    return Capsules.join(bones), Capsules.join(cartilages), np.array(blades)


def _ribs(rng: np.random.Generator) -> tuple[list[Capsules], list[Capsules]]:
    """Return the ribs and their cartilages."""
    ribs, cartilages = [], []
    drop = [36, 52, 62, 70, 76, 80, 82, 78, 72, 62, 44, 22]
    front = [148, 152, 155, 155, 153, 150, 146, 138, 128, 116, 88, 55]
    for side in SIDES.values():
        for i in range(12):
            z_back = FIRST_LEVEL_Z - LEVEL_STEP * i + rng.normal(0, 1.0)
            angles = np.linspace(26, front[i] + rng.normal(0, 2), 26)
            along = (angles - angles[0]) / (155 - 26)
            z = z_back - drop[i] * (0.6 * along + 0.4 * along**1.6)
            path = wall_points(side, angles, z, 5.2)
            wide = float(vertebra_half(z_back)[0])
            y = float(spine_y(z_back))
            joints = [[wide + 2, y - 4, z_back + 4], [wide + 16, y + 15, z_back + 3]]
            head = mirrored(joints, side)
            path = np.vstack([head, path])
            ribs.append(Capsules.chain(path, 3.9, (1.0, 1.0, 0.6)))
            if i < 10:
                # Ribs 8 to 10 end on the cartilage above them.
                z_sternum = max(z[-1] + (4 if i < 4 else 10 + 9 * (i - 3)), -72.0)
                sternum = sternum_y(z_sternum) + 1
                end = mirrored([[15.0 if i else 20.0, sternum, z_sternum]], side)
                middle = (path[-1:] * 0.5 + end * 0.5) - [[0, 5.0 if i > 1 else 2.0, 6.0]]
                middle[0, 1] = min(middle[0, 1], sternum + 6)
                bend = [path[-1:], path[-1:] * 0.7 + middle * 0.3, middle, end]
                cartilages.append(Capsules.chain(np.vstack(bend), 4.3, (1, 1, 0.65)))
    return ribs, cartilages


def vertebrae(x: Array, y: Array, z: Array) -> Array:
    """Distance to vertebral bodies and arches; the discs between them are left out."""
    local = np.mod(z - np.float32(FIRST_LEVEL_Z - LEVEL_STEP / 2), np.float32(LEVEL_STEP))
    local = local - np.float32(LEVEL_STEP / 2)
    column, canal = spinal_column(x, y, z)
    # End plates are thin: distance across them counts double.
    bodies = np.maximum(column, 2 * np.abs(local) - np.float32(LEVEL_STEP - 5))
    arch = np.maximum(np.abs(canal - np.float32(2.4)) - np.float32(2.2), np.abs(local + 3) - 8)
    return np.minimum(bodies, arch)


def spinal_column(x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """Distances to the column of vertebrae with discs, and to the vertebral canal."""
    wide, deep = (v.astype(np.float32) for v in vertebra_half(z))
    back = spine_y(z).astype(np.float32)
    column = superellipse(x, y - (back - deep), wide, deep, 2.3)
    dy = y - (back + np.float32(8.5))
    return column, np.sqrt(x * x + dy * dy) - np.float32(8.5)
