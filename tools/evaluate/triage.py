"""Triage of whole studies: identification and severity ranking (multitask paper 2.5, table 2)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from tools.evaluate.bootstrap import Figures, intervals, note
from tools.evaluate.cases import check_masks, check_two_groups, read_datalist, trainings_of
from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Picture, Report, Table
from tools.evaluate.segmentation import PAIR, compare_cases
from tools.evaluate.shares import OPTIONAL, severities
from tools.evaluate.statistics import over_groups, shown_means, with_limits

ALL_OTHERS = "all others"


def roc_aucs(truth: pd.Series, scores: pd.Series, positive: str) -> dict[str, float]:
    """Return the area under the ROC curve of one class against all others and each other one.

    Parameters
    ----------
    truth : Series of str
        Class of each study.
    scores : Series of float
        The higher, the more positive.
    positive : str
        The class to identify.
    """
    is_positive = truth == positive
    found = {ALL_OTHERS: float(roc_auc_score(is_positive, scores))}
    for other in sorted(truth[~is_positive].unique()):
        part = is_positive | (truth == other)
        found[other] = float(roc_auc_score(is_positive[part], scores[part]))
    return found


def evaluate(frame: pd.DataFrame, positive: str) -> pd.DataFrame:
    """Return the paper's metrics of each training, one row a training.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row a study: ``training``, ``class``, ``score``, and, where known, ``severity``,
        ``truth_severity`` and ``dice``.
    positive : str
        The class to identify.
    """
    rows = []
    for training, part in frame.groupby("training", sort=False):
        aucs = roc_aucs(part["class"], part["score"], positive)
        row: dict[str, object] = {"training": training}
        row |= {f"AUC vs {name}": value for name, value in aucs.items()}
        positives = part[part["class"] == positive]
        ranked = positives[["severity", "truth_severity"]].dropna().to_numpy()
        row["Spearman"] = np.nan
        # A correlation needs two different values on each side.
        if len(ranked) and (np.ptp(ranked, axis=0) > 0).all():
            row["Spearman"] = float(stats.spearmanr(*ranked.T).statistic)
        row["Dice of positives"] = positives["dice"].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame, positive: str, resamples: int) -> pd.DataFrame:
    """Return mean, standard deviation and interval over trainings of what `evaluate` returns.

    Patients are drawn within their class.
    """
    each = evaluate(frame, positive).drop(columns="training")
    limits = intervals(figures_of(frame, positive), frame["patient"], resamples, frame["class"])
    return with_limits(over_groups(each, (), list(each)), limits)


def figures_of(frame: pd.DataFrame, positive: str) -> Figures:
    """Return the mean over trainings of `evaluate` as a function of rows, fast enough to redraw."""
    columns = ("score", "severity", "truth_severity", "dice")
    score, severity, truth_severity, dice = (frame[c].to_numpy(float) for c in columns)
    classes = frame["class"].to_numpy()
    others = sorted(set(classes) - {positive})
    training = pd.factorize(frame["training"])[0]

    def area(rows: NDArray[np.intp], ill: NDArray[np.bool_]) -> float:
        # The area under the ROC curve is Mann and Whitney's U over all pairs.
        n = int(ill.sum())
        above = stats.rankdata(score[rows])[ill].sum() - n * (n + 1) / 2
        return float(above / (n * (len(rows) - n)))

    def of_one(rows: NDArray[np.intp]) -> list[float]:
        ill = classes[rows] == positive
        parts = [np.ones(len(rows), bool), *(ill | (classes[rows] == other) for other in others)]
        areas = [
            area(rows[part], ill[part]) if 0 < ill[part].sum() < part.sum() else np.nan
            for part in parts
        ]
        sick = rows[ill]
        known = sick[np.isfinite(severity[sick]) & np.isfinite(truth_severity[sick])]
        pair = severity[known], truth_severity[known]
        differs = len(known) and all(np.ptp(values) > 0 for values in pair)
        spearman = np.corrcoef(*map(stats.rankdata, pair))[0, 1] if differs else np.nan
        drawn = dice[sick][np.isfinite(dice[sick])]
        return [*areas, float(spearman), float(drawn.mean()) if len(drawn) else np.nan]

    def mean(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        each = np.array([of_one(rows[training[rows] == t]) for t in np.unique(training[rows])])
        known = np.isfinite(each)
        sums = np.where(known, each, 0.0).sum(axis=0)
        return np.where(known.any(axis=0), sums / np.maximum(known.sum(axis=0), 1), np.nan)

    return mean


def confusion(frame: pd.DataFrame, threshold: float, positive: str) -> pd.DataFrame:
    """Count the studies of each class that are called negative and positive (figure 5, left)."""
    called = np.where(frame["score"] >= threshold, "positive", "negative")
    table = pd.crosstab(frame["class"], pd.Series(called, frame.index))
    table = table.reindex(columns=["negative", "positive"], fill_value=0)
    order = [positive, *(c for c in table.index if c != positive)]
    return table.loc[order].rename_axis("class", axis=0).rename_axis(None, axis=1).reset_index()


def draw_curves(frame: pd.DataFrame, positive: str) -> Figure:
    """Draw the ROC curves of one training."""
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axis = figure.subplots()
    is_positive = frame["class"] == positive
    for name, area in roc_aucs(frame["class"], frame["score"], positive).items():
        part = frame if name == ALL_OTHERS else frame[is_positive | (frame["class"] == name)]
        rate = roc_curve(part["class"] == positive, part["score"])
        axis.plot(rate[0], rate[1], label=f"vs {name}: {area:.2f}")
    axis.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    axis.set(xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
    axis.legend(title=positive, loc="lower right")
    return figure


def draw_ranking(frame: pd.DataFrame, threshold: float) -> Figure:
    """Draw the studies called positive, most severe first, coloured by their true class."""
    called = frame[frame["score"] >= threshold].sort_values("severity", ascending=False)
    names = sorted(frame["class"].unique())
    colours = dict(zip(names, mpl.colormaps["tab10"].colors, strict=False))  # type: ignore[attr-defined]
    figure = Figure(figsize=(6.5, max(2.4, 0.19 * len(called) + 1.0)), layout="constrained")
    axis = figure.subplots()
    axis.barh(
        np.arange(len(called)), called["severity"], color=[colours[c] for c in called["class"]]
    )
    axis.set_yticks(np.arange(len(called)), called["case"], fontsize=6)
    axis.invert_yaxis()
    axis.set(xlabel="predicted severity score (%)", ylabel="studies called positive, ranked")
    handles = [Patch(color=colours[name], label=name) for name in names]
    axis.legend(handles=handles, loc="lower right")
    return figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "datalist",
        type=Path,
        help="columns case, class, and probability or a way to the severity (severity_percent, "
        "report, or prediction with lungs)",
    )
    parser.add_argument("--positive", default="covid19", help="class to identify (covid19)")
    parser.add_argument(
        "--threshold",
        type=float,
        help="score from which a study is called positive (0.5; 1 %% where severity is the score)",
    )


def run(arguments: argparse.Namespace) -> Report:
    """Evaluate a datalist of studies."""
    file, positive = arguments.datalist, arguments.positive
    frame = read_datalist(file, ("class",), ("training", "patient", "probability", *OPTIONAL))
    frame["training"] = trainings_of(frame)
    for _, part in frame.groupby("training"):
        check_two_groups(part, "class", positive, file)
    with_masks = [c for c in PAIR if c in frame]
    both = frame.dropna(subset=with_masks) if len(with_masks) == 2 else frame.iloc[:0]
    check_masks(both, PAIR, ("lesion", "lesion"), arguments.quiet)
    frame = frame.join(severities(frame, arguments.quiet))
    frame["score"], scored_by = _scores(frame, file)
    positives = both[both["class"] == positive]
    frame["dice"] = np.nan
    if len(positives):
        compared = compare_cases(positives, "lesion", arguments.quiet)
        frame.loc[positives.index, "dice"] = compared["dice"].to_numpy()
    threshold = arguments.threshold
    if threshold is None:
        threshold = 0.5 if scored_by == "probability" else 1.0
    return Report(
        f"Triage: {len(frame)} predictions, {positive} to be identified",
        [
            f"ROC curves are over the {scored_by}; called positive from {threshold:g}. Spearman's "
            f"rank correlation of severity and Dice are over cases of class {positive}.",
            *note(arguments.resamples),
        ],
        items(frame, positive, threshold, arguments.resamples),
    )


def items(
    frame: pd.DataFrame, positive: str, threshold: float, resamples: int
) -> list[Table | Picture]:
    """Return tables and figures; those of single trainings show the first one."""
    each = evaluate(frame, positive)
    mean = summary(frame, positive, resamples)
    first = frame[frame["training"] == frame["training"].iloc[0]]
    columns: Sequence[str] = ("training", "case", "class", "score", "severity", "truth_severity")
    return [
        Table(
            "summary", "Mean ± standard deviation over trainings (table 2)", mean, shown_means(mean)
        ),
        Table("trainings", "Each training", each),
        Table("confusion", "Identification (figure 5)", confusion(first, threshold, positive)),
        Picture.of("roc", "ROC curves", draw_curves(first, positive)),
        Picture.of("ranking", "Ranking by severity (figure 5)", draw_ranking(first, threshold)),
        Table("cases", "Every study", frame[[*columns, "dice"]]),
    ]


def _scores(frame: pd.DataFrame, file: Path) -> tuple[pd.Series, str]:
    """Return what studies are told apart by: probability, else severity (multitask paper 2.5)."""
    for column, name in (("probability", "probability"), ("severity", "severity score in percent")):
        if column in frame and frame[column].notna().any():
            unknown = frame[frame[column].isna()]
            if len(unknown):
                raise EvaluationError(f"{file}: case {unknown.iloc[0]['case']} has no {name}")
            return frame[column], name
    raise EvaluationError(
        f"{file}: nothing to tell studies apart by; give probability, severity_percent, report, "
        "or prediction with lungs"
    )
