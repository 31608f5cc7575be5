"""Per-class table of predicted and true classes of images or studies.

COVID-CT-Mask-Net, equations 3 to 6 and tables 4, 7 and 9; the cascaded paper's table 8.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from tools.evaluate.bootstrap import Figures, intervals, note
from tools.evaluate.cases import read_datalist, trainings_of
from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Report, Table
from tools.evaluate.statistics import (
    class_metrics,
    over_groups,
    shown_means,
    shown_percent,
    with_limits,
)


def class_tables(
    truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str], name: str, caption: str
) -> list[Table]:
    """Return the confusion matrix and the per-class table.

    Parameters
    ----------
    truth, predicted : sequences of str
        One class a sample.
    labels : sequence of str
        The classes in order.
    name, caption : str
        What the tables are called.
    """
    matrix = pd.DataFrame(
        confusion_matrix(truth, predicted, labels=list(labels)), columns=list(labels)
    )
    matrix.insert(0, "truth", list(labels))
    metrics = class_metrics(truth, predicted, labels)
    return [
        Table(f"{name}_classes", caption, metrics, shown_percent(metrics)),
        Table(f"{name}_confusion", f"{caption}: rows are the truth", matrix),
    ]


def overall(truth: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Return overall accuracy and the F1 score weighted by the classes' shares (equations 5, 6)."""
    return {
        "overall accuracy": float(accuracy_score(truth, predicted)),
        "weighted F1": float(f1_score(truth, predicted, average="weighted", zero_division=0)),
    }


def overall_summary(frame: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """Return what :func:`overall` returns, mean, deviation and interval over trainings.

    Parameters
    ----------
    frame : pandas.DataFrame
        ``training``, ``patient``, ``truth``, ``predicted``, one row a sample.
    resamples : int
        Draws of patients for the interval.
    """
    parts = frame.groupby("training", sort=False)
    found = pd.DataFrame([overall(part["truth"], part["predicted"]) for _, part in parts])
    limits = intervals(overall_figures(frame), frame["patient"], resamples)
    return with_limits(over_groups(found, (), list(found)), limits)


def overall_figures(frame: pd.DataFrame) -> Figures:
    """Return the mean over trainings of `overall` as a function of rows, fast enough to redraw."""
    labels = pd.unique(frame[["truth", "predicted"]].to_numpy().ravel())
    truth, predicted = (pd.Index(labels).get_indexer(frame[c]) for c in ("truth", "predicted"))
    training = pd.factorize(frame["training"])[0]
    # One count for each training, truth and prediction.
    shape = (training.max() + 1, len(labels), len(labels))
    cells = np.ravel_multi_index((training, truth, predicted), shape)

    def figures(rows: NDArray[np.intp]) -> list[float]:
        counts = np.bincount(cells[rows], minlength=np.prod(shape)).reshape(shape)
        counts = counts[counts.any(axis=(1, 2))]
        right = np.diagonal(counts, axis1=1, axis2=2)
        true, called = counts.sum(axis=2), counts.sum(axis=1)
        total = true.sum(axis=1)
        f1 = 2 * right / np.maximum(true + called, 1)
        accuracy, weighted = right.sum(axis=1) / total, (f1 * true).sum(axis=1) / total
        return [float(accuracy.mean()), float(weighted.mean())]

    return figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("datalist", type=Path, help="columns case, class, predicted_class")


def run(arguments: argparse.Namespace) -> Report:
    """Evaluate a datalist of classes."""
    file = arguments.datalist
    frame = read_datalist(file, ("class", "predicted_class"), ("training", "patient"))
    labels = sorted(frame["class"].unique())
    if len(labels) == 1:
        raise EvaluationError(
            f"{file}: one class only ({labels[0]}); there is nothing to tell apart"
        )
    odd = frame[~frame["predicted_class"].isin(labels)]
    if len(odd):
        case, name = odd.iloc[0][["case", "predicted_class"]]
        raise EvaluationError(
            f"{file}: case {case}: predicted_class {name!r} is no class of the truth "
            f"({', '.join(labels)})"
        )
    frame = frame.assign(training=trainings_of(frame), truth=frame["class"])
    frame = frame.rename(columns={"predicted_class": "predicted"})
    tables: list[Table] = []
    for number, (training, part) in enumerate(frame.groupby("training", sort=False), 1):
        truth, predicted = part["truth"].to_list(), part["predicted"].to_list()
        caption = f"Classes, training {training}"
        tables += class_tables(truth, predicted, labels, f"classes_{number}", caption)
    mean = overall_summary(frame, arguments.resamples)
    return Report(
        f"Classes: {len(frame)} predictions",
        [
            "Each class against the rest. ± is a 95 % interval with N = the class's samples.",
            *note(arguments.resamples),
        ],
        [
            Table(
                "summary", "Mean ± standard deviation over trainings", mean, shown_means(mean, 4)
            ),
            *tables,
        ],
    )
