"""Pictures of the cases where prediction and truth differ most."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from tools.evaluate.cases import load_masks, rows_of
from tools.evaluate.ct import read_ct
from tools.evaluate.masks import POSITION_TOLERANCE, EvaluationError
from tools.evaluate.report import Picture

TRUTH_COLOUR, PREDICTION_COLOUR = "#35c46a", "#ff5a3c"
LUNG_WINDOW_HU = (-1250, 250)
SLICES = 4


def worst_cases(
    frame: pd.DataFrame, cases: pd.DataFrame, segment: str, count: int
) -> Iterator[Picture]:
    """Picture the cases of the lowest Dice, each in the slices with most false voxels.

    Parameters
    ----------
    frame : pandas.DataFrame
        Datalist with ``prediction``, ``truth`` and perhaps ``image``.
    cases : pandas.DataFrame
        What was computed for the same rows, with ``dice``.
    segment : str
        What to look for in a DICOM SEG.
    count : int
        How many cases.
    """
    rows = list(rows_of(frame))
    order = np.argsort(cases["dice"].to_numpy(), kind="stable")[:count]
    for rank, index in enumerate(order, 1):
        row, dice = rows[index], cases["dice"].iloc[index]
        yield Picture.of(
            f"worst_{rank}",
            f"{_title(row)}: Dice {dice:.3f}",
            draw_case(row, segment),
        )


def draw_case(row: dict[str, Any], segment: str) -> Figure:
    """Draw the outlines of truth and prediction over the CT, or over the lack of one."""
    prediction, truth = load_masks(row, ("prediction", "truth"), (segment, segment))
    picture = _hounsfield(row.get("image"), truth)
    prediction, truth = (v.to_patient_orientation("HPL") for v in (prediction, truth))
    errors = (prediction.array != truth.array).sum(axis=(1, 2))
    # From head to feet, the worst of each quarter of the slices that differ.
    quarters = np.array_split(np.flatnonzero(errors) if errors.any() else np.arange(1), SLICES)
    slices = [quarter[np.argmax(errors[quarter])] for quarter in reversed(quarters) if len(quarter)]
    spacing = truth.spacing
    figure = Figure(figsize=(3.1 * len(slices), 3.7), facecolor="black", layout="constrained")
    axes = figure.subplots(1, len(slices), squeeze=False)[0]
    low, high = LUNG_WINDOW_HU
    for axis, index in zip(axes, slices, strict=True):
        hu = np.full(truth.array.shape[1:], low) if picture is None else picture[index]
        axis.imshow(hu, cmap="gray", vmin=low, vmax=high, aspect=spacing[1] / spacing[2])
        for mask, colour in ((truth, TRUTH_COLOUR), (prediction, PREDICTION_COLOUR)):
            if mask.array[index].any():
                axis.contour(mask.array[index], levels=[0.5], colors=[colour], linewidths=0.9)
        axis.set_title(f"slice {index + 1}", color="white", fontsize=9)
        axis.set_axis_off()
    figure.legend(
        handles=[
            Line2D([], [], color=TRUTH_COLOUR, label="truth"),
            Line2D([], [], color=PREDICTION_COLOUR, label="prediction"),
        ],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        labelcolor="white",
    )
    return figure


def _hounsfield(source: Path | None, reference: hd.Volume) -> NDArray | None:
    """Read the CT of a case onto the grid of its masks."""
    if source is None:
        return None
    try:
        placed = read_ct(source).match_geometry(
            reference.get_geometry(), constant_value=LUNG_WINDOW_HU[0], tol=POSITION_TOLERANCE
        )
    except RuntimeError as error:
        raise EvaluationError(f"{source}: geometry differs from the case's masks") from error
    return placed.to_patient_orientation("HPL").array


def _title(row: dict[str, Any]) -> str:
    extra = [f"{c} {row[c]}" for c in ("class", "training", "fold") if row.get(c)]
    return ", ".join([str(row["case"]), *extra])
