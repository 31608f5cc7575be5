"""A MONAI datalist of a published collection, with folds that keep patients together."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .base import Case, DatasetError, PublishedSet, Supervision


def assign_folds(cases: Iterable[Case], folds: int, seed: int) -> dict[str, int]:
    """Deal patients to folds, every category evenly.

    Patients, not cases, are dealt: of each category in turn, shuffled, to one fold after the
    other. Folds and each category in them differ by one patient at most. MONAI's
    partition_dataset_classes and scikit-learn cannot do this for a class with fewer patients than
    folds (MosMedData has two of CT-4).

    Parameters
    ----------
    cases
        All with a fold to get.
    folds
        How many, at least 2.
    seed
        Equal seeds give equal folds.

    Returns
    -------
    dict
        Fold of each patient, from 0.

    Raises
    ------
    DatasetError
        When there are fewer patients than folds.
    """
    categories: dict[str, set[int]] = defaultdict(set)
    for case in cases:
        categories[case.patient].add(-1 if case.category is None else case.category)
    if folds < 2 or len(categories) < folds:
        raise DatasetError(f"{len(categories)} patients cannot be dealt to {folds} folds")
    strata: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for patient in sorted(categories):
        strata[tuple(sorted(categories[patient]))].append(patient)
    shuffle = random.Random(seed).shuffle
    dealt: dict[str, int] = {}
    for stratum in sorted(strata):
        shuffle(strata[stratum])
        for patient in strata[stratum]:
            dealt[patient] = len(dealt) % folds
    return dealt


def build_datalist(
    collection: PublishedSet,
    cases: Iterable[Case],
    root: Path,
    *,
    label: Supervision,
    folds: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """Describe the cases as `monai.data.load_decathlon_datalist` reads it.

    Items have "image" (a path or a list of slices), "label", "patient", and where the publisher
    gives them "lung", "lesion", "category" and more. Paths are relative to the root: give it as
    ``base_dir``. Items of "training" have a "fold" from 0; "validation" and "test" exist where
    the publisher splits.

    Parameters
    ----------
    collection
        What the cases are of.
    cases
        What its reader yielded for `root`.
    root
        Folder that the paths become relative to.
    label
        What becomes "label": a mask's path, or the category's number. Cases without it are
        left out.
    folds, seed
        See `assign_folds`.

    Raises
    ------
    DatasetError
        When no case has the label, or a fold would be empty.
    """
    kept = [case for case in cases if getattr(case, label) is not None]
    if not kept:
        raise DatasetError(f"{root} holds no case of {collection.name} with a {label}")
    fold_of = assign_folds((c for c in kept if c.split == "training"), folds, seed)
    sections: dict[str, list[dict[str, Any]]] = {"training": []}
    for case in kept:
        item = _describe(case, collection.name, root)
        item["label"] = item[label]
        if case.split == "training":
            item["fold"] = fold_of[case.patient]
        sections.setdefault(case.split, []).append(item)
    values = {
        "category": dict(enumerate(collection.categories)),
        "lung": {0: "background", **collection.lung_values},
        "lesion": {0: "background", **collection.lesion_values},
    }[label]
    return {
        "name": collection.name,
        "description": ". ".join(filter(None, (collection.title, collection.caution))),
        "reference": collection.citation,
        "licence": collection.licence,
        "modality": {"0": "CT"},
        "labels": {str(value): name for value, name in values.items()},
        "folds": folds,
        "seed": seed,
        "numTraining": len(sections["training"]),
        "numTest": len(sections.get("test", ())),
        **sections,
    }


def _describe(case: Case, collection: str, root: Path) -> dict[str, Any]:
    """Write a case as JSON can hold it."""
    item: dict[str, Any] = {"image": case.image}
    for key in ("lung", "lesion", "category"):
        if (value := getattr(case, key)) is not None:
            item[key] = value
    item.update(case.extra)
    item = {key: _relative(value, root) for key, value in item.items()}
    item["patient"] = patient_in_lists(collection, case)
    return item


def patient_in_lists(collection: str, case: Case) -> str:
    """Return what a datalist calls a case's patient.

    With the collection before it, no patient's name is an existing path, which MONAI would join to
    base_dir; and lists of several collections can be put together.
    """
    return f"{collection}:{case.patient}"


def _relative(value: Any, root: Path) -> Any:
    if isinstance(value, Path):
        return value.relative_to(root).as_posix()
    if isinstance(value, tuple):
        return [_relative(part, root) for part in value]
    return value
