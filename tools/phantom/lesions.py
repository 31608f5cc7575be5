"""Disease: opacities, effusion and nodules laid into a patient's lungs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from .anatomy import Patient
from .build import CHEST_LATTICE, SIDES
from .shapes import Array, Capsules

DISEASES = ("covid19", "bacterial", "nodules", "normal")
_NOISE_TO_MM = np.float32(7.0)
_SMALLEST_MM3 = 300.0


@dataclass
class Disease:
    """What is wrong with the lungs.

    Fields on `CHEST_LATTICE` are distances in mm, negative inside: `opacity` (ground glass and
    consolidation together), `solid` (consolidation) and `effusion`. `haze` is how dense the
    ground glass is and `paving` where septal lines cross it, both about -1 to 1.
    `septa` is a periodic cube (1 mm steps) of distances to the walls of small cells.
    """

    name: str
    opacity: Array
    solid: Array
    effusion: Array
    haze: Array
    paving: Array
    septa: Array
    nodules: Capsules


def draw_disease(patient: Patient, name: str, seed: int, severity: float | None) -> Disease:
    """Draw a disease for a patient.

    Parameters
    ----------
    patient
        Whose lungs.
    name
        One of `DISEASES`.
    seed
        The patient's seed.
    severity
        Wanted share of the lungs' volume, 0 to 0.9; None draws one. Nodules and normal lungs
        have no opacities whatever it is.

    Raises
    ------
    ValueError
        On an unknown disease or a severity out of range.
    """
    if name not in DISEASES:
        raise ValueError(f"disease must be one of {', '.join(DISEASES)}, got {name!r}")
    if severity is not None and not 0 <= severity <= 0.9:
        raise ValueError(f"severity must lie between 0 and 0.9, got {severity}")
    rng = np.random.default_rng([seed, 2, DISEASES.index(name)])
    lattice = CHEST_LATTICE
    disease = Disease(
        name,
        opacity=lattice.full(),
        solid=lattice.full(),
        effusion=lattice.full(),
        haze=lattice.noise(rng, 14.0),
        paving=lattice.full(-1.0),
        septa=_cells(rng),
        nodules=Capsules.join([]),
    )
    if severity is None:
        severity = float(rng.uniform(0.05, 0.4) if name == "covid19" else rng.uniform(0.06, 0.18))
    if name == "nodules":
        disease.nodules = _nodules(patient, rng)
    elif name == "covid19" and severity > 0:
        _covid19(disease, patient, rng, severity)
    elif name == "bacterial" and severity > 0:
        _bacterial(disease, patient, rng, severity)
    return disease


def _covid19(disease: Disease, patient: Patient, rng: np.random.Generator, severity: float) -> None:
    """Peripheral, basal, posterior and bilateral ground glass with some consolidation."""
    lattice = CHEST_LATTICE
    _, y, z = lattice.points
    depth = np.maximum(-np.maximum(patient.cavity, patient.diaphragm), 0)
    basal = np.clip((np.float32(40) - z) / 130, -0.7, 1)
    dorsal = np.clip((y + 10) / 80, -0.8, 1)
    liking = (
        lattice.noise(rng, 11.0)
        + np.float32(0.4) * lattice.noise(rng, 4.5)
        + np.float32(rng.uniform(1.6, 2.4)) * np.exp(-depth / 15)
        + np.float32(rng.uniform(0.4, 0.9)) * basal
        + np.float32(rng.uniform(0.3, 0.8)) * dorsal
    )
    firmness = (
        lattice.noise(rng, 9.0)
        + np.float32(0.55) * lattice.noise(rng, 3.6)
        + np.float32(0.7) * np.exp(-depth / 12)
    )
    inside = {name: field < 0 for name, field in patient.lungs.items()}
    volume = {name: int(mask.sum()) for name, mask in inside.items()}
    lean = {name: float(np.exp(rng.normal(0, 0.3))) for name in SIDES}
    norm = sum(lean[n] * volume[n] for n in SIDES) / sum(volume.values())
    firm_share = 0.02 + 0.6 * rng.beta(1.3, 4.0) + 0.15 * severity
    disease.haze += np.float32(rng.normal(0, 0.5))
    for name in SIDES:
        share = min(severity * lean[name] / norm, 0.95)
        edge = np.quantile(liking[inside[name]], 1 - share)
        opacity = (np.float32(edge) - liking) * _NOISE_TO_MM
        sick = inside[name] & (opacity < 0)
        pieces, _ = ndimage.label(sick)
        small = np.bincount(pieces.ravel()) * lattice.step**3 < _SMALLEST_MM3
        crumbs = small[pieces] & sick
        opacity[crumbs] = 2
        sick &= ~crumbs
        if not sick.any():
            continue
        firm = np.quantile(firmness[sick], 1 - min(firm_share, 0.6))
        solid = np.maximum((np.float32(firm) - firmness) * _NOISE_TO_MM, opacity + 1)
        half = _half(patient, name)
        disease.opacity = np.where(half, opacity, disease.opacity)
        disease.solid = np.where(half, solid, disease.solid)
    disease.paving = lattice.noise(rng, 12.0) + np.float32(rng.uniform(-0.8, 0.6))


def _half(patient: Patient, name: str) -> NDArray[np.bool_]:
    """Return where the lattice lies nearer to this lung than to the other."""
    other = "left" if name == "right" else "right"
    return patient.lungs[name] < patient.lungs[other]


def _bacterial(
    disease: Disease, patient: Patient, rng: np.random.Generator, severity: float
) -> None:
    """Consolidation of one lobe (more when it cannot hold the share) and an effusion."""
    lattice = CHEST_LATTICE
    x, y, z = lattice.points
    upper_right = np.maximum(-patient.fissures["right"], -patient.minor_fissure)
    middle = np.maximum(-patient.fissures["right"], patient.minor_fissure)
    lobes = [
        ("right", patient.fissures["right"]),
        ("left", patient.fissures["left"]),
        ("right", upper_right),
        ("right", middle),
        ("left", -patient.fissures["left"]),
    ]
    order = rng.permutation(len(lobes))
    total = sum(int((field < 0).sum()) for field in patient.lungs.values())
    wanted = severity * total
    texture = lattice.noise(rng, 10.0) + np.float32(0.5) * lattice.noise(rng, 4.5)
    halo = np.float32(3.5) + np.float32(3.0) * lattice.noise(rng, 9.0)
    first_side = lobes[order[0]][0]
    size = np.float32(rng.uniform(18, 55))
    depth = np.maximum(-np.maximum(patient.cavity, patient.diaphragm), 0)
    layer = size * np.clip((y + 5) / 85, 0, 1) ** 2 * np.clip((20 - z) / 120, 0, 1)
    disease.effusion = np.where(_half(patient, first_side), depth - layer, disease.effusion)
    for index in order:
        side, lobe = lobes[index]
        region = np.maximum(lobe + 1, patient.lungs[side])
        # The effusion drowns what lies in it, so it does not count.
        inside = (region < 0) & (disease.effusion > 0)
        room = int(inside.sum())
        if wanted <= 0 or not room:
            continue
        take = min(wanted, 0.97 * room)
        wanted -= take
        spots = np.argwhere(inside)
        hub = spots[rng.integers(len(spots))][::-1] * lattice.step + np.asarray(lattice.low)
        away = np.sqrt((x - hub[0]) ** 2 + (y - hub[1]) ** 2 + (z - hub[2]) ** 2)
        distance = (away - np.float32(9) * texture).astype(np.float32)
        edge = np.float32(np.quantile(distance[inside], take / room))
        opacity = np.maximum(distance - edge, lobe + 1)
        solid = np.maximum(distance - edge + np.maximum(halo, 1), lobe + 1.5)
        half = _half(patient, side)
        disease.opacity = np.where(half, np.minimum(disease.opacity, opacity), disease.opacity)
        disease.solid = np.where(half, np.minimum(disease.solid, solid), disease.solid)


def _nodules(patient: Patient, rng: np.random.Generator) -> Capsules:
    """Round and slightly lobed nodules of 2 to 9 mm radius in both lungs."""
    lattice = CHEST_LATTICE
    nodules = []
    for field in patient.lungs.values():
        spots = np.argwhere(field < -9)
        for _ in range(int(rng.integers(2, 7))):
            spot = spots[rng.integers(len(spots))][::-1] * lattice.step + np.asarray(lattice.low)
            radius = float(np.clip(np.exp(rng.normal(1.4, 0.4)), 2, 9))
            for _ in range(3):
                lobe = spot + rng.normal(0, 0.35, 3) * radius
                end = lobe + rng.normal(0, 0.3, 3) * radius
                nodules.append(Capsules.chain([lobe, end], radius * rng.uniform(0.6, 0.95)))
    return Capsules.join(nodules)


def _cells(rng: np.random.Generator) -> Array:
    """Return a periodic cube of distances to the walls between cells 6 to 9 mm wide."""
    side = 56
    seeds = rng.uniform(0, side, (420, 3))
    axis = np.arange(side)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    near, _ = cKDTree(seeds, boxsize=side).query(points, k=2)
    return ((near[:, 1] - near[:, 0]) / 2).reshape(side, side, side).astype(np.float32)
