"""What a seed decides about a patient, and the measures that all organs share.

The canonical frame is patient LPS (x to the left, y posterior, z superior, mm) of an average
adult, with its origin in the middle of the chest; `Build.scale` stretches it to the patient.
The carina lies near z = 50, the lungs reach from about z = -135 to z = 140.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator

from .lattice import Lattice
from .shapes import Array, smooth_max, superellipse

BODY_LATTICE = Lattice((-243.0, -190.0, -230.0), (243.0, 200.0, 230.0), 3.0)
CHEST_LATTICE = Lattice((-155.0, -122.0, -225.0), (155.0, 122.0, 205.0), 2.5)
SIDES = {"right": -1.0, "left": 1.0}
# Inner chest wall (parietal pleura): z, half width, anterior y, posterior y.
CAVITY = np.array(
    [
        [160, 6, 26, 34],
        [150, 24, 18, 46],
        [140, 52, 8, 59],
        [130, 68, -3, 67],
        [118, 82, -12, 74],
        [100, 96, -32, 81],
        [80, 108, -50, 86],
        [50, 119, -69, 91],
        [20, 126, -80, 94],
        [-20, 131, -90, 97],
        [-60, 134, -96, 97],
        [-100, 133, -97, 95],
        [-140, 127, -93, 89],
        [-180, 119, -87, 80],
        [-240, 112, -82, 72],
    ]
)
# Outside of the trunk's muscles, without shoulders: z, half width, anterior y, posterior y.
TRUNK = np.array(
    [
        [235, 58, -42, 72],
        [190, 60, -42, 76],
        [165, 74, -38, 88],
        [145, 98, -36, 98],
        [125, 116, -44, 106],
        [100, 126, -60, 111],
        [70, 134, -78, 114],
        [30, 142, -93, 115],
        [-20, 147, -105, 114],
        [-70, 149, -111, 113],
        [-120, 147, -110, 110],
        [-180, 140, -106, 100],
        [-240, 134, -104, 96],
    ]
)
# Middle of the vertebral canal's front wall: z, y. The chest's kyphosis.
_SPINE = np.array(
    [
        [240, 40],
        [180, 44],
        [140, 54],
        [100, 63],
        [60, 70],
        [0, 74],
        [-60, 72],
        [-140, 60],
        [-240, 49],
    ]
)
_POWER = 2.25
CAVITY_EGG = 0.11


@dataclass(frozen=True)
class Build:
    """What a seed decides about a patient's body."""

    sex: str
    age: int
    scale: tuple[float, float, float]
    fat_mm: float
    muscle: float
    heart: float
    breath_mm: float
    left_dome_mm: float
    shift_mm: float
    arms_up: bool
    parenchyma_hu: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Build:
        """Draw one patient."""
        sex = "F" if rng.random() < 0.45 else "M"
        age = int(rng.integers(28, 86))
        size = rng.normal(1.04 if sex == "M" else 0.94, 0.035)
        lungs = rng.normal(1.0, 0.03)
        return cls(
            sex=sex,
            age=age,
            scale=(
                float(size * rng.normal(1, 0.025)),
                float(size * rng.normal(1, 0.03)),
                float(size * lungs),
            ),
            fat_mm=float(np.clip(rng.gamma(4.0, 3.2), 4, 34)),
            muscle=float(rng.normal(1.0 if sex == "M" else 0.86, 0.08)),
            heart=float(np.clip(rng.normal(1.0, 0.06), 0.88, 1.16)),
            breath_mm=float(rng.uniform(-14, 14)),
            left_dome_mm=float(rng.normal(-8, 4)),
            shift_mm=float(rng.normal(3, 2.5)),
            arms_up=bool(rng.random() < 0.8),
            parenchyma_hu=float(rng.normal(-872, 12)),
        )


def curve(table: NDArray[np.float64], column: int, z: ArrayLike) -> NDArray[Any]:
    """Interpolate a column of a (z, values...) table whose z decreases."""
    return PchipInterpolator(table[::-1, 0], table[::-1, column], extrapolate=True)(z)


