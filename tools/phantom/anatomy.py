"""The patient: every organ as an implicit shape in a canonical frame, drawn from one seed.

The canonical frame is patient LPS (x to the left, y posterior, z superior, mm) of an average
adult, with its origin in the middle of the chest; `Patient.scale` stretches it to the patient.
The carina lies near z = 50, the lungs reach from about z = -135 to z = 140.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from .lattice import Lattice
from .shapes import Array, Capsules, ellipsoid, smooth_max, smooth_min, superellipse
from .vessels import Tree, grow

BODY_LATTICE = Lattice((-243.0, -190.0, -230.0), (243.0, 200.0, 230.0), 3.0)
CHEST_LATTICE = Lattice((-155.0, -122.0, -225.0), (155.0, 122.0, 205.0), 2.5)

SIDES = {"right": -1.0, "left": 1.0}

# Inner chest wall (parietal pleura): z, half width, anterior y, posterior y.
_CAVITY = np.array(
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
_TRUNK = np.array(
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
    [[240, 40], [180, 44], [140, 54], [100, 63], [60, 70], [0, 74], [-60, 72], [-140, 60], [-240, 49]]
)
# Half width of the mediastinum between the vessels: z, mm (the anterior junction is thin).
_SEPTUM = np.array(
    [[240, 44], [150, 40], [120, 31], [104, 25], [90, 13], [75, 5], [50, 2.2], [0, 2.2], [-60, 4], [-120, 10]]
)
_POWER = 2.25
_EGG = 0.11
_LEVELS = 14
_FIRST_LEVEL_Z = 126.0
_LEVEL_STEP = 24.5


def _curve(table: NDArray[np.float64], column: int, z: ArrayLike) -> NDArray[np.float64]:
    """Interpolate a column of a (z, values...) table whose z decreases."""
    return PchipInterpolator(table[::-1, 0], table[::-1, column], extrapolate=True)(z)


def _section(table: NDArray[np.float64], x: Array, y: Array, z: Array, egg: float) -> Array:
    """Radial distance to a tube given by half width, front and back at each z.

    `egg` makes the tube's back wider than its front by that share.
    """
    half, front, back = (_curve(table, i, z).astype(np.float32) for i in (1, 2, 3))
    depth = (back - front) * np.float32(0.5)
    y = y - (front + back) * np.float32(0.5)
    half = half * (1 + np.float32(egg) * np.clip(y / depth, -1, 1))
    return superellipse(x, y, half, depth, _POWER)


def _mirrored(points: ArrayLike, side: float) -> NDArray[np.float64]:
    return np.asarray(points, dtype=np.float64) * np.array([side, 1.0, 1.0])


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


@dataclass
class Patient:
    """One patient's organs.

    Fields are signed distances in mm on `BODY_LATTICE` (body, muscle, sheets) or
    `CHEST_LATTICE` (all others), negative inside.
    """

    build: Build
    body: Array
    muscle: Array
    cavity: Array
    diaphragm: Array
    mediastinum: Array
    paraspinal: Array
    blood: Array
    heart: Array
    liver: Array
    spleen: Array
    stomach: Array
    lungs: dict[str, Array]
    sheets: Array
    surface_y: tuple[float, float]
    fissures: dict[str, Array]
    minor_fissure: Array
    airways: Capsules
    oesophagus: Capsules
    bones: Capsules
    cartilage: Capsules
    vessels: Capsules
    bronchi: Capsules
    blades: NDArray[np.float64]
    texture: Array
    capillaries: Array

    @property
    def scale(self) -> tuple[float, float, float]:
        """Patient millimetres per canonical millimetre along x, y and z."""
        return self.build.scale


def spine_y(z: ArrayLike) -> NDArray[np.float64]:
    """Return y of the vertebral canal's front wall at z, mm."""
    return _curve(_SPINE, 1, z)


