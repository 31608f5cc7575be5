"""Put a trained checkpoint into its bundle: weights, TorchScript and their hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.bundle import ConfigParser, ckpt_export
from monai.data import save_net_with_metadata

WEIGHTS, TORCHSCRIPT, SUMS = "model.pt", "model.ts", "SHA256SUMS"
MAX_BYTES = 25_000_000
"""No file of weights may be larger."""


def release(bundle: Path, *checkpoints: Path) -> list[Path]:
    """Write ``models/model.pt``, ``models/model.ts`` and ``models/SHA256SUMS``.

    ``model.pt`` holds half precision, which a network takes back into its own single precision
    when it loads the state; ``model.ts`` holds the same values in single precision, or in half
    where it would be larger than `MAX_BYTES`: call ``float()`` on what is loaded. The rounding
    moves probabilities by less than 0.01 (tests/bundles/test_release.py).

    Parameters
    ----------
    bundle : Path
        The bundle's folder.
    *checkpoints : Path
        What training saved: a state dict, bare or under "model". Of several, stages of one training
        or trainings from one start, the mean is taken (Wortsman et al. 2022, "Model soups").

    Raises
    ------
    FileNotFoundError
        If there is no such checkpoint.
    ValueError
        If the checkpoints are of different networks.
    """
    models = bundle / "models"
    models.mkdir(exist_ok=True)
    state = {key: _half(value) for key, value in _mean(checkpoints).items()}
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
    if files[1].stat().st_size > MAX_BYTES:
        _save_torchscript(_halved(torch.jit.load(files[1])), files[1], bundle)
    return [*files, _write_sums(models, files)]


def release_member(bundle: Path, checkpoint: Path, name: str) -> list[Path]:
    """Write ``models/NAME.ts`` of an ensemble, the merging ``models/model.ts`` and SHA256SUMS.

    A member is TorchScript with weights in half precision: one file for MONAI's commands, which
    read its weights, and for applications, which run it and merge the members by ``model.ts``.

    Parameters
    ----------
    bundle : Path
        The ensemble's folder.
    checkpoint : Path
        What training saved: a state dict, bare or under "model".
    name : str
        As "weights" of a member names the file, without its ending.

    Raises
    ------
    ValueError
        If no member's "weights" are of that name.
    """
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser["bundle_root"] = str(bundle)
    members = parser["members"]
    files = [str(member["weights"]) for member in members]
    if f"{name}.ts" not in files:
        raise ValueError(f"{name} is none of the members {', '.join(files)}; add it to the config")
    ensemble = parser.get_parsed_content("network_def")
    member = ensemble.networks[files.index(f"{name}.ts")].eval()
    member.load_state_dict(_state(checkpoint))

    models = bundle / "models"
    models.mkdir(exist_ok=True)
    _save_torchscript(_scripted(member), models / f"{name}.ts", bundle)
    _save_torchscript(torch.jit.script(ensemble.vote), models / TORCHSCRIPT, bundle)
    written = [models / f"{name}.ts", models / TORCHSCRIPT]
    return [*written, _write_sums(models, sorted(models.glob("*.ts")))]


def _scripted(network: torch.nn.Module) -> torch.jit.ScriptModule:
    """Script a slice network, or trace it where its code cannot be scripted (DPN)."""
    small, other = torch.rand(1, 1, 64, 64), torch.rand(2, 1, 96, 64)
    try:
        scripted = torch.jit.script(network)
    except (RuntimeError, NotImplementedError):
        scripted = torch.jit.trace(network, small)
    with torch.inference_mode():
        # A trace may hold for one size only.
        torch.testing.assert_close(scripted(other), network(other), rtol=1e-3, atol=1e-3)
    return _halved(scripted)


def _halved(scripted: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Store a module's weights in half precision, in place."""
    for tensor in (*scripted.parameters(), *scripted.buffers()):
        tensor.data = _half(tensor.data)
    return scripted


def _save_torchscript(scripted: torch.jit.ScriptModule, file: Path, bundle: Path) -> None:
    """Save a module as MONAI's ckpt_export does: with the bundle's metadata and configuration."""
    configs = bundle / "configs"
    save_net_with_metadata(
        scripted,
        str(file),
        include_config_vals=False,
        meta_values=json.loads((configs / "metadata.json").read_text()),
        more_extra_files={"inference.json": (configs / "inference.json").read_bytes()},
    )


def _half(tensor: torch.Tensor) -> torch.Tensor:
    """Store weights in half precision.

    Statistics of normalization layers are few and can be too large for it.
    """
    return tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor


def _state(checkpoint: Path) -> dict[str, torch.Tensor]:
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return {key: value.contiguous() for key, value in saved.get("model", saved).items()}


def _mean(checkpoints: Sequence[Path]) -> dict[str, torch.Tensor]:
    states = [_state(checkpoint) for checkpoint in checkpoints]
    shapes = [{key: value.shape for key, value in state.items()} for state in states]
    for checkpoint, found in zip(checkpoints, shapes, strict=True):
        if found != shapes[0]:
            raise ValueError(f"{checkpoint} holds another network than {checkpoints[0]}")
    return {
        key: torch.stack([state[key].float() for state in states]).mean(0).to(value.dtype)
        for key, value in states[0].items()
    }


def _write_sums(models: Path, files: list[Path]) -> Path:
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (models / SUMS).write_text("".join(sums))
    return models / SUMS