def section(table: NDArray[np.float64], x: Array, y: Array, z: Array, egg: float) -> Array:
    """Radial distance to a tube given by half width, front and back at each z.

    `egg` makes the tube's back wider than its front by that share.
    """
    half, front, back = (curve(table, i, z).astype(np.float32) for i in (1, 2, 3))
    depth = (back - front) * np.float32(0.5)
    y = y - (front + back) * np.float32(0.5)
    half = half * (1 + np.float32(egg) * np.clip(y / depth, -1, 1))
    return superellipse(x, y, half, depth, _POWER)


def mirrored(points: Any, side: float) -> NDArray[np.float64]:
    """Put (..., 3) points drawn for the left (1) on a side (-1 or 1)."""
    return np.asarray(points, dtype=np.float64) * np.array([side, 1.0, 1.0])


def wall_points(
    side: float, angle_deg: ArrayLike, z: ArrayLike, out_mm: ArrayLike
) -> NDArray[np.float64]:
    """Points `out_mm` outside the pleura; the angle runs from 0 (back) over 90 to 180 (front)."""
    angle = np.deg2rad(np.asarray(angle_deg, dtype=np.float64))
    z = np.broadcast_to(np.asarray(z, dtype=np.float64), angle.shape)
    half, front, back = (curve(CAVITY, i, z) for i in (1, 2, 3))
    depth = (back - front) / 2
    across, along = np.sin(angle), np.cos(angle)
    radius = depth
    for _ in range(5):
        wide = half * (1 + CAVITY_EGG * np.clip(radius * along / depth, -1, 1))
        level = np.abs(across / wide) ** _POWER + np.abs(along / depth) ** _POWER
        radius = level ** (-1 / _POWER)
    radius = radius + out_mm
    return np.stack([side * radius * across, (front + back) / 2 + radius * along, z], axis=-1)


def sternum_y(z: float) -> float:
    """Return y of the sternum's middle at z, mm."""
    return float(curve(CAVITY, 2, z)) - 9.0


def spine_y(z: ArrayLike) -> NDArray[Any]:
    """Return y of the vertebral canal's front wall at z, mm."""
    return curve(_SPINE, 1, z)


def vertebra_half(z: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return half width and half depth of a vertebral body at z, mm."""
    down = np.clip((140 - np.asarray(z, dtype=np.float64)) / 280, -0.3, 1.3)
    return 14.5 + 5.5 * down, 11.0 + 4.5 * down


def couch_sag(x: Array) -> Array:
    """Return by how much the table's surface rises at x, mm."""
    return x * x * np.float32(1 / 1500)


def heart_base(build: Build) -> float:
    """Return z where the heart rests on the diaphragm; it follows the breath, mm."""
    return -64.0 - 0.6 * build.breath_mm


def dome(build: Build, x: Array, y: Array) -> Array:
    """Return the diaphragm's height z above (x, y) in mm."""
    heights = []
    for side, centre_x, top in (
        ("right", -66.0, -52.0),
        ("left", 68.0, -52.0 + build.left_dome_mm),
    ):
        out = (x - np.float32(centre_x)) * np.float32(SIDES[side])
        u = np.where(out > 0, out / np.float32(55), out / np.float32(115))
        v = y + np.float32(10)
        v = np.where(v > 0, v / np.float32(84), v / np.float32(95))
        drop = np.float32(54) + np.float32(24) * np.clip(v, -1, 1)
        heights.append(
            np.float32(top - build.breath_mm) - drop * (u * u + v * v) ** np.float32(1.25)
        )
    # The central tendon hangs on the heart.
    u = (x - np.float32(12)) / np.float32(52)
    v = (y + np.float32(32)) / np.float32(44)
    tendon = np.float32(heart_base(build)) - np.float32(36) * (u * u + v * v) ** np.float32(1.25)
    return smooth_max(smooth_max(heights[0], heights[1], 12.0), tendon, 14.0)
