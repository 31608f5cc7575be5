"""Draw segments over evenly chosen axial slices and one coronal slice."""

from pathlib import Path

import highdicom as hd
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ct_triage.network import AxialView
from ct_triage.volume import Volume

LUNG_WINDOW_HU = (-1250, 250)
COLOURS = {1: "#4aa3df", 2: "#5fc27e", 3: "#ff5a3c"}


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


def draw_overlay(
    volume: Volume,
    segments: dict[int, npt.NDArray[np.bool_]],
    file: Path,
    n_axial: int = 4,
    title: str = "",
) -> None:
    """Write a PNG: axial slices through the lungs and a coronal slice, plain above, drawn below.

    Parameters
    ----------
    volume : Volume
        The study.
    segments : dict of segment number to bool array (slices, rows, columns)
        Masks on the volume's grid.
    file : Path
        PNG to write.
    n_axial : int
        How many axial slices, evenly spaced through the segments.
    title : str
        A line above the pictures.
    """
    view = AxialView.of(volume)
    masks = {number: view.of_mask(mask) for number, mask in segments.items()}
    everything: npt.NDArray[np.bool_] = np.logical_or.reduce(list(masks.values()))
    filled = np.flatnonzero(everything.any(axis=(1, 2)))
    if not len(filled):
        filled = np.arange(len(everything))
    slices = np.linspace(filled[0], filled[-1], n_axial + 2)[1:-1].round().astype(int)[::-1]
    of_interest = masks.get(3, everything)
    coronal = int(np.argmax(of_interest.sum(axis=(0, 2))))
    slice_mm, row_mm, column_mm = view.spacing_mm

    figure = Figure(figsize=(3.2 * (n_axial + 1), 6.6), facecolor="black", layout="constrained")
    axes = figure.subplots(2, n_axial + 1)
    for column, index in enumerate(slices):
        _draw_pair(
            axes[:, column],
            view.voxels[index],
            {n: m[index] for n, m in masks.items()},
            row_mm / column_mm,
        )
    _draw_pair(
        axes[:, -1],
        view.voxels[::-1, coronal],
        {n: m[::-1, coronal] for n, m in masks.items()},
        slice_mm / column_mm,
    )
    if title:
        figure.suptitle(title, color="white")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)


def _draw_pair(
    axes: npt.NDArray[np.object_],
    hu: npt.NDArray[np.int16],
    masks: dict[int, npt.NDArray[np.bool_]],
    aspect: float,
) -> None:
    low, high = LUNG_WINDOW_HU
    for axis in axes:
        axis.imshow(hu, cmap="gray", vmin=low, vmax=high, aspect=aspect)
        axis.set_axis_off()
    drawn: Axes = axes[1]
    for number, mask in masks.items():
        colour = mpl.colors.to_rgba(COLOURS.get(number, "yellow"))
        layer = np.zeros((*mask.shape, 4))
        layer[mask] = (*colour[:3], 0.45 if number == 3 else 0.2)
        drawn.imshow(layer, aspect=aspect)
