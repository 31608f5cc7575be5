"""Per-class table of predicted and true classes of images or studies.

COVID-CT-Mask-Net, equations 3 to 6 and tables 4, 7 and 9; the cascaded paper's table 8.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from tools.evaluate.cases import read_datalist
from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Report, Table
from tools.evaluate.statistics import class_metrics, over_groups, plus_minus, shown_percent


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
    trainings = (
        frame["training"] if "training" in frame else pd.Series("one", frame.index)
    ).fillna("one")
    rows, tables = [], []
    for training, part in frame.groupby(trainings, sort=False):
        truth, predicted = part["class"].to_list(), part["predicted_class"].to_list()
        rows.append({"training": training, **overall(truth, predicted)})
        name = f"classes_{len(rows)}"
        tables += class_tables(truth, predicted, labels, name, f"Classes, training {training}")
    each = pd.DataFrame(rows)
    mean = over_groups(each, (), [c for c in each if c != "training"])
    shown = mean.assign(
        value=[plus_minus(m, s, 4) for m, s in zip(mean["mean"], mean["std"], strict=True)]
    )[["metric", "value", "n"]]
    return Report(
        f"Classes: {len(frame)} predictions",
        ["Each class against the rest. Intervals are 95 %, with N = the class's samples."],
        [Table("summary", "Mean ± standard deviation over trainings", mean, shown), *tables],
    )
