"""Severity and identification on studies whose share of ill lung is known and spread evenly.

Half of the graded COVID-19 studies are phantoms, half are COVID-19 drawn into the lungs of real
patients without lesions (`tools.synthesis`); bacterial pneumonia, nodules and nothing in the
same patients' lungs are what COVID-19 is to be told from. Name patients that no network was
trained on. Every study goes from raw DICOM through the application. A study that is done is not
done again, so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from ct_triage.configuration import Configuration
from ct_triage.errors import TriageError
from ct_triage.pipeline import Pipeline
from ct_triage.results import RESULT_FILE
from tools.evaluate import cohort
from tools.evaluate.bootstrap import intervals
from tools.evaluate.goals import add_pictures, goal_cells
from tools.evaluate.masks import EvaluationError, MaskFile
from tools.evaluate.pictures import draw_case
from tools.evaluate.report import Picture, Report, Table
from tools.evaluate.results import read_result
from tools.evaluate.settings import keep_settings
from tools.phantom import Grid, Phantom, build_phantom
from tools.synthesis.studies import draw_diagnosed_study, healthy_patients

SHARES = (0.01, 0.6)
"""Least and largest share of the lungs that is ill in the graded studies."""
OTHERS = ("bacterial", "nodules", "normal")
UNSEEN_PATIENTS = ("S1-102", "S1-201")
FIRST_SEED = 30_000
"""Above all seeds that networks are trained on, and apart from those of `cohort`."""
PHANTOMS = "phantoms"
REAL = "real lungs"
RESAMPLES = 2000
FEWEST = 6


@dataclass(frozen=True, slots=True)
class GradedStudy(cohort.Study):
    """One study: a phantom, or a disease in the lungs of a patient below `source`."""

    share: float | None = None
    source: Path | None = None
    patient: str = ""
    identified_by: str | None = None

    @property
    def identified(self) -> Path:
        """Folder of what the identifying model says."""
        return self.folder / "identified"

    def draw(self) -> Phantom:
        """Draw images and truth."""
        if self.source is None:
            return build_phantom(
                self.grid,
                self.disease,
                self.seed,
                self.share,
                kernel=self.kernel,
                noise_hu=self.noise_hu,
            )
        study = draw_diagnosed_study(
            self.source, self.patient, self.disease, self.seed, share=self.share, pictures=False
        )
        right, left = study.sides()
        # A scanner's slices run from head to feet.
        return Phantom(
            grid=Grid.axial(study.ct_hu.shape, study.spacing_mm),
            hu=study.ct_hu[::-1],
            right_lung=right[::-1],
            left_lung=left[::-1],
            ground_glass=study.ground_glass[::-1],
            consolidation=study.consolidation[::-1],
            disease=self.disease,
            seed=self.seed,
            sex="O",
            age=60,
            kernel=self.kernel,
        )


def plan(
    graded: int,
    others: int,
    patients: list[tuple[Path, str]],
    **common: Any,
) -> list[GradedStudy]:
    """Draw up the studies.

    Parameters
    ----------
    graded
        How many studies of COVID-19, their shares spread evenly over `SHARES`.
    others
        How many studies of `OTHERS`.
    patients
        Folder and name of the real patients, taken in turn; without any all are phantoms.
    common
        What all studies share: ``slices``, ``matrix``, ``folder``, ``models``, ``lesions``,
        ``identified_by``.
    """
    diseases = ["covid19"] * graded + [OTHERS[i % len(OTHERS)] for i in range(others)]
    folder = common.pop("folder")
    studies = []
    for index, disease in enumerate(diseases):
        random = np.random.default_rng(FIRST_SEED + index)
        drawn: dict[str, Any] = {"share": None}
        if disease == "covid19":
            drawn["share"] = float(np.linspace(*SHARES, graded)[index])
        # Neighbours in severity are of either kind and of every patient.
        if patients and (disease != "covid19" or index % 2):
            source, patient = patients[index // 2 % len(patients)]
            drawn |= {"source": source, "patient": patient}
        name = f"{index + 1:03d}-{disease}"
        studies.append(
            GradedStudy(
                name=name,
                disease=disease,
                seed=FIRST_SEED + index,
                kernel=str(random.choice(cohort.KERNELS)),
                noise_hu=round(float(random.uniform(5, 30)), 1),
                folder=folder / name,
                **common,
                **drawn,
            )
        )
    return studies


def process(study: GradedStudy) -> str:
    """Make a study and run the application on it, as far as that is not done; returns its name.

    Raises
    ------
    EvaluationError
        If the application refuses the study.
    """
    name = cohort.process(study)
    if study.identified_by and not (study.identified / RESULT_FILE).exists():
        configuration = Configuration.model_validate(
            {
                "models": {"lesions": study.identified_by},
                "identification": True,
                "outputs": {"seg": False, "sr": False, "fhir": False},
            }
        )
        try:
            Pipeline(study.ct, study.identified, study.models, configuration).run()
        except TriageError as error:
            raise EvaluationError(f"study {name}: {error}") from error
    return name


def datalist(studies: list[GradedStudy]) -> pd.DataFrame:
    """Return the datalist of the processed studies, with severities in percent."""
    frame = cohort.datalist(studies)
    for side in ("", "truth_"):
        lungs = frame[[f"{side}right_percent", f"{side}left_percent"]]
        frame[f"{side}severity_percent"] = lungs.max(axis=1)
    frame["patient"] = [study.patient or study.name for study in studies]
    if studies[0].identified_by:
        results = (read_result(study.identified / RESULT_FILE) for study in studies)
        frame["probability"] = [
            result["findings"]["identification"]["probability_percent"] / 100 for result in results
        ]
    return frame


def measure(frame: pd.DataFrame, kinds: pd.Series, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Return severity's and identification's figures with 95 % bootstrap intervals over studies.

    Parameters
    ----------
    frame
        Of `datalist`.
    kinds
        `PHANTOMS` or `REAL` for each row.
    resamples
        How often studies are drawn with replacement.

    Returns
    -------
    pandas.DataFrame
        ``figure``, ``studies`` (all, phantoms or real lungs), ``n``, ``value``, ``low``, ``high``,
        and ``goal`` and ``met`` where the project has one.
        Severity is that of the COVID-19 studies, errors in percentage points.
    """
    rows = []
    graded = frame["class"] == "covid19"
    for kind in ("all", *(k for k in (PHANTOMS, REAL) if (kinds == k).any())):
        part = frame[graded & ((kinds == kind) | (kind == "all"))]
        if len(part) < FEWEST:
            continue
        pair = [part[f"{side}severity_percent"].to_numpy() for side in ("", "truth_")]
        for name, figure in SEVERITY_FIGURES.items():
            rows.append(_row(name, kind, figure, pair, None, resamples))
    score = "probability" if "probability" in frame else "severity_percent"
    # All of one kind: a network must not win by telling phantoms from patients.
    kind = REAL if (kinds == REAL).any() else PHANTOMS
    same = frame[kinds == kind]
    present = [other for other in OTHERS if (same["class"] == other).any()]
    for other in [present, *([p] for p in present)] if present else []:
        part = same[same["class"].isin(["covid19", *other])]
        truth = (part["class"] == "covid19").to_numpy()
        name = f"AUC of {score.removesuffix('_percent')} against {', '.join(other)}"
        pair = [part[score].to_numpy(), truth]
        rows.append(_row(name, kind, _auc, pair, truth, resamples))
    return pd.DataFrame(rows)


