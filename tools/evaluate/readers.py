"""Readers and a model against panels of readers (CoRSAI, sections 5.1, 5.3 and 5.4).

Each reader is compared with the panel of the others, and the model with the same panel, so that
both face the same truth. Two readers, who make no panels, are compared with each other, and the
model with both (VGG16-UNet paper, table 4).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from sklearn.model_selection import StratifiedKFold
from statsmodels.stats.contingency_tables import mcnemar

from ct_triage.severity import CATEGORIES
from tools.evaluate.bootstrap import group_means, intervals, note
from tools.evaluate.cases import load_masks, progress, read_datalist
from tools.evaluate.ct_classes import DEFAULT_BOUNDS, classify, fit_bounds
from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Picture, Report, Table
from tools.evaluate.segmentation import dice
from tools.evaluate.slices import check_reference
from tools.evaluate.statistics import (
    paired_p,
    plus_minus,
    shown_limits,
    small_strata,
    two_sample_p,
)

ALL_READERS = "all readers"
KEY = ("case", "rater")
SHARES = ("right_percent", "left_percent")
FACED = "Each reader and the model face the same panel, that of the other readers."
# The fewest other readers that a panel is made of.
SMALLEST_PANEL = 2


def has_panels(readers: int) -> bool:
    """Whether so many readers make panels of which one is left out."""
    return readers > SMALLEST_PANEL


def panel_of(masks: Sequence[NDArray[np.bool_]], votes: int) -> NDArray[np.bool_]:
    """Return the voxels that at least so many of the masks hold."""
    counts = np.zeros(masks[0].shape, np.uint8)
    for mask in masks:
        counts += mask
    return counts >= votes


def segmentation_scores(
    frame: pd.DataFrame, model: str, votes: int, quiet: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare each reader's masks and the model's with the panel of the other readers.

    Returns
    -------
    scores : pandas.DataFrame
        ``case``, ``rater``, ``reader`` and ``model``: Dice of that reader and of the model with
        the panel without that reader; empty where the readers are too few for panels.
    pairs : pandas.DataFrame
        ``case``, ``one``, ``other``, ``dice`` of any two raters.
    """
    scores, pairs = [], []
    for case, volumes in _masks(frame, "comparing readers", quiet):
        raters = list(volumes)
        masks = {rater: volume.array for rater, volume in volumes.items()}
        readers = [rater for rater in raters if rater != model]
        for reader in readers if has_panels(len(readers)) else ():
            panel = panel_of([masks[r] for r in readers if r != reader], votes)
            scores.append(
                {
                    "case": case,
                    "rater": reader,
                    "reader": dice(masks[reader], panel),
                    "model": dice(masks[model], panel),
                }
            )
        for one, other in itertools.combinations(raters, 2):
            found = dice(masks[one], masks[other])
            pairs.append({"case": case, "one": one, "other": other, "dice": found})
    return pd.DataFrame(scores), pd.DataFrame(pairs)


def differences(part: pd.DataFrame, resamples: int) -> dict[str, float]:
    """Return the mean of model less reader, with its 95 % interval over patients.

    Parameters
    ----------
    part : pandas.DataFrame
        ``reader``, ``model``, and ``patient`` unless there are no resamples.
    resamples : int
        Draws of patients.
    """
    values = part["model"].to_numpy(float) - part["reader"].to_numpy(float)
    low = high = np.nan
    if resamples:
        figures = group_means(values[:, np.newaxis])
        ((low, high),) = intervals(figures, part["patient"], resamples)
    return {"model - reader": float(values.mean()), "low": low, "high": high}


