"""Noiseless planes of a patient: every organ painted in its Hounsfield units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .anatomy import Patient
from .build import BODY_LATTICE, CHEST_LATTICE, couch_sag
from .grid import Grid
from .lattice import Reader
from .lesions import Disease
from .shapes import FAR, Array, Capsules, coverage
from .skeleton import spinal_column, vertebrae

_CHEST_LOW = (-138.0, -104.0, -240.0)
_CHEST_HIGH = (138.0, 102.0, 240.0)
_SPINE_LOW = (-42.0, 20.0, -400.0)
_SPINE_HIGH = (42.0, 130.0, 400.0)
_Region = tuple[slice, slice, slice]


class _Boxes(NamedTuple):
    """Where shapes can be: bottom and top position (n,), first and past-the-last (n, 2)."""

    bottom: NDArray[np.float64]
    top: NDArray[np.float64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    def regions(self, at: NDArray[np.float64]) -> Iterator[tuple[int, _Region]]:
        """Yield which box is met by planes at ascending positions, and where."""
        start = np.searchsorted(at, self.bottom)
        stop = np.searchsorted(at, self.top, side="right")
        met = (start < stop) & (self.first < self.last).all(axis=1)
        for i in np.flatnonzero(met).tolist():
            rows, columns = zip(self.first[i], self.last[i], strict=True)
            yield i, (slice(start[i], stop[i]), slice(*rows), slice(*columns))


class _Planes:
    """Geometry of parallel planes in the canonical frame; a position is a real slice index."""

    def __init__(self, affine: NDArray[np.float64], shape: tuple[int, int]) -> None:
        self.shape = shape
        self._affine = affine
        self._inverse = np.linalg.inv(affine)
        cross = affine[:3, :3].copy()
        cross[2, 0] = cross[1, 1] = cross[0, 2] = 0
        self._axis_aligned = bool(np.abs(cross).max() < 1e-9)

    def boxes(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> _Boxes:
        """Find the boxes with corners (n, 3) in mm."""
        middle = (low + high) / 2 @ self._inverse[:3, :3].T + self._inverse[:3, 3]
        reach = (high - low) / 2 @ np.abs(self._inverse[:3, :3]).T
        limit = np.array(self.shape)
        bottom, top = middle - reach, middle + reach
        first = np.clip(np.ceil(bottom[:, 1:]), 0, limit).astype(int)
        last = np.clip(np.floor(top[:, 1:]) + 1, 0, limit).astype(int)
        return _Boxes(bottom[:, 0], top[:, 0], first, last)

    def points(self, at: NDArray[np.float64], region: _Region) -> list[Array]:
        """Broadcastable x, y, z in mm of a region of planes, [plane, row, column]."""
        s = at[region[0], None, None]
        r = np.arange(self.shape[0])[region[1], None]
        c = np.arange(self.shape[1])[region[2]]
        a = self._affine
        if self._axis_aligned:
            return [
                (a[0, 2] * c + a[0, 3]).astype(np.float32)[None, None],
                (a[1, 1] * r + a[1, 3]).astype(np.float32)[None],
                (a[2, 0] * s + a[2, 3]).astype(np.float32),
            ]
        return [
            (a[i, 0] * s + a[i, 1] * r + a[i, 2] * c + a[i, 3]).astype(np.float32) for i in range(3)
        ]


class _Painter:
    """Draws capsules on planes; finds where each can be once for all planes."""

    def __init__(
        self, planes: _Planes, capsules: Capsules, width: float, grow: float = 0.0
    ) -> None:
        self._planes = planes
        self._capsules = capsules
        self._width = width
        self._grow = np.float32(grow)
        self._boxes = planes.boxes(*capsules.boxes(1.5 * width + grow))

    def _parts(self, at: NDArray[np.float64]) -> Iterator[tuple[_Region, Array, Array]]:
        """Yield each capsule's region, distance to its axis and radius there."""
        for i, region in self._boxes.regions(at):
            points = self._planes.points(at, region)
            distance, radius = self._capsules.axis_distance(i, *points)
            yield region, distance, radius + self._grow

    def distance(self, at: NDArray[np.float64]) -> Array:
        """Distance to the capsules in mm (planes, rows, columns), far away unless near."""
        out = np.full((len(at), *self._planes.shape), FAR, dtype=np.float32)
        for region, distance, radius in self._parts(at):
            np.minimum(out[region], distance - radius, out=out[region])
        return out

    def share(self, at: NDArray[np.float64]) -> Array:
        """Share of each voxel that capsules fill, also for those thinner than a voxel."""
        out = np.zeros((len(at), *self._planes.shape), dtype=np.float32)
        half = np.float32(self._width / 2)
        for region, distance, radius in self._parts(at):
            shown = np.maximum(radius, half)
            filled = coverage(distance - shown, self._width) * np.minimum(radius / shown, 1) ** 2
            np.maximum(out[region], filled, out=out[region])
        return out


