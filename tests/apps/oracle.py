"""Stand-ins for trained networks that make exact geometry testable.

A painted phantom has one Hounsfield value per tissue, and an oracle bundle is a TorchScript file in
a bundle's layout whose "network" is a threshold on the Hounsfield scale. Whatever the application
gets wrong in between (order, flips, spacing, affine) then shows as a misplaced mask, to the voxel.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

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


def write_oracle_bundle(
    folder: Path,
    threshold_hu: float,
    network: type[torch.nn.Module] = HounsfieldThreshold,
    **settings: object,
) -> Path:
    """Write ``models/model.ts`` and its hash; the grid is 2 mm like that of the real bundles.

    ``settings`` adds keys to its inference.json or replaces them.
    """
    models = folder / "models"
    models.mkdir(parents=True)
    config = {"spacing_mm": [2.0, 2.0], "hu_window": HU_WINDOW, "threshold": 0.5, "divisor": 16}
    config |= settings
    metadata = {"name": f"oracle {folder.name}", "version": "1.2.3"}
    module = torch.jit.script(network(threshold_hu))
    torch.jit.save(
        module,
        str(models / "model.ts"),
        _extra_files={
            "inference.json": json.dumps(config).encode(),
            "metadata.json": json.dumps(metadata).encode(),
        },
    )
    sha256 = hashlib.sha256((models / "model.ts").read_bytes()).hexdigest()
    (models / "SHA256SUMS").write_text(f"{sha256}  model.ts\n")
    return folder


def write_oracle_models(folder: Path) -> Path:
    """Write every bundle that the application can run."""
    write_oracle_bundle(folder / "lung_segmentation", (BODY_HU + LUNG_HU) / 2)
    lesion_hu = (LUNG_HU + LESION_HU) / 2
    write_oracle_bundle(folder / "lesion_segmentation_2d", lesion_hu)
    write_oracle_bundle(folder / "multitask_triage", lesion_hu, MultitaskThreshold)
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
