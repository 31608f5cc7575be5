"""k-fold cross-validation of a bundle: train every fold, predict what it held out, evaluate all.

Cascaded paper 3.1 (5 and 10 folds); VGG16-UNet paper 3.2.3. A fold that is done is not done
again, so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from tools.evaluate import segmentation
from tools.evaluate.cases import progress, read_datalist
from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Report
from tools.evaluate.settings import keep_settings
from tools.evaluate.statistics import small_strata

NEEDED_IN_TRAINING = ("label_suffix", "held_out", "seed", "dataset_dir", "output_dir")
IMAGE_SUFFIX = "_ct.nii.gz"
DATALIST = "datalist.csv"


@dataclass(frozen=True, slots=True)
class Fold:
    """One training: which patients it does without and where it is kept."""

    seed: int
    number: int
    held_out: tuple[str, ...]
    folder: Path

    @property
    def weights(self) -> Path:
        """The checkpoint after training."""
        return self.folder / "trained" / "model.pt"

    @property
    def predictions(self) -> Path:
        """Folder of the predicted masks."""
        return self.folder / "predictions"


def split(cases: pd.DataFrame, folds: int, seed: int) -> list[tuple[str, ...]]:
    """Divide cases into folds, patients whole and collections evenly.

    Parameters
    ----------
    cases : pandas.DataFrame
        ``case``, ``patient``, ``collection``.
    folds : int
        How many.
    seed : int
        Draws them.

    Returns
    -------
    list of tuples of str
        The cases that each fold holds out.

    Raises
    ------
    EvaluationError
        If there are fewer patients than folds.
    """
    if cases["patient"].nunique() < folds:
        raise EvaluationError(
            f"{cases['patient'].nunique()} patients cannot be divided into {folds} folds"
        )
    names = cases["case"].to_numpy()
    # Collections that are smaller than the number of folds are one stratum.
    counts = cases.groupby("collection")["patient"].transform("nunique")
    strata = cases["collection"].where(counts >= folds, "")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with small_strata():
        parts = list(splitter.split(names, strata, cases["patient"]))
    return [tuple(sorted(names[test])) for _, test in parts]


def find_cases(dataset: Path, label_suffix: str, patients: Path | None) -> pd.DataFrame:
    """Find the training cases below a folder.

    Parameters
    ----------
    dataset : Path
        Holds ``NAME_ct.nii.gz`` with ``NAME`` + `label_suffix`, in one folder a collection.
    label_suffix : str
        What a label's file name ends in.
    patients : Path or None
        Datalist with the patient of each case; by default each case is a patient.

    Returns
    -------
    pandas.DataFrame
        ``case``, ``patient``, ``collection``, ``image``, ``truth``.
    """
    rows = []
    for truth in sorted(dataset.rglob(f"*{label_suffix}")):
        name = truth.name.removesuffix(label_suffix)
        image = truth.with_name(name + IMAGE_SUFFIX)
        if not image.exists():
            raise EvaluationError(f"{truth}: has no {image.name} beside it")
        rows.append(
            {
                "case": name,
                "patient": name,
                "collection": truth.parent.name,
                "image": image.resolve(),
                "truth": truth.resolve(),
            }
        )
    if not rows:
        raise EvaluationError(f"{dataset}: holds no NAME{label_suffix} with NAME{IMAGE_SUFFIX}")
    frame = pd.DataFrame(rows)
    doubled = frame[frame.duplicated("case")]
    if len(doubled):
        raise EvaluationError(f"{dataset}: case {doubled.iloc[0]['case']} is there twice")
    if patients is not None:
        named = read_datalist(patients, ("patient",)).set_index("case")["patient"]
        unknown = frame[~frame["case"].isin(named.index)]
        if len(unknown):
            raise EvaluationError(f"{patients}: has no case {unknown.iloc[0]['case']}")
        frame["patient"] = frame["case"].map(named)
    return frame


def train(bundle: Path, dataset: Path, fold: Fold, overrides: Sequence[str]) -> None:
    """Train one fold by MONAI's command, unless it is trained."""
    if fold.weights.exists():
        return
    scratch = fold.folder / "training"
    shutil.rmtree(scratch, ignore_errors=True)
    _monai(
        bundle,
        "train",
        *("--dataset_dir", dataset, "--output_dir", scratch, "--seed", fold.seed),
        *("--held_out", repr(list(fold.held_out))),
        *overrides,
        log=fold.folder / "train.log",
    )
    if not (scratch / "model.pt").exists():
        raise EvaluationError(f"{bundle}: training wrote no model.pt, see {fold.folder}/train.log")
    # Only a training that came to its end gets the name that is looked for.
    scratch.rename(fold.weights.parent)


