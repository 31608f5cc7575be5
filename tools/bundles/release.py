"""Put a trained checkpoint into its bundle: weights, TorchScript and their hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from monai.bundle import ckpt_export

WEIGHTS, TORCHSCRIPT, SUMS = "model.pt", "model.ts", "SHA256SUMS"


def release(bundle: Path, checkpoint: Path) -> list[Path]:
    """Write ``models/model.pt``, ``models/model.ts`` and ``models/SHA256SUMS``.

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
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    state = {key: value.contiguous() for key, value in saved.get("model", saved).items()}
    models = bundle / "models"
    models.mkdir(exist_ok=True)
    torch.save(state, models / WEIGHTS)
    ckpt_export(
        net_id="network_def",
        filepath=str(models / TORCHSCRIPT),
        ckpt_file=str(models / WEIGHTS),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle),
    )
    files = [models / WEIGHTS, models / TORCHSCRIPT]
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (models / SUMS).write_text("".join(sums))
    return [*files, models / SUMS]
