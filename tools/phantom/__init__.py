"""Chest CT phantoms with a known truth, written as DICOM or NIfTI."""

from .grid import Grid
from .phantom import Phantom, build_phantom
from .variation import varied_phantom
from .writers import write_dicom_series, write_nifti

__all__ = [
    "Grid",
    "Phantom",
    "build_phantom",
    "varied_phantom",
    "write_dicom_series",
    "write_nifti",
]
