"""Smooth fields of one patient on a coarse lattice, read back on any grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .shapes import FAR, Array, Capsules, smooth_min

Field = Callable[[Array, Array, Array], Array]


@dataclass(frozen=True)
class Lattice:
    """A regular lattice in the patient's canonical frame; arrays on it are indexed [z, y, x].

    A distance varies almost linearly over a few millimetres, so a coarse lattice holds smooth
    organs to about a tenth of a millimetre at a small share of the cost of the fine grid.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    step: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of points along z, y and x."""
        nx, ny, nz = (
            int(np.floor((h - lo) / self.step)) + 1
            for lo, h in zip(self.low, self.high, strict=True)
        )
        return nz, ny, nx

    def axis(self, axis: int) -> NDArray[np.float32]:
        """Coordinates along x (0), y (1) or z (2) in mm."""
        count = self.shape[2 - axis]
        return (self.low[axis] + self.step * np.arange(count)).astype(np.float32)

    @property
    def points(self) -> tuple[Array, Array, Array]:
        """Broadcastable x, y, z of all points in mm."""
        x, y, z = (self.axis(i) for i in range(3))
        return x[None, None, :], y[None, :, None], z[:, None, None]

    def full(self, value: float = float(FAR)) -> Array:
        """Return a new field filled with one value."""
        return np.full(self.shape, value, dtype=np.float32)

    def noise(self, rng: np.random.Generator, correlation_mm: float) -> Array:
        """Return a Gaussian random field of unit variance and the given correlation length."""
        white = rng.standard_normal(self.shape, dtype=np.float32)
        field = ndimage.gaussian_filter(
            white, correlation_mm / self.step, mode="nearest", truncate=3
        )
        return field / field.std()

    def unite(
        self,
        field: Array,
        box: tuple[NDArray[np.float64], NDArray[np.float64]],
        shape: Field,
        fillet: float = 0.0,
    ) -> None:
        """Unite `field` in place with a shape, evaluated only in the box (low, high) in mm."""
        cut = []
        for axis in range(3):
            first = int(np.ceil((box[0][axis] - self.low[axis]) / self.step))
            last = int(np.floor((box[1][axis] - self.low[axis]) / self.step))
            count = self.shape[2 - axis]
            cut.append(slice(min(max(first, 0), count), min(max(last + 1, 0), count)))
        region = (cut[2], cut[1], cut[0])
        x, y, z = self.points
        distance = shape(x[:, :, cut[0]], y[:, cut[1], :], z[cut[2], :, :])
        if fillet:
            field[region] = smooth_min(field[region], distance, fillet)
        else:
            np.minimum(field[region], distance, out=field[region])

    def unite_capsules(
        self, field: Array, capsules: Capsules, margin: float = 12.0, fillet: float = 0.0
    ) -> None:
        """Unite `field` in place with capsules."""
        low, high = capsules.boxes(margin)
        for i in range(len(capsules)):

            def distance(x: Array, y: Array, z: Array, i: int = i) -> Array:
                axis, radius = capsules.axis_distance(i, x, y, z)
                return axis - radius

            self.unite(field, (low[i], high[i]), distance, fillet)


class Reader:
    """Read lattice fields on planes of a grid that is given in the canonical frame.

    Parameters
    ----------
    lattice
        Where the fields live.
    affine
        4x4; maps (plane, row, column) indices to the canonical frame's x, y, z in mm.
    shape
        Rows and columns of a plane.
    """

    def __init__(
        self, lattice: Lattice, affine: NDArray[np.float64], shape: tuple[int, int]
    ) -> None:
        self._lattice = lattice
        self._affine = affine
        self._shape = shape
        cross = affine[:3, :3].copy()
        cross[2, 0] = cross[1, 1] = cross[0, 2] = 0
        self._separable = bool(np.abs(cross).max() < 1e-9)
        if self._separable:
            rows, columns = shape
            y = affine[1, 1] * np.arange(rows) + affine[1, 3]
            x = affine[0, 2] * np.arange(columns) + affine[0, 3]
            self._y, between = _neighbours(y, lattice.low[1], lattice.step, lattice.shape[1])
            self._between_y = between[:, None]
            self._x, self._between_x = _neighbours(
                x, lattice.low[0], lattice.step, lattice.shape[2]
            )

    def plane(self, field: Array, index: float) -> Array:
        """Return the field on plane `index` (rows, columns); it goes on constant outside."""
        step, low = self._lattice.step, self._lattice.low
        if self._separable:
            z = (self._affine[2, 0] * index + self._affine[2, 3] - low[2]) / step
            z = min(max(z, 0.0), field.shape[0] - 1.000001)
            k = int(z)
            between = np.float32(z - k)
            layer = field[k] * (1 - between) + field[k + 1] * between
            first = layer[self._y]
            lines = first + self._between_y * (layer[self._y + 1] - first)
            plane = lines[:, self._x]
            plane += self._between_x * (lines[:, self._x + 1] - plane)
            return plane
        rows, columns = self._shape
        at = self._affine[:3, 0] * index + self._affine[:3, 3]
        r = np.arange(rows)[:, None]
        c = np.arange(columns)[None, :]
        zyx = [
            (at[i] + self._affine[i, 1] * r + self._affine[i, 2] * c - low[i]) / step
            for i in (2, 1, 0)
        ]
        return ndimage.map_coordinates(field, zyx, order=1, mode="nearest")


def _neighbours(
    at: NDArray[np.float64], low: float, step: float, count: int
) -> tuple[NDArray[np.intp], Array]:
    """First of two neighbouring lattice points, and how far on towards the second (0 to 1)."""
    place = np.clip((at - low) / step, 0, count - 1.000001)
    first = place.astype(np.intp)
    return first, (place - first).astype(np.float32)