def _spearman(system: NDArray, truth: NDArray) -> float:
    if np.ptp(system) == 0 or np.ptp(truth) == 0:
        return np.nan
    return float(stats.spearmanr(system, truth).statistic)


def _auc(score: NDArray, truth: NDArray) -> float:
    return float(roc_auc_score(truth, score))


SEVERITY_FIGURES: dict[str, Callable[[NDArray, NDArray], float]] = {
    "Spearman of severity": _spearman,
    "mean absolute error of severity": lambda system, truth: float(abs(system - truth).mean()),
    "mean error of severity": lambda system, truth: float((system - truth).mean()),
}


AUC = "AUC of probability against"
# Least values; of the error the greatest.
ERROR = "mean absolute error of severity"
GOALS = {
    "Spearman of severity": 0.95,
    ERROR: 3.0,
    f"{AUC} normal": 0.95,
    f"{AUC} bacterial": 0.85,
}


def _row(
    name: str,
    kind: str,
    figure: Callable[[NDArray, NDArray], float],
    pair: list[NDArray],
    strata: NDArray | None,
    resamples: int,
) -> dict[str, Any]:
    """Compute a figure and its interval; resampling keeps the sizes of the strata."""
    one, other = pair
    value = figure(one, other)
    low = high = np.nan
    if not np.isnan(value):
        # Every study is drawn for itself: there are few patients.
        studies = [str(index) for index in range(len(one))]
        ((low, high),) = intervals(
            lambda rows: [figure(one[rows], other[rows])], studies, resamples, strata
        )
    return {
        "figure": name,
        "studies": kind,
        "n": len(one),
        "value": value,
        "low": low,
        "high": high,
        **(goal_cells(value, GOALS[name], name == ERROR) if name in GOALS else {}),
    }


def worst_severities(frame: pd.DataFrame, count: int) -> Iterator[Picture]:
    """Picture the graded studies whose severity is farthest from the truth."""
    graded = frame[frame["class"] == "covid19"]
    error = (graded["severity_percent"] - graded["truth_severity_percent"]).abs()
    for rank, index in enumerate(error.nlargest(count).index, 1):
        row = graded.loc[index].to_dict()
        row |= {column: MaskFile(row[column]) for column in ("prediction", "truth")}
        caption = "{case}: severity {severity_percent:.1f} %, true {truth_severity_percent:.1f} %"
        yield Picture.of(f"worst_{rank}", caption.format(**row), draw_case(row, "lesion"))


