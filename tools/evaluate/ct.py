"""CT of a case, whichever way it is stored."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np

from ct_triage.errors import TriageError
from ct_triage.reading import AIR_HU, MAX_HU, read_volume
from ct_triage.series import find_series
from ct_triage.volume import Volume
from tools.evaluate.masks import NIFTI_SUFFIXES, EvaluationError, read_image


def read_ct(source: Path) -> hd.Volume:
    """Read CT in HU from a NIfTI file, or from the best chest series of a DICOM folder.

    Raises
    ------
    EvaluationError
        If there is none, or it cannot be read.
    """
    if source.name.endswith(NIFTI_SUFFIXES):
        return read_image(source)
    try:
        ct = read_volume(find_series(source))
    except TriageError as error:
        raise EvaluationError(str(error)) from error
    return hd.Volume(ct.voxels, ct.affine, coordinate_system="PATIENT")


def as_volume(ct: hd.Volume) -> Volume:
    """Return CT in HU as the application has it."""
    hu = np.rint(ct.array).clip(AIR_HU, MAX_HU).astype(np.int16)
    return Volume(hu, ct.affine, ())
