"""95 % intervals of any figure by drawing patients with replacement (scipy.stats.bootstrap)."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

RESAMPLES = 1000
METHOD = (
    "Intervals named low and high are 95 % percentile bootstrap intervals over patients "
    "({resamples} resamples): a patient is drawn with all cases."
)
# Row numbers, drawn with replacement, to one value a figure; NaN where a figure is not defined.
Figures = Callable[[NDArray[np.intp]], Sequence[float] | NDArray[np.float64]]


def add_resamples(parser: argparse.ArgumentParser) -> None:
    """Declare the option of all commands."""
    parser.add_argument(
        "--resamples",
        type=_count,
        default=RESAMPLES,
        help=f"draws of patients for the 95 %% intervals; 0: none ({RESAMPLES})",
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of draws, 0 or more")
    return int(text)


def note(resamples: int) -> list[str]:
    """Return the sentence of a report that says what its intervals are; none without intervals."""
    return [METHOD.format(resamples=resamples)] if resamples else []


def intervals(
    figures: Figures,
    patients: Sequence[str] | pd.Series,
    resamples: int = RESAMPLES,
    strata: ArrayLike | None = None,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the 95 % percentile interval of each figure.

    Parameters
    ----------
    figures : callable
        Computes all figures from some of the rows.
    patients : sequence of str
        Whose case each row is; a patient is drawn with all rows.
    resamples : int
        How often patients are drawn; 0 gives NaN.
    strata : array, optional
        A class a row. Patients are drawn within the class of their first row, so that a class
        never is without cases, which areas under ROC curves need.
    seed : int
        Draws the patients.

    Returns
    -------
    array (figures, 2)
        Low and high. Resamples in which a figure is not defined are left out of it; NaN where
        there are fewer than two patients to draw from.
    """
    codes, names = pd.factorize(pd.Series(list(patients)))
    rows_of = [np.flatnonzero(codes == code) for code in range(len(names))]
    groups = np.zeros(len(names), int)
    if strata is not None:
        groups = pd.factorize(np.asarray(strata)[[rows[0] for rows in rows_of]])[0]
    samples = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    # One patient alone in a class is in every resample.
    alone = [int(sample[0]) for sample in samples if len(sample) == 1]
    drawn = [sample for sample in samples if len(sample) > 1]
    count = len(figures(np.arange(len(codes))))
    if not drawn or not resamples:
        return np.full((count, 2), np.nan)

    def of_patients(*chosen: NDArray) -> NDArray[np.float64]:
        indices = [*np.concatenate(chosen).astype(int), *alone]
        return np.asarray(figures(np.concatenate([rows_of[i] for i in indices])), float)

    with warnings.catch_warnings():
        # A figure that is the same in every resample is no cause for alarm.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            drawn,
            of_patients,
            n_resamples=resamples,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    # scipy's own interval is NaN where one resample is.
    defined = np.isfinite(found.bootstrap_distribution)
    limits = np.full((count, 2), np.nan)
    for index, (values, known) in enumerate(
        zip(found.bootstrap_distribution, defined, strict=True)
    ):
        if known.any():
            limits[index] = np.quantile(values[known], (0.025, 0.975))
    return limits


def group_means(
    values: ArrayLike, groups: Sequence[ArrayLike] = ()
) -> Callable[[NDArray[np.intp]], NDArray[np.float64]]:
    """Return a function of rows: the mean over groups of each column's mean in the group.

    Parameters
    ----------
    values : array (rows, columns)
        NaN and infinity are left out.
    groups : sequence of arrays
        Each tells the rows apart, as folds and trainings do; none: all rows are one group.
    """
    table = np.asarray(values, float)
    finite = np.isfinite(table)
    known = np.where(finite, table, 0.0)
    labels = np.zeros(len(table), int)
    if len(groups):
        labels = pd.MultiIndex.from_arrays([pd.Series(g).astype(str) for g in groups]).factorize()[
            0
        ]
    member = np.eye(labels.max() + 1)[labels]

    def figures(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        drawn = member[rows].T
        counts = drawn @ finite[rows]
        with np.errstate(invalid="ignore"):
            means = (drawn @ known[rows]) / counts
        there = counts > 0
        total = there.sum(axis=0)
        sums = np.where(there, means, 0.0).sum(axis=0)
        return np.where(total > 0, sums / np.maximum(total, 1), np.nan)

    return figures
