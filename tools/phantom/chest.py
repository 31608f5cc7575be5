"""Heart, great vessels, airways, mediastinum, lungs and what lies under the diaphragm."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from .build import CAVITY, CHEST_LATTICE, SIDES, Build, curve, heart_base, spine_y, vertebra_half
from .shapes import Array, Capsules, ellipsoid, smooth_max, smooth_min, superellipse
from .vessels import grow

# Half width of the mediastinum between the vessels: z, mm (the anterior junction is thin).
_SEPTUM = np.array(
    [
        [240, 44],
        [150, 40],
        [120, 31],
        [104, 25],
        [90, 13],
        [75, 5],
        [50, 2.2],
        [0, 2.2],
        [-60, 4],
        [-120, 10],
    ]
)


def great_vessels(build: Build) -> tuple[Capsules, Capsules, Capsules]:
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
    shift = np.array([build.shift_mm, 0.0, 0.0])
    return (
        Capsules.join(blood).moved(shift),
        Capsules.join(airways).moved(shift),
        oesophagus.moved(shift),
    )


def heart(build: Build, cavity: Array, diaphragm: Array) -> Array:
    """Return the heart's surface: five chambers, blended, inside the chest."""
    size, shift = build.heart, build.shift_mm
    lattice = CHEST_LATTICE
    field = lattice.full()
    # Centre, half axes in mm, turn in the axial plane in degrees.
    chambers = (
        ((2, 19, 2), (32 * size, 16, 22), 0),
        ((-34, -14, -18), (22 * size, 30 * size, 34), 0),
        ((2, -50, -32), (44 * size, 31 * size, 36), 8),
        ((30, -24, -36), (45 * size, 35 * size, 34 * size), -35),
        ((18, -46, -6), (30 * size, 25 * size, 26), -20),
    )
    for (x, y, z), half, degrees in chambers:
        centre = np.array([x + shift, y, z - 0.5 * build.breath_mm])
        reach = max(half) + 16
        shape = partial(_turned_ellipsoid, centre=centre, half=half, degrees=degrees)
        lattice.unite(field, (centre - reach, centre + reach), shape, fillet=14.0)
    return np.maximum(np.maximum(field, cavity + np.float32(3)), diaphragm + np.float32(1))


def _turned_ellipsoid(
    x: Array,
    y: Array,
    z: Array,
    centre: NDArray[np.float64],
    half: tuple[float, float, float],
    degrees: float,
) -> Array:
    c, s = np.float32(np.cos(np.deg2rad(degrees))), np.float32(np.sin(np.deg2rad(degrees)))
    px, py = x - np.float32(centre[0]), y - np.float32(centre[1])
    return ellipsoid(px * c + py * s, py * c - px * s, z, (0, 0, centre[2]), half)


def mediastinum(
    build: Build, blood: Array, heart: Array, airways: Capsules, oesophagus: Capsules
) -> Array:
    """Return the wrapping of everything between the lungs; hollows in it hold fat."""
    lattice = CHEST_LATTICE
    x, y, z = lattice.points
    wrap = smooth_min(blood, heart, 18.0) - np.float32(1.2)
    tissue = lattice.full()
    lattice.unite_capsules(tissue, airways)
    lattice.unite_capsules(tissue, oesophagus)
    wrap = smooth_min(wrap, tissue - np.float32(1.8), 13.0)
    for side_x in (-38.0, 52.0):
        centre = np.array([side_x, -80.0, heart_base(build) - 10])
        pad = partial(ellipsoid, centre=centre, half=(24, 14, 18))
        lattice.unite(wrap, (centre - 46, centre + 46), pad, fillet=22.0)
    septum = curve(_SEPTUM, 1, z).astype(np.float32)
    # Retrosternal fat: the septum widens towards the sternum.
    sternum = curve(CAVITY, 2, z).astype(np.float32)
    near = np.clip(1 - (y - sternum) / 34, 0, 1).astype(np.float32)
    # At the apices the mediastinum bulges between rounded lungs.
    apex = np.clip((z - 80) / 35, 0, 1).astype(np.float32)
    bulge = np.clip((y - 26) / 36, -1.2, 1.2).astype(np.float32)
    septum = septum + np.float32(11) * near**2 + np.float32(15) * apex * bulge**2
    return smooth_min(wrap, np.abs(x - midline(build, y)) - septum, 12.0)


def midline(build: Build, y: Array) -> Array:
    """Return x of the plane between the lungs at y; it leans left in front of the heart."""
    return np.float32(build.shift_mm) + np.float32(0.06) * np.clip(-y, 0, 90)


def paraspinal() -> Array:
    """Return the spine with the muscles beside it, as far as they reach into the chest."""
    x, y, z = CHEST_LATTICE.points
    wide, deep = (v.astype(np.float32) for v in vertebra_half(z))
    back = spine_y(z).astype(np.float32)
    spine = superellipse(x, y - (back - deep), wide + 3, deep + 3, 2.2)
    # Between the gutters the paravertebral tissue widens backwards like a wedge.
    ahead = back - np.float32(1.2) * deep - y
    wedge = (np.abs(x) - np.float32(0.75) * wide + np.float32(0.85) * ahead) * np.float32(0.76)
    wedge = np.maximum(np.maximum(wedge, ahead), np.abs(x) - np.float32(48))
    return smooth_min(spine, wedge, 12.0)


def belly(below: Array, cavity: Array) -> tuple[Array, Array, Array]:
    """Return liver, spleen and stomach; `below` is the distance to the space under the domes."""
    x, y, z = CHEST_LATTICE.points
    room = np.maximum(below + np.float32(1.8), cavity + np.float32(3.0))
    liver = ellipsoid(x, y, z, (-62, -8, -128), (104, 86, 92))
    left_lobe = ellipsoid(x, y, z, (10, -48, -108), (66, 38, 50))
    liver = smooth_max(smooth_min(liver, left_lobe, 20.0), room, 3.0)
    spine_gap = np.float32(32) - np.sqrt(x**2 + (y - np.float32(66)) ** 2)
    liver = np.maximum(liver, spine_gap)
    spleen = ellipsoid(x, y, z, (92, 44, -112), (32, 42, 58))
    stomach = ellipsoid(x, y, z, (60, -20, -112), (48, 58, 70))
    stomach = np.maximum(stomach, np.float32(4) - np.minimum(liver, spleen))
    return liver, smooth_max(spleen, room, 4.0), smooth_max(stomach, room + 1, 4.0)


def fissures(lungs: dict[str, Array], rng: np.random.Generator) -> tuple[dict[str, Array], Array]:
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


def trees(lungs: dict[str, Array], rng: np.random.Generator) -> tuple[Capsules, Capsules]:
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


def _targets(
    rng: np.random.Generator, lung: Array, count: int, depth_mm: float
) -> NDArray[np.float64]:
    """Draw evenly spread points at least `depth_mm` below the lung's surface."""
    lattice = CHEST_LATTICE
    inside = np.argwhere(lung < -depth_mm)
    chosen = inside[rng.choice(len(inside), size=min(count * 4, len(inside)), replace=False)]
    points = chosen[:, ::-1] + rng.uniform(-0.5, 0.5, chosen.shape)
    # One point per box of a lattice of boxes makes the spread even.
    size = (len(inside) / count) ** (1 / 3)
    _, first = np.unique(np.floor(points / size).astype(int), axis=0, return_index=True)
    return points[np.sort(first)] * lattice.step + np.asarray(lattice.low)