def _blend(hu: Array, share: Array, value: Array | float) -> None:
    hu += share * (np.asarray(value, dtype=np.float32) - hu)


def _periodic(cube: Array, points: list[Array], step: float = 1.0) -> Array:
    """Nearest values of a periodic cube at points in mm."""
    x, y, z = (
        np.mod(np.rint(p / np.float32(step)).astype(np.int32), n)
        for p, n in zip(points, cube.shape[::-1], strict=True)
    )
    return cube[z, y, x]


def _blades(
    planes: _Planes, triangles: NDArray[np.float64], at: NDArray[np.float64], out: Array
) -> None:
    """Unite distances with the scapulae's plates (n, 3 corners, 3), 3.4 mm thick."""
    boxes = planes.boxes(triangles.min(axis=1) - 4, triangles.max(axis=1) + 4)
    for i, region in boxes.regions(at):
        points = planes.points(at, region)
        a, b, c = triangles[i]
        normal = np.cross(b - a, c - a)
        normal /= np.linalg.norm(normal)
        away = np.abs(
            sum(p * np.float32(n) for p, n in zip(points, normal, strict=True))
            - np.float32(normal @ a)
        ) - np.float32(1.7)
        for p, q in ((a, b), (b, c), (c, a)):
            outward = np.cross(q - p, normal)
            outward /= np.linalg.norm(outward)
            edge = sum(
                v * np.float32(n) for v, n in zip(points, outward, strict=True)
            ) - np.float32(outward @ p)
            away = np.maximum(away, edge)
        np.minimum(out[region], away, out=out[region])


def _table(patient: Patient, x: Array, y: Array, prone: bool) -> Array:
    """HU of the couch: two curved skins around foam."""
    front, back = patient.surface_y
    top, up = (front, -1.0) if prone else (back, 1.0)
    depth = (y - np.float32(top)) * np.float32(up) - np.float32(4) + couch_sag(x)
    inside = coverage(np.maximum(-depth, depth - np.float32(34)), 1.2) * (np.abs(x) < 225)
    shell = np.minimum(np.abs(depth - np.float32(1)), np.abs(depth - np.float32(31)))
    hu = np.full(inside.shape, -1000, dtype=np.float32)
    _blend(hu, inside, -965.0)
    _blend(hu, inside * coverage(shell - np.float32(1.1), 1.2), -250.0)
    mattress = coverage(np.maximum(depth, -depth - np.float32(5)), 1.2) * (np.abs(x) < 205)
    _blend(hu, mattress, -935.0)
    return hu


