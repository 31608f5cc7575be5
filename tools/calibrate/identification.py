"""The temperature of the identification logit (Guo et al. 2017, section 4.2).

A network's sigmoid is rarely the share of studies that are positive. Dividing the logit by one
number, chosen for the smallest negative log-likelihood on studies that the network was not trained
on, mends that and changes no ranking.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import optimize, special
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import StratifiedGroupKFold

from tools.calibrate.cases import Identifier
from tools.calibrate.site_file import write_whole
from tools.calibrate.trust import CRITERION, judge
from tools.evaluate.bootstrap import intervals
from tools.evaluate.cases import check_two_groups, progress, read_datalist, rows_of
from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Picture, Report, Table
from tools.evaluate.statistics import small_strata

FOLDS = 5
BINS = 10
RESAMPLES = 2000
# Of a network that is sure beyond any use, and of one that knows nothing.
TEMPERATURES = (0.05, 20.0)
# Probabilities are written with a few digits, so that 0 and 1 occur.
SMALLEST_PROBABILITY = 1e-4
RESULT_FILE = "temperature.json"

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def scaled(logits: Floats, temperature: float) -> Floats:
    """Return the probabilities of logits at a temperature."""
    return special.expit(logits / temperature)


def fit_temperature(logits: Floats, positive: Bools) -> float:
    """Return the temperature of the smallest negative log-likelihood.

    Parameters
    ----------
    logits : float array (n,)
        Of studies that the network was not trained on.
    positive : bool array (n,)
        Which of them have the disease.
    """

    def loss(log_temperature: float) -> float:
        return log_loss(positive, scaled(logits, float(np.exp(log_temperature))))

    found = optimize.minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def expected_calibration_error(probabilities: Floats, positive: Bools) -> float:
    """Return the mean distance of probability and share in ten equal bins (Guo et al., eq. 3)."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = [
        abs(probabilities[bins == b].mean() - positive[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    ]
    return float(sum(gaps))


METRICS: dict[str, Callable[[Floats, Bools], float]] = {
    "Brier score": lambda p, y: float(brier_score_loss(y, p)),
    "expected calibration error": expected_calibration_error,
}


def cross_fitted(logits: Floats, positive: Bools, patients: pd.Series, seed: int) -> Floats:
    """Return probabilities of each patient at the temperature that the others ask for."""
    folds = min(FOLDS, patients[positive].nunique(), patients[~positive].nunique())
    probabilities = np.empty_like(logits)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with small_strata():
        for chosen_on, judged_on in splitter.split(logits, positive, patients):
            temperature = fit_temperature(logits[chosen_on], positive[chosen_on])
            probabilities[judged_on] = scaled(logits[judged_on], temperature)
    return probabilities


def measure(
    values: dict[str, Floats], positive: Bools, patients: pd.Series, seed: int
) -> pd.DataFrame:
    """Return each metric of each set of probabilities, with its interval over patients.

    Parameters
    ----------
    values : dict of float arrays (n,)
        Probabilities by name.
    positive : bool array (n,)
        Truth.
    patients : Series of str (n,)
        Whose study each is; a patient is drawn with all their studies.
    seed : int
        Of the bootstrap, whose resamples are the same for all sets.
    """
    pairs = [(name, which) for name in METRICS for which in values]

    def figures(rows: NDArray[np.intp]) -> list[float]:
        return [METRICS[name](values[which][rows], positive[rows]) for name, which in pairs]

    table = pd.DataFrame(pairs, columns=["metric", "probability"])
    table["value"] = figures(np.arange(len(positive)))
    limits = intervals(figures, patients, RESAMPLES, seed=seed)
    return table.assign(low_95=limits[:, 0], high_95=limits[:, 1])


def run(arguments: argparse.Namespace) -> tuple[Report, Path]:
    """Calibrate from the command line."""
    file: Path = arguments.datalist
    # A study without a diagnosis is neither positive nor negative, so each needs one.
    frame = read_datalist(file, ["class"], ["probability", "image"], key=("case",))
    check_two_groups(frame, "class", arguments.positive, file)
    positive = (frame["class"] == arguments.positive).to_numpy()
    patients = frame["patient"]
    if min(patients[positive].nunique(), patients[~positive].nunique()) < 2:
        raise EvaluationError(f"{file}: one patient of a class only; give two of each at least")
    raw, temperature_before, model = _probabilities(frame, file, arguments)
    clipped = raw.clip(SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    logits = special.logit(clipped) * temperature_before
    temperature = round(fit_temperature(logits, positive), 4)
    values = {
        "before": raw,
        "calibrated": cross_fitted(logits, positive, patients, arguments.seed),
    }
    # Squared errors, so that a gain is above 0 as the verdict has it.
    before, after = ((p - positive) ** 2 for p in values.values())
    n_others = patients.nunique() * (FOLDS - 1) // FOLDS
    trust = judge(before - after, list(patients), n_others, False, arguments.seed)
    report = Report(
        f"Temperature of the probability of {arguments.positive}",
        [
            f"Temperature: {temperature_before:g} before, {temperature:g} after calibration on"
            f" {len(frame)} studies of {patients.nunique()} patients ({int(positive.sum())} studies"
            f" {arguments.positive}). Each study is judged at the temperature that the other"
            " patients ask for; intervals are of 95 %, over patients.",
            f"Change of the Brier score, up is better. {trust.verdict}",
            CRITERION,
            *([f"Model: {model}"] if model else []),
        ],
        [
            Table(
                "calibration",
                "Before and after, on patients that the temperature was not fitted on.",
                measure(values, positive, patients, arguments.seed),
            ),
            Picture.of(
                "reliability",
                "Share of positive studies by probability; numbers count studies.",
                _figure(values, positive),
            ),
            Table(
                "cases",
                "Every study.",
                frame[["case", "patient", "class"]].assign(**values),
            ),
        ],
    )
    report.write(arguments.output)
    text = json.dumps({"temperature": temperature}) + "\n"
    return report, write_whole(arguments.output / RESULT_FILE, text)


def _probabilities(
    frame: pd.DataFrame, file: Path, arguments: argparse.Namespace
) -> tuple[Floats, float, str]:
    """Return probabilities, the temperature that they were made with, and the model if it ran."""
    given = {c for c in ("probability", "image") if c in frame and frame[c].notna().any()}
    if len(given) != 1:
        raise EvaluationError(
            f"{file}: give either probability or image (CT to run the bundles on)"
        )
    (column,) = given
    missing = frame[frame[column].isna()]
    if len(missing):
        raise EvaluationError(f"{file}: case {missing['case'].iloc[0]} has no {column}")
    if column == "probability":
        for case, value in zip(frame["case"], frame["probability"], strict=True):
            if not 0 <= value <= 1:
                raise EvaluationError(f"{file}: case {case}: probability {value:g} is not 0 to 1")
        if not arguments.temperature > 0:
            raise EvaluationError("--temperature: must be above 0")
        return frame["probability"].to_numpy(float), arguments.temperature, ""
    identifier = Identifier.load(arguments.models)
    rows = progress(rows_of(frame), len(frame), "identifying", arguments.quiet)
    probabilities = np.array([identifier.probability(row) for row in rows])
    return probabilities, identifier.temperature, identifier.model


def _figure(values: dict[str, Floats], positive: Bools) -> Figure:
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    for axes, (name, probabilities) in zip(figure.subplots(1, 2), values.items(), strict=True):
        bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
        found = np.unique(bins)
        share = [positive[bins == b].mean() for b in found]
        mean = [probabilities[bins == b].mean() for b in found]
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        axes.plot(mean, share, "o-", color="#0072B2")
        for b, x, y in zip(found, mean, share, strict=True):
            axes.annotate(
                str((bins == b).sum()),
                (x, y),
                textcoords="offset points",
                xytext=(6, -10),
                fontsize=8,
            )
        axes.set(title=name, xlabel="probability", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("share of positive studies")
    return figure