def compare_samples(scores: pd.DataFrame, resamples: int = 0) -> pd.DataFrame:
    """Return mean and standard deviation of readers and model with p-values (table 4).

    Parameters
    ----------
    scores : pandas.DataFrame
        ``rater``, ``reader``, ``model``, and ``patient`` unless there are no resamples.
    resamples : int
        Draws of patients for the interval of the difference.
    """
    rows = []
    for rater, part in _with_all(scores):
        rows.append(
            {
                "rater": rater,
                "reader mean": part["reader"].mean(),
                "reader std": part["reader"].std(ddof=0),
                "model mean": part["model"].mean(),
                "model std": part["model"].std(ddof=0),
                **differences(part, resamples),
                "n": len(part),
                "p (independent)": two_sample_p(part["reader"], part["model"]),
                "p (paired)": paired_p(part["reader"], part["model"]),
            }
        )
    return pd.DataFrame(rows)


def pairwise(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the mean Dice of every two raters."""
    found = pairs.groupby(["one", "other"], sort=False)["dice"].agg(["mean", "std", "count"])
    found.columns = pd.Index(["mean Dice", "std", "n"])
    return found.reset_index()


def inter_rater(pairs: pd.DataFrame, model: str) -> pd.DataFrame:
    """Return how readers agree with each other, and the model with them (VGG16-UNet, table 4).

    Parameters
    ----------
    pairs : pandas.DataFrame
        ``case``, ``one``, ``other``, ``dice`` of any two raters.
    model : str
        Which rater is the model.

    Returns
    -------
    pandas.DataFrame
        ``case``, ``rater``, ``reader``: mean Dice over every two readers, ``model``: mean Dice of
        the model and each reader.
    """
    is_model = (pairs["one"] == model) | (pairs["other"] == model)
    means = {
        who: pairs[rows].groupby("case", sort=False)["dice"].mean()
        for who, rows in (("reader", ~is_model), ("model", is_model))
    }
    return pd.DataFrame(means).reset_index().assign(rater=ALL_READERS)


def share_errors(frame: pd.DataFrame, model: str) -> pd.DataFrame:
    """Compare each lung's share by a reader, and by the model, with the mean of other readers.

    Returns
    -------
    pandas.DataFrame
        ``case``, ``lung``, ``rater``, ``panel``, ``reader`` and ``model`` errors, all in percent
        of the lung.
    """
    parts = []
    for column in SHARES:
        wide = frame.pivot(index="case", columns="rater", values=column)
        readers = [rater for rater in wide if rater != model]
        for reader in readers:
            panel = wide[[r for r in readers if r != reader]].mean(axis=1)
            parts.append(
                pd.DataFrame(
                    {
                        "lung": column.removesuffix("_percent"),
                        "rater": reader,
                        "panel": panel,
                        "reader": wide[reader] - panel,
                        "model": wide[model] - panel,
                    }
                ).reset_index()
            )
    return pd.concat(parts, ignore_index=True)


def share_table(errors: pd.DataFrame, resamples: int = 0) -> pd.DataFrame:
    """Return mean absolute and mean error of readers and model (table 5).

    ``model - reader``, ``low`` and ``high`` are of the mean absolute error.
    """
    rows = []
    for rater, part in _with_all(errors):
        row: dict[str, Any] = {"rater": rater}
        for who in ("reader", "model"):
            row[f"{who} MAE"], row[f"{who} ME"] = part[who].abs().mean(), part[who].mean()
        absolute = part.assign(reader=part["reader"].abs(), model=part["model"].abs())
        rows.append({**row, **differences(absolute, resamples), "n": len(part)})
    return pd.DataFrame(rows)


def stratified_halves(classes: Sequence[str], seed: int) -> list[NDArray[np.intp]]:
    """Return the indices of two halves with the classes evenly in both."""
    halves = StratifiedKFold(2, shuffle=True, random_state=seed)
    with small_strata():
        return [test for _, test in halves.split(np.zeros(len(classes)), classes)]


def classification(frame: pd.DataFrame, model: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare CT classes of readers and model with the majority of the other readers.

    The model's class is its larger lung share cut at bounds that agree best with the classes of
    all readers of the panel, fitted on one half of the cases and tested on the other.

    Parameters
    ----------
    frame : pandas.DataFrame
        ``case``, ``rater``, ``ct_class`` (readers), ``right_percent``, ``left_percent`` (model),
        and perhaps ``reference_class``, which the halves are stratified by.
    model : str
        Which rater is the model.
    seed : int
        Draws the halves.

    Returns
    -------
    bounds : pandas.DataFrame
        ``rater``, and the bounds above which CT-2 to CT-4 begin, fitted to each reader and to all
        of them on each half and on all cases (table 6), in shares 0 to 1.
    answers : pandas.DataFrame
        ``case``, ``rater``, ``split``, and whether ``reader``, ``model`` (fitted bounds) and
        ``model before`` (25, 50, 75 %) agree with the panel (table 7).
    """
    readings = frame[frame["rater"] != model].pivot(
        index="case", columns="rater", values="ct_class"
    )
    numbers = readings.map(CATEGORIES.index)
    system = frame[frame["rater"] == model].set_index("case").loc[numbers.index]
    shares = system[list(SHARES)].max(axis=1).to_numpy() / 100.0
    strata = (
        system["reference_class"]
        if "reference_class" in system and system["reference_class"].notna().all()
        else _majority(numbers)
    )
    halves = stratified_halves([str(s) for s in strata], seed)
    everything = np.arange(len(numbers))
    parts = {"split 1": halves[0], "split 2": halves[1], "full": everything}
    rows = []
    for rater in [*numbers, ALL_READERS]:
        columns = list(numbers) if rater == ALL_READERS else [rater]
        row: dict[str, Any] = {"rater": rater}
        for name, part in parts.items():
            fitted = _fit(shares, numbers[columns], part)
            row |= {f"{name} CT-{n}": b for n, b in zip((2, 3, 4), fitted, strict=True)}
        rows.append(row)
    answers = []
    for rater in numbers:
        others = numbers.drop(columns=rater)
        panel = _majority(others).to_numpy()
        for number, (train, test) in enumerate(((halves[1], halves[0]), halves), 1):
            fitted = _fit(shares, others, train)
            answers.append(
                pd.DataFrame(
                    {
                        "case": numbers.index[test],
                        "rater": rater,
                        "split": number,
                        "reader": numbers[rater].to_numpy()[test] == panel[test],
                        "model": classify(shares[test], fitted) == panel[test],
                        "model before": classify(shares[test], DEFAULT_BOUNDS) == panel[test],
                    }
                )
            )
    return pd.DataFrame(rows), pd.concat(answers, ignore_index=True)


def accuracy_table(answers: pd.DataFrame, resamples: int = 0) -> pd.DataFrame:
    """Return the accuracy of readers and model on each split and together (table 7).

    ``model - reader``, ``low`` and ``high`` are of both splits together.
    """
    rows = []
    for rater, part in _with_all(answers):
        row: dict[str, Any] = {"rater": rater}
        for name, some in (
            ("split 1", part[part["split"] == 1]),
            ("split 2", part[part["split"] == 2]),
            ("combined", part),
        ):
            row |= {
                f"{name} {who}": some[who].mean() for who in ("reader", "model before", "model")
            }
        table = pd.crosstab(part["reader"], part["model"]).reindex(
            index=[False, True], columns=[False, True], fill_value=0
        )
        row |= {**differences(part, resamples), "n": len(part)}
        row["p (independent)"] = two_sample_p(part["reader"], part["model"])
        row["p (McNemar)"] = float(mcnemar(table, exact=True).pvalue)
        rows.append(row)
    return pd.DataFrame(rows)


def draw_shares(frame: pd.DataFrame, model: str) -> Figure:
    """Draw the model's shares, its errors and the readers' spread over their mean (fig. 4-6)."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    wide = pd.concat(
        [frame.pivot(index="case", columns="rater", values=column) for column in SHARES]
    )
    readers = wide.drop(columns=model)
    mean = readers.mean(axis=1)
    high = max(1.0, float(wide.max().max())) * 1.05
    left.scatter(mean, wide[model], s=16, alpha=0.7)
    left.plot([0, high], [0, high], color="0.7", linewidth=1)
    left.set(xlim=(0, high), ylim=(0, high), ylabel="model (%)", title="Share of a lung")
    middle.scatter(mean, wide[model] - mean, s=16, alpha=0.7)
    middle.axhline(0, color="0.7", linewidth=1)
    middle.set(ylabel="model - readers (points)", title="Error of the model")
    right.scatter(mean, readers.std(axis=1), s=16, alpha=0.7)
    right.set(ylabel="standard deviation (points)", title="Spread of the readers")
    for axis in (left, middle, right):
        axis.set_xlabel("mean of readers (%)")
    return figure


def _masks(
    frame: pd.DataFrame, what: str, quiet: bool
) -> Iterator[tuple[str, dict[str, hd.Volume]]]:
    """Yield each case with the masks of its raters on one grid."""
    by_case = list(frame.groupby("case", sort=False))
    for case, part in progress(by_case, len(by_case), what, quiet):
        raters = part["rater"].to_list()
        row = {"case": case, **dict(zip(raters, part["mask"], strict=True))}
        yield (
            case,
            dict(zip(raters, load_masks(row, raters, ["lesion"] * len(raters)), strict=True)),
        )


def _with_all(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    parts = [(str(rater), part) for rater, part in frame.groupby("rater", sort=False)]
    return [*(part for part in parts if part[0] != ALL_READERS), (ALL_READERS, frame)]


def _majority(numbers: pd.DataFrame) -> pd.Series:
    """Return the commonest class of each case, the milder one of a tie."""
    return pd.Series(stats.mode(numbers.to_numpy(), axis=1).mode, numbers.index)


def _fit(
    shares: NDArray[np.float64], numbers: pd.DataFrame, part: NDArray[np.intp]
) -> tuple[float, float, float]:
    """Fit bounds to all readings of some cases."""
    readings = numbers.to_numpy()[part]
    return fit_bounds(np.repeat(shares[part], readings.shape[1]), readings.ravel())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "datalist",
        type=Path,
        help="a row for each case and rater: columns case, rater, and mask, right_percent with "
        "left_percent, ct_class, as far as they are to be compared",
    )
    parser.add_argument("--model", default="model", help="which rater is the model (model)")
    parser.add_argument(
        "--votes", type=int, default=3, help="readers of a panel that must agree on a voxel (3)"
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the two splits (0)")


def run(arguments: argparse.Namespace) -> Report:
    """Evaluate a datalist of readings."""
    file, model = arguments.datalist, arguments.model
    frame = read_datalist(
        file, ("rater",), ("patient", "mask", *SHARES, "ct_class", "reference_class"), KEY
    )
    _check(frame, model, arguments.votes, file)
    readers = frame[frame["rater"] != model]
    items: list[Table | Picture] = []
    report = Report(
        f"Readers: {readers['rater'].nunique()} readers and {model}, "
        f"{frame['case'].nunique()} cases",
        [
            *([FACED] if has_panels(readers["rater"].nunique()) else []),
            "The independent test is the one that CoRSAI's p-values agree with; readings of the "
            "same cases are pairs, so the paired test is the one to rely on. Intervals are those "
            "of the model's mean less the reader's.",
            *note(arguments.resamples),
        ],
    )
    patients = frame.drop_duplicates("case").set_index("case")["patient"]
    resamples = arguments.resamples
    if "mask" in frame:
        for _ in _masks(frame, "checking masks", arguments.quiet):
            pass
        scores, pairs = segmentation_scores(frame, model, arguments.votes, arguments.quiet)
        compared = [
            ("dice", "Dice with the panel, mean ± std (CoRSAI, table 4)", scores),
            (
                "inter_rater",
                "Dice of the readers with each other, and of the model with them "
                "(VGG16-UNet paper, table 4)",
                inter_rater(pairs, model),
            ),
        ]
        items += [
            _samples_table(name, caption, _with_patients(part, patients), resamples)
            for name, caption, part in compared
            if len(part)
        ]
        items.append(Table("pairs", "Agreement of any two", pairwise(pairs)))
    if set(SHARES) <= set(frame) and frame[list(SHARES)].notna().all(axis=None):
        errors = share_errors(frame, model)
        found = share_table(_with_patients(errors, patients), resamples)
        caption = "Error of the lesion share in points (table 5)"
        items += [
            Table("shares", caption, found, shown_limits(found)),
            Picture.of("shares", "Lesion shares (figures 4 to 6)", draw_shares(frame, model)),
        ]
    if "ct_class" in frame:
        bounds, answers = classification(frame, model, arguments.seed)
        found = accuracy_table(_with_patients(answers, patients), resamples)
        items += [
            Table("bounds", "Shares above which CT-2 to CT-4 begin (table 6)", bounds),
            Table("accuracy", "Agreement of CT classes (table 7)", found, shown_limits(found)),
        ]
    report.items = items
    return report


def _samples_table(name: str, caption: str, scores: pd.DataFrame, resamples: int) -> Table:
    """Return the table of :func:`compare_samples`, shown as mean ± standard deviation."""
    found = compare_samples(scores, resamples)
    shown = found.drop(columns=[c for c in found if str(c).endswith((" mean", " std"))])
    for at, who in enumerate(("reader", "model"), 1):
        shown.insert(at, who, _spread(found, who))
    return Table(name, caption, found, shown_limits(shown))


def _with_patients(scores: pd.DataFrame, patients: pd.Series) -> pd.DataFrame:
    return scores.assign(patient=scores["case"].map(patients))


def _spread(found: pd.DataFrame, who: str) -> list[str | None]:
    columns = (found[f"{who} mean"], found[f"{who} std"])
    return [plus_minus(mean, std, 3) for mean, std in zip(*columns, strict=True)]


def _check(frame: pd.DataFrame, model: str, votes: int, file: Path) -> None:
    raters = list(dict.fromkeys(frame["rater"]))
    if model not in raters:
        raise EvaluationError(
            f"{file}: no rater {model!r} among {', '.join(raters)}; name the model with --model"
        )
    panel = len(raters) - 2
    if panel < 1:
        raise EvaluationError(f"{file}: there must be at least two readers beside the model")
    if not has_panels(panel + 1):
        if {"ct_class", *SHARES} & set(frame):
            raise EvaluationError(
                f"{file}: panels need at least three readers beside the model; of two, give masks "
                "alone"
            )
    elif "mask" in frame and not 1 <= votes <= panel:
        raise EvaluationError(f"{file}: --votes must be 1 to {panel}, the size of a panel")
    for case, part in frame.groupby("case", sort=False):
        missing = [r for r in raters if r not in set(part["rater"])]
        if missing:
            raise EvaluationError(f"{file}: case {case} has no reading by {missing[0]}")
    check_reference(frame, file)
    is_model = frame["rater"] == model
    complete = {
        "mask": frame,
        **dict.fromkeys(SHARES, frame if "ct_class" not in frame else frame[is_model]),
        "ct_class": frame[~is_model],
    }
    if not {"mask", "ct_class", *SHARES} & set(frame):
        raise EvaluationError(f"{file}: nothing to compare; give mask, shares or ct_class")
    if "ct_class" in frame and not set(SHARES) <= set(frame):
        raise EvaluationError(f"{file}: ct_class needs the model's {' and '.join(SHARES)}")
    for column, part in complete.items():
        if column in frame and part[column].isna().any():
            case, rater = part[part[column].isna()].iloc[0][["case", "rater"]]
            raise EvaluationError(f"{file}: case {case}: {rater} has no {column}")
    if "ct_class" in frame and frame["case"].nunique() < 2 * len(CATEGORIES):
        raise EvaluationError(
            f"{file}: {frame['case'].nunique()} cases are too few to fit CT classes on a half; "
            f"give at least {2 * len(CATEGORIES)}"
        )