def vertebra_half(z: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return half width and half depth of a vertebral body at z, mm."""
    down = np.clip((140 - np.asarray(z, dtype=np.float64)) / 280, -0.3, 1.3)
    return 14.5 + 5.5 * down, 11.0 + 4.5 * down


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
    tendon = np.float32(_heart_base(build)) - np.float32(36) * (u * u + v * v) ** np.float32(1.25)
    return smooth_max(smooth_max(heights[0], heights[1], 12.0), tendon, 14.0)


def _heart_base(build: Build) -> float:
    return -64.0 - 0.6 * build.breath_mm


def _wall_points(
    side: float, angle_deg: ArrayLike, z: ArrayLike, out_mm: ArrayLike
) -> NDArray[np.float64]:
    """Points `out_mm` outside the pleura; the angle runs from 0 (back) over 90 to 180 (front)."""
    angle = np.deg2rad(np.asarray(angle_deg, dtype=np.float64))
    z = np.broadcast_to(np.asarray(z, dtype=np.float64), angle.shape)
    half, front, back = (_curve(_CAVITY, i, z) for i in (1, 2, 3))
    depth = (back - front) / 2
    across, along = np.sin(angle), np.cos(angle)
    radius = depth
    for _ in range(5):
        wide = half * (1 + _EGG * np.clip(radius * along / depth, -1, 1))
        level = np.abs(across / wide) ** _POWER + np.abs(along / depth) ** _POWER
        radius = level ** (-1 / _POWER)
    radius = radius + out_mm
    return np.stack([side * radius * across, (front + back) / 2 + radius * along, z], axis=-1)


def _ribs(rng: np.random.Generator) -> tuple[list[Capsules], list[Capsules]]:
    """Return the ribs and their cartilages."""
    ribs, cartilages = [], []
    drop = [36, 52, 62, 70, 76, 80, 82, 78, 72, 62, 44, 22]
    front = [148, 152, 155, 155, 153, 150, 146, 138, 128, 116, 88, 55]
    for side in SIDES.values():
        for i in range(12):
            z_back = _FIRST_LEVEL_Z - _LEVEL_STEP * i + rng.normal(0, 1.0)
            angles = np.linspace(26, front[i] + rng.normal(0, 2), 26)
            along = (angles - angles[0]) / (155 - 26)
            z = z_back - drop[i] * (0.6 * along + 0.4 * along**1.6)
            path = _wall_points(side, angles, z, 5.2)
            wide, deep = vertebra_half(z_back)
            y = float(spine_y(z_back))
            head = _mirrored([[wide + 2, y - 4, z_back + 4], [wide + 16, y + 15, z_back + 3]], side)
            path = np.vstack([head, path])
            ribs.append(Capsules.chain(path, 3.9, (1.0, 1.0, 0.6)))
            if i < 10:
                # Ribs 8 to 10 end on the cartilage above them.
                z_sternum = max(z[-1] + (4 if i < 4 else 10 + 9 * (i - 3)), -72.0)
                sternum = _sternum_y(z_sternum) + 1
                end = _mirrored([[15.0 if i else 20.0, sternum, z_sternum]], side)
                middle = (path[-1:] * 0.5 + end * 0.5) - [[0, 5.0 if i > 1 else 2.0, 6.0]]
                middle[0, 1] = min(middle[0, 1], sternum + 6)
                bend = [path[-1:], path[-1:] * 0.7 + middle * 0.3, middle, end]
                cartilages.append(Capsules.chain(np.vstack(bend), 4.3, (1, 1, 0.65)))
    return ribs, cartilages


def _sternum_y(z: float) -> float:
    return float(_curve(_CAVITY, 2, z)) - 9.0


def _skeleton(build: Build, rng: np.random.Generator) -> tuple[Capsules, Capsules, NDArray]:
    """Return bones, cartilages and the scapular blades (n, 3 corners, 3) without vertebrae."""
    bones, cartilages = _ribs(rng)
    heights = np.linspace(90, 62, 4)
    path = [[0, _sternum_y(z), z] for z in heights]
    bones.append(Capsules.chain(path, 6.5, (0.25, 1, 1)))
    heights = np.linspace(55, -72, 10)
    path = [[0, _sternum_y(z), z] for z in heights]
    bones.append(Capsules.chain(path, 6.0, (0.32, 1, 1)))
    cartilages.append(
        Capsules.chain([[0, _sternum_y(-76), -76], [0, _sternum_y(-98) + 3, -98]], 3.5, (0.5, 1, 1))
    )
    blades = []
    lift = 12.0 if build.arms_up else 0.0
    for side in SIDES.values():
        top = _wall_points(side, 50 + lift / 3, 108.0, 17.0)
        bottom = _wall_points(side, 58 + lift, -8.0, 15.0)
        middle = _wall_points(side, 47 + lift, 62.0, 20.0)
        socket = _mirrored([148, 16, 104 + lift], side)
        neck = _mirrored([133, 28, 98 + lift], side)
        acromion = _mirrored([158, 22, 132 + lift], side)
        spine = _mirrored([100, 92, 92 + lift / 2], side)
        blades += [[top, middle, neck], [middle, bottom, neck], [middle, spine, neck]]
        bones += [
            Capsules.chain([top, middle, bottom], [3.0, 2.4, 3.5]),
            Capsules.chain([bottom, neck], [3.6, 5.0]),
            Capsules.chain([neck, socket], [8.0, 11.0], (1, 0.8, 0.7)),
            Capsules.chain([spine, acromion], [3.5, 5.5]),
        ]
        collar = [
            [20, _sternum_y(92) - 1, 97],
            [62, -40, 106 + lift / 2],
            [110, -12, 122 + lift],
            [150, 14, 132 + lift],
        ]
        bones.append(Capsules.chain(_mirrored(collar, side), [8.0, 5.6, 5.4, 6.0]))
        head = np.array([174.0, 10.0, 112.0 + lift])
        bones.append(Capsules.chain(_mirrored([head, head + [0, 1, 1]], side), 21.0))
        if build.arms_up:
            shaft = [head, head + [10, -2, 40], head + [4, -12, 190]]
        else:
            shaft = [head, head + [22, 2, -40], head + [38, 10, -330]]
        bones.append(Capsules.chain(_mirrored(shaft, side), [15.0, 12.0, 10.5]))
    for level in range(-4, _LEVELS):
        z = _FIRST_LEVEL_Z - _LEVEL_STEP * level
        y = float(spine_y(z))
        bones.append(
            Capsules.chain([[0, y + 17, z - 3], [0, y + 40, z - 19]], [2.6, 3.2], (1, 1, 0.55))
        )
        for side in SIDES.values():
            process = [[10, y + 8, z - 1], [31, y + 20, z + 2]]
            bones.append(Capsules.chain(_mirrored(process, side), [3.6, 4.2]))
    return Capsules.join(bones), Capsules.join(cartilages), np.array(blades)


def vertebrae(x: Array, y: Array, z: Array) -> Array:
    """Distance to vertebral bodies and arches; the discs between them are left out."""
    local = np.mod(z - np.float32(_FIRST_LEVEL_Z - _LEVEL_STEP / 2), np.float32(_LEVEL_STEP))
    local = local - np.float32(_LEVEL_STEP / 2)
    column, canal = _column(x, y, z)
    # End plates are thin: distance across them counts double.
    bodies = np.maximum(column, 2 * np.abs(local) - np.float32(_LEVEL_STEP - 5))
    arch = np.maximum(np.abs(canal - np.float32(2.4)) - np.float32(2.2), np.abs(local + 3) - 8)
    return np.minimum(bodies, arch)


def _column(x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    wide, deep = (v.astype(np.float32) for v in vertebra_half(z))
    back = spine_y(z).astype(np.float32)
    column = superellipse(x, y - (back - deep), wide, deep, 2.3)
    dy = y - (back + np.float32(8.5))
    return column, np.sqrt(x * x + dy * dy) - np.float32(8.5)


def discs_and_cord(x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """Distances to the column of vertebrae with discs, and to the vertebral canal."""
    return _column(x, y, z)




def _great_vessels(build: Build) -> tuple[Capsules, Capsules, Capsules]:
    """Return blood-filled tubes, airways' lumina and the oesophagus."""
    older = 1.0 + 0.004 * (build.age - 50)
    chain = Capsules.chain
    blood = [
        chain([[4, -18, -8], [-14, -24, 20], [-19, -24, 45], [-15, -17, 68]], 15.0 * older),
        chain(
            [[-15, -17, 68], [-6, -8, 78], [8, 8, 80], [20, 24, 74], [27, 40, 58]],
            [14.5 * older, 13.5, 13, 12.5, 12 * older],
        ),
        chain(
            [[27, 40, 58], [28, 47, 20], [25, 50, -40], [14, 46, -100], [4, 38, -230]],
            11.5 * older,
        ),
        chain([[-29, -16, 96], [-30, -11, 50], [-30, -6, 0]], [8.0, 9.0, 9.5]),
        chain([[44, -12, 122], [30, -28, 106], [0, -31, 99], [-28, -18, 94]], 6.2),
        chain([[-44, -8, 126], [-36, -12, 112], [-29, -16, 96]], 6.5),
        chain([[-9, -14, 82], [-15, -6, 112], [-30, 2, 136], [-70, 8, 146]], [6.5, 6, 5, 4.5]),
        chain([[5, 2, 88], [15, 6, 125], [20, 8, 230]], [4.4, 4.0, 3.6]),
        chain([[-22, 2, 126], [-20, 6, 230]], [4.2, 3.6]),
        chain([[20, 20, 82], [29, 20, 116], [44, 14, 138], [80, 10, 146]], [5.2, 4.8, 4.6, 4.2]),
        chain([[32, -4, 116], [30, -4, 230]], [5.5, 6.0]),
        chain([[-34, -6, 118], [-31, -4, 230]], [6.0, 6.5]),
        chain([[10, -36, 4], [17, -30, 26], [24, -10, 40]], [14.0, 13.5, 12.5]),
        chain([[22, -12, 36], [-4, -2, 31], [-36, 10, 24], [-46, 14, 18]], [11.0, 10, 9.5, 7.5]),
        chain([[24, -10, 42], [34, 14, 43], [43, 28, 26]], [11.5, 10.0, 7.5]),
        chain([[-36, 10, 24], [-44, 21, 6], [-47, 28, -14]], [8.5, 7.0, 5.0]),
        chain([[43, 28, 26], [49, 36, 6], [50, 42, -12]], [8.0, 6.8, 5.0]),
        chain([[-34, 12, 26], [-46, 16, 38]], [6.0, 4.5]),
        chain([[38, 18, 38], [48, 18, 34]], [6.0, 4.5]),
        chain([[-24, 18, 4], [-44, 16, 4]], [8.0, 6.5]),
        chain([[26, 20, 4], [44, 20, 6]], [8.0, 6.5]),
        chain([[17, 4, 152], [18, 8, 112]], [10.0, 6.5]),
        chain([[-17, 4, 152], [-18, 8, 112]], [10.0, 6.5]),
        chain([[12, -20, 160], [14, -26, 96]], [7.0, 6.0]),
        chain([[-12, -20, 160], [-14, -26, 96]], [7.0, 6.0]),
        chain([[9, 34, 240], [10, 34, 110]], [9.0, 5.0]),
        chain([[-9, 34, 240], [-10, 34, 110]], [9.0, 5.0]),
        chain([[-26, 2, -25], [-25, 8, -60], [-24, 18, -110], [-23, 24, -230]], 11.0),
        chain([[-7, 54, -110], [-8, 56, 40], [-14, 44, 60], [-28, 8, 58]], 4.2),
    ]
    # Each airway starts inside its parent, so that the lumen is open.
    airways = [
        chain([[0, 2, 235], [0, 8, 150], [1, 18, 110], [-2, 28, 52]], [8.6, 8.6, 8.8, 8.8]),
        chain([[-3, 27, 54], [-16, 28, 42], [-30, 29, 32]], [7.0, 6.8, 6.3]),
        chain([[-26, 29, 36], [-46, 27, 38]], [4.6, 4.2]),
        chain([[-28, 29, 33], [-35, 30, 6], [-42, 32, -10]], [5.4, 5.0, 4.2]),
        chain([[0, 28, 54], [20, 32, 32], [38, 34, 18]], [6.2, 5.8, 5.4]),
        chain([[35, 33, 20], [50, 26, 22]], [4.2, 3.8]),
        chain([[36, 34, 19], [46, 38, -2]], [4.6, 4.2]),
    ]
    oesophagus = chain(
        [[3, 34, 235], [4, 36, 130], [4, 43, 60], [8, 44, 10], [13, 40, -40], [24, 20, -82]], 6.5
    )
    return Capsules.join(blood), Capsules.join(airways), oesophagus


def _heart_parts(build: Build) -> list[tuple[tuple[float, ...], tuple[float, ...], float]]:
    """Return heart chambers as ellipsoids: centre, half axes, in-plane rotation in degrees."""
    s = build.heart
    return [
        ((2, 19, 2), (32 * s, 16, 22), 0.0),
        ((-34, -14, -18), (22 * s, 30 * s, 34), 0.0),
        ((2, -50, -32), (44 * s, 31 * s, 36), 8.0),
        ((30, -24, -36), (45 * s, 35 * s, 34 * s), -35.0),
        ((18, -46, -6), (30 * s, 25 * s, 26), -20.0),
    ]


def _ellipsoid_in_plane(
    x: Array, y: Array, z: Array, centre: tuple, half: tuple, degrees: float
) -> Array:
    c, s = np.float32(np.cos(np.deg2rad(degrees))), np.float32(np.sin(np.deg2rad(degrees)))
    px, py = x - np.float32(centre[0]), y - np.float32(centre[1])
    return ellipsoid(px * c + py * s, py * c - px * s, z, (0, 0, centre[2]), half)


def couch_sag(x: Array) -> Array:
    """Return by how much the table's surface rises at x, mm."""
    return x * x * np.float32(1 / 1500)


def _girdle(build: Build) -> list[Capsules]:
    """Return the muscles of shoulders, back and arms."""
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
            muscles.append(Capsules.chain(_mirrored(path, side), radii))
        if build.arms_up:
            arm = [[168, 12, 128], [184, 8, 168], [180, -4, 330]]
        else:
            arm = [[172, 14, 118], [204, 16, 70], [216, 20, -240]]
        radii = np.array([40, 44, 40]) * build.muscle
        muscles.append(Capsules.chain(_mirrored(arm, side), radii))
    return muscles


def _body(build: Build, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return skin and muscle surfaces and distance to sheets of fat, on `BODY_LATTICE`."""
    lattice = BODY_LATTICE
    x, y, z = lattice.points
    trunk = _section(_TRUNK, x, y, z, 0.04)
    trunk += np.float32(6 * (1 - build.muscle))
    wall_noise = lattice.noise(rng, 14.0)
    shoulders = lattice.full()
    muscle = trunk
    second = lattice.full()
    for part in _girdle(build):
        distance = lattice.full()
        lattice.unite_capsules(distance, part, margin=60.0)
        np.minimum(shoulders, distance, out=shoulders)
        second = np.minimum(second, np.maximum(muscle, distance))
        muscle = np.minimum(muscle, distance)
    # Sheets of fat: where two muscles meet, and between the ribs and the muscles on them.
    wall = _section(_CAVITY, x, y, z, _EGG)
    sheets = np.where(second < 3, second - muscle, 99)
    on_ribs = np.abs(wall - np.float32(12.5)) + np.maximum(np.float32(2) - 3 * wall_noise, 0)
    sheets = np.minimum(sheets, on_ribs)
    lower = np.clip((40 - z) / 200, 0, 1)
    front = np.clip(-y / 100, -0.5, 1)
    fat = np.float32(build.fat_mm) * (1 + np.float32(0.45) * lower + np.float32(0.2) * front)
    body = smooth_min(trunk - fat, shoulders - np.float32(build.fat_mm * 0.9 + 1), 34.0)
    if build.sex == "F":
        volume = 0.8 + build.fat_mm / 30
        for side in SIDES.values():
            low = np.array([side * 82 - 95, -190, -110])
            high = np.array([side * 82 + 95, 0, 100])

            def breast(x: Array, y: Array, z: Array, side: float = side) -> Array:
                half = (62 * volume**0.4, 25 * volume**0.8, 62 * volume**0.4)
                return ellipsoid(x, y, z, (side * 86, -88 - build.fat_mm * 0.7, -8), half)

            lattice.unite(body, (low, high), breast, fillet=40.0)
    body += np.float32(1.2) * lattice.noise(rng, 45.0)
    # The table flattens the back.
    back = np.float32(116 + 0.55 * build.fat_mm)
    body = smooth_max(body, y + couch_sag(x) - back, 22.0)
    return body, np.maximum(muscle, body + np.float32(2.5)), sheets


def _belly(build: Build, below: Array, cavity: Array) -> tuple[Array, Array, Array]:
    """Return liver, spleen and stomach; `below` is the distance to the space under the domes."""
    x, y, z = CHEST_LATTICE.points
    room = np.maximum(below + np.float32(1.8), cavity + np.float32(3.0))
    liver = ellipsoid(x, y, z, (-62, -8, -128), (104, 86, 92))
    left_lobe = ellipsoid(x, y, z, (10, -48, -108), (66, 38, 50))
    liver = smooth_max(smooth_min(liver, left_lobe, 20.0), room, 3.0)
    spine_gap = np.float32(32) - np.sqrt((x - 0) ** 2 + (y - np.float32(66)) ** 2)
    liver = np.maximum(liver, spine_gap)
    spleen = ellipsoid(x, y, z, (92, 44, -112), (32, 42, 58))
    stomach = ellipsoid(x, y, z, (60, -20, -112), (48, 58, 70))
    stomach = np.maximum(stomach, np.float32(4) - np.minimum(liver, spleen))
    return liver, smooth_max(spleen, room, 4.0), smooth_max(stomach, room + 1, 4.0)


def _fissures(
    lungs: dict[str, Array], rng: np.random.Generator
) -> tuple[dict[str, Array], Array]:
    """Return each side's oblique fissure (positive above) and the right horizontal one."""
    _, y, z = CHEST_LATTICE.points
    oblique = {}
    for name in lungs:
        middle = rng.normal(-8, 5)
        slope = rng.normal(0.84, 0.06)
        wave = CHEST_LATTICE.noise(rng, 22.0) * np.float32(6)
        oblique[name] = (z - np.float32(middle) - np.float32(slope) * y + wave) * np.float32(0.76)
    wave = CHEST_LATTICE.noise(rng, 24.0) * np.float32(3)
    return oblique, z - np.float32(rng.normal(8, 5)) + np.float32(0.1) * y + wave


def _targets(
    rng: np.random.Generator, lung: Array, count: int, depth_mm: float
) -> NDArray[np.float64]:
    """Draw evenly spread points at least `depth_mm` below the lung's surface."""
    lattice = CHEST_LATTICE
    depth = ndimage.distance_transform_edt(lung < 0) * lattice.step
    inside = np.argwhere(depth > depth_mm)
    chosen = inside[rng.choice(len(inside), size=min(count * 4, len(inside)), replace=False)]
    points = chosen[:, ::-1] + rng.uniform(-0.5, 0.5, chosen.shape)
    # One point per box of a lattice of boxes makes the spread even.
    size = (len(inside) / count) ** (1 / 3)
    _, first = np.unique(np.floor(points / size).astype(int), axis=0, return_index=True)
    return points[np.sort(first)] * lattice.step + np.asarray(lattice.low)


def _trees(
    lungs: dict[str, Array], rng: np.random.Generator
) -> tuple[Capsules, Capsules]:
    """Return pulmonary vessels and the bronchi beside the arteries."""
    vessels, bronchi = [], []
    for name, side in SIDES.items():
        artery_root = np.array([side * 44.0, 16.0, 18.0 if side < 0 else 24.0])
        vein_root = np.array([side * 43.0, 18.0, 4.0])
        artery = grow(artery_root, _targets(rng, lungs[name], 2200, 3.0), 0.41)
        vein = grow(vein_root, _targets(rng, lungs[name], 1700, 3.5), 0.42)
        direction = np.array([side * 0.35, 0.75, -0.55])
        airway = artery.companion(0.9, 0.75, direction / np.linalg.norm(direction))
        vessels += [artery.capsules(), vein.capsules()]
        bronchi.append(airway.capsules())
    return Capsules.join(vessels), Capsules.join(bronchi)


def draw_patient(seed: int) -> Patient:
    """Draw a patient's healthy anatomy from a seed."""
    rng = np.random.default_rng([seed, 1])
    build = Build.draw(rng)
    body, muscle, sheets = _body(build, rng)
    lattice = CHEST_LATTICE
    x, y, z = lattice.points
    cavity = _section(_CAVITY, x, y, z, _EGG)
    diaphragm = (dome(build, x, y) - z) * np.float32(0.62)

    tubes, airways, oesophagus = _great_vessels(build)
    shift = np.array([build.shift_mm, 0.0, 0.0])
    tubes, airways, oesophagus = (
        Capsules(c.start + shift, c.end + shift, c.start_radius, c.end_radius, c.scale)
        for c in (tubes, airways, oesophagus)
    )
    blood = lattice.full()
    lattice.unite_capsules(blood, tubes)
    heart = lattice.full()
    for centre, half, degrees in _heart_parts(build):
        centre = (centre[0] + build.shift_mm, centre[1], centre[2] - 0.5 * build.breath_mm)

        def chamber(
            x: Array, y: Array, z: Array, c: tuple = centre, h: tuple = half, d: float = degrees
        ) -> Array:
            return _ellipsoid_in_plane(x, y, z, c, h, d)

        reach = max(half) + 16
        box = ([c - reach for c in centre], [c + reach for c in centre])
        lattice.unite(heart, box, chamber, fillet=14.0)
    heart = np.maximum(heart, cavity + np.float32(3.0))
    heart = np.maximum(heart, diaphragm + np.float32(1.0))

    # The mediastinum wraps its organs; hollows between them fill with fat.
    wrap = smooth_min(blood, heart, 18.0) - np.float32(1.2)
    tissue = lattice.full()
    lattice.unite_capsules(tissue, airways)
    lattice.unite_capsules(tissue, oesophagus)
    wrap = smooth_min(wrap, tissue - np.float32(1.8), 13.0)
    for side in SIDES.values():
        pad = (side * (38.0 if side < 0 else 52.0), -80.0, _heart_base(build) - 10)
        lattice.unite(
            wrap,
            ([c - 45 for c in pad], [c + 45 for c in pad]),
            lambda x, y, z, p=pad: ellipsoid(x, y, z, p, (24, 14, 18)),
            fillet=22.0,
        )
    septum = _curve(_SEPTUM, 1, z).astype(np.float32)
    lean = np.float32(build.shift_mm) + np.float32(0.06) * np.clip(-y, 0, 90)
    # Retrosternal fat: the septum widens towards the sternum.
    sternum = _curve(_CAVITY, 2, z).astype(np.float32)
    septum = septum + np.float32(11) * np.clip(1 - (y - sternum) / 34, 0, 1) ** 2
    # At the apices the mediastinum bulges between rounded lungs.
    apex = np.clip((z - 80) / 35, 0, 1) * np.clip((y - 26) / 36, -1.2, 1.2) ** 2
    septum = septum + np.float32(15) * apex.astype(np.float32)
    wrap = smooth_min(wrap, np.abs(x - lean) - septum, 12.0)
    wide, deep = (v.astype(np.float32) for v in vertebra_half(z))
    back = spine_y(z).astype(np.float32)
    spine = superellipse(x, y - (back - deep), wide + 3, deep + 3, 2.2)
    # Between the gutters the paravertebral tissue widens backwards like a wedge.
    ahead = back - np.float32(1.2) * deep - y
    wedge = (np.abs(x) - np.float32(0.75) * wide + np.float32(0.85) * ahead) * np.float32(0.76)
    wedge = np.maximum(np.maximum(wedge, ahead), np.abs(x) - np.float32(48))
    spine = smooth_min(spine, wedge, 12.0)
    mediastinum = smooth_min(wrap, spine, 10.0)

    space = smooth_max(smooth_max(cavity, diaphragm, 3.0), -mediastinum, 4.0)
    lungs = {
        name: np.maximum(space, (lean - x) * np.float32(side)) for name, side in SIDES.items()
    }
    fissures, minor = _fissures(lungs, rng)
    liver, spleen, stomach = _belly(build, -diaphragm, cavity)
    vessels, bronchi = _trees(lungs, rng)
    bones, cartilage, blades = _skeleton(build, rng)
    on_table = body[BODY_LATTICE.shape[0] // 2 - 20 : BODY_LATTICE.shape[0] // 2 + 20] < 0
    reach = BODY_LATTICE.axis(1)[on_table.any(axis=(0, 2))]
    patient = Patient(
        build=build,
        body=body,
        muscle=muscle,
        cavity=cavity,
        diaphragm=diaphragm,
        mediastinum=mediastinum,
        paraspinal=spine,
        blood=blood,
        heart=heart,
        liver=liver,
        spleen=spleen,
        stomach=stomach,
        lungs=lungs,
        sheets=sheets,
        surface_y=(float(reach[0]), float(reach[-1])),
        fissures=fissures,
        minor_fissure=minor,
        airways=airways,
        oesophagus=oesophagus,
        bones=bones,
        cartilage=cartilage,
        vessels=vessels,
        bronchi=bronchi,
        blades=blades,
        texture=_texture(rng),
        capillaries=_capillaries(rng),
    )
    return patient


def _texture(rng: np.random.Generator) -> Array:
    """Return a periodic cube of fine noise with unit variance, 1 mm steps."""
    return _periodic_noise(rng, 1.1)


def _capillaries(rng: np.random.Generator) -> Array:
    """Return a periodic cube of thin winding threads (0 to 1), 1 mm steps.

    Two smooth fields vanish together on curves: a cheap stand-in for the thousands of vessels
    that are too small for the trees.
    """
    squares = _periodic_noise(rng, 2.6) ** 2 + _periodic_noise(rng, 2.6) ** 2
    return np.exp(squares * np.float32(-1 / (2 * 0.3**2)))


def _periodic_noise(rng: np.random.Generator, correlation_mm: float) -> Array:
    white = rng.standard_normal((96, 96, 96), dtype=np.float32)
    field = ndimage.gaussian_filter(white, correlation_mm, mode="wrap")
    return field / field.std()


__all__ = ["BODY_LATTICE", "CHEST_LATTICE", "SIDES", "Build", "Patient", "Tree", "draw_patient"]
