"""Voxel grids in patient space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Directions in LPS of (slice order, rows downwards, columns rightwards) as scanners store them:
# the picture's top is the ceiling side and the slices follow the gantry's travel into the bore.
_AXES = {
    "HFS": ((0, 0, -1), (0, 1, 0), (1, 0, 0)),
    "HFP": ((0, 0, -1), (0, -1, 0), (-1, 0, 0)),
    "FFS": ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
    "FFP": ((0, 0, 1), (0, -1, 0), (1, 0, 0)),
}
PATIENT_POSITIONS = tuple(_AXES)


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxels and its place in the patient.

    Parameters
    ----------
    shape
        Number of (slices, rows, columns).
    affine
        4x4 float64; maps the index (slice, row, column) of a voxel's centre to patient
        LPS millimetres (x to the patient's left, y posterior, z superior).
    patient_position
        DICOM Patient Position (HFS, HFP, FFS or FFP). It tells which side lies on the table.
    slice_thickness_mm
        Thickness of the imaged section; None means the distance between slices.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    patient_position: str = "HFS"
    slice_thickness_mm: float | None = None

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape must be three positive integers, got {self.shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError("affine must be a finite 4x4 matrix")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise ValueError("affine is singular: spacings must be positive")
        if self.patient_position not in _AXES:
            raise ValueError(
                f"patient position must be one of {', '.join(_AXES)}, got {self.patient_position}"
            )
        if self.slice_thickness_mm is not None and not self.slice_thickness_mm > 0:
            raise ValueError("slice thickness must be positive")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def axial(
        cls,
        shape: tuple[int, int, int] = (60, 256, 256),
        spacing_mm: tuple[float, float, float] = (5.0, 1.5, 1.5),
        patient_position: str = "HFS",
        *,
        rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
        centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
        slice_thickness_mm: float | None = None,
    ) -> Grid:
        """Make the grid of an axial series, stored the way a scanner stores that position.

        Parameters
        ----------
        shape
            Number of (slices, rows, columns).
        spacing_mm
            Distance between (slices, rows, columns) in mm.
        patient_position
            HFS, HFP, FFS or FFP. The anatomy stays put in patient space, the axes change.
        rotation_deg
            Rotation of the grid about the patient's x, y and z axis, applied in that order,
            for oblique series.
        centre_mm
            Patient LPS position of the grid's centre; the phantom's chest is centred on 0.
        slice_thickness_mm
            Section thickness, when it is not the slice distance.

        Raises
        ------
        ValueError
            On a bad shape, spacing or patient position.
        """
        if patient_position not in _AXES:
            raise ValueError(
                f"patient position must be one of {', '.join(_AXES)}, got {patient_position}"
            )
        if len(spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
            raise ValueError(f"spacing must be three positive lengths in mm, got {spacing_mm}")
        rotation = np.eye(3)
        for axis, degrees in enumerate(rotation_deg):
            c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
            i, j = (axis + 1) % 3, (axis + 2) % 3
            step = np.eye(3)
            step[i, i], step[i, j], step[j, i], step[j, j] = c, -s, s, c
            rotation = step @ rotation
        axes = np.array(_AXES[patient_position], dtype=np.float64).T
        affine = np.eye(4)
        affine[:3, :3] = rotation @ axes * np.asarray(spacing_mm, dtype=np.float64)
        middle = (np.asarray(shape, dtype=np.float64) - 1) / 2
        affine[:3, 3] = np.asarray(centre_mm) - affine[:3, :3] @ middle
        return cls(shape, affine, patient_position, slice_thickness_mm)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring (slices, rows, columns) along each index axis, mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def thickness_mm(self) -> float:
        """Thickness of the imaged section in mm."""
        return self.slice_thickness_mm or self.spacing_mm[0]

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in cubic mm."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def to_patient(self, index: ArrayLike) -> NDArray[np.float64]:
        """Map indices (..., 3) in (slice, row, column) order to patient LPS mm (..., 3)."""
        return np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]
