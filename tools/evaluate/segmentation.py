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

from tools.evaluate.bootstrap import group_means, intervals, note
from tools.evaluate.cases import (
    check_masks,
    load_masks,
    progress,
    read_datalist,
    rows_of,
    trainings_of,
)
from tools.evaluate.masks import SEGMENTS
from tools.evaluate.pictures import worst_cases
from tools.evaluate.report import Report, Table
from tools.evaluate.statistics import (
    half_width_95,
    over_groups,
    shown_means,
    shown_percent,
    spread_groups,
    with_limits,
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
    p, t = _boxed(prediction, truth)
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


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return Dice alone, as in :func:`compare`."""
    return float(compute_dice(*_boxed(prediction, truth), ignore_empty=False))


def _boxed(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both in a batch and channel of one, cut to the box that holds all of them.

    Outside of it both are empty, which changes no overlap and no distance.
    """
    box = ndimage.find_objects((prediction | truth).view(np.uint8))
    where = box[0] if box else np.s_[:1, :1, :1]
    # Copies, since tensors take no arrays that run backwards.
    p, t = (torch.from_numpy(m[where].copy()) for m in (prediction, truth))
    return p[None, None], t[None, None]


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


def pooled(cases: pd.DataFrame, resamples: int = 0) -> pd.DataFrame:
    """Return accuracy, IoU and Dice of all voxels together, with the cascaded paper's intervals.

    Equations 2 to 5 of Qiblawey et al. 2021: from the confusion matrix summed over all test
    folds; N is the number of slices. ``METRIC_low`` and ``METRIC_high`` are the bootstrap's. One
    row a training.
    """
    rows = []
    for training, part in cases.groupby(trainings_of(cases)):
        counts = part[list(COUNTS)].to_numpy()
        slices = int(part["slices"].sum())
        values = dict(zip(POOLED, _of_counts(counts.sum(axis=0)), strict=True))
        widths = {f"{name}_interval": half_width_95(v, slices) for name, v in values.items()}
        limits = intervals(
            lambda drawn, counts=counts: _of_counts(counts[drawn].sum(axis=0)),  # type: ignore[misc]
            part["patient"],
            resamples,
        )
        ends = {
            f"{name}_{end}": limit
            for name, pair in zip(POOLED, limits, strict=True)
            for end, limit in zip(("low", "high"), pair, strict=True)
        }
        rows.append({"training": training, "slices": slices, **values, **widths, **ends})
    return pd.DataFrame(rows)


def _of_counts(counts: NDArray[np.intp]) -> tuple[float, float, float]:
    """Return ``POOLED`` of voxel counts in the order of ``COUNTS``."""
    tp, fp, fn, tn = (int(count) for count in counts)
    wrong = fp + fn
    iou = tp / (tp + wrong) if tp + wrong else 1.0
    return (tp + tn) / (tp + tn + wrong), iou, 2 * iou / (1 + iou)


def summary(cases: pd.DataFrame, resamples: int = 0) -> pd.DataFrame:
    """Return mean, standard deviation and interval of each metric.

    Of all cases, and of those with lesion; ``low`` and ``high`` are NaN without resamples.
    """
    groups = spread_groups(cases)
    parts = []
    ill = cases[cases["truth_ml"] > 0]
    # Said once where all cases have lesions, or none has.
    some = [("truth not empty", ill)] if 0 < len(ill) < len(cases) else []
    for name, part in [("all", cases), *some]:
        if len(part):
            figures = group_means(part[list(METRICS)], [part[g] for g in groups])
            limits = intervals(figures, part["patient"], resamples)
            table = with_limits(over_groups(part, groups, METRICS), limits)
            parts.append(table.assign(cases=name))
    frame = pd.concat(parts, ignore_index=True)
    return frame[["cases", "metric", "mean", "std", "low", "high", "n"]]


def tables(cases: pd.DataFrame, resamples: int = 0) -> list[Table]:
    """Return the tables of a segmentation: summary, pooled, per group, per case."""
    groups = spread_groups(cases)
    found = summary(cases, resamples)
    spread = f"mean ± standard deviation over {' and '.join(groups)}s" if groups else "over cases"
    both = pooled(cases, resamples)
    result = [
        Table("summary", f"Summary, {spread}", found, shown_means(found)),
        Table(
            "pooled",
            "All voxels together: ± is the cascaded paper's interval with N = slices (tables 5 and "
            "6), in brackets stands that over patients",
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
            *note(arguments.resamples),
        ],
        [
            *tables(cases, arguments.resamples),
            *worst_cases(frame, cases, arguments.segment, arguments.pictures),
        ],
    )