def predict(bundle: Path, cases: pd.DataFrame, fold: Fold) -> None:
    """Predict the held-out cases of a fold by MONAI's command, unless it is done."""
    if fold.predictions.exists():
        return
    inputs = fold.folder / "held_out"
    inputs.mkdir(exist_ok=True)
    for row in cases[cases["case"].isin(fold.held_out)].itertuples():
        link = inputs / f"{row.case}{IMAGE_SUFFIX}"
        link.unlink(missing_ok=True)
        link.symlink_to(row.image)
    scratch = fold.folder / "predicting"
    shutil.rmtree(scratch, ignore_errors=True)
    _monai(
        bundle,
        "inference",
        *("--dataset_dir", inputs, "--output_dir", scratch, "--checkpoint", fold.weights),
        log=fold.folder / "predict.log",
    )
    scratch.rename(fold.predictions)


def prediction_of(fold: Fold, case: str) -> Path:
    """Return the predicted mask of a case.

    Raises
    ------
    EvaluationError
        If inference wrote none, or more than one.
    """
    stem = IMAGE_SUFFIX.removesuffix(".nii.gz")
    found = sorted(fold.predictions.glob(f"{case}{stem}_*.nii.gz"))
    if len(found) != 1:
        raise EvaluationError(
            f"{fold.predictions}: {len(found)} predictions for case {case}, one is needed; "
            f"see {fold.folder}/predict.log"
        )
    return found[0]


def _monai(bundle: Path, config: str, *options: object, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "monai.bundle", "run", "--bundle_root", "."),
        *("--config_file", f"configs/{config}.json", "--meta_file", "configs/metadata.json"),
        *("--logging_file", "configs/logging.conf"),
        *map(str, options),
    ]
    with log.open("w") as output:
        done = subprocess.run(
            command, cwd=bundle, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise EvaluationError(
            f"{bundle}: {config} ended with code {done.returncode}: "
            f"{lines[-1] if lines else 'no output'}; see {log}"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("dataset", type=Path, help="folder of NAME_ct.nii.gz with their labels")
    parser.add_argument("--folds", type=int, default=5, help="number of folds (5)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a training each (0)")
    parser.add_argument("--patients", type=Path, help="datalist of case and patient")
    parser.add_argument(
        "--set",
        nargs=2,
        action="append",
        default=[],
        metavar=("ID", "VALUE"),
        help="override an id of the training config, such as --set max_epochs 10",
    )
    parser.add_argument("--pictures", type=int, default=4, help="worst cases to picture (4)")


def run(arguments: argparse.Namespace) -> Report:
    """Train, predict and evaluate all folds."""
    bundle, dataset = arguments.bundle.resolve(), arguments.dataset.resolve()
    config = _training_config(bundle)
    if arguments.folds < 2:
        raise EvaluationError(f"--folds must be at least 2, got {arguments.folds}")
    cases = find_cases(dataset, config["label_suffix"], arguments.patients)
    output = arguments.output.resolve()
    folds = [
        Fold(seed, number, held_out, output / f"seed{seed}" / f"fold{number}")
        for seed in arguments.seeds
        for number, held_out in enumerate(split(cases, arguments.folds, seed), 1)
    ]
    keep_settings(
        output,
        {
            "bundle": str(bundle),
            "dataset": str(dataset),
            "set": arguments.set,
            "held_out": {f"{f.seed} {f.number}": f.held_out for f in folds},
        },
    )
    overrides = [text for name, value in arguments.set for text in (f"--{name}", value)]
    for fold in progress(folds, len(folds), "training folds", arguments.quiet):
        train(bundle, dataset, fold, overrides)
        predict(bundle, cases, fold)
    list_of_all = output / DATALIST
    _datalist(cases, folds).to_csv(list_of_all, index=False)
    report = segmentation.run(
        argparse.Namespace(
            datalist=list_of_all,
            segment="lesion",
            pictures=arguments.pictures,
            resamples=arguments.resamples,
            quiet=arguments.quiet,
        )
    )
    report.title = (
        f"{bundle.name}: {arguments.folds} folds, {len(arguments.seeds)} trainings each, "
        f"{len(cases)} cases"
    )
    return report


def _training_config(bundle: Path) -> dict[str, Any]:
    file = bundle / "configs" / "train.json"
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{file}: cannot be read; give the folder of a bundle") from error
    for name in NEEDED_IN_TRAINING:
        if name not in config:
            raise EvaluationError(f"{file}: has no {name!r}, which a k-fold run sets")
    return config


def _datalist(cases: pd.DataFrame, folds: Sequence[Fold]) -> pd.DataFrame:
    by_name = cases.set_index("case")
    return pd.DataFrame(
        [
            {
                "case": case,
                "patient": by_name.at[case, "patient"],
                "training": fold.seed,
                "fold": fold.number,
                "image": by_name.at[case, "image"],
                "truth": by_name.at[case, "truth"],
                "prediction": prediction_of(fold, case),
            }
            for fold in folds
            for case in fold.held_out
        ]
    )
