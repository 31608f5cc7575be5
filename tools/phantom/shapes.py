"""Signed distances, smooth unions and coverage: the vocabulary the anatomy is written in.

Distances are in mm and negative inside. Coordinates x, y, z are float32 arrays that broadcast
against each other, so that an axis-aligned grid costs three vectors instead of three volumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]
FloatSequence = Sequence[float] | NDArray[np.float64]
FAR = np.float32(1e3)


def superellipse(x: Array, y: Array, half_x: Array, half_y: Array, power: float) -> Array:
    """Radial distance to the curve ``|x/half_x|**power + |y/half_y|**power = 1``."""
    u = np.abs(x / half_x)
    v = np.abs(y / half_y)
    level = (u**power + v**power) ** np.float32(1 / power)
    radius = np.sqrt(x * x + y * y)
    return radius - radius / np.maximum(level, np.float32(1e-6))


def ellipsoid(x: Array, y: Array, z: Array, centre: FloatSequence, half: FloatSequence) -> Array:
    """First-order distance to an ellipsoid with axes along x, y and z."""
    u = [
        (p - np.float32(c)) / np.float32(h) for p, c, h in zip((x, y, z), centre, half, strict=True)
    ]
    level = np.sqrt(u[0] ** 2 + u[1] ** 2 + u[2] ** 2)
    slope = np.sqrt(sum((p / np.float32(h)) ** 2 for p, h in zip(u, half, strict=True)))
    return level * (level - 1) / np.maximum(slope, np.float32(1e-3))


def smooth_min(a: Array, b: Array, radius: float) -> Array:
    """Union of two distances with a fillet of about `radius` mm."""
    h = np.maximum(np.float32(radius) - np.abs(a - b), 0)
    return np.minimum(a, b) - h * h * np.float32(0.25 / radius)


def smooth_max(a: Array, b: Array, radius: float) -> Array:
    """Intersection of two distances with an edge rounded by about `radius` mm."""
    return -smooth_min(-a, -b, radius)


def coverage(distance: Array, width: float) -> Array:
    """Share of a voxel of `width` mm that lies inside a surface at `distance` mm."""
    return np.clip(np.float32(0.5) - distance * np.float32(1 / width), 0, 1)


@dataclass(frozen=True)
class Capsules:
    """Round-ended tapered cylinders, (n, 3) end points in mm and (n,) radii in mm.

    `scale` (n, 3) stretches the section: distances along an axis count `scale` times, so 0.5
    on z makes the section twice as tall as wide.
    """

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    start_radius: NDArray[np.float64]
    end_radius: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def chain(
        cls,
        points: ArrayLike,
        radius: ArrayLike,
        scale: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> Capsules:
        """Capsules along a polyline of (n, 3) points with one radius or one per point."""
        path = np.asarray(points, dtype=np.float64)
        radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), len(path))
        scales = np.tile(np.asarray(scale, dtype=np.float64), (len(path) - 1, 1))
        return cls(path[:-1], path[1:], radii[:-1], radii[1:], scales)

    @classmethod
    def join(cls, parts: Sequence[Capsules]) -> Capsules:
        """Put several sets into one."""
        if not parts:
            none = np.zeros((0, 3))
            return cls(none, none, none[:, 0], none[:, 0], none)
        return cls(
            np.concatenate([p.start for p in parts]),
            np.concatenate([p.end for p in parts]),
            np.concatenate([p.start_radius for p in parts]),
            np.concatenate([p.end_radius for p in parts]),
            np.concatenate([p.scale for p in parts]),
        )

    def moved(self, shift: NDArray[np.float64]) -> Capsules:
        """Return them moved by (3,) mm."""
        return replace(self, start=self.start + shift, end=self.end + shift)

    def thicker(self, radius: float) -> Capsules:
        """Return those whose far end's radius is at least `radius` mm."""
        keep = self.end_radius >= radius
        return Capsules(
            self.start[keep],
            self.end[keep],
            self.start_radius[keep],
            self.end_radius[keep],
            self.scale[keep],
        )

    def __len__(self) -> int:
        return len(self.start)

    def boxes(self, margin: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper corners (n, 3) of boxes that hold each capsule and a margin in mm."""
        radius = np.maximum(self.start_radius, self.end_radius)[:, None]
        reach = radius / self.scale + margin
        return np.minimum(self.start, self.end) - reach, np.maximum(self.start, self.end) + reach

    def axis_distance(self, i: int, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
        """Distance of points to capsule `i`'s axis, and the capsule's radius beside them."""
        scale = self.scale[i]
        a = self.start[i] * scale
        step = self.end[i] * scale - a
        length2 = max(float(step @ step), 1e-9)
        px, py, pz = (
            p * np.float32(s) - np.float32(c) for p, s, c in zip((x, y, z), scale, a, strict=True)
        )
        tx, ty, tz = (np.float32(s / length2) for s in step)
        t = np.clip(px * tx + py * ty + pz * tz, 0, 1)
        dx, dy, dz = (p - t * np.float32(s) for p, s in zip((px, py, pz), step, strict=True))
        distance = np.sqrt(dx * dx + dy * dy + dz * dz)
        taper = np.float32(self.end_radius[i] - self.start_radius[i])
        return distance, np.float32(self.start_radius[i]) + t * taper
