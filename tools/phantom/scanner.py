"""The scanner: samples a patient on a grid with partial volume, a kernel and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .anatomy import BODY_LATTICE, CHEST_LATTICE, Patient, couch_sag, discs_and_cord, vertebrae
from .grid import Grid
from .lattice import Reader
from .lesions import Disease
from .shapes import FAR, Array, Capsules, coverage

# Kernel name: blur of edges in mm, blur of the noise in mm, edge enhancement.
KERNELS = {"soft": (0.75, 0.95, 0.0), "standard": (0.5, 0.5, 0.0), "sharp": (0.5, 0.35, 0.6)}
_CHEST_LOW = (-138.0, -104.0, -240.0)
_CHEST_HIGH = (138.0, 100.0, 240.0)
_SPINE_LOW = (-42.0, 20.0, -400.0)
_SPINE_HIGH = (42.0, 130.0, 400.0)
# Planes evaluated per section: a vessel of 1 mm must not fall between two of them.
_PLANE_STEP_MM = 2.0
_SLAB_VOXELS = 3_000_000


@dataclass
class Scan:
    """What the scanner and an all-knowing reader return, arrays in the grid's shape."""

    hu: NDArray[np.int16]
    right_lung: NDArray[np.bool_]
    left_lung: NDArray[np.bool_]
    ground_glass: NDArray[np.bool_]
    consolidation: NDArray[np.bool_]


