"""Draw segments over slices of their study, in the application's own way."""

from pathlib import Path

import highdicom as hd
import matplotlib.image
import numpy as np
import numpy.typing as npt

from ct_triage.picture import draw_picture
from ct_triage.volume import Volume


def read_segments(seg_file: Path, volume: Volume) -> dict[int, npt.NDArray[np.bool_]]:
    """Return each segment's mask (slices, rows, columns) on the grid of its source volume.

    Slices without a frame for a segment are empty in its mask.
    """
    seg = hd.seg.segread(seg_file)
    uids = [header.SOPInstanceUID for header in volume.headers]
    frames = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    return {
        number: frames[..., index].astype(bool) for index, number in enumerate(seg.segment_numbers)
    }


def draw_overlay(volume: Volume, segments: dict[int, npt.NDArray[np.bool_]], file: Path) -> None:
    """Write the picture of :func:`ct_triage.picture.draw_picture` as a PNG.

    Parameters
    ----------
    volume : Volume
        The study.
    segments : dict of segment number to bool array (slices, rows, columns)
        Masks on the volume's grid.
    file : Path
        PNG to write; its folder is made if need be.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    matplotlib.image.imsave(file, draw_picture(volume, segments))
