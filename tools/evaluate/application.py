"""Lungs and lesions as the application finds them in NIfTI volumes, against the project's goals.

The networks are fed as `ct_triage` does it. Lesions are looked for twice: in the lungs that the
application finds, which is what its users get, and in the true lungs, which tells how good the
lesion network is by itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd

from ct_triage.configuration import Configuration
from ct_triage.errors import TriageError
from ct_triage.lesion_models import LESION_MODELS, load_bundles
from ct_triage.lesions import SliceLesionModel
from ct_triage.lungs import segment_lungs
from ct_triage.network import SliceNetwork
from tools.datasets.tree import patient_of
from tools.evaluate import goals
from tools.evaluate.cases import progress, read_datalist, rows_of
from tools.evaluate.cohort import BUNDLES
from tools.evaluate.ct import as_volume
from tools.evaluate.masks import EvaluationError, MaskFile, on_common_grid, read_image, read_mask
from tools.evaluate.report import Report
from tools.evaluate.segmentation import dice

CT, LUNG, LESION = "_ct.nii.gz", "_lung.nii.gz", "_lesion.nii.gz"
DATALIST = "datalist.csv"
DEFAULTS = Configuration()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "tree", type=Path, help=f"folder of NAME{CT}, NAME{LUNG} and NAME{LESION}, at any depth"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="volumes to take (all)")
    names = DEFAULTS.models
    parser.add_argument(
        "--bundle",
        type=Path,
        nargs="+",
        default=[BUNDLES / name for name in names.lesion_bundles],
        help="folder of a lesion bundle; of several the mean is taken (as in the application)",
    )
    parser.add_argument(
        "--weights",
        type=int,
        nargs="+",
        metavar="N",
        help="how often each bundle counts in the mean (as in the application; others once)",
    )
    parser.add_argument(
        "--lungs", type=Path, default=BUNDLES / names.lungs, help=f"folder of a {names.lungs}"
    )
    parser.add_argument("--threshold", type=float, help="of the lesion network (its own)")
    goals.add_pictures(parser)


def run(arguments: argparse.Namespace) -> Report:
    """Run the networks on a tree, keep their masks and a datalist of them, and measure."""
    table = _plan(arguments.tree, arguments.only, arguments.output.resolve())
    lungs, lesions = _load(arguments)
    table["prediction"].iloc[0].parent.mkdir(parents=True, exist_ok=True)
    volumes = progress(rows_of(table), len(table), "networks", arguments.quiet)
    in_true_lungs = [_segment(row, lungs, lesions) for row in volumes]
    table.to_csv(arguments.output / DATALIST, index=False)
    frame = read_datalist(arguments.output / DATALIST, goals.MASKS, ("patient", "image"))
    cases = goals.measure_all(frame, arguments.quiet)
    cases.insert(4, "lesion_dice_true_lungs", in_true_lungs)
    identities = (lungs.identity, lesions.identity)
    models = ", ".join(f"{i.name} {i.version} ({i.sha256[:12]})" for i in identities)
    return goals.report(
        f"Application: {len(cases)} volumes of {cases['patient'].nunique()} patients",
        [f"Models: {models}. Lesions are from a probability of {lesions.threshold} on."],
        frame,
        cases,
        arguments,
    )


def _plan(tree: Path, only: list[str] | None, output: Path) -> pd.DataFrame:
    """Return a datalist of the volumes and of the masks that are going to be made."""
    files = {file.name.removesuffix(CT): file.absolute() for file in sorted(tree.rglob(f"*{CT}"))}
    unknown = [name for name in only or () if name not in files]
    if unknown or not files:
        name = unknown[0] if unknown else "NAME"
        raise EvaluationError(f"{tree}: holds no {name}{CT}; name a training tree")
    rows = []
    for name, file in files.items():
        if only and name not in only:
            continue
        truths = {"truth": file.with_name(name + LESION), "truth_lung": file.with_name(name + LUNG)}
        for truth in truths.values():
            if not truth.exists():
                raise EvaluationError(f"{truth} does not exist; every volume needs it")
        masks = {"prediction": LESION, "prediction_lung": LUNG}
        made = {column: output / "masks" / (name + ending) for column, ending in masks.items()}
        rows.append({"case": name, "patient": patient_of(name), "image": file, **truths, **made})
    return pd.DataFrame(rows)


def _load(arguments: argparse.Namespace) -> tuple[SliceNetwork, SliceLesionModel]:
    bundles = [(_kind(bundle), bundle) for bundle in arguments.bundle]
    names = DEFAULTS.models
    usual = dict(zip(names.lesion_bundles, names.lesion_weights, strict=True))
    weights = arguments.weights or [usual.get(bundle.name, 1) for bundle in arguments.bundle]
    if len(weights) != len(bundles) or min(weights) < 1:
        raise EvaluationError("--weights takes a number from 1 on for each --bundle")
    try:
        return (
            SliceNetwork.load(arguments.lungs),
            load_bundles(bundles, weights, arguments.threshold, DEFAULTS.thresholds.min_lesion_ml),
        )
    except TriageError as error:
        raise EvaluationError(str(error)) from error


def _kind(bundle: Path) -> type[SliceLesionModel]:
    metadata = bundle / "configs" / "metadata.json"
    try:
        return LESION_MODELS[json.loads(metadata.read_text())["name"]]
    except (OSError, ValueError, LookupError) as error:
        raise EvaluationError(f"{bundle}: is no lesion bundle") from error


def _segment(row: dict[str, Any], lung: SliceNetwork, lesion: SliceLesionModel) -> float:
    """Write the masks of a volume; returns the Dice of the lesions in the true lungs."""
    image = read_image(row["image"])
    sources = [MaskFile(row[column]) for column in ("image", "truth", "truth_lung")]
    try:
        ct, truth, true_lungs = (
            volume.to_patient_orientation("HPL")
            for volume in on_common_grid([image, *map(read_mask, sources[1:])], sources)
        )
    except EvaluationError as error:
        raise EvaluationError(f"case {row['case']}: {error}") from error
    volume = as_volume(ct)
    lungs = np.logical_or(*segment_lungs(volume, lung))
    stored: Any = nibabel.load(row["image"])
    masks = {"prediction": lesion.find(volume, lungs).mask, "prediction_lung": lungs}
    for column, mask in masks.items():
        placed = ct.with_array(mask.view(np.uint8)).match_geometry(image.get_geometry())
        nibabel.save(nibabel.Nifti1Image(placed.array, stored.affine), row[column])
    return dice(lesion.find(volume, true_lungs.array).mask, truth.array)
