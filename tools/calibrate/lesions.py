"""The lesion threshold of a site, as in section 5.4 and table 5 of the VGG16-UNet paper."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tools.calibrate.cases import THRESHOLDS, Application, DiceOfCase, check_case, dice_of_map
from tools.calibrate.site_file import read_site_file, write_site_file
from tools.calibrate.trust import CRITERION, Trust, judge
from tools.evaluate.cases import progress, read_datalist, rows_of
from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Picture, Report, Table

PERCENTAGES = (0, 10, 20, 30, 40, 50)
# At 0 all is lesion and at 1 nothing: they are shown, but no site can want them.
CHOICE = slice(1, -1)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a site's cases say.

    Attributes
    ----------
    table : DataFrame
        One row a percentage of cases: patients, cases, threshold, Dice on the held-out half.
    calibration, held_out : DataFrame
        Dice at each threshold (columns), one row a case, the patient as index.
    default, threshold : float
        Before, and chosen on the whole calibration half.
    trust : Trust
        Verdict.
    """

    table: pd.DataFrame
    calibration: pd.DataFrame
    held_out: pd.DataFrame
    default: float
    threshold: float
    trust: Trust


def calibrate(dice: pd.DataFrame, default: float, seed: int = 0) -> Calibration:
    """Choose a threshold on growing parts of one half of the patients; judge it on the other.

    Parameters
    ----------
    dice : DataFrame
        Dice at each of ``THRESHOLDS`` (columns), one row a case, the patient as index.
    default : float
        Threshold without calibration; Dice at the nearest of ``THRESHOLDS`` stands for it.
    seed : int
        Draws the held-out half.
    """
    patients = np.random.default_rng(seed).permutation(sorted(set(dice.index)))
    n_calibration = len(patients) // 2
    chosen_on, held_out_patients = patients[:n_calibration], patients[n_calibration:]
    held_out = dice[dice.index.isin(held_out_patients)]
    before = min(THRESHOLDS, key=lambda t: abs(t - default))
    rows = []
    for percent in PERCENTAGES:
        n = min(n_calibration, max(1, round(percent / 100 * len(patients)))) if percent else 0
        part = dice[dice.index.isin(chosen_on[:n])]
        threshold = best_threshold(part, before) if percent else before
        rows.append(
            {
                "cases_percent": percent,
                "patients": n,
                "cases": len(part),
                "threshold": threshold,
                "calibration_dice": part[threshold].mean() if percent else np.nan,
                "held_out_dice": held_out[threshold].mean(),
                "held_out_std": held_out[threshold].std(),
                "change": held_out[threshold].mean() - held_out[before].mean(),
            }
        )
    calibration = dice[dice.index.isin(chosen_on)]
    threshold = best_threshold(calibration, before)
    trust = judge(
        held_out[threshold] - held_out[before],
        list(held_out.index),
        n_calibration,
        threshold == before,
        seed,
    )
    return Calibration(pd.DataFrame(rows), calibration, held_out, before, threshold, trust)


def best_threshold(dice: pd.DataFrame, default: float) -> float:
    """Return the threshold of the highest mean Dice; of equals, the nearest to the default."""
    means = dice.mean().round(9).iloc[CHOICE]
    best = means[means == means.max()].index
    return float(min(best, key=lambda t: abs(t - default)))


def run(arguments: argparse.Namespace) -> tuple[Report, Path]:
    """Calibrate from the command line."""
    file: Path = arguments.datalist
    site = read_site_file(arguments.output, arguments.site)
    frame = read_datalist(file, ["truth"], ["prediction", "image", "truth_lung"], key=("case",))
    dice_of_case, default, model = _source(frame, file, arguments)
    patients = frame["patient"].nunique()
    if patients < 2:
        raise EvaluationError(f"{file}: one patient only; half of the patients are held out")
    lesions = [
        check_case(row)
        for row in progress(rows_of(frame), len(frame), "checking files", arguments.quiet)
    ]
    if not any(lesions):
        raise EvaluationError(f"{file}: no true mask holds a lesion, so no threshold is better")
    dice = pd.DataFrame(
        [
            dice_of_case(row)
            for row in progress(rows_of(frame), len(frame), "thresholds", arguments.quiet)
        ],
        columns=list(THRESHOLDS),
        index=frame["patient"],
    )
    result = calibrate(dice, default, arguments.seed)
    report = _report(result, dice, list(frame["case"]), arguments.site, model)
    report.write(arguments.output)
    record = {
        "cases": len(result.calibration),
        "held_out_cases": len(result.held_out),
        "trusted": result.trust.trusted,
        "dice_change": round(result.trust.change, 4),
        **({"model": model} if model else {}),
    }
    return report, write_site_file(
        arguments.output, site, "lesion_threshold", result.threshold, record
    )


