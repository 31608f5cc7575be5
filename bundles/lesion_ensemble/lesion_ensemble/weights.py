"""Weights of the members: a file each, checked before any is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

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
        state = torch.load(Path(folder, member["weights"]), map_location="cpu", weights_only=True)
        network.load_state_dict(state.get("model", state))
