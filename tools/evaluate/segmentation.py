"""Overlap, distance and volume of predicted and true masks, case by case and over folds."""

from __future__ import annotations

import argparse
from pathlib import Path

import highdicom as hd
import numpy as np
import pandas as pd
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou
from numpy.typing import NDArray
from scipy import ndimage

from tools.evaluate.cases import check_masks, load_masks, progress, read_datalist, rows_of
from tools.evaluate.masks import SEGMENTS
from tools.evaluate.pictures import worst_cases
from tools.evaluate.report import Report, Table
from tools.evaluate.statistics import (
    half_width_95,
    over_groups,
    plus_minus,
    shown_percent,
    spread_groups,
)

METRICS = ("dice", "iou", "accuracy", "hd95_mm", "volume_error_ml", "volume_error_percent")
POOLED = ("accuracy", "iou", "dice")
COUNTS = ("tp", "fp", "fn", "tn")
PAIR = ("prediction", "truth")


def compare(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: tuple[float, ...]
) -> dict[str, float]:
    """Compare two masks with MONAI's metrics.

    Parameters
    ----------
    prediction, truth : bool arrays of one shape
        Three axes.
    spacing_mm : tuple of 3 floats
        Along the axes.

    Returns
    -------
    dict
        ``METRICS`` and the voxel counts ``COUNTS``. Two empty masks agree: Dice and IoU are 1,
        and there is no distance (NaN). Against one empty mask Dice and IoU are 0 and the distance
        is NaN. ``volume_error_percent`` is the absolute error relative to the truth, NaN where
        that is empty.
    """
    tp = int(np.count_nonzero(prediction & truth))
    fp, fn = int(np.count_nonzero(prediction)) - tp, int(np.count_nonzero(truth)) - tp
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    predicted_ml, truth_ml = (tp + fp) * voxel_ml, (tp + fn) * voxel_ml
    # Outside the box both are empty, which changes none of the three metrics.
    box = ndimage.find_objects((prediction | truth).view(np.uint8))
    where = box[0] if box else np.s_[:1, :1, :1]
    p, t = (
        torch.from_numpy(np.ascontiguousarray(m[where]))[None, None] for m in (prediction, truth)
    )
    hd95_mm = float("nan")
    if tp + fp and tp + fn:
        hd95_mm = float(compute_hausdorff_distance(p, t, True, percentile=95, spacing=spacing_mm))
    return {
        "dice": float(compute_dice(p, t, ignore_empty=False)),
        "iou": float(compute_iou(p, t, ignore_empty=False)),
        "accuracy": 1.0 - (fp + fn) / truth.size,
        "hd95_mm": hd95_mm,
        "predicted_ml": predicted_ml,
        "truth_ml": truth_ml,
        "volume_error_ml": predicted_ml - truth_ml,
        "volume_error_percent": (
            100.0 * abs(predicted_ml - truth_ml) / truth_ml if truth_ml else float("nan")
        ),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": truth.size - tp - fp - fn,
    }


def compare_cases(frame: pd.DataFrame, segment: str, quiet: bool = False) -> pd.DataFrame:
    """Compare prediction and truth of every case; returns its columns and those of `compare`."""
    rows = []
    for row in progress(rows_of(frame), len(frame), "comparing masks", quiet):
        prediction, truth = axial(load_masks(row, PAIR, (segment, segment)))
        kept = {c: row[c] for c in ("case", "patient", "training", "fold", "class") if c in row}
        values = compare(prediction.array, truth.array, tuple(map(float, truth.spacing)))
        rows.append({**kept, **values, "slices": truth.spatial_shape[0]})
    return pd.DataFrame(rows)


def axial(volumes: list[hd.Volume]) -> list[hd.Volume]:
    """Turn volumes so that slices go to the head, rows to the back, columns to the left."""
    return [volume.to_patient_orientation("HPL") for volume in volumes]


def pooled(cases: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy, IoU and Dice of all voxels together, with the cascaded paper's intervals.

    Equations 2 to 5 of Qiblawey et al. 2021: from the confusion matrix summed over all test
    folds; N is the number of slices. One row a training.
    """
    trainings = cases["training"] if "training" in cases else pd.Series("", cases.index)
    sums = cases.groupby(trainings.fillna("").rename("training"))[[*COUNTS, "slices"]].sum()
    rows = []
    for training, (tp, fp, fn, tn, slices) in zip(sums.index, sums.to_numpy(), strict=True):
        values = {
            "accuracy": (tp + tn) / (tp + fp + fn + tn),
            "iou": tp / (tp + fp + fn) if tp + fp + fn else 1.0,
            "dice": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0,
        }
        intervals = {f"{name}_interval": half_width_95(v, slices) for name, v in values.items()}
        rows.append({"training": training, "slices": int(slices), **values, **intervals})
    frame = pd.DataFrame(rows)
    return frame if "training" in cases else frame.drop(columns="training")


def summary(cases: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation of each metric, of all cases and of those with lesion."""
    groups = spread_groups(cases)
    parts = []
    for name, part in (("all", cases), ("truth not empty", cases[cases["truth_ml"] > 0])):
        if len(part):
            table = over_groups(part, groups, METRICS)
            parts.append(table.assign(cases=name))
    frame = pd.concat(parts, ignore_index=True)
    return frame[["cases", "metric", "mean", "std", "n"]]


def tables(cases: pd.DataFrame) -> list[Table]:
    """Return the tables of a segmentation: summary, pooled, per group, per case."""
    groups = spread_groups(cases)
    found = summary(cases)
    shown = found.assign(
        value=[plus_minus(m, s, 3) for m, s in zip(found["mean"], found["std"], strict=True)]
    )[["cases", "metric", "value", "n"]]
    spread = f"mean ± standard deviation over {' and '.join(groups)}s" if groups else "over cases"
    both = pooled(cases)
    result = [
        Table("summary", f"Summary, {spread}", found, shown),
        Table(
            "pooled",
            "All voxels together, 95 % intervals with N = slices (cascaded paper, tables 5 and 6)",
            both,
            shown_percent(both, POOLED),
        ),
    ]
    if groups:
        means = cases.groupby(groups, dropna=False)[list(METRICS)].mean().reset_index()
        result.append(Table("groups", f"Mean of each {' and '.join(groups)}", means))
    return [*result, Table("cases", "Every case, worst first", cases.sort_values("dice"))]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("datalist", type=Path, help="columns case, truth, prediction")
    parser.add_argument("--segment", choices=SEGMENTS, default="lesion", help="which (lesion)")
    parser.add_argument("--pictures", type=int, default=4, help="worst cases to picture (4)")


def run(arguments: argparse.Namespace) -> Report:
    """Evaluate a datalist of masks."""
    frame = read_datalist(
        arguments.datalist, PAIR, ("training", "fold", "class", "patient", "image")
    )
    segments = (arguments.segment, arguments.segment)
    check_masks(frame, PAIR, segments, arguments.quiet)
    cases = compare_cases(frame, arguments.segment, arguments.quiet)
    return Report(
        f"Segmentation of the {arguments.segment}: {len(cases)} predictions",
        [
            'Two empty masks count as Dice 1; rows named "truth not empty" leave such cases out. '
            "HD95 is the 95th percentile of the Hausdorff distance and is left out where a mask is "
            "empty.",
        ],
        [*tables(cases), *worst_cases(frame, cases, arguments.segment, arguments.pictures)],
    )
