"""Build a phantom: a patient with a disease, scanned on a grid, with the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .anatomy import draw_patient
from .grid import Grid
from .lesions import draw_disease
from .scanner import scan


@dataclass
class Phantom:
    """A scanned phantom and its truth; all arrays have the grid's shape.

    `hu` holds Hounsfield units. The lungs include their vessels, opacities, nodules and pleural
    effusion and leave out trachea, main bronchi, mediastinum and the large vessels of the hila.
    Ground glass and consolidation exclude each other and lie inside the lungs.
    """

    grid: Grid
    hu: NDArray[np.int16]
    right_lung: NDArray[np.bool_]
    left_lung: NDArray[np.bool_]
    ground_glass: NDArray[np.bool_]
    consolidation: NDArray[np.bool_]
    disease: str
    seed: int
    sex: str
    age: int
    kernel: str

    @property
    def lung(self) -> NDArray[np.bool_]:
        """Both lungs."""
        return self.right_lung | self.left_lung

    @property
    def lesion(self) -> NDArray[np.bool_]:
        """Ground glass and consolidation together."""
        return self.ground_glass | self.consolidation


def build_phantom(
    grid: Grid,
    disease: str = "covid19",
    seed: int = 0,
    severity: float | None = None,
    *,
    kernel: str = "standard",
    noise_hu: float = 20.0,
    contrast_hu: float = 0.0,
    motion_mm: float = 0.0,
    metal: bool = False,
) -> Phantom:
    """Draw a patient and a disease from a seed and scan them.

    The same seed on another grid is the same patient with the same disease; only the noise
    belongs to the scan.

    Parameters
    ----------
    grid
        Where to sample.
    disease
        covid19, bacterial, nodules or normal.
    seed
        Non-negative integer; everything random follows from it.
    severity
        Wanted share of the lungs' volume that is opaque, 0 to 0.9, reached approximately; None
        draws one. It has no effect on nodules and normal, which have no opacities.
    kernel
        Reconstruction kernel: soft, standard or sharp.
    noise_hu
        Noise in HU of a 2 mm section through 200 mm of water; 0 for none.
    contrast_hu
        What contrast medium adds to the blood, in HU.
    motion_mm
        How far the patient moves while a section is scanned.
    metal
        Whether rods stand beside the spine.

    Raises
    ------
    ValueError
        On a value out of range or an unknown name.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    patient = draw_patient(seed)
    illness = draw_disease(patient, disease, seed, severity)
    image = scan(
        patient,
        illness,
        grid,
        seed=seed,
        kernel=kernel,
        noise_hu=noise_hu,
        contrast_hu=contrast_hu,
        motion_mm=motion_mm,
        metal=metal,
    )
    return Phantom(
        grid=grid,
        hu=image.hu,
        right_lung=image.right_lung,
        left_lung=image.left_lung,
        ground_glass=image.ground_glass,
        consolidation=image.consolidation,
        disease=disease,
        seed=seed,
        sex=patient.build.sex,
        age=patient.build.age,
        kernel=kernel,
    )
