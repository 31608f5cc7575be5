"""Train on one half of the patients, judge the labels of the other half by it, and swap.

CoRSAI: a system for robust interpretation of CT scans of COVID-19 patients using deep learning,
section 4.2: a label that a network, trained without it, agrees with least is the first to look at.
"""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from monai.bundle import ConfigParser

CT = "_ct.nii.gz"


class SuspectsError(Exception):
    """The procedure cannot go on; the message says why, in one line."""


@dataclass(frozen=True)
class Ranked:
    """A patient, and the Dice of a network that never saw this label with the label."""

    dice: float
    name: str
    label: Path


def halves(names: Sequence[str], seed: int = 0) -> tuple[list[str], list[str]]:
    """Split patients at random into two halves, each sorted.

    Raises
    ------
    SuspectsError
        If there are fewer than two.
    """
    if len(names) < 2:
        raise SuspectsError(f"two patients are the least that can be split, got {len(names)}")
    shuffled = sorted(names)
    random.Random(seed).shuffle(shuffled)
    middle = len(shuffled) // 2
    return sorted(shuffled[:middle]), sorted(shuffled[middle:])


def rank(
    bundle: Path,
    dataset: Path,
    output: Path,
    *,
    variant: str | None = None,
    seed: int = 0,
    overrides: Sequence[str] = (),
) -> list[Ranked]:
    """Rank the labels of a data set, the least agreed with first.

    Parameters
    ----------
    bundle
        Folder of a bundle that segments, such as ``bundles/lung_segmentation``.
    dataset
        Its training tree: ``NAME_ct.nii.gz`` beside the bundle's labels.
    output
        Gets ``half_1`` and ``half_2``, what training and evaluation write, and ``suspects.csv``.
    variant
        A config of ``configs/variants`` to lay over the bundle's own.
    seed
        Of the split.
    overrides
        Further options of the training, as on MONAI's command line: ``--max_epochs``, ``50``.

    Raises
    ------
    SuspectsError
        If the bundle, the variant or the labels are missing, or MONAI's command fails.
    """
    files = [bundle / "configs" / name for name in ("train.json", "evaluate.json")]
    if variant:
        files.append(bundle / "configs" / "variants" / f"{variant}.json")
    for file in files:
        if not file.is_file():
            raise SuspectsError(f"{file} does not exist")
    suffix = ConfigParser.load_config_file(files[0])["label_suffix"]
    labels = {file.name.removesuffix(suffix): file for file in sorted(dataset.rglob(f"*{suffix}"))}
    if not labels:
        raise SuspectsError(f"{dataset} holds no NAME{suffix}")

    ranked = []
    for number, held_out in enumerate(halves(list(labels), seed), 1):
        folder = output / f"half_{number}"
        options = [
            *("--bundle_root", str(bundle), "--dataset_dir", str(dataset)),
            *("--output_dir", str(folder), "--held_out", str(held_out)),
            *overrides,
        ]
        _monai_run([file for file in files if file.name != "evaluate.json"], options)
        _monai_run(files, [*options, "--checkpoint", str(folder / "model.pt")])
        dice = _read_dice(folder / "mean_dice_raw.csv")
        ranked += [Ranked(dice[name], name, labels[name]) for name in held_out]
    ranked.sort(key=lambda one: (one.dice, one.name))
    with (output / "suspects.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["dice", "name", "label"])
        table.writerows([f"{one.dice:.4f}", one.name, one.label] for one in ranked)
    return ranked


def _monai_run(files: Sequence[Path], options: Sequence[str]) -> None:
    """Run configs, the output shown; training takes the order that the files have."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file"]
    done = subprocess.run(
        [*command, str([str(file) for file in files]), *options],
        env=os.environ,
        check=False,
    )
    if done.returncode:
        raise SuspectsError(f"MONAI's command ended with {done.returncode}; see above")


def _read_dice(table: Path) -> dict[str, float]:
    """Read Dice by patient; nan, where a label is empty, counts as full agreement."""
    with table.open() as stream:
        rows = [(Path(row["filename"]).name, float(row["mean"])) for row in csv.DictReader(stream)]
    return {name.removesuffix(CT): 1.0 if dice != dice else dice for name, dice in rows}