def _source(
    frame: pd.DataFrame, file: Path, arguments: argparse.Namespace
) -> tuple[DiceOfCase, float, str]:
    """Return how Dice is found, the threshold so far and the model, after a look at the columns."""
    given = {c for c in ("prediction", "image") if c in frame and frame[c].notna().any()}
    if len(given) != 1:
        raise EvaluationError(
            f"{file}: give either image (CT to run the bundles on) or prediction (probability maps)"
        )
    (column,) = given
    missing = frame[frame[column].isna()]
    if len(missing):
        raise EvaluationError(f"{file}: case {missing['case'].iloc[0]} has no {column}")
    if column == "prediction":
        if not 0 < arguments.default_threshold < 1:
            raise EvaluationError("--default-threshold: must lie between 0 and 1")
        return dice_of_map, arguments.default_threshold, ""
    application = Application.load(arguments.models)
    identity = application.lesion.identity
    model = f"{identity.name} {identity.version} {identity.sha256}"
    return application.dice_of_ct, application.lesion.network.threshold, model


def _report(
    result: Calibration, dice: pd.DataFrame, cases: list[str], site: str, model: str
) -> Report:
    by_case: dict[str, Any] = {
        "case": cases,
        "part": np.where(dice.index.isin(result.held_out.index), "held out", "calibration"),
    }
    table = pd.DataFrame(by_case).join(
        dice.reset_index(drop=True).rename(columns=lambda t: f"{t:.2f}")
    )
    return Report(
        f"Lesion threshold of {site}",
        [
            f"Lesion threshold: {result.default:g} before, {result.threshold:g} after calibration"
            f" on {len(result.calibration)} cases; {len(result.held_out)} cases held out.",
            result.trust.verdict,
            CRITERION,
            *([f"Model: {model}"] if model else []),
        ],
        [
            Table(
                "calibration",
                "Dice on the held-out half after calibration on a share of the site's patients"
                " (VGG16-UNet paper, table 5).",
                result.table,
            ),
            Picture.of("calibration", "Dice by threshold, and by cases used.", _figure(result)),
            Table("cases", "Dice of each case at each threshold.", table),
        ],
    )


def _figure(result: Calibration) -> Figure:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    by_threshold, by_cases = figure.subplots(1, 2)
    for part, name, colour in (
        (result.calibration, "calibration half", "#0072B2"),
        (result.held_out, "held-out half", "#D55E00"),
    ):
        by_threshold.plot(THRESHOLDS, part.T, color=colour, alpha=0.25, linewidth=0.8)
        by_threshold.plot(THRESHOLDS, part.mean(), color=colour, linewidth=2, label=f"{name}, mean")
    by_threshold.axvline(result.default, color="0.5", linestyle=":", label="before")
    by_threshold.axvline(result.threshold, color="black", linestyle="--", label="calibrated")
    by_threshold.set(xlabel="threshold", ylabel="Dice", ylim=(0, 1), xlim=(0, 1))
    by_threshold.legend(frameon=False, fontsize=8)

    table = result.table
    by_cases.errorbar(
        table["cases_percent"],
        table["held_out_dice"],
        yerr=table["held_out_std"],
        color="#D55E00",
        marker="o",
        capsize=3,
    )
    for _, row in table.iterrows():
        by_cases.annotate(
            f"{row['threshold']:g}",
            (row["cases_percent"], row["held_out_dice"]),
            textcoords="offset points",
            xytext=(6, 6),
            fontsize=8,
        )
    by_cases.set(
        xlabel="patients used for calibration, %",
        ylabel="Dice of the held-out half, mean and std",
        ylim=(0, 1),
    )
    for axes in (by_threshold, by_cases):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
