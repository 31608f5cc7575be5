"""Intervals, per-class tables and averages over trainings, by statsmodels, scikit-learn, scipy."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, recall_score
from statsmodels.stats.proportion import std_prop

CLASS_METRICS = ("accuracy", "precision", "sensitivity", "f1", "specificity")
_Z_95 = float(stats.norm.ppf(0.975))


def half_width_95(metric: float, n: float) -> float:
    """Return half the 95 % interval of a proportion: z sqrt(metric (1 - metric) / N).

    Equation 2 of Qiblawey et al. 2021. It is zero at 0 and 1, where the normal approximation
    fails.

    Parameters
    ----------
    metric : float
        Proportion, 0 to 1.
    n : float
        Number of samples.
    """
    if not n or np.isnan(metric):
        return float("nan")
    return _Z_95 * float(std_prop(metric, n))


def binary_metrics(truth: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Return ``CLASS_METRICS`` of a two-class decision; NaN where one has no denominator.

    Equations 3 and 6 to 9 of Qiblawey et al. 2021.
    """
    truth, predicted = np.asarray(truth, bool), np.asarray(predicted, bool)
    precision, sensitivity, f1, _ = precision_recall_fscore_support(
        truth, predicted, pos_label=True, average="binary", zero_division=np.nan
    )
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "precision": float(precision),
        "sensitivity": float(sensitivity),
        "f1": float(f1),
        "specificity": float(recall_score(truth, predicted, pos_label=False, zero_division=np.nan)),
    }


def metrics_of_counts(tn: float, fp: float, fn: float, tp: float) -> list[float]:
    """Return what :func:`binary_metrics` returns, from counts: quick enough for thousands."""

    def share(part: float, whole: float) -> float:
        return part / whole if whole else float("nan")

    return [
        share(tp + tn, tp + tn + fp + fn),
        share(tp, tp + fp),
        share(tp, tp + fn),
        share(2 * tp, 2 * tp + fp + fn),
        share(tn, tn + fp),
    ]


