"""Dice of one case at every threshold, from its probability map or from its CT."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import torch
from monai.metrics import compute_dice
from numpy.typing import NDArray

from ct_triage.configuration import Configuration
from ct_triage.errors import TriageError
from ct_triage.lesion_models import LESION_MODELS, load_lesion_model
from ct_triage.lesions import LesionModel, SliceLesionModel
from ct_triage.lungs import segment_lungs
from ct_triage.network import AxialView, SliceNetwork
from tools.evaluate.ct import as_volume, read_ct
from tools.evaluate.masks import (
    EvaluationError,
    MaskFile,
    on_common_grid,
    read_mask,
    read_probabilities,
)

# VGG16-UNet paper 5.4: "thresholded in the range of 0 and 1, in 0.05 increments".
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(21))

# The application as it comes is what is calibrated.
DEFAULTS = Configuration()

# A row of the datalist to Dice at each of THRESHOLDS.
DiceOfCase = Callable[[dict[str, Any]], list[float]]


def check_case(row: dict[str, Any]) -> bool:
    """Read all files of a case, so that a bad one is refused before anything is computed.

    Returns
    -------
    bool
        Whether the true mask holds any lesion.
    """
    volumes = read_map(row) if row.get("prediction") else read_ct_and_truth(row)
    return bool(volumes[1].array.any())


def read_map(row: dict[str, Any]) -> list[hd.Volume]:
    """Read probabilities and truth, and the lungs where they are given, on one grid."""
    sources = [row["prediction"], row["truth"]]
    try:
        volumes = [read_probabilities(row["prediction"].file), read_mask(row["truth"])]
        if row.get("truth_lung"):
            sources.append(row["truth_lung"])
            volumes.append(read_mask(row["truth_lung"], "lung"))
        return on_common_grid(volumes, sources)
    except EvaluationError as error:
        raise EvaluationError(f"case {row['case']}: {error}") from error


def read_ct_and_truth(row: dict[str, Any]) -> list[hd.Volume]:
    """Read CT in HU and truth on one grid."""
    sources = [MaskFile(row["image"]), row["truth"]]
    try:
        return on_common_grid([read_ct(row["image"]), read_mask(row["truth"])], sources)
    except EvaluationError as error:
        raise EvaluationError(f"case {row['case']}: {error}") from error


def dice_of_map(row: dict[str, Any]) -> list[float]:
    """Dice of a probability map at each threshold, inside the lungs where they are given."""
    probabilities, truth, *lungs = (volume.array for volume in read_map(row))
    inside = lungs[0] if lungs else True
    return [_dice((probabilities >= t) & inside, truth) for t in THRESHOLDS]


@dataclass(frozen=True, slots=True)
class Application:
    """The application's lungs and lesions, at other thresholds than its own."""

    lung: SliceNetwork
    lesion: SliceLesionModel

    @classmethod
    def load(cls, models: Path) -> "Application":
        """Load the bundles.

        Raises
        ------
        EvaluationError
            If one is missing or was changed.
        """
        try:
            return cls(
                SliceNetwork.load(models / DEFAULTS.models.lungs),
                load_lesion_model(models, DEFAULTS),
            )
        except TriageError as error:
            raise EvaluationError(str(error)) from error

    def dice_of_ct(self, row: dict[str, Any]) -> list[float]:
        """Dice of what the application segments at each threshold."""
        ct, truth = (volume.to_patient_orientation("HPL") for volume in read_ct_and_truth(row))
        volume = as_volume(ct)
        right, left = segment_lungs(volume, self.lung)
        view = AxialView.of(volume)
        lungs = view.of_mask(right | left)
        seen = self.lesion.look(view, lungs)
        dice = []
        for threshold in THRESHOLDS:
            model = replace(self.lesion, network=self.lesion.network.with_threshold(threshold))
            found = (
                np.zeros_like(right) if seen is None else model.mark(seen[0].copy(), view, lungs)
            )
            dice.append(_dice(found, truth.array))
        return dice


@dataclass(frozen=True, slots=True)
class Identifier:
    """The application's lungs and its identification.

    Attributes
    ----------
    lung : SliceNetwork
        Lung network.
    multitask : LesionModel
        A lesion model that identifies.
    temperature : float
        That its probabilities are made with.
    """

    lung: SliceNetwork
    multitask: LesionModel
    temperature: float

    @classmethod
    def load(cls, models: Path) -> "Identifier":
        """Load the bundles.

        Raises
        ------
        EvaluationError
            If one is missing or was changed.
        """
        name = next(name for name, kind in LESION_MODELS.items() if kind.identifies)
        settings = {"models": {"lesions": name}, "identification": True}
        try:
            return cls(
                SliceNetwork.load(models / DEFAULTS.models.lungs),
                load_lesion_model(models, Configuration.model_validate(settings)),
                SliceNetwork.load(models / name).temperature,
            )
        except TriageError as error:
            raise EvaluationError(str(error)) from error

    @property
    def model(self) -> str:
        """Name, version and SHA-256 of the weights, with blanks between."""
        identity = self.multitask.identity
        return f"{identity.name} {identity.version} {identity.sha256}"

    def probability(self, row: dict[str, Any]) -> float:
        """Return the probability of one case.

        Raises
        ------
        EvaluationError
            If its CT cannot be read, or holds no lung.
        """
        volume = as_volume(read_ct(row["image"]).to_patient_orientation("HPL"))
        right, left = segment_lungs(volume, self.lung)
        probability = self.multitask.find(volume, right | left).covid19_probability
        if probability is None:
            raise EvaluationError(f"case {row['case']}: no lung was found in {row['image']}")
        return probability


def _dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice; two empty masks agree (1), one empty mask does not (0)."""
    p, t = (torch.from_numpy(np.ascontiguousarray(m))[None, None] for m in (prediction, truth))
    return float(compute_dice(p, t, ignore_empty=False))
