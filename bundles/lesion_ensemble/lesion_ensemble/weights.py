"""Weights of the members: a file each, checked before any is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .ensemble import Ensemble

SUMS = "SHA256SUMS"


def weights_problem(members: Sequence[Mapping[str, str]], folder: str) -> str:
    """Return what is wrong with the members' files in one line, or "" where nothing is.

    Parameters
    ----------
    members : Sequence[Mapping[str, str]]
        As `Ensemble` takes them.
    folder : str
        Folder of released weights. A file in it must be listed with its SHA-256 in SHA256SUMS;
        one elsewhere, given by its absolute path, is the user's own and not checked.
    """
    sums = Path(folder, SUMS)
    released = dict(
        reversed(line.split(maxsplit=1))
        for line in (sums.read_text().splitlines() if sums.is_file() else [])
    )
    for member in members:
        file = Path(folder, member["weights"])
        if not file.is_file():
            return f"{file} is missing; train it, or take the member out of members"
        if file.resolve().parent != Path(folder).resolve():
            continue
        if released.get(file.name) != hashlib.sha256(file.read_bytes()).hexdigest():
            return f"{file} does not match {sums}; restore the released file"
    return ""


def load_weights(ensemble: Ensemble, members: Sequence[Mapping[str, str]], folder: str) -> None:
    """Load each member's state dict; half precision becomes single.

    Parameters
    ----------
    ensemble : Ensemble
        Made of `members`.
    members : Sequence[Mapping[str, str]]
        As `Ensemble` takes them.
    folder : str
        Where relative paths of weights start.
    """
    for network, member in zip(ensemble.networks, members, strict=True):
        load_member(network, Path(folder, member["weights"]))


def load_member(network: torch.nn.Module, file: str | Path) -> None:
    """Load one member's weights; half precision becomes single.

    Parameters
    ----------
    network : torch.nn.Module
        As `build_member` makes it.
    file : str or Path
        TorchScript (``.ts``), as released, or what training saved: a state dict, bare or under
        "model".
    """
    if Path(file).suffix == ".ts":
        state: Any = torch.jit.load(file, map_location="cpu").state_dict()
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
    network.load_state_dict(state.get("model", state))
