"""A CT series as one array in Hounsfield units with its place in the patient."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Volume:
    """A CT series on its own grid: nothing is flipped, resampled or reordered behind it.

    Attributes
    ----------
    voxels : int16 array (slices, rows, columns)
        Hounsfield units. Slices are in the order of their position along the slice normal.
    affine : float64 array (4, 4)
        Maps a homogeneous index (slice, row, column, 1) to patient coordinates in mm, in DICOM's
        LPS axes (x to the patient's left, y to the back, z to the head; PS3.3 C.7.6.2.1.1).
    headers : tuple of Dataset
        The instances' attributes without pixel data, one per slice, in slice order.
    notes : tuple of str
        What was repaired or assumed while reading, for the report; no patient data.
    frames : tuple of int
        Number of each slice's frame in the one multi-frame instance, from 0; empty where every
        slice is an instance of its own.
    """

    voxels: npt.NDArray[np.int16]
    affine: npt.NDArray[np.float64]
    headers: tuple[Dataset, ...]
    notes: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along (slices, rows, columns) in mm."""
        return spacing_mm(self.affine)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres, right for sheared (tilted) grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0


def spacing_mm(affine: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the distance between voxel centres along an affine's three index axes in mm."""
    slice_mm, row_mm, column_mm = np.linalg.norm(affine[:3, :3], axis=0)
    return float(slice_mm), float(row_mm), float(column_mm)