class _Planes:
    """Index geometry of a slab of planes, in the patient's canonical frame."""

    def __init__(self, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> None:
        self.affine = affine
        self.shape = shape
        self.inverse = np.linalg.inv(affine)
        cross = affine[:3, :3].copy()
        cross[2, 0] = cross[1, 1] = cross[0, 2] = 0
        self.axis_aligned = bool(np.abs(cross).max() < 1e-9)

    def index_box(
        self, low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and past-the-last indices (n, 3) of boxes given by corners (n, 3) in mm."""
        middle = (low + high) / 2 @ self.inverse[:3, :3].T + self.inverse[:3, 3]
        reach = (high - low) / 2 @ np.abs(self.inverse[:3, :3]).T
        limit = np.array(self.shape)
        first = np.clip(np.ceil(middle - reach), 0, limit).astype(int)
        last = np.clip(np.floor(middle + reach) + 1, 0, limit).astype(int)
        return first, last

    def points(self, first: NDArray[np.int64], last: NDArray[np.int64]) -> list[Array]:
        """Broadcastable x, y, z in mm of the voxels of an index box, [plane, row, column]."""
        s, r, c = np.ogrid[first[0] : last[0], first[1] : last[1], first[2] : last[2]]
        a = self.affine
        if self.axis_aligned:
            return [
                (a[0, 2] * c + a[0, 3]).astype(np.float32),
                (a[1, 1] * r + a[1, 3]).astype(np.float32),
                (a[2, 0] * s + a[2, 3]).astype(np.float32),
            ]
        return [
            (a[i, 0] * s + a[i, 1] * r + a[i, 2] * c + a[i, 3]).astype(np.float32)
            for i in range(3)
        ]


class _Painter:
    """Draws capsules on slabs of planes; finds each capsule's voxels once for all slabs."""

    def __init__(self, planes: _Planes, capsules: Capsules, width: float, grow: float = 0.0):
        self._planes = planes
        self._capsules = capsules
        self._width = width
        self._grow = grow
        low, high = capsules.boxes(1.5 * width + grow)
        self._first, self._last = planes.index_box(low, high)

    def _parts(self, start: int, stop: int):
        first = self._first.copy()
        last = self._last.copy()
        first[:, 0] = np.maximum(first[:, 0], start)
        last[:, 0] = np.minimum(last[:, 0], stop)
        for i in np.flatnonzero((first < last).all(axis=1)):
            x, y, z = self._planes.points(first[i], last[i])
            distance, radius = self._capsules.axis_distance(i, x, y, z)
            region = (
                slice(first[i, 0] - start, last[i, 0] - start),
                slice(first[i, 1], last[i, 1]),
                slice(first[i, 2], last[i, 2]),
            )
            yield region, distance, radius + np.float32(self._grow)

    def distance(self, start: int, stop: int) -> Array:
        """Distance to the capsules in mm (planes, rows, columns), far away unless near."""
        out = np.full((stop - start, *self._planes.shape[1:]), FAR, dtype=np.float32)
        for region, distance, radius in self._parts(start, stop):
            np.minimum(out[region], distance - radius, out=out[region])
        return out

    def share(self, start: int, stop: int) -> Array:
        """Share of each voxel that capsules fill, also for those thinner than a voxel."""
        out = np.zeros((stop - start, *self._planes.shape[1:]), dtype=np.float32)
        half = np.float32(self._width / 2)
        for region, distance, radius in self._parts(start, stop):
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
        for p, n in zip(points, cube.shape[::-1])
    )
    return cube[z, y, x]


def _blades(planes: _Planes, triangles: NDArray, start: int, stop: int, out: Array) -> None:
    """Unite distances with the scapulae's plates (n, 3 corners, 3), 4 mm thick."""
    for corners in triangles:
        low, high = corners.min(axis=0) - 4, corners.max(axis=0) + 4
        first, last = (v[0] for v in planes.index_box(low[None], high[None]))
        first[0], last[0] = max(first[0], start), min(last[0], stop)
        if (first >= last).any():
            continue
        points = planes.points(first, last)
        a, b, c = corners
        normal = np.cross(b - a, c - a)
        normal /= np.linalg.norm(normal)
        away = np.abs(sum(p * np.float32(n) for p, n in zip(points, normal))
                      - np.float32(normal @ a)) - np.float32(1.7)
        for p, q in ((a, b), (b, c), (c, a)):
            outward = np.cross(q - p, normal)
            outward /= np.linalg.norm(outward)
            edge = sum(v * np.float32(n) for v, n in zip(points, outward)) - np.float32(outward @ p)
            away = np.maximum(away, edge)
        region = (
            slice(first[0] - start, last[0] - start),
            slice(first[1], last[1]),
            slice(first[2], last[2]),
        )
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


def scan(
    patient: Patient,
    disease: Disease,
    grid: Grid,
    *,
    seed: int,
    kernel: str = "standard",
    noise_hu: float = 20.0,
) -> Scan:
    """Scan a patient.

    Parameters
    ----------
    patient, disease
        What lies on the table.
    grid
        Where to sample, and how thick the sections are.
    seed
        Seed of the noise.
    kernel
        One of `KERNELS`.
    noise_hu
        Standard deviation of the noise in a section of 200 mm of water, in HU.

    Raises
    ------
    ValueError
        On an unknown kernel or negative noise.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
    if not noise_hu >= 0:
        raise ValueError(f"noise must not be negative, got {noise_hu}")
    slices, rows, columns = grid.shape
    distance = grid.spacing_mm[0]
    per_slice = max(1, int(np.ceil(grid.thickness_mm / _PLANE_STEP_MM - 0.01)))
    offsets = ((np.arange(per_slice) + 0.5) / per_slice - 0.5) * grid.thickness_mm / distance
    scale = np.diag([1 / s for s in patient.scale] + [1.0])
    # Planes are numbered slice by slice; with overlapping or gapped sections their distance
    # is uneven, so each offset within the section is a set of planes of its own.
    renderers = []
    for offset in offsets:
        affine = grid.affine.copy()
        affine[:3, 3] += grid.affine[:3, 0] * offset
        renderers.append(_Renderer(patient, disease, grid, scale @ affine))
    hu = np.empty(grid.shape, dtype=np.int16)
    masks = [np.empty(grid.shape, dtype=bool) for _ in range(4)]
    slab = max(1, _SLAB_VOXELS // (rows * columns))
    for start in range(0, slices, slab):
        stop = min(start + slab, slices)
        total = np.zeros((stop - start, rows, columns), dtype=np.float32)
        shares = np.zeros((4, stop - start, rows, columns), dtype=np.float32)
        for renderer in renderers:
            renderer.add(start, stop, total, shares)
        total /= len(renderers)
        shares /= len(renderers)
        for i in range(stop - start):
            hu[start + i] = _acquire(total[i], grid, kernel, noise_hu, [seed, 3, start + i])
        right, left, opaque, solid = shares
        both = right + left > 0.5
        masks[0][start:stop] = both & (right >= left)
        masks[1][start:stop] = both & (right < left)
        masks[3][start:stop] = both & (solid > 0.5)
        masks[2][start:stop] = both & (opaque > 0.5) & ~masks[3][start:stop]
    return Scan(hu, *masks)


class _Renderer:
    """Draws noiseless planes of a patient."""

    def __init__(
        self, patient: Patient, disease: Disease, grid: Grid, affine: NDArray[np.float64]
    ) -> None:
        self._patient = patient
        self._disease = disease
        self._prone = grid.patient_position.endswith("P")
        self._planes = planes = _Planes(affine, grid.shape)
        lengths = np.linalg.norm(affine[:3, 1:3], axis=0)
        self._width = width = float(lengths.mean())
        rows, columns = grid.shape[1:]
        self._body = Reader(BODY_LATTICE, affine, (rows, columns))
        first, last = planes.index_box(np.array([_CHEST_LOW]), np.array([_CHEST_HIGH]))
        self._crop = (slice(first[0, 1], last[0, 1]), slice(first[0, 2], last[0, 2]))
        self._has_chest = bool((first[0] < last[0]).all())
        shift = np.eye(4)
        shift[1, 3], shift[2, 3] = first[0, 1], first[0, 2]
        size = (int(last[0, 1] - first[0, 1]), int(last[0, 2] - first[0, 2]))
        if self._has_chest:
            self._chest = Reader(CHEST_LATTICE, affine @ shift, size)
        self._bones = _Painter(planes, patient.bones, width)
        self._cartilage = _Painter(planes, patient.cartilage, width)
        self._vessels = _Painter(planes, patient.vessels, width)
        self._lumen = _Painter(planes, patient.bronchi, width)
        self._wall = _Painter(planes, patient.bronchi.thicker(1.3), width, grow=0.5)
        self._airways = _Painter(planes, patient.airways, width, grow=1.5)
        self._gullet = _Painter(planes, patient.oesophagus, width)
        self._nodules = _Painter(planes, disease.nodules, width)

    def add(self, start: int, stop: int, total: Array, shares: Array) -> None:
        """Add planes start to stop to `total` (HU) and to the four masks' shares."""
        planes, width = self._planes, self._width
        bone = self._bones.distance(start, stop)
        _blades(planes, self._patient.blades, start, stop, bone)
        spine = planes.index_box(np.array([_SPINE_LOW]), np.array([_SPINE_HIGH]))
        first, last = spine[0][0], spine[1][0]
        first[0], last[0] = start, stop
        column = canal = None
        box = (slice(None), slice(first[1], last[1]), slice(first[2], last[2]))
        if (first < last).all():
            points = planes.points(first, last)
            np.minimum(bone[box], vertebrae(*points), out=bone[box])
            column, canal = discs_and_cord(*points)
        cartilage = self._cartilage.distance(start, stop)
        chest = [
            painter.share(start, stop)
            for painter in (self._vessels, self._wall, self._lumen, self._nodules)
        ]
        airways = self._airways.distance(start, stop)
        gullet = self._gullet.distance(start, stop)
        for i in range(stop - start):
            s = start + i
            x, y, z = (
                p[0]
                for p in planes.points(np.array([s, 0, 0]), np.array([s + 1, *planes.shape[1:]]))
            )
            grain = _periodic(self._patient.texture, [x, y, z], 1.3)
            hu = self._trunk(s, x, y, grain)
            if self._has_chest:
                crop = self._crop
                parts = [c[i][crop] for c in chest]
                full = planes.shape[1:]
                at = [np.broadcast_to(p, full)[crop] for p in (x, y, z)]
                self._interior(
                    s, at, grain[crop], hu[crop], parts, airways[i][crop], gullet[i][crop],
                    shares[:, i][(slice(None), *crop)],
                )
            if column is not None and canal is not None:
                here = hu[box[1:]]
                _blend(here, coverage(column[i], width), 90.0 + 6 * grain[box[1:]])
                _blend(here, coverage(canal[i], width), 28.0)
            _blend(hu, coverage(cartilage[i], width), 95.0)
            depth = bone[i]
            marrow = coverage(depth + np.float32(1.5), 1.4)
            _blend(hu, coverage(depth, width), 640 + marrow * (45 * grain - 440))
            total[i] += hu

    def _trunk(self, s: int, x: Array, y: Array, grain: Array) -> Array:
        """Couch, skin, fat and muscle."""
        patient, width = self._patient, self._width
        hu = _table(patient, x, y, self._prone)
        hu = np.array(np.broadcast_to(hu, self._planes.shape[1:]))
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
        s: int,
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
        _blend(hu, coverage(read(patient.liver), width), 60 + 4 * grain)
        _blend(hu, coverage(read(patient.spleen), width), 50 + 4 * grain)
        stomach = read(patient.stomach)
        _blend(hu, coverage(stomach, width), 36.0)
        up = y if self._prone else -y
        gas = np.maximum(stomach + np.float32(3), np.float32(38) - up)
        _blend(hu, coverage(gas, width), -960.0)
        _blend(hu, coverage(read(patient.heart), width), 43.0 + 3 * grain)
        _blend(hu, coverage(read(patient.blood), width), 42.0)
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
            + np.float32(240) * _periodic(patient.capillaries, at)
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
        _blend(hu, shown, 44.0)
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
        self, read, at: list[Array], grain: Array, air: Array
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
        _blend(air, coverage(solidity + 1.5 * ragged, 6.0), 22 + 14 * grain)
        return coverage(opacity, self._width), coverage(solidity, self._width)


def _acquire(
    clean: Array, grid: Grid, kernel: str, noise_hu: float, seed: list[int]
) -> NDArray[np.int16]:
    """Blur one slice with the kernel and add the noise of its attenuation."""
    edge_mm, grain_mm, enhance = KERNELS[kernel]
    _, row_mm, column_mm = grid.spacing_mm
    spacing = np.array([row_mm, column_mm])
    image = ndimage.gaussian_filter(clean, edge_mm / spacing, truncate=3)
    if enhance:
        image += np.float32(enhance) * (image - ndimage.gaussian_filter(image, 1.0 / spacing))
    if noise_hu > 0:
        rng = np.random.default_rng(seed)
        water = np.maximum(clean + 1000, 0) * np.float32(1e-3)
        across = ndimage.gaussian_filter1d(water.sum(axis=1) * column_mm, 8 / row_mm)
        along = ndimage.gaussian_filter1d(water.sum(axis=0) * row_mm, 8 / column_mm)
        # Tube current modulation leaves about a third of the attenuation's effect.
        rate = np.float32(0.0065)
        from_side = np.exp(rate * (across.astype(np.float32) - 200))[:, None]
        from_front = np.exp(rate * (along.astype(np.float32) - 200))[None, :]
        variance = 0.5 * (from_side + from_front)
        white = rng.standard_normal(clean.shape, dtype=np.float32)
        grain = ndimage.gaussian_filter(white, grain_mm / spacing, mode="wrap")
        streak = ndimage.gaussian_filter(white[::-1], (0.5 / row_mm, 5 / column_mm), mode="wrap")
        grain /= grain.std()
        streak /= streak.std()
        thin = np.sqrt(np.float32(2.0 / max(grid.thickness_mm, 0.5)))
        image += np.float32(noise_hu) * thin * (
            np.sqrt(variance) * grain + np.float32(0.35) * np.maximum(from_side - 1.5, 0) * streak
        )
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)
