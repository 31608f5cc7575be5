"""How good a bundle is: its own evaluate configs, and what they wrote in words."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.bench.measure import BenchError, cost_of, told

CT = "_ct.nii.gz"
REAL = ("lctsc", "medseg", "coronacases")
"""Folders of a training tree whose patients are real."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a bundle is evaluated.

    Attributes
    ----------
    configs : tuple of str
        Names of configs laid over each other.
    tables : tuple of str
        Files that they write, as `words.figures_of` reads them.
    """

    configs: tuple[str, ...] = ("train", "evaluate")
    tables: tuple[str, ...] = ("mean_dice_raw.csv",)


EVALUATIONS = {
    "multitask_triage": Evaluation(tables=("studies.csv",)),
    "mask_rcnn_classifier": Evaluation(
        ("train", "classify", "evaluate"), ("slices.csv", "studies.csv")
    ),
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
        The figures (`words.figures_of`), or "none" where no study has what the bundle is measured
        by.

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
    words = [sys.executable, "-W", "ignore", "-m", "tools.model_table.words", data]
    tables = [scratch / name for name in kind.tables]
    return told(cost_of([*words, *tables, *["--collections"] * collections], scratch, threads))


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
