"""Lungs and lesions of whole patients against the project's goals, with failing patients pictured.

Volumes of one patient are averaged first, so every patient counts once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tools.evaluate.bootstrap import intervals, note
from tools.evaluate.cases import check_masks, load_masks, progress, read_datalist, rows_of
from tools.evaluate.masks import EvaluationError
from tools.evaluate.pictures import draw_case
from tools.evaluate.report import Picture, Report, Table
from tools.evaluate.segmentation import dice
from tools.evaluate.shares import lungs_of
from tools.evaluate.statistics import shown_limits

MASKS = ("prediction", "truth", "prediction_lung", "truth_lung")
SEGMENTS = ("lesion", "lesion", "lung", "lung")
NOTE = (
    "Dice of lesions is of patients with lesions in more than 1 % of the lungs. Shares are of the "
    "lungs that each side marks, and lesions outside of them do not count. The interval of a "
    "worst patient is that of resampled patients, so it ends at the value."
)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should reach.

    Attributes
    ----------
    figure : str
        What it is, in words.
    column : str
        The column of `measure` that it is of.
    patients : str
        Query of those columns: whom it is of.
    bound : float
        Least value, or greatest where ``at_most``.
    worst : bool
        Of the worst patient, not of the mean.
    at_most : bool
        Whether less is better.
    """

    figure: str
    column: str
    patients: str
    bound: float
    worst: bool = False
    at_most: bool = False

    def of(self, values: NDArray[np.float64]) -> float:
        """Return the figure of some patients."""
        if self.worst:
            return float(values.max() if self.at_most else values.min())
        return float(values.mean())

    def missed(self, values: pd.Series) -> pd.Series:
        """Tell which values do not reach the goal."""
        return values > self.bound if self.at_most else values < self.bound


_ILL, _INVOLVED, _FREE = "truth_percent > 0", "truth_percent > 1", "truth_percent == 0"
GOALS = (
    Goal("lung Dice without lesions", "lung_dice", _FREE, 0.98),
    Goal("lung Dice with lesions", "lung_dice", _ILL, 0.96),
    Goal("lesion Dice, mean", "lesion_dice", _INVOLVED, 0.75),
    Goal("lesion Dice, worst", "lesion_dice", _INVOLVED, 0.65, worst=True),
    Goal("lesion Dice in true lungs, mean", "lesion_dice_true_lungs", _INVOLVED, 0.75),
    Goal("lesion Dice in true lungs, worst", "lesion_dice_true_lungs", _INVOLVED, 0.65, worst=True),
    Goal("error of the lesion share (points)", "error_points", _ILL, 3.0, at_most=True),
    Goal("false share, worst (%)", "share_percent", _FREE, 0.5, worst=True, at_most=True),
)


def measure(row: dict[str, Any]) -> dict[str, float]:
    """Measure a case of a datalist with all of ``MASKS``.

    Returns
    -------
    dict
        ``lung_dice``, ``lesion_dice``, the lesion shares ``truth_percent`` and ``share_percent``
        of truth and prediction, each of its own lungs, and how far they are apart in percentage
        points, ``error_points``.
    """
    lesion, truth, lung, true_lung = (v.array for v in load_masks(row, MASKS, SEGMENTS))
    shares = [_percent(truth, true_lung), _percent(lesion, lung)]
    return {
        "lung_dice": dice(lung, true_lung),
        "lesion_dice": dice(lesion & lung, truth),
        "truth_percent": shares[0],
        "share_percent": shares[1],
        "error_points": abs(shares[1] - shares[0]),
    }


def measure_all(frame: pd.DataFrame, quiet: bool = False) -> pd.DataFrame:
    """Return ``case``, ``patient`` and what `measure` returns, a row a case."""
    rows = progress(rows_of(frame), len(frame), "measuring", quiet)
    return pd.DataFrame([{"case": r["case"], "patient": r["patient"], **measure(r)} for r in rows])


