"""Slices of studies with the truth of both stages (paper 2.1, 2.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torchvision.ops import masks_to_boxes
from tqdm import tqdm

from .shared import DIAGNOSES, read_diagnoses

CT, OPACITY = "_ct.nii.gz", "_opacity_seg.nii.gz"
CLASSES = ("COVID-19", "common pneumonia", "control")
CLASS_OF = {"covid19": 0, "bacterial": 1, "pneumonia": 1, "nodules": 2, "normal": 2}
CONTROL = 2


def find_studies(folder: str | Path) -> list[dict[str, Any]]:
    """List the studies below a folder that can teach or be measured.

    A study is NAME_ct.nii.gz with NAME_opacity_seg.nii.gz (1 ground glass, 2 consolidation)
    beside it, and a line in the folder's ``diagnoses.csv`` (name, diagnosis):
    covid19; bacterial or pneumonia; nodules or normal.

    Returns
    -------
    list of dict
        "name", "image", "opacity" and "category", an index into `CLASSES`.

    Raises
    ------
    SystemExit
        With one line where a diagnosis is none of these.
    """
    studies = []
    for opacity in sorted(Path(folder).rglob("*" + OPACITY)):
        name = opacity.name.removesuffix(OPACITY)
        ct = opacity.with_name(name + CT)
        diagnosis = read_diagnoses(opacity.parent).get(name, "")
        if not (ct.is_file() and diagnosis):
            continue
        if diagnosis not in CLASS_OF:
            raise SystemExit(
                f"error: {opacity.parent / DIAGNOSES}: {name} is {diagnosis!r}; "
                f"it must be one of {', '.join(CLASS_OF)}"
            )
        studies.append(
            {
                "name": name,
                "image": str(ct),
                "opacity": str(opacity),
                "category": CLASS_OF[diagnosis],
            }
        )
    return studies


def read_slices(
    studies: Iterable[Mapping[str, Any]],
    transform: Callable[[Mapping[str, Any]], Mapping[Hashable, Any]],
    *,
    lesions_only: bool,
    smallest: int,
    whole: bool = False,
) -> list[dict[str, Any]]:
    """Read studies and take them apart into slices.

    Parameters
    ----------
    studies
        From `find_studies`.
    transform
        Makes "image" (channels, rows, columns, slices) in 0..1 and "opacity" (1, rows, ...).
    lesions_only
        Leave out slices of controls too; stage one learns from slices with lesions.
    smallest
        Pixels of lesion that make a slice show the disease of its study; slices of ill studies
        below that are left out (paper 2.2: only slices with observable infection).
    whole
        Leave out nothing, as where a study is to be told by all of its slices.

    Returns
    -------
    list of dict
        "name" of the study, "slice" index, "slice_mm" from one to the next, "image" (channels,
        rows, columns) float16, "opacity" uint8, "category"; "shows" is False for a slice that is
        left out unless `whole`.
    """
    slices = []
    for study in tqdm(list(studies), desc="reading", unit=" studies", disable=None):
        volume = transform(study)
        slice_mm = float(volume["image"].pixdim[-1])
        for index in range(volume["image"].shape[-1]):
            opacity = torch.as_tensor(np.asarray(volume["opacity"][..., index]), dtype=torch.uint8)
            ill = int((opacity > 0).sum()) >= smallest
            control = study["category"] == CONTROL and not lesions_only
            if ill or control or whole:
                image = torch.as_tensor(np.asarray(volume["image"][..., index]))
                slices.append(
                    {
                        "name": study["name"],
                        "slice": index,
                        "slice_mm": slice_mm,
                        "image": image.half(),
                        "opacity": opacity,
                        "category": study["category"],
                        "shows": ill or control,
                    }
                )
    return slices


def draw_images(
    slices: Sequence[dict[str, Any]], count: int | None, seed: int
) -> list[dict[str, Any]]:
    """Draw so many slices, as many of each class as there are, or can be.

    The paper's fine-tuning to a second data set (5.2) takes 600 of its images.

    Parameters
    ----------
    slices
        From `read_slices`.
    count
        How many; None takes all.
    seed
        Draws them.
    """
    if count is None or count >= len(slices):
        return list(slices)
    order = np.random.default_rng(seed).permutation(len(slices))
    # The n-th slice of each class comes before the next of any.
    seen: Counter[int] = Counter()
    turns = []
    for index in order:
        category = slices[index]["category"]
        turns.append((seen[category], index))
        seen[category] += 1
    return [slices[index] for _, index in sorted(turns)[:count]]


def class_weights(slices: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return how often to draw each slice so that all classes come equally often."""
    counts = Counter(item["category"] for item in slices)
    return [1 / counts[item["category"]] for item in slices]


def lesion_targets(data: Mapping[str, Any], smallest: int) -> dict[str, Any]:
    """Add "target", the instances of a slice as torchvision wants them.

    Each connected piece of ground glass (label 1) and of consolidation (label 2) of at least
    `smallest` pixels is an instance with "boxes" (n, 4) as x, y, x, y, "labels" and "masks".
    """
    opacity = np.asarray(data["opacity"][0])
    masks, labels = [], []
    for label in (1, 2):
        pieces, count = ndimage.label(opacity == label, np.ones((3, 3)))
        for piece in range(1, count + 1):
            mask = pieces == piece
            if mask.sum() >= smallest:
                masks.append(mask)
                labels.append(label)
    stacked = torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *opacity.shape) > 0
    boxes = masks_to_boxes(stacked) if masks else torch.zeros(0, 4)
    # Its corners are pixel centres: an edge lies half a pixel further on either side.
    boxes = boxes + torch.tensor([0.0, 0.0, 1.0, 1.0])
    target = {
        "boxes": boxes,
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": stacked.to(torch.uint8),
    }
    return {**data, "target": target}
