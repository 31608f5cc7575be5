"""How good a bundle is: its own evaluate configs, and what they wrote in words."""

from __future__ import annotations

import csv
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.bench.measure import BenchError, cost_of

CT = "_ct.nii.gz"
REAL = ("lctsc", "medseg", "coronacases")
"""Folders of a training tree whose patients are real."""
TITLES = {"lctsc": "LCTSC", "medseg": "MedSeg", "coronacases": "coronacases"}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a bundle is evaluated.

    Attributes
    ----------
    configs : tuple of str
        Names of configs laid over each other.
    tables : tuple of str
        Files that they write, as read by `figures_of`.
    """

    configs: tuple[str, ...] = ("train", "evaluate")
    tables: tuple[str, ...] = ("mean_dice_raw.csv",)


EVALUATIONS = {
    "multitask_triage": Evaluation(tables=("studies.csv", "summary.csv")),
    "mask_rcnn_classifier": Evaluation(("train", "classify", "evaluate"), ("summary.csv",)),
}
# Figures that are named in the table, of a summary.
NAMED = {
    "roc_auc_all": "ROC AUC of COVID-19",
    "accuracy": "accuracy of slices",
    "study_accuracy": "of studies",
}


def run_of(bundle: Path, configs: Sequence[str], data: Path, results: Path) -> list[object]:
    """Return the command that runs a bundle's configs, by their names, on a folder."""
    files = [str(bundle / "configs" / f"{name}.json") for name in configs]
    return [
        *(sys.executable, "-W", "ignore", "-m", "monai.bundle", "run"),
        *("--config_file", str(files), "--bundle_root", bundle),
        *("--dataset_dir", data, "--output_dir", results),
    ]


def evaluate(
    bundle: Path, data: Path, scratch: Path, threads: int, *, everything: bool, collections: bool
) -> str:
    """Run a bundle's evaluation on the patients that it keeps out of training, or on all.

    Parameters
    ----------
    bundle
        Its folder, with weights.
    data
        Folders of NAME_ct.nii.gz with masks and, for some bundles, ``diagnoses.csv``.
    scratch
        Where results go.
    threads
        For its arithmetic.
    everything
        Whether to evaluate all studies.
    collections
        Whether to give the mean Dice of each folder of `data` by itself.

    Returns
    -------
    str
        The figures, or "none" where no study has what the bundle is measured by.

    Raises
    ------
    BenchError
        If the evaluation fails.
    """
    kind = EVALUATIONS.get(bundle.name, Evaluation())
    command = run_of(bundle, kind.configs, data, scratch)
    try:
        cost_of([*command, "--evaluate_all", everything], scratch, threads)
    except BenchError as error:
        if "nothing to evaluate" in str(error):
            return "none"
        raise
    return figures_of([scratch / name for name in kind.tables], data, collections)


def figures_of(tables: Sequence[Path], data: Path, collections: bool) -> str:
    """Put into words what an evaluation wrote.

    Parameters
    ----------
    tables
        ``mean_dice_raw.csv`` (file, Dice), ``studies.csv`` (columns name and dice) or
        ``summary.csv`` (columns figure and value, or a column for each figure).
    data
        The folder that was evaluated: a study's collection is where its CT lies.
    collections
        Whether to give the mean Dice of each collection by itself.
    """
    folders = {ct.name.removesuffix(CT): ct.parent.name for ct in data.rglob(f"*{CT}")}
    parts: list[str] = []
    for table in tables:
        if table.name == "summary.csv":
            named = dict(_summary(table))
            parts += [f"{title} {named[key]:.2f}" for key, title in NAMED.items() if key in named]
            continue
        dice: dict[str, list[float]] = {}
        for name, value in _dice(table):
            group = TITLES.get(folders[name], folders[name]) if collections else "Dice"
            dice.setdefault(group, []).append(value)
        for group, values in sorted(dice.items()):
            parts.append(f"{group} {statistics.fmean(values):.3f} ({len(values)})")
    return ", ".join(parts) or "none"


def _dice(table: Path) -> Iterator[tuple[str, float]]:
    """Yield name and Dice of each study that has something to find."""
    with table.open(newline="") as stream:
        if table.name == "studies.csv":
            pairs = [(row["name"], row["dice"]) for row in csv.DictReader(stream)]
        else:
            _, *rows = csv.reader(stream)
            pairs = [(Path(row[0]).name.removesuffix(CT), row[1]) for row in rows]
    for name, value in pairs:
        if value and not math.isnan(float(value)):
            yield name, float(value)


def _summary(table: Path) -> Iterator[tuple[str, float]]:
    with table.open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row.keys() == {"figure", "value"}:
                yield row["figure"], float(row["value"])
            else:
                yield from ((name, float(value)) for name, value in row.items())


def link_real(tree: Path, folder: Path) -> None:
    """Link the real patients of a training tree into a folder, collection by collection.

    Raises
    ------
    BenchError
        If the tree has none.
    """
    for collection in REAL:
        for file in sorted((tree / collection).glob("*.nii.gz")):
            (folder / collection).mkdir(parents=True, exist_ok=True)
            (folder / collection / file.name).symlink_to(file.resolve())
    if not folder.is_dir():
        raise BenchError(
            f"{tree} holds none of {', '.join(REAL)}; make it with python -m tools.datasets"
        )