def draw_severity(frame: pd.DataFrame, kinds: pd.Series) -> Figure:
    """Draw the system's severity of the graded studies over the true one."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axis = figure.subplots()
    for kind in (PHANTOMS, REAL):
        part = frame[(kinds == kind) & (frame["class"] == "covid19")]
        axis.scatter(
            part["truth_severity_percent"], part["severity_percent"], s=18, alpha=0.7, label=kind
        )
    axis.plot([0, 100], [0, 100], color="0.7", linewidth=1)
    axis.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    axis.set(xlabel="true severity score (%)", ylabel="system (%)")
    axis.legend()
    return figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--studies", type=int, default=60, help="graded COVID-19 studies (60)")
    parser.add_argument(
        "--others", type=int, default=30, help=f"studies of {', '.join(OTHERS)} together (30)"
    )
    parser.add_argument(
        "--lungs",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folders of NAME_ct, NAME_lung and NAME_lesion.nii.gz, such as TREE/lctsc",
    )
    parser.add_argument(
        "--patients",
        nargs="+",
        default=list(UNSEEN_PATIENTS),
        help=f"whose lungs to take: no network may know them ({' '.join(UNSEEN_PATIENTS)})",
    )
    parser.add_argument("--slices", type=int, default=60, help="slices of a phantom (60)")
    parser.add_argument(
        "--matrix", type=int, default=256, help="rows and columns of a phantom (256)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    parser.add_argument("--models", type=Path, default=cohort.BUNDLES, help="folder of the bundles")
    parser.add_argument(
        "--lesions",
        default=Configuration().models.lesions,
        metavar="BUNDLE",
        help="lesion bundle (%(default)s), or several joined by +",
    )
    parser.add_argument(
        "--identify-by",
        default="multitask_triage",
        metavar="BUNDLE",
        help="bundle that identifies COVID-19 (multitask_triage); none: rank by severity",
    )
    add_pictures(parser)


def run(arguments: argparse.Namespace) -> Report:
    """Make, process and evaluate the studies."""
    if arguments.studies < FEWEST:
        raise EvaluationError(f"--studies must be at least {FEWEST}")
    if arguments.others < 0:
        raise EvaluationError("--others must not be negative")
    if arguments.workers < 1:
        raise EvaluationError("--workers must be at least 1")
    patients = _patients(arguments.lungs, arguments.patients)
    output, models = arguments.output.resolve(), arguments.models.resolve()
    identified_by = None if arguments.identify_by == "none" else arguments.identify_by
    names = Configuration().models.model_copy(update={"lesions": arguments.lesions})
    used = [names.lungs, *names.lesion_bundles, *([identified_by] if identified_by else [])]
    keep_settings(
        output,
        {
            "studies": arguments.studies,
            "slices": arguments.slices,
            "matrix": arguments.matrix,
            "patients": [name for _, name in patients],
            "lesions": names.lesions,
            "models": {name: cohort.weights(models / name) for name in used},
        },
    )
    studies = plan(
        arguments.studies,
        arguments.others,
        patients,
        slices=arguments.slices,
        matrix=arguments.matrix,
        folder=output / "studies",
        models=models,
        lesions=arguments.lesions,
        identified_by=identified_by,
    )
    cohort.process_all(studies, arguments.workers, arguments.quiet, process)
    frame = datalist(studies)
    kinds = pd.Series([PHANTOMS if study.source is None else REAL for study in studies])
    frame.to_csv(output / "all.csv", index=False)
    frame[frame["class"] == "covid19"].to_csv(output / "graded.csv", index=False)
    columns = ["case", "class", "patient", "severity_percent", "truth_severity_percent"]
    columns += ["probability"] if "probability" in frame else []
    found = measure(frame, kinds)
    lungs = ", ".join(name for _, name in patients) or "none"
    return Report(
        f"Graded cohort: {arguments.studies} studies of COVID-19, {arguments.others} others",
        [
            f"COVID-19 in {SHARES[0]:.0%} to {SHARES[1]:.0%} of the lungs, in even steps, in "
            f"phantoms and in the lungs of real patients ({lungs}). Intervals are 95 % bootstrap "
            f"intervals over studies ({RESAMPLES} draws); the real lungs are those of few "
            "patients, so they say nothing of the spread over patients. all.csv and graded.csv "
            "are datalists for the other commands.",
        ],
        [
            Table("summary", "Severity in percentage points; identification", found),
            Picture.of("severity", "Severity, system over truth", draw_severity(frame, kinds)),
            Table("cases", "Every study", frame[columns].assign(studies=kinds)),
            *worst_severities(frame, arguments.pictures),
        ],
    )


def _patients(folders: list[Path], names: list[str]) -> list[tuple[Path, str]]:
    """Find the patients below the folders, in the order of their names."""
    found: dict[str, Path] = {}
    for folder in folders:
        if not any(folder.glob("*_ct.nii.gz")):
            raise EvaluationError(f"--lungs: {folder} holds no NAME_ct.nii.gz")
        found |= {name: folder.resolve() for name in healthy_patients(folder) if name in names}
    missing = [name for name in names if name not in found]
    if folders and missing:
        raise EvaluationError(
            f"--patients: no {missing[0]} without lesions in {', '.join(map(str, folders))}"
        )
    return [(found[name], name) for name in names if name in found]
