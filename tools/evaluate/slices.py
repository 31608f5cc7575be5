"""Detection slice by slice and severity by the percentage of infection (cascaded paper 4.3, 4.4).

A slice is positive if one of its voxels is a lesion (2.4). The percentage of infection of a
volume is the mean over its slices of the lesion's share of the lung.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ct_triage.severity import CATEGORIES
from tools.evaluate.bootstrap import Figures, intervals, note
from tools.evaluate.cases import (
    check_masks,
    load_masks,
    progress,
    read_datalist,
    rows_of,
    trainings_of,
)
from tools.evaluate.classes import class_tables, overall_summary
from tools.evaluate.ct_classes import classify
from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Report, Table
from tools.evaluate.segmentation import PAIR, axial
from tools.evaluate.shares import lungs_of
from tools.evaluate.statistics import (
    binary_metrics,
    half_width_95,
    metrics_of_counts,
    shown_means,
    shown_percent,
)

SIDES = ("prediction", "truth")


def percentage_of_infection(lesion: NDArray[np.bool_], lung: NDArray[np.bool_]) -> float:
    """Return the mean over slices of the lesion's share of the lung, in percent.

    Parameters
    ----------
    lesion, lung : bool arrays (slices, rows, columns)
        Slices without lung do not count; without any the percentage is 0.
    """
    area = lung.sum(axis=(1, 2))
    share = (lesion & lung).sum(axis=(1, 2))[area > 0] / area[area > 0]
    return 100.0 * float(share.mean()) if len(share) else 0.0


def slices_of(frame: pd.DataFrame, quiet: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Look at every slice.

    Returns
    -------
    slices : pandas.DataFrame
        One row a slice: ``case``, ``patient``, ``training``, ``slice`` (1 is the lowest),
        ``predicted``, ``true``.
    cases : pandas.DataFrame
        One row a case with the percentage of infection of ``prediction`` and ``truth``, NaN
        where there are no lungs to take it of.
    """
    slices, cases = [], []
    frame = frame.assign(training=trainings_of(frame))
    for row in progress(rows_of(frame), len(frame), "looking at slices", quiet):
        name = {column: row[column] for column in ("case", "patient", "training")}
        prediction, truth = axial(load_masks(row, PAIR, ("lesion", "lesion")))
        found = pd.DataFrame(
            {
                **name,
                "slice": np.arange(1, truth.spatial_shape[0] + 1),
                "predicted": prediction.array.any(axis=(1, 2)),
                "true": truth.array.any(axis=(1, 2)),
            }
        )
        slices.append(found)
        infection = {side: _infection(row, side) for side in SIDES}
        cases.append({**name, "reference_class": row.get("reference_class"), **infection})
    return pd.concat(slices, ignore_index=True), pd.DataFrame(cases)


def detection_table(slices: pd.DataFrame, resamples: int = 0) -> pd.DataFrame:
    """Return the metrics of slice detection with 95 % intervals, one row a training.

    ``METRIC_interval`` is the paper's, with N = slices; ``METRIC_low`` and ``METRIC_high`` are
    over patients, whose slices are no independent samples.
    """
    rows = []
    for training, part in slices.groupby("training", sort=False):
        values = binary_metrics(part["true"], part["predicted"])
        widths = {f"{m}_interval": half_width_95(v, len(part)) for m, v in values.items()}
        # Slices of a patient in each of the four ways to be right or wrong.
        counts = part.groupby(["patient", "true", "predicted"]).size().unstack([1, 2])
        cells = pd.MultiIndex.from_product([[False, True]] * 2)
        counts = counts.reindex(columns=cells).fillna(0)
        limits = intervals(_metrics_of_rows(counts), counts.index.to_series(), resamples)
        ends = {
            f"{metric}_{end}": limit
            for metric, pair in zip(values, limits, strict=True)
            for end, limit in zip(("low", "high"), pair, strict=True)
        }
        rows.append({"training": training, "slices": len(part), **values, **widths, **ends})
    return pd.DataFrame(rows)