class Renderer:
    """Draws noiseless planes of a patient."""

    def __init__(
        self,
        patient: Patient,
        disease: Disease,
        grid: Grid,
        affine: NDArray[np.float64],
        contrast_hu: float = 0.0,
    ) -> None:
        self._patient = patient
        self._contrast = contrast_hu
        self._disease = disease
        self._prone = grid.patient_position.endswith("P")
        self._planes = planes = _Planes(affine, grid.shape[1:])
        lengths = np.linalg.norm(affine[:3, 1:3], axis=0)
        self._width = width = float(lengths.mean())
        self._body = Reader(BODY_LATTICE, affine, grid.shape[1:])
        chest = planes.boxes(np.array([_CHEST_LOW]), np.array([_CHEST_HIGH]))
        first, last = chest.first[0], chest.last[0]
        self._crop = (slice(first[0], last[0]), slice(first[1], last[1]))
        self._has_chest = bool((first < last).all())
        if self._has_chest:
            shift = np.eye(4)
            shift[1:3, 3] = first
            size = (int(last[0] - first[0]), int(last[1] - first[1]))
            self._chest = Reader(CHEST_LATTICE, affine @ shift, size)
        self._spine = planes.boxes(np.array([_SPINE_LOW]), np.array([_SPINE_HIGH]))
        # Thinner vessels fill less than 3 % of a voxel.
        faint = 0.17 * width / 2
        self._bones = _Painter(planes, patient.bones, width)
        self._cartilage = _Painter(planes, patient.cartilage, width)
        self._vessels = _Painter(planes, patient.vessels.thicker(faint), width)
        self._lumen = _Painter(planes, patient.bronchi.thicker(faint), width)
        self._wall = _Painter(planes, patient.bronchi.thicker(max(faint, 1.3)), width, grow=0.5)
        self._airways = _Painter(planes, patient.airways, width, grow=1.5)
        self._gullet = _Painter(planes, patient.oesophagus, width)
        self._nodules = _Painter(planes, disease.nodules, width)

    def add(
        self,
        at: NDArray[np.float64],
        slices: NDArray[np.int64],
        total: Array,
        shares: Array,
    ) -> None:
        """Add planes to slices.

        Parameters
        ----------
        at
            Ascending positions of the planes, as real slice indices of the grid.
        slices
            Which slice of `total` and `shares` each plane belongs to.
        total
            (slices, rows, columns) sum of HU.
        shares
            (4, slices, rows, columns) sums of the shares of right lung, left lung, opacity and
            consolidation.
        """
        planes, width, crop = self._planes, self._width, self._crop
        bone = self._bones.distance(at)
        _blades(planes, self._patient.blades, at, bone)
        spine = next((region for _, region in self._spine.regions(at)), None)
        if spine is not None:
            points = planes.points(at, spine)
            np.minimum(bone[spine], vertebrae(*points), out=bone[spine])
            column, canal = spinal_column(*points)
        cartilage = self._cartilage.distance(at)
        airways, gullet = self._airways.distance(at), self._gullet.distance(at)
        chest = [p.share(at) for p in (self._vessels, self._wall, self._lumen, self._nodules)]
        for i, owner in enumerate(slices.tolist()):
            everywhere = (slice(i, i + 1), slice(None), slice(None))
            x, y, z = (p[0] for p in planes.points(at, everywhere))
            grain = _periodic(self._patient.texture, [x, y, z], 1.3)
            hu = self._trunk(at[i], x, y, grain)
            if self._has_chest:
                self._interior(
                    at[i],
                    [np.broadcast_to(p, planes.shape)[crop] for p in (x, y, z)],
                    grain[crop],
                    hu[crop],
                    [field[i][crop] for field in chest],
                    airways[i][crop],
                    gullet[i][crop],
                    shares[:, owner][(slice(None), *crop)],
                )
            if spine is not None and spine[0].start <= i < spine[0].stop:
                here, k = spine[1:], i - spine[0].start
                _blend(hu[here], coverage(column[k], width), 90 + 6 * grain[here])
                _blend(hu[here], coverage(canal[k], width), 28.0)
            _blend(hu, coverage(cartilage[i], width), 95.0)
            marrow = coverage(bone[i] + np.float32(1.5), 1.4)
            _blend(hu, coverage(bone[i], width), 640 + marrow * (45 * grain - 440))
            total[owner] += hu

    def _trunk(self, s: float, x: Array, y: Array, grain: Array) -> Array:
        """Couch, skin, fat and muscle."""
        patient, width = self._patient, self._width
        hu = _table(patient, x, y, self._prone)
        hu = np.array(np.broadcast_to(hu, self._planes.shape))
        body = self._body.plane(patient.body, s)
        muscle = self._body.plane(patient.muscle, s)
        gaps = self._body.plane(patient.sheets, s)
        _blend(hu, coverage(body, width), 25.0)
        _blend(hu, coverage(body + np.float32(1.7), width), -103 + 7 * grain)
        flesh = coverage(muscle, width)
        sheet = coverage(gaps - np.float32(1.3), 2.6)
        _blend(hu, flesh, 56 + 8 * grain - 120 * sheet)
        return hu

    def _interior(
        self,
        s: float,
        at: list[Array],
        grain: Array,
        hu: Array,
        parts: list[Array],
        airways: Array,
        gullet: Array,
        shares: Array,
    ) -> None:
        """Everything inside the chest wall, painted into the crop `hu` in place."""
        patient, disease, width = self._patient, self._disease, self._width

        def read(field: Array) -> Array:
            return self._chest.plane(field, s)

        y = at[1]
        cavity = read(patient.cavity)
        inside = coverage(cavity, width)
        _blend(hu, inside, -100 + 6 * grain)
        _blend(hu, inside * coverage(read(patient.paraspinal), width), 50 + 6 * grain)
        sheet = read(patient.diaphragm) - np.float32(1.5)
        _blend(hu, inside * coverage(np.abs(sheet) - np.float32(1.4), width), 52.0)
        organs = 0.25 * self._contrast
        _blend(hu, coverage(read(patient.liver), width), 60 + organs + 4 * grain)
        _blend(hu, coverage(read(patient.spleen), width), 50 + organs + 4 * grain)
        stomach = read(patient.stomach)
        _blend(hu, coverage(stomach, width), 36.0)
        up = y if self._prone else -y
        gas = np.maximum(stomach + np.float32(3), np.float32(38) - up)
        _blend(hu, coverage(gas, width), -960.0)
        muscle = 43.0 + 0.7 * self._contrast
        _blend(hu, coverage(read(patient.heart), width), muscle + 3 * grain)
        _blend(hu, coverage(read(patient.blood), width), 42.0 + self._contrast)
        _blend(hu, coverage(gullet, width), 36.0)

        right = coverage(read(patient.lungs["right"]), width)
        left = coverage(read(patient.lungs["left"]), width)
        lung = np.minimum(right + left, 1)
        vessels, walls, lumina, nodules = parts
        hanging = -y if self._prone else y
        air = (
            np.float32(patient.build.parenchyma_hu - 44)
            + np.float32(60) * np.clip((hanging + 90) / 180, 0, 1)
            + np.float32(18) * grain
            + np.float32(210) * _periodic(patient.capillaries, at)
        )
        fissure = np.where(
            right >= left, read(patient.fissures["right"]), read(patient.fissures["left"])
        )
        line = coverage(np.abs(fissure) - np.float32(0.35), width)
        minor = read(patient.minor_fissure)
        line = np.maximum(
            line, coverage(np.abs(minor) - np.float32(0.3), width) * (right > 0) * (fissure > 0)
        )
        air += np.float32(110) * line
        opaque = solid = None
        if disease.name in ("covid19", "bacterial"):
            opaque, solid = self._opacities(read, at, grain, air)
        _blend(hu, lung, air)
        # Roots reach into the mediastinum, where blood on blood does no harm.
        shown = vessels * (hu < 40)
        _blend(hu, shown, 44.0 + self._contrast)
        _blend(hu, nodules * lung, 35.0)
        _blend(hu, walls * lung * (hu < -50), -100.0)
        _blend(hu, lumina * lung, -960.0)
        if opaque is not None and solid is not None:
            fluid = coverage(read(disease.effusion), width) * lung
            _blend(hu, fluid, 9.0)
            shares[2] += opaque * lung * (1 - fluid)
            shares[3] += solid * lung * (1 - fluid)
        _blend(hu, coverage(airways, width), 20.0)
        _blend(hu, coverage(airways + np.float32(1.5), width), -990.0)
        shares[0] += right
        shares[1] += left

    def _opacities(
        self, read: Callable[[Array], Array], at: list[Array], grain: Array, air: Array
    ) -> tuple[Array, Array]:
        """Lay ground glass and consolidation into the parenchyma `air` in place."""
        disease = self._disease
        opacity = read(disease.opacity)
        solidity = read(disease.solid)
        ragged = np.float32(1.4) * grain
        haze = read(disease.haze)
        glass = np.float32(-610) + np.float32(75) * haze + np.float32(42) * grain
        paving = np.clip(read(disease.paving), 0, 1)
        lines = coverage(_periodic(disease.septa, at) - np.float32(0.55), 1.2)
        glass += np.float32(230) * paving * lines
        _blend(air, coverage(opacity + ragged, 7.0), np.clip(glass, -800, -150))
        _blend(air, coverage(solidity + ragged, 4.0), 24 + 14 * grain)
        return coverage(opacity, self._width), coverage(solidity, self._width)
