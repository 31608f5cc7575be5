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
from tools.evaluate.cases import check_masks, load_masks, progress, read_datalist, rows_of
from tools.evaluate.classes import class_tables
from tools.evaluate.ct_classes import classify
from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Report, Table
from tools.evaluate.segmentation import PAIR, axial
from tools.evaluate.shares import lungs_of
from tools.evaluate.statistics import (
    binary_metrics,
    half_width_95,
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
        One row a slice: ``case``, ``training``, ``slice`` (1 is the lowest), ``predicted``,
        ``true``.
    cases : pandas.DataFrame
        One row a case with the percentage of infection of ``prediction`` and ``truth``, NaN
        where there are no lungs to take it of.
    """
    slices, cases = [], []
    for row in progress(rows_of(frame), len(frame), "looking at slices", quiet):
        name = {"case": row["case"], "training": row.get("training") or "one"}
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


def detection_table(slices: pd.DataFrame) -> pd.DataFrame:
    """Return the metrics of slice detection with 95 % intervals, one row a training."""
    rows = []
    for training, part in slices.groupby("training", sort=False):
        values = binary_metrics(part["true"], part["predicted"])
        intervals = {f"{m}_interval": half_width_95(v, len(part)) for m, v in values.items()}
        rows.append({"training": training, "slices": len(part), **values, **intervals})
    return pd.DataFrame(rows)


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
            "for the detection and N = the class's cases for the severity classes.",
        ],
        items(slices, cases),
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


def items(slices: pd.DataFrame, cases: pd.DataFrame) -> list[Table]:
    """Return the tables of detection and, where lungs are known, of severity classes."""
    detection = detection_table(slices)
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
        predicted = _named(cases["prediction"])[known.to_numpy()]
        tables += class_tables(
            truth[known].to_list(),
            list(predicted),
            CATEGORIES,
            "severity",
            "Severity by percentage of infection (cascaded paper, figure 8 and table 8)",
        )
        renamed = cases.rename(columns={side: f"{side}_infection_percent" for side in SIDES})
        tables.append(Table("infection", "Percentage of infection of every case", renamed))
    return tables


def _named(percent: pd.Series) -> NDArray[np.object_]:
    numbers: Sequence[int] = classify(percent.fillna(0) / 100.0).tolist()
    names = np.array([CATEGORIES[n] for n in numbers], dtype=object)
    names[percent.isna().to_numpy()] = None
    return names
