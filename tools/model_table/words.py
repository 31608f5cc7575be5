"""``python -m tools.model_table.words DATA TABLE ...``: figures in words, as JSON.

A command of its own, because what draws intervals makes a process large (`tools.bench.measure`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from tools.datasets.tree import patient_of
from tools.evaluate.bootstrap import Figures, group_means, intervals

from .figures import CT

TITLES = {"lctsc": "LCTSC", "medseg": "MedSeg", "coronacases": "coronacases"}
FEWEST_PATIENTS = 3
"""Behind a figure that gets an interval."""


def figures_of(tables: Sequence[Path], data: Path, collections: bool) -> str:
    """Put into words what an evaluation wrote.

    Parameters
    ----------
    tables
        ``mean_dice_raw.csv`` (file, Dice), or tables with a header: ``dice``, or ``covid19`` and
        ``probability``, with a ``name`` for each study; ``truth`` and ``class`` with a ``study``
        for each of its slices, or for itself.
    data
        The folder that was evaluated: a study's collection is where its CT lies.
    collections
        Whether to give the mean Dice of each collection by itself.

    Returns
    -------
    str
        Each figure with its 95 % bootstrap interval over patients, where there are
        `FEWEST_PATIENTS`, and the number of studies behind it; "none" without any.
    """
    return ", ".join(said for table in tables for said in _said(table, data, collections)) or "none"


def _said(file: Path, data: Path, collections: bool) -> Iterator[str]:
    table = _read(file)
    if "dice" in table:
        found = table[table["dice"].notna()]
        group_of = {
            ct.name.removesuffix(CT): TITLES.get(ct.parent.name, ct.parent.name)
            if collections
            else "Dice"
            for ct in data.rglob(f"*{CT}")
        }
        for group, part in found.groupby(found["name"].map(group_of)):
            yield _figure(str(group), part["name"], group_means(part[["dice"]]), digits=3)
    if "probability" in table and table["covid19"].nunique() == 2:
        ill, score = table["covid19"].to_numpy(), table["probability"].to_numpy()
        yield _figure(
            "ROC AUC of COVID-19",
            table["name"],
            lambda rows: [roc_auc_score(ill[rows], score[rows])],
            strata=ill,
        )
    if "class" in table:
        right = table[["class"]].eq(table["truth"], axis=0)
        title = "accuracy of slices" if file.name == "slices.csv" else "of studies"
        yield _figure(title, table["study"], group_means(right))


def _read(file: Path) -> pd.DataFrame:
    # A class may be called anything, and a name may be a number.
    table = pd.read_csv(file, dtype={"name": str, "study": str})
    if file.name == "mean_dice_raw.csv":
        # MONAI names its columns after the file and each class, and adds a mean.
        table = table.iloc[:, :2].set_axis(["name", "dice"], axis=1)
        table["name"] = [Path(path).name.removesuffix(CT) for path in table["name"]]
    return table


def _figure(
    title: str,
    studies: pd.Series,
    figure: Figures,
    *,
    strata: np.ndarray | None = None,
    digits: int = 2,
) -> str:
    """Write a figure of all rows, its interval over patients, and the number of studies."""
    (value,) = figure(np.arange(len(studies)))
    patients = [patient_of(name) for name in studies]
    interval = ""
    if len(set(patients)) >= FEWEST_PATIENTS:
        ((low, high),) = intervals(figure, patients, strata=strata)
        interval = f" [{low:.2f}, {high:.2f}]"
    return f"{title} {value:.{digits}f}{interval} ({studies.nunique()})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.model_table.words")
    parser.add_argument("data", type=Path)
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--collections", action="store_true")
    options = parser.parse_args()
    print(json.dumps(figures_of(options.tables, options.data, options.collections)))