def _metrics_of_rows(counts: pd.DataFrame) -> Figures:
    numbers = counts.to_numpy()
    return lambda rows: metrics_of_counts(*numbers[rows].sum(axis=0))


def _infection(row: dict[str, Any], side: str) -> float:
    lungs = lungs_of(row, side)
    if lungs is None:
        return float("nan")
    parts = {"case": row["case"], "lesion": row[side], "lungs": lungs}
    lesion, lung = axial(load_masks(parts, ("lesion", "lungs"), ("lesion", "lung")))
    return percentage_of_infection(lesion.array, lung.array)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "datalist",
        type=Path,
        help="columns case, truth, prediction; prediction_lung and truth_lung, or reference_class, "
        "for the severity classes",
    )


def run(arguments: argparse.Namespace) -> Report:
    """Evaluate a datalist of masks slice by slice."""
    frame = read_datalist(
        arguments.datalist,
        PAIR,
        ("training", "patient", "truth_lung", "prediction_lung", "reference_class"),
    )
    check_reference(frame, arguments.datalist)
    check_masks(frame, PAIR, ("lesion", "lesion"), arguments.quiet)
    slices, cases = slices_of(frame, arguments.quiet)
    return Report(
        f"Slices and severity classes: {len(cases)} predictions, {len(slices)} slices",
        [
            "A slice is positive if it holds a lesion voxel. Intervals are 95 %, with N = slices "
            "for the detection and N = the class's cases for the severity classes; those in "
            "brackets are over patients.",
            *note(arguments.resamples),
        ],
        items(slices, cases, arguments.resamples),
    )


def check_reference(frame: pd.DataFrame, file: Path) -> None:
    """Refuse names that are no CT class.

    Raises
    ------
    EvaluationError
        Naming the case.
    """
    for column in ("reference_class", "ct_class"):
        if column in frame:
            odd = frame[frame[column].notna() & ~frame[column].isin(CATEGORIES)]
            if len(odd):
                case, name = odd.iloc[0][["case", column]]
                raise EvaluationError(
                    f"{file}: case {case}: {column} {name!r} is none of {', '.join(CATEGORIES)}"
                )


def items(slices: pd.DataFrame, cases: pd.DataFrame, resamples: int) -> list[Table]:
    """Return the tables of detection and, where lungs are known, of severity classes."""
    detection = detection_table(slices, resamples)
    tables = [
        Table(
            "slices",
            "Detection per slice (cascaded paper, table 7)",
            detection,
            shown_percent(detection),
        )
    ]
    by_infection = pd.Series(_named(cases["truth"]), cases.index)
    truth = cases["reference_class"].where(cases["reference_class"].notna(), by_infection)
    known = truth.notna() & cases["prediction"].notna()
    if known.any():
        graded = cases[known].assign(
            truth=truth[known], predicted=_named(cases["prediction"])[known.to_numpy()]
        )
        overall = overall_summary(graded, resamples)
        caption = "Severity by percentage of infection"
        tables += [
            Table("severity_overall", f"{caption}, all classes", overall, shown_means(overall)),
            *class_tables(
                graded["truth"].to_list(),
                graded["predicted"].to_list(),
                CATEGORIES,
                "severity",
                f"{caption} (cascaded paper, figure 8 and table 8)",
            ),
        ]
        renamed = cases.rename(columns={side: f"{side}_infection_percent" for side in SIDES})
        if renamed["reference_class"].isna().all():
            renamed = renamed.drop(columns="reference_class")
        tables.append(Table("infection", "Percentage of infection of every case", renamed))
    return tables


def _named(percent: pd.Series) -> NDArray[np.object_]:
    numbers: Sequence[int] = classify(percent.fillna(0) / 100.0).tolist()
    names = np.array([CATEGORIES[n] for n in numbers], dtype=object)
    names[percent.isna().to_numpy()] = None
    return names
