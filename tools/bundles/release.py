"""Put a trained checkpoint into its bundle: weights, TorchScript and their hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from monai.bundle import ckpt_export

WEIGHTS, TORCHSCRIPT, SUMS = "model.pt", "model.ts", "SHA256SUMS"


def release(bundle: Path, checkpoint: Path) -> list[Path]:
    """Write ``models/model.pt``, ``models/model.ts`` and ``models/SHA256SUMS``.

    ``model.pt`` holds half precision, which a network takes back into its own single precision
    when it loads the state; ``model.ts`` holds the same values in single precision.

    Parameters
    ----------
    bundle : Path
        The bundle's folder.
    checkpoint : Path
        What training saved: a state dict, bare or under "model".

    Raises
    ------
    FileNotFoundError
        If there is no such checkpoint.
    """
    models = bundle / "models"
    models.mkdir(exist_ok=True)
    torch.save(_halved(_state(checkpoint)), models / WEIGHTS)
    ckpt_export(
        net_id="network_def",
        filepath=str(models / TORCHSCRIPT),
        ckpt_file=str(models / WEIGHTS),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle),
    )
    files = [models / WEIGHTS, models / TORCHSCRIPT]
    return [*files, _write_sums(models, files)]


def release_member(bundle: Path, checkpoint: Path, name: str) -> list[Path]:
    """Write ``models/NAME.pt`` of an ensemble in half precision and update ``models/SHA256SUMS``.

    Parameters
    ----------
    bundle : Path
        The ensemble's folder.
    checkpoint : Path
        What training saved: a state dict, bare or under "model".
    name : str
        As "weights" of a member names the file, without its ending.
    """
    models = bundle / "models"
    models.mkdir(exist_ok=True)
    torch.save(_halved(_state(checkpoint)), models / f"{name}.pt")
    return [models / f"{name}.pt", _write_sums(models, sorted(models.glob("*.pt")))]


def _halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Store weights in half precision.

    Statistics of normalization layers are few and can be too large for it.
    """
    return {
        key: value.half() if value.is_floating_point() and value.ndim > 1 else value
        for key, value in state.items()
    }


def _state(checkpoint: Path) -> dict[str, torch.Tensor]:
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return {key: value.contiguous() for key, value in saved.get("model", saved).items()}


def _write_sums(models: Path, files: list[Path]) -> Path:
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (models / SUMS).write_text("".join(sums))
    return models / SUMS