def class_metrics(
    truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> pd.DataFrame:
    """Return each class against the rest, and the average weighted by the classes' sizes.

    Returns
    -------
    pandas.DataFrame
        ``class``, ``n``, and for each of ``CLASS_METRICS`` the value (0 to 1) and the half width
        of its 95 % interval, in which N is the class's number of samples, for the average that
        of all. The average leaves out classes where a metric is not defined.
    """
    t, p = np.asarray(truth), np.asarray(predicted)
    rows = [
        {"class": label, "n": int((t == label).sum()), **binary_metrics(t == label, p == label)}
        for label in labels
    ]
    frame = pd.DataFrame(rows)
    average: dict[str, object] = {"class": "average", "n": len(t)}
    for metric in CLASS_METRICS:
        known = frame[metric].notna() & (frame["n"] > 0)
        average[metric] = (
            float(np.average(frame[metric][known], weights=frame["n"][known]))
            if known.any()
            else np.nan
        )
    frame = pd.concat([frame, pd.DataFrame([average])], ignore_index=True)
    for metric in CLASS_METRICS:
        frame[f"{metric}_interval"] = [
            half_width_95(value, n) for value, n in zip(frame[metric], frame["n"], strict=True)
        ]
    return frame


def cases_of(matrix: ArrayLike, labels: Sequence[str]) -> tuple[NDArray, NDArray]:
    """Return truths and predictions that a confusion matrix (truth, prediction) counts."""
    counts = np.asarray(matrix)
    rows, columns = np.indices(counts.shape)
    names = np.asarray(labels)
    return (
        names[np.repeat(rows.ravel(), counts.ravel())],
        names[np.repeat(columns.ravel(), counts.ravel())],
    )


def shown_percent(frame: pd.DataFrame, metrics: Sequence[str] = CLASS_METRICS) -> pd.DataFrame:
    """Return a table of metrics with intervals as text in percent, like "98.92 ± 1.27".

    Where there are ``METRIC_low`` and ``METRIC_high``, they follow in brackets.
    """
    own = {f"{metric}{end}" for metric in metrics for end in ("", "_interval", "_low", "_high")}
    shown = frame[[c for c in frame if c not in own]]
    for metric in metrics:
        texts = [
            plus_minus(100 * value, 100 * half)
            for value, half in zip(frame[metric], frame[f"{metric}_interval"], strict=True)
        ]
        if f"{metric}_low" in frame:
            limits = 100 * frame[[f"{metric}_low", f"{metric}_high"]].to_numpy()
            ends = [brackets(low, high, 1) for low, high in limits]
            texts = [" ".join(filter(None, pair)) or None for pair in zip(texts, ends, strict=True)]
        shown = shown.assign(**{f"{metric} (%)": texts})
    return shown


def plus_minus(value: float, spread: float, digits: int = 2) -> str | None:
    """Return "value ± spread"; without the spread where there is none; None for no value."""
    if np.isnan(value):
        return None
    if np.isnan(spread):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ± {spread:.{digits}f}"


def brackets(low: float, high: float, digits: int = 3) -> str | None:
    """Return an interval as "[low, high]"; None for no interval."""
    if np.isnan(low) or np.isnan(high):
        return None
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def with_brackets(value: float, low: float, high: float, digits: int = 3) -> str | None:
    """Return "value [low, high]"; without the interval where there is none; None for no value."""
    text, limits = plus_minus(value, np.nan, digits), brackets(low, high, digits)
    return f"{text} {limits}" if text and limits else text


def over_groups(frame: pd.DataFrame, groups: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return mean and standard deviation of the groups' means, one row a metric.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row a case.
    groups : sequence of str
        Columns that tell folds and trainings apart; without any, the spread is that over cases.
    metrics : sequence of str
        Columns to average; NaN is left out.

    Returns
    -------
    pandas.DataFrame
        ``metric``, ``mean``, ``std`` (sample standard deviation), ``n`` groups or cases.
    """
    finite = frame[list(metrics)].replace([np.inf, -np.inf], np.nan)
    if groups:
        finite = finite.groupby([frame[g] for g in groups], dropna=False).mean()
    table = finite.agg(["mean", "std", "count"]).T
    table.columns = pd.Index(["mean", "std", "n"])
    table["n"] = table["n"].astype(int)
    return table.rename_axis("metric").reset_index()


def with_limits(table: pd.DataFrame, limits: ArrayLike) -> pd.DataFrame:
    """Add the columns ``low`` and ``high`` of 95 % intervals (rows, 2) behind the spread."""
    low, high = np.asarray(limits, float).T
    at = list(table).index("std") + 1 if "std" in table else len(table.columns)
    table = table.copy()
    table.insert(at, "low", low)
    table.insert(at + 1, "high", high)
    return table


def shown_means(table: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """Return a table of :func:`over_groups` with "mean ± std" and "[low, high]" as text."""
    pairs = zip(table["mean"], table["std"], strict=True)
    value = [plus_minus(mean, std, digits) for mean, std in pairs]
    shown = table.drop(columns=["mean", "std"])
    shown.insert(list(table).index("mean"), "mean ± std", value)
    return shown_limits(shown, digits)


def shown_limits(table: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """Return a table with ``low`` and ``high``, where it has them, as one column of text."""
    if "low" not in table:
        return table
    limits = zip(table["low"], table["high"], strict=True)
    shown = table.drop(columns=["low", "high"])
    texts = [brackets(low, high, digits) for low, high in limits]
    shown.insert(list(table).index("low"), "95 % interval", texts)
    return shown


def spread_groups(frame: pd.DataFrame) -> list[str]:
    """Return those of ``training`` and ``fold`` that have more than one value."""
    return [g for g in ("training", "fold") if g in frame and frame[g].nunique(dropna=False) > 1]


@contextlib.contextmanager
def small_strata() -> Iterator[None]:
    """Allow stratified splits of classes that are too small for every part to have one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        yield


def two_sample_p(one: ArrayLike, other: ArrayLike) -> float:
    """Return the two-sided p-value of Student's t-test of two independent samples.

    This is the test that CoRSAI's tables 4 and 7 agree with. The samples are readings of the same
    cases, so paired tests are the right ones; see :func:`paired_p`.
    """
    return float(stats.ttest_ind(one, other).pvalue)


def paired_p(one: ArrayLike, other: ArrayLike) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test; 1 where all pairs are equal."""
    difference = np.asarray(one, float) - np.asarray(other, float)
    if not np.any(difference):
        return 1.0
    return float(stats.wilcoxon(difference).pvalue)
