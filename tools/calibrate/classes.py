"""CT-class bounds of a site from its own readings, as in section 5.4 of CoRSAI."""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedGroupKFold

from ct_triage.severity import CATEGORIES
from tools.calibrate.site_file import read_site_file, write_site_file
from tools.calibrate.trust import CRITERION, judge
from tools.evaluate.cases import progress, read_datalist, rows_of
from tools.evaluate.ct_classes import DEFAULT_BOUNDS, classify, fit_bounds
from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Picture, Report, Table
from tools.evaluate.shares import OPTIONAL, shares_of

Bounds = tuple[float, float, float]
# The site file wants bounds that ascend; two classes apart by this are as good as one.
SMALLEST_STEP = 1e-4


def run(arguments: argparse.Namespace) -> tuple[Report, Path]:
    """Calibrate from the command line."""
    file: Path = arguments.datalist
    site = read_site_file(arguments.output, arguments.site)
    frame = read_datalist(file, ["ct_class"], list(OPTIONAL), key=("case",))
    classes = _classes(frame, file)
    shares = _shares(frame, file, arguments.quiet)
    halves = stratified_halves(shares, classes, frame["patient"], file, arguments.seed)
    rows = []
    for name, (chosen_on, judged_on) in zip(("1", "2"), (halves, halves[::-1]), strict=True):
        bounds = fitted(shares[chosen_on], classes[chosen_on])
        before, after = (
            accuracy_score(classes[judged_on], classify(shares[judged_on], b))
            for b in (DEFAULT_BOUNDS, bounds)
        )
        rows.append(
            {
                "split": name,
                "cases": len(chosen_on),
                "held_out_cases": len(judged_on),
                **dict(zip(("ct_2_from", "ct_3_from", "ct_4_from"), bounds, strict=True)),
                "accuracy_before": before,
                "accuracy_after": after,
                "change": after - before,
            }
        )
    chosen_on, judged_on = halves
    bounds = fitted(shares[chosen_on], classes[chosen_on])
    right = {
        b: classify(shares[judged_on], b) == classes[judged_on] for b in (DEFAULT_BOUNDS, bounds)
    }
    trust = judge(
        right[bounds].astype(float) - right[DEFAULT_BOUNDS],
        list(frame["patient"].iloc[judged_on]),
        frame["patient"].iloc[chosen_on].nunique(),
        bounds == DEFAULT_BOUNDS,
        arguments.seed,
    )
    report = Report(
        f"CT-class bounds of {arguments.site}",
        [
            f"Bounds of split 1: {', '.join(f'{b:g}' for b in bounds)} of a lung, before"
            f" {', '.join(f'{b:g}' for b in DEFAULT_BOUNDS)}; CT-0 is exactly no lesion.",
            trust.verdict,
            CRITERION,
        ],
        [
            Table(
                "ct_classes",
                "Accuracy on the half that the bounds were not fitted on (CoRSAI, 5.4).",
                pd.DataFrame(rows),
            ),
            Picture.of(
                "ct_classes", "Shares by the site's reading.", _figure(shares, classes, bounds)
            ),
        ],
    )
    report.write(arguments.output)
    record = {
        "cases": len(chosen_on),
        "held_out_cases": len(judged_on),
        "trusted": trust.trusted,
        "accuracy_change": round(trust.change, 4),
    }
    return report, write_site_file(arguments.output, site, "ct_class_bounds", list(bounds), record)


def fitted(shares: NDArray[np.float64], classes: NDArray[np.intp]) -> Bounds:
    """Return fitted bounds, rounded and strictly ascending between 0 and 1."""
    low, middle, high = (round(bound, 4) for bound in fit_bounds(shares, classes))
    low = min(max(low, SMALLEST_STEP), 1 - 3 * SMALLEST_STEP)
    middle = min(max(middle, low + SMALLEST_STEP), 1 - 2 * SMALLEST_STEP)
    high = min(max(high, middle + SMALLEST_STEP), 1 - SMALLEST_STEP)
    return round(low, 4), round(middle, 4), round(high, 4)


def stratified_halves(
    shares: NDArray[np.float64],
    classes: NDArray[np.intp],
    patients: pd.Series,
    file: Path,
    seed: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return indices of two halves with like classes; a patient is in one of them.

    Raises
    ------
    EvaluationError
        If there are too few patients, or one class only.
    """
    if len(set(classes.tolist())) < 2:
        raise EvaluationError(f"{file}: one CT class only; there is nothing to tell apart")
    if patients.nunique() < 2 or np.bincount(classes).max() < 2:
        raise EvaluationError(f"{file}: too few patients to hold out half of them")
    splits = StratifiedGroupKFold(2, shuffle=True, random_state=seed)
    held_out, chosen_on = next(splits.split(shares, classes, patients))
    return chosen_on, held_out


def _classes(frame: pd.DataFrame, file: Path) -> NDArray[np.intp]:
    for case, read in zip(frame["case"], frame["ct_class"], strict=True):
        if read not in CATEGORIES:
            raise EvaluationError(
                f"{file}: case {case}: ct_class {read!r} is none of {', '.join(CATEGORIES)}"
            )
    return np.array([CATEGORIES.index(read) for read in frame["ct_class"]])


def _shares(frame: pd.DataFrame, file: Path, quiet: bool) -> NDArray[np.float64]:
    """Severity score of each case by the system, 0 to 1."""
    shares = []
    for row in progress(rows_of(frame), len(frame), "reading shares", quiet):
        found = shares_of(row, "prediction")
        if found is None:
            raise EvaluationError(
                f"{file}: case {row['case']} has neither severity_percent, a report, nor masks"
            )
        if not 0 <= found.severity <= 100:
            raise EvaluationError(
                f"{file}: case {row['case']}: severity of {found.severity:g} %; must be 0 to 100"
            )
        shares.append(found.severity / 100)
    return np.array(shares)


def _figure(shares: NDArray[np.float64], classes: NDArray[np.intp], bounds: Bounds) -> Figure:
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    # Spread along the class axis, so that equal shares can be told apart.
    offset = (np.arange(len(shares)) % 7 - 3) / 20
    axes.plot(100 * shares, classes + offset, "o", color="#0072B2", alpha=0.6)
    for number, (before, after) in enumerate(zip(DEFAULT_BOUNDS, bounds, strict=True)):
        label = ("before", "calibrated") if not number else ("", "")
        axes.axvline(100 * before, color="0.5", linestyle=":", label=label[0])
        axes.axvline(100 * after, color="black", linestyle="--", label=label[1])
    axes.set_yticks(range(len(CATEGORIES)), CATEGORIES)
    axes.set(xlabel="lesion share of the more affected lung, %", ylabel="reading of the site")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure
