"""Look at the lungs that were found before anyone relies on them."""

import logging
from dataclasses import replace

import numpy as np

from ct_triage.errors import NoSeriesError, Refusal
from ct_triage.scanning import text_of, value_of
from ct_triage.severity import BoolMask
from ct_triage.volume import Volume

logger = logging.getLogger(__name__)

# Far below what is left of an adult's lungs in the worst disease.
MIN_LUNGS_ML = 100.0
# An outermost slice with this share of the largest lung area cuts through a lung.
CUT_SHARE = 0.1


def review_lungs(volume: Volume, right: BoolMask, left: BoolMask) -> Volume:
    """Add to the notes of a volume what its lungs say about it.

    Parameters
    ----------
    volume : Volume
        The study.
    right, left : bool arrays (slices, rows, columns)
        The lungs on the volume's grid.

    Raises
    ------
    NoSeriesError
        If there are no lungs in the volume: a report would call the patient healthy.
    """
    lungs_ml = (np.count_nonzero(right) + np.count_nonzero(left)) * volume.voxel_volume_ml
    if lungs_ml < MIN_LUNGS_ML:
        uid = text_of(volume.headers[0], "SeriesInstanceUID")
        reason = (
            f"series {uid}: {lungs_ml:.0f} ml of lung were found, at least {MIN_LUNGS_ML:.0f} ml"
            " are needed; give a CT of the chest"
        )
        number = value_of(volume.headers[0], "SeriesNumber")
        known = int(number) if isinstance(number, int) else None
        raise NoSeriesError(reason, (Refusal(uid, known, len(volume.headers), reason),))
    areas = right.sum(axis=(1, 2)) + left.sum(axis=(1, 2))
    upper, lower = ("last", "first") if volume.affine[2, 0] > 0 else ("first", "last")
    ends = {"first": areas[0], "last": areas[-1]}
    notes = [
        f"the lungs are cut off at the {end} slice; volumes and shares are of the part in the"
        " images"
        for end, slice_name in (("uppermost", upper), ("lowest", lower))
        if ends[slice_name] > CUT_SHARE * areas.max()
    ]
    if not right.any() or not left.any():
        side = "left" if right.any() else "right"
        notes.append(f"no {side} lung was found")
    for note in notes:
        logger.warning("%s", note)
    return replace(volume, notes=(*volume.notes, *notes))
