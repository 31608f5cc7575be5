"""What the features of a study look like where the application works, for its check before trust.

The result, ``quality_reference.json``, is data of the application: mean and inverse covariance of
the features and the Mahalanobis distance at which the known ends. The covariance is shrunk (Ledoit
and Wolf 2004), since studies are few.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from sklearn.covariance import LedoitWolf
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from ct_triage.errors import TriageError
from ct_triage.lungs import segment_lungs
from ct_triage.network import SliceNetwork
from ct_triage.quality import ACCEPTABLE, COORDINATES, Reference, coordinates, judge
from ct_triage.quality_features import FEATURE_NAMES, Features, measure
from ct_triage.severity import BoolMask
from ct_triage.volume import Volume
from tools.calibrate.cases import DEFAULTS
from tools.calibrate.site_file import write_whole
from tools.evaluate.cases import progress, read_datalist, rows_of
from tools.evaluate.ct import as_volume, read_ct
from tools.evaluate.masks import EvaluationError, MaskFile, on_common_grid, read_mask
from tools.evaluate.report import Picture, Report, Table
from tools.phantom import Grid, build_phantom
from tools.phantom.grid import PATIENT_POSITIONS
from tools.phantom.lesions import DISEASES
from tools.phantom.scanner import KERNELS

RESULT_FILE = "quality_reference.json"
# Where the lungs go wrong, the study is none that the application works on.
MIN_LUNG_DICE = 0.9
FOLDS = 5
MIN_PATIENTS = 10
# A study in ten thousand of a normal distribution, and more than any patient left out.
CHI_QUANTILE = 0.9999
MARGIN = 1.5
FIRST_SEED = 12000
"""Apart from the seeds of training, tests and demonstrations."""


@dataclass(frozen=True, slots=True)
class Study:
    """A study as the application sees it.

    Attributes
    ----------
    case, patient : str
        Names.
    is_phantom : bool
        Whether it was computed.
    lung_dice : float
        Of the lungs found in it; NaN where the truth is not known.
    features : Features
        What was measured.
    """

    case: str
    patient: str
    is_phantom: bool
    lung_dice: float
    features: Features


def fit_reference(studies: list[Study]) -> Reference:
    """Fit mean, covariance and limit; real patients and phantoms weigh the same.

    The limit is the larger of the distance that a normal distribution seldom passes and of the
    farthest patient, when left out of the fit, with a margin.
    """
    patients = sorted({study.patient for study in studies})
    left_out = [
        _fit([s for s in studies if s.patient != patient]).distance(study.features)
        for patient in patients
        for study in studies
        if study.patient == patient
    ]
    chance = float(stats.chi.ppf(CHI_QUANTILE, len(COORDINATES)))
    whole = _fit(studies)
    return Reference(whole.mean, whole.precision, max(chance, MARGIN * max(left_out)))


def _fit(studies: list[Study]) -> Reference:
    parts = [
        [coordinates(s.features) for s in studies if s.is_phantom is kind] for kind in (False, True)
    ]
    largest = max(map(len, parts))
    points = np.array([p for part in parts if part for p in part * round(largest / len(part))])
    unknown = np.isnan(points).all(axis=0)
    if unknown.any():
        name = COORDINATES[int(np.argmax(unknown))]
        raise EvaluationError(f"{name} could be measured in no study; give CT in Hounsfield units")
    # What could not be measured counts as average.
    points = np.where(np.isnan(points), np.nanmean(points, axis=0), points)
    scaler = StandardScaler().fit(points)
    precision = LedoitWolf().fit(scaler.transform(points)).precision_
    return Reference(scaler.mean_, precision / np.outer(scaler.scale_, scaler.scale_), np.inf)


def held_out_judgements(studies: list[Study]) -> pd.DataFrame:
    """Judge each study by a reference, limit included, that was fitted without its patient."""
    patients = [study.patient for study in studies]
    rows: list[dict[str, Any]] = [{} for _ in studies]
    splits = GroupKFold(FOLDS, shuffle=True, random_state=0).split(studies, groups=patients)
    for fitted_on, judged in splits:
        reference = fit_reference([studies[i] for i in fitted_on])
        for i in judged:
            quality = judge(studies[i].features, reference)
            rows[i] = {
                "case": studies[i].case,
                "patient": studies[i].patient,
                "phantom": studies[i].is_phantom,
                "distance": quality.distance,
                "limit": quality.distance_limit,
                "verdict": quality.verdict,
                "reasons": "; ".join(reason.text for reason in quality.reasons),
            }
    return pd.DataFrame(rows)


def run(arguments: argparse.Namespace) -> tuple[Report, Path]:
    """Calibrate from the command line."""
    file: Path = arguments.datalist
    frame = read_datalist(file, ["image"], ["truth_lung"], key=("case",))
    try:
        network = SliceNetwork.load(arguments.models / DEFAULTS.models.lungs)
    except TriageError as error:
        raise EvaluationError(str(error)) from error
    n_studies = len(frame) + arguments.phantoms
    every = [
        study
        for studies in (
            (_listed(row, network) for row in rows_of(frame)),
            _phantoms(arguments.phantoms, network),
        )
        for study in progress(studies, n_studies, "measuring", arguments.quiet)
    ]
    studies = [study for study in every if not study.lung_dice < MIN_LUNG_DICE]
    n_patients = len({study.patient for study in studies})
    if n_patients < MIN_PATIENTS:
        raise EvaluationError(
            f"{file}: {n_patients} patients with good lungs; at least {MIN_PATIENTS} are needed"
        )
    judged = held_out_judgements(studies)
    reference = fit_reference(studies)
    flagged = judged[judged["verdict"] != ACCEPTABLE]
    identity = network.identity
    record = {
        "studies": int((~judged["phantom"]).sum()),
        "phantoms": int(judged["phantom"].sum()),
        "left_out_for_their_lungs": len(every) - len(studies),
        "flagged_when_held_out": len(flagged),
        "lung_model": f"{identity.name} {identity.version} {identity.sha256}",
    }
    report = Report(
        "Reference of the check before trust",
        [
            f"{record['studies']} studies and {record['phantoms']} phantoms;"
            f" {record['left_out_for_their_lungs']} more were left out, since their lungs were"
            f" found with a Dice coefficient below {MIN_LUNG_DICE:g}.",
            f"Held out by patient, {len(flagged)} of {len(judged)} were flagged.",
            f"Distance limit: {reference.limit:.2f}.",
        ],
        [
            Table("flagged", "Flagged although held out of the fit.", flagged),
            Table("held_out", "Every study, judged without its patient.", judged),
            Table("features", "What was measured.", _feature_table(every)),
            Picture.of("distances", "Distances of held-out studies.", _figure(judged)),
        ],
    )
    report.write(arguments.output)
    content = {
        "coordinates": list(COORDINATES),
        "mean": [float(f"{value:.6g}") for value in reference.mean],
        "precision": [[float(f"{value:.6g}") for value in row] for row in reference.precision],
        "limit": round(reference.limit, 3),
        "record": record,
    }
    text = json.dumps(content, indent=1) + "\n"
    return report, write_whole(arguments.output / RESULT_FILE, text)


def _listed(row: dict[str, Any], network: SliceNetwork) -> Study:
    try:
        ct, truth = read_ct(row["image"]), None
        if row.get("truth_lung"):
            sources = [MaskFile(row["image"]), row["truth_lung"]]
            ct, truth = on_common_grid([ct, read_mask(row["truth_lung"], "lung")], sources)
    except EvaluationError as error:
        raise EvaluationError(f"case {row['case']}: {error}") from error
    volume = as_volume(ct.to_patient_orientation("HPL"))
    lungs = None if truth is None else truth.to_patient_orientation("HPL").array > 0
    return _study(row["case"], row["patient"], False, volume, lungs, network)


def _phantoms(count: int, network: SliceNetwork) -> Iterator[Study]:
    """Phantoms of any disease, position, field of view, kernel, thickness and dose."""
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        random = np.random.default_rng(seed)
        thickness_mm = _log_uniform(random, 4, 10)
        pixel_mm, field_mm = random.uniform(1.8, 2.6), random.uniform(330, 480)
        pixels = round(field_mm / pixel_mm)
        slices = round(random.uniform(300, 400) / thickness_mm)
        disease = str(random.choice(DISEASES))
        is_graded = disease in ("covid19", "bacterial") and random.random() < 0.6
        severity = float(random.uniform(0, 0.9)) if is_graded else None
        grid = Grid.axial(
            (slices, pixels, pixels),
            (thickness_mm, pixel_mm, pixel_mm),
            str(random.choice(PATIENT_POSITIONS)),
            centre_mm=tuple(random.uniform(-12, 12, 3)),
        )
        kernel = str(random.choice(tuple(KERNELS)))
        noise_hu = _log_uniform(random, 5, 60)
        phantom = build_phantom(grid, disease, seed, severity, kernel=kernel, noise_hu=noise_hu)
        volume = Volume(phantom.hu, grid.affine, ())
        name = f"phantom-{seed}"
        yield _study(name, name, True, volume, phantom.lung, network)


def _log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def _study(
    case: str,
    patient: str,
    is_phantom: bool,
    volume: Volume,
    truth: BoolMask | None,
    network: SliceNetwork,
) -> Study:
    right, left = segment_lungs(volume, network)
    found = right | left
    if not found.any():
        raise EvaluationError(f"case {case}: no lungs were found in it; leave it out")
    dice = np.nan
    if truth is not None:
        dice = float(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    return Study(case, patient, is_phantom, dice, measure(volume, right, left))


def _feature_table(studies: list[Study]) -> pd.DataFrame:
    rows = [{"case": s.case, "lung_dice": s.lung_dice, **asdict(s.features)} for s in studies]
    return pd.DataFrame(rows)[["case", "lung_dice", *FEATURE_NAMES]]


def _figure(judged: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    for is_phantom, name, colour in ((False, "studies", "#D55E00"), (True, "phantoms", "#0072B2")):
        part: NDArray[Any] = judged.loc[judged["phantom"] == is_phantom, "distance"].to_numpy()
        height = is_phantom + 0.25 * (np.arange(len(part)) % 5 - 2) / 2
        axes.plot(part, height, "o", color=colour, alpha=0.6, label=name)
    axes.axvline(
        judged["limit"].min(), color="0.5", linestyle="--", label="smallest limit of a fold"
    )
    axes.set(xlabel="Mahalanobis distance when held out", xlim=(0, None), yticks=[])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure
