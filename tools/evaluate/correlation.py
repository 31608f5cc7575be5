"""Correlation of the lesion share by the system with a reader's, lung by lung.

Sotoudeh-Paima et al. 2022, figure 4.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from tools.evaluate.bootstrap import group_means, intervals, note
from tools.evaluate.cases import read_datalist
from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Picture, Report, Table
from tools.evaluate.shares import OPTIONAL, severities
from tools.evaluate.statistics import with_brackets

LUNGS = {"right": "right lung", "left": "left lung", "severity": "severity score"}
FEWEST = 3


DIFFERENCES = ("mean difference", "mean absolute difference")


def correlate(
    shares: pd.DataFrame, patients: Sequence[str] | None = None, resamples: int = 0
) -> pd.DataFrame:
    """Return Pearson's correlation of each lung and of the severity score.

    Parameters
    ----------
    shares : pandas.DataFrame
        ``right``, ``left``, ``severity`` and the same with ``truth_``, in percent.
    patients : sequence of str, optional
        Whose case each row is; by default each row is a patient.
    resamples : int
        Draws of patients for the intervals of the differences.

    Returns
    -------
    pandas.DataFrame
        ``lung``, ``n``, ``pearson`` with its 95 % interval (Fisher) and p-value, and the mean
        and mean absolute difference in percentage points with ``_low`` and ``_high`` (bootstrap).
        Lungs with fewer than three cases or without any spread have NaN.
    """
    rows = []
    names = pd.Series(list(patients) if patients is not None else shares.index, shares.index)
    for column, name in LUNGS.items():
        pair = shares[[column, f"truth_{column}"]].dropna()
        system, reader = pair.to_numpy().T
        row = {"lung": name, "n": len(pair)}
        if len(pair) >= FEWEST and np.ptp(system) > 0 and np.ptp(reader) > 0:
            found = stats.pearsonr(system, reader)
            interval = found.confidence_interval(0.95)
            row |= {"pearson": found.statistic, "low": interval.low, "high": interval.high}
            row |= {"p": found.pvalue}
        else:
            row |= dict.fromkeys(("pearson", "low", "high", "p"), np.nan)
        row |= {f"{d}{end}": np.nan for d in DIFFERENCES for end in ("", "_low", "_high")}
        if len(pair):
            differences = np.stack([system - reader, abs(system - reader)], axis=1)
            figures = group_means(differences)
            limits = intervals(figures, names[pair.index].astype(str), resamples)
            for what, mean, ends in zip(DIFFERENCES, differences.mean(axis=0), limits, strict=True):
                row |= {what: mean, f"{what}_low": ends[0], f"{what}_high": ends[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def draw_scatter(shares: pd.DataFrame, found: pd.DataFrame) -> Figure:
    """Draw the system's shares over the reader's, one panel a lung."""
    panels = [row for row in found.to_dict("records") if row["n"]]
    figure = Figure(figsize=(3.9 * len(panels), 4.0), layout="constrained")
    for axis, row in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        column = next(c for c, name in LUNGS.items() if name == row["lung"])
        pair = shares[[column, f"truth_{column}"]].dropna()
        axis.scatter(pair[f"truth_{column}"], pair[column], s=16, alpha=0.7)
        high = max(1.0, float(pair.to_numpy().max())) * 1.05
        axis.plot([0, high], [0, high], color="0.7", linewidth=1)
        axis.set(xlim=(0, high), ylim=(0, high), aspect="equal")
        axis.set(xlabel="reader (%)", ylabel="system (%)")
        axis.set_title(f"{row['lung']}: r = {row['pearson']:.2f}, n = {row['n']}", fontsize=10)
    return figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "datalist",
        type=Path,
        help="column case, and for system and truth each: right_percent and left_percent, "
        "report, or masks with lungs",
    )


def run(arguments: argparse.Namespace) -> Report:
    """Evaluate a datalist of shares."""
    frame = read_datalist(arguments.datalist, (), ("patient", "training", *OPTIONAL))
    shares = severities(frame, arguments.quiet)
    for column in ("severity", "truth_severity"):
        unknown = frame[shares[column].isna()]
        if len(unknown):
            side = "true" if column.startswith("truth") else "predicted"
            raise EvaluationError(
                f"{arguments.datalist}: case {unknown.iloc[0]['case']} has no {side} share; give "
                "percent columns, a report, or masks with lungs"
            )
    if len(frame) < FEWEST:
        raise EvaluationError(f"{arguments.datalist}: a correlation needs at least {FEWEST} cases")
    return Report(
        f"Severity correlation: {len(frame)} cases",
        [
            "The interval of Pearson's correlation is Fisher's, differences are in points.",
            *note(arguments.resamples),
        ],
        items(frame, shares, arguments.resamples),
    )


def items(frame: pd.DataFrame, shares: pd.DataFrame, resamples: int) -> list[Table | Picture]:
    """Return the table and the scatter plot."""
    found = correlate(shares, frame["patient"], resamples)
    caption = "Correlation per lung (VGG16-UNet paper, figure 4)"
    return [
        Table("correlation", caption, found, _shown(found)),
        Picture.of("scatter", "Lesion share, system over reader", draw_scatter(shares, found)),
        Table("shares", "Every case", pd.concat([frame[["case"]], shares], axis=1)),
    ]


def _shown(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table with intervals in brackets."""
    shown = found[["lung", "n"]]
    for column, low, high in (
        ("pearson", "low", "high"),
        *((d, f"{d}_low", f"{d}_high") for d in DIFFERENCES),
    ):
        numbers = found[[column, low, high]].to_numpy()
        shown = shown.assign(**{column: [with_brackets(value, a, b, 2) for value, a, b in numbers]})
    return shown.assign(p=found["p"])