def by_patient(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each patient's cases."""
    numbers = cases.select_dtypes("number")
    return numbers.groupby(cases["patient"], sort=False).mean().reset_index()


def against_goals(cases: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """Return each figure that the cases allow, with its interval over patients, and its goal.

    Parameters
    ----------
    cases : pandas.DataFrame
        ``patient`` and what `measure` returns.
    resamples : int
        Draws of patients.

    Returns
    -------
    pandas.DataFrame
        ``figure``, ``patients``, ``value``, ``low``, ``high``, ``goal``, ``met``.
    """
    patients = by_patient(cases)
    rows = []
    for goal in GOALS:
        part = patients.query(goal.patients) if goal.column in patients else patients.iloc[:0]
        if not len(part):
            continue
        values = part[goal.column].to_numpy()
        ((low, high),) = intervals(
            lambda drawn, goal=goal, values=values: [goal.of(values[drawn])],  # type: ignore[misc]
            part["patient"],
            resamples,
        )
        value = goal.of(values)
        row = {"figure": goal.figure, "patients": len(part), "value": value, "low": low}
        rows.append({**row, "high": high, **goal_cells(value, goal.bound, goal.at_most)})
    return pd.DataFrame(rows)


def goal_cells(value: float, bound: float, at_most: bool) -> dict[str, str]:
    """Return the cells ``goal`` and ``met`` of a figure."""
    met = value <= bound if at_most else value >= bound
    return {
        "goal": f"at {'most' if at_most else 'least'} {bound:g}",
        "met": "yes" if met else "no",
    }


def failing(frame: pd.DataFrame, cases: pd.DataFrame, count: int) -> Iterator[Picture]:
    """Picture the cases that miss a goal, the worst of each goal first.

    Parameters
    ----------
    frame : pandas.DataFrame
        Datalist with ``MASKS`` and perhaps ``image``.
    cases : pandas.DataFrame
        What was measured of the same rows.
    count : int
        How many cases for each goal.
    """
    rows = list(rows_of(frame))
    seen: set[tuple[str, int]] = set()
    for goal in (g for g in GOALS if g.column in cases):
        part = cases.query(goal.patients)
        part = part[goal.missed(part[goal.column])]
        organ = "lung" if goal.column == "lung_dice" else "lesion"
        worst = part[goal.column].sort_values(ascending=not goal.at_most)[:count]
        for index, value in worst.items():
            if (organ, index) in seen:
                continue
            seen.add((organ, index))
            row = dict(rows[index])
            if organ == "lung":
                row |= {"truth": row["truth_lung"], "prediction": row["prediction_lung"]}
            yield Picture.of(
                f"failing_{organ}_{len(seen)}",
                f"{row['case']}: {goal.figure.split(',')[0]} {value:.3g}",
                draw_case(row, organ),
            )


def report(
    title: str,
    notes: list[str],
    frame: pd.DataFrame,
    cases: pd.DataFrame,
    arguments: argparse.Namespace,
) -> Report:
    """Put goals, cases and pictures together; see `failing` for the tables."""
    found = against_goals(cases, arguments.resamples)
    return Report(
        title,
        [*notes, NOTE, *note(arguments.resamples)],
        [
            Table("goals", "Figures and goals", found, shown_limits(found)),
            Table("cases", "Every case", cases),
            *failing(frame, cases, arguments.pictures),
        ],
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "datalist",
        type=Path,
        help="columns case, prediction, truth; prediction_lung and truth_lung unless a SEG holds "
        "the lungs; image for pictures",
    )
    add_pictures(parser)


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Declare how many cases are pictured."""
    parser.add_argument("--pictures", type=int, default=4, help="failing or worst cases (4)")


def run(arguments: argparse.Namespace) -> Report:
    """Measure the cases of a datalist."""
    frame = read_datalist(
        arguments.datalist, MASKS[:2], ("patient", "image", "prediction_lung", "truth_lung")
    )
    for side in ("prediction", "truth"):
        frame[f"{side}_lung"] = [lungs_of(row, side) for row in rows_of(frame)]
        missing = frame[frame[f"{side}_lung"].isna()]
        if len(missing):
            name = missing.iloc[0]["case"]
            raise EvaluationError(
                f"{arguments.datalist}: case {name} has no {side}_lung, and no SEG with lungs"
            )
    check_masks(frame, MASKS, SEGMENTS, arguments.quiet)
    cases = measure_all(frame, arguments.quiet)
    return report(f"Goals: {len(cases)} cases", [], frame, cases, arguments)


def _percent(lesion: NDArray[np.bool_], lung: NDArray[np.bool_]) -> float:
    size = np.count_nonzero(lung)
    return 100.0 * np.count_nonzero(lesion & lung) / size if size else 0.0
