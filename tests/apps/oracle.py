"""Stand-ins for trained networks that make exact geometry testable.

A painted phantom has one Hounsfield value per tissue, and an oracle bundle is a TorchScript file in
a bundle's layout whose "network" is a threshold on the Hounsfield scale. Whatever the application
gets wrong in between (order, flips, spacing, affine) then shows as a misplaced mask, to the voxel.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_opening
from skimage.morphology import remove_small_objects

from tools.phantom import Phantom

HU_WINDOW = (-1000.0, 600.0)
# Ever denser from outside to inside, so that a blurred border never looks like a third tissue.
AIR_HU, BODY_HU, LUNG_HU, LESION_HU = -1000, -400, 0, 400


class HounsfieldThreshold(torch.nn.Module):
    """Logits that are positive where a normalised value lies above a bound."""

    def __init__(self, threshold_hu: float) -> None:
        super().__init__()
        low, high = HU_WINDOW
        self.threshold = (threshold_hu - low) / (high - low)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 4.0 * (image - self.threshold)


class MultitaskThreshold(torch.nn.Module):
    """The same, with an identification logit: how far the largest lesion share of a slice is."""

    def __init__(self, threshold_hu: float) -> None:
        super().__init__()
        self.segment = HounsfieldThreshold(threshold_hu)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.segment(image)
        return logits, 20.0 * (logits > 0).float().mean((1, 2, 3)).max() - 1.0


class Unanimity(torch.nn.Module):
    """Merge the members of an ensemble: lesion is where all agree, with their disagreement."""

    def forward(self, probabilities: torch.Tensor) -> torch.Tensor:
        agreed = (probabilities > 0.5).all(0).to(probabilities.dtype)
        return torch.stack([agreed, probabilities.std(0, correction=0)])


class SliceClasses(torch.nn.Module):
    """Logits of COVID-19, common pneumonia and control: how many pixels of a slice are opaque."""

    def __init__(self, threshold_hu: float) -> None:
        super().__init__()
        self.segment = HounsfieldThreshold(threshold_hu)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        opaque = (self.segment(image) > 0).float().sum((1, 2, 3))
        return torch.stack([opaque - 10, -torch.ones_like(opaque), 10 - opaque], 1) / 10


# The grid is 2 mm like that of the real bundles.
CONFIG = {"spacing_mm": [2.0, 2.0], "hu_window": HU_WINDOW, "threshold": 0.5, "divisor": 16}
CUBIC = {**CONFIG, "spacing_mm": [2.0, 2.0, 2.0], "window_size": [96, 96, 96]}
MEMBERS = [{"weights": f"{plane}.ts", "plane": plane} for plane in ("axial", "sagittal", "coronal")]


def write_oracle_bundle(
    folder: Path,
    threshold_hu: float,
    network: type[torch.nn.Module] = HounsfieldThreshold,
    config: Mapping[str, Any] = CONFIG,
    **settings: object,
) -> Path:
    """Write ``models/model.ts`` and its hash; ``settings`` add to its inference.json."""
    return write_torchscript_bundle(
        folder, {"model.ts": network(threshold_hu)}, {**config, **settings}
    )


def write_torchscript_bundle(
    folder: Path, modules: Mapping[str, torch.nn.Module], config: Mapping[str, Any]
) -> Path:
    """Write modules as files of ``models`` with their configuration inside, and their hashes."""
    models = folder / "models"
    models.mkdir(parents=True)
    metadata = {"name": f"oracle {folder.name}", "version": "1.2.3"}
    sums = []
    for name, module in modules.items():
        torch.jit.save(
            torch.jit.script(module),
            str(models / name),
            _extra_files={
                "inference.json": json.dumps(config).encode(),
                "metadata.json": json.dumps(metadata).encode(),
            },
        )
        sums.append(f"{hashlib.sha256((models / name).read_bytes()).hexdigest()}  {name}\n")
    (models / "SHA256SUMS").write_text("".join(sums))
    return folder


def write_oracle_models(folder: Path) -> Path:
    """Write every bundle that the application can run."""
    write_oracle_bundle(folder / "lung_segmentation", (BODY_HU + LUNG_HU) / 2)
    lesion_hu = (LUNG_HU + LESION_HU) / 2
    write_oracle_bundle(folder / "lesion_segmentation_2d", lesion_hu)
    write_oracle_bundle(folder / "lesion_segmentation_3d", lesion_hu, config=CUBIC)
    write_oracle_bundle(folder / "multitask_triage", lesion_hu, MultitaskThreshold)
    members = {member["weights"]: HounsfieldThreshold(lesion_hu) for member in MEMBERS}
    write_torchscript_bundle(
        folder / "lesion_ensemble",
        {"model.ts": Unanimity(), **members},
        {**CUBIC, "members": MEMBERS},
    )
    write_oracle_bundle(
        folder / "mask_rcnn_classifier",
        lesion_hu,
        SliceClasses,
        # As the real one, without threshold and divisor.
        {"spacing_mm": [2.0, 2.0], "hu_window": HU_WINDOW, "slice_size": [160, 192]},
    )
    return folder


def painted(phantom: Phantom) -> Phantom:
    """Replace a phantom's picture by one value per tissue; its truth is what is painted.

    What is thinner than the networks' grid can hold is left out: specks of lung that partial
    volume cuts off, and the fringes of lesions.
    """
    large = remove_small_objects(phantom.right_lung | phantom.left_lung, max_size=1000)
    phantom = dataclasses.replace(
        phantom,
        right_lung=phantom.right_lung & large,
        left_lung=phantom.left_lung & large,
        ground_glass=binary_opening(phantom.lesion & large),
        consolidation=np.zeros_like(large),
    )
    lungs = phantom.right_lung | phantom.left_lung
    # Airways beside a lung are painted as body: only the body borders on the lungs.
    body = (phantom.hu > -500) | binary_dilation(lungs, iterations=3)
    hu = np.where(body, BODY_HU, AIR_HU).astype(np.int16)
    hu[lungs] = LUNG_HU
    hu[phantom.lesion] = LESION_HU
    return dataclasses.replace(phantom, hu=hu)
