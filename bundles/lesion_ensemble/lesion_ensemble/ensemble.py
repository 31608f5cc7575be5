"""Members, and the network that runs them all on a volume and merges what they say."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.utils import convert_to_tensor
from tqdm import tqdm

from .voting import Vote, VotingRule

# All encoders halve their input at most five times.
DIVISOR = 32
# PyTorch's own. EfficientNet brings 0.01, with which a training of some hundred steps ends before
# the running statistics that evaluation uses have left their first values.
BATCH_NORM_MOMENTUM = 0.1


def build_member(architecture: Mapping[str, Any]) -> torch.nn.Sequential:
    """Return a new member: the normalization of its input, then its network.

    Parameters
    ----------
    architecture : Mapping[str, Any]
        "normalization" and "network": callables that make a module each.
    """
    member = torch.nn.Sequential(
        OrderedDict(
            normalization=architecture["normalization"](), network=architecture["network"]()
        )
    )
    for module in member.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = BATCH_NORM_MOMENTUM
    return member


class Ensemble(torch.nn.Module):
    """Members that segment a volume slice by slice, each in its plane, merged by a rule.

    Parameters
    ----------
    members : Sequence[Mapping[str, str]]
        One mapping a member: "architecture", a key of `architectures`; "plane", "axial",
        "sagittal" or "coronal"; "weights", its file.
    architectures : Mapping[str, Mapping[str, Any]]
        "group", "normalization" and "network" of each architecture, see `build_member`.
    rule : VotingRule
        How groups vote.
    slices_per_batch : int
        Slices that a member takes at once; bounds the memory.

    Raises
    ------
    ValueError
        If there is no member, or one with an unknown architecture, plane or group.
    """

    def __init__(
        self,
        members: Sequence[Mapping[str, str]],
        architectures: Mapping[str, Mapping[str, Any]],
        rule: VotingRule,
        slices_per_batch: int = 8,
    ) -> None:
        super().__init__()
        if not members:
            raise ValueError("the ensemble has no members")
        for member in members:
            _require(member["architecture"], architectures, "architecture")
            _require(member["plane"], PLANES, "plane")
            _require(architectures[member["architecture"]]["group"], rule.groups, "group")
        self.planes = [member["plane"] for member in members]
        groups = [architectures[member["architecture"]]["group"] for member in members]
        self.vote = Vote(rule, groups)
        self.networks = torch.nn.ModuleList(
            build_member(architectures[member["architecture"]]) for member in members
        )
        self.slices_per_batch = slices_per_batch

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Segment volumes.

        Parameters
        ----------
        image : torch.Tensor
            (volumes, 1, rows, columns, slices) in orientation PLS, that is toward the back, the
            left and the head of the patient, with cubic voxels; ``hu_window`` as 0..1.

        Returns
        -------
        torch.Tensor
            (volumes, 2, rows, columns, slices), float32: 1 in lesions; the disagreement, which
            is the standard deviation of the members' probabilities, 0..0.5.
        """
        # A volume's metadata would be wrong for its slices.
        return torch.stack([self._segment(volume) for volume in convert_to_tensor(image)])

    def _segment(self, volume: torch.Tensor) -> torch.Tensor:
        probabilities = []
        members = list(zip(self.planes, self.networks, strict=True))
        for plane, network in tqdm(members, desc="members", leave=False):
            to_slices, to_volume = PLANES[plane]
            probabilities.append(to_volume(self._probability(network, to_slices(volume))))
        return self.vote(torch.cat(probabilities))

    def _probability(self, network: torch.nn.Module, slices: torch.Tensor) -> torch.Tensor:
        """Return probabilities (slices, 1, rows, columns) of slices of that shape."""
        rows, columns = slices.shape[-2:]
        # Zero is the lower end of hu_window: nothing but air is added.
        padding = (0, -columns % DIVISOR, 0, -rows % DIVISOR)
        batches = [
            torch.sigmoid(network(torch.nn.functional.pad(batch, padding)).float())
            for batch in slices.split(self.slices_per_batch)
        ]
        return torch.cat(batches)[..., :rows, :columns]


def _axial(volume: torch.Tensor) -> torch.Tensor:
    return volume.permute(3, 0, 1, 2)


def _from_axial(slices: torch.Tensor) -> torch.Tensor:
    return slices.permute(1, 2, 3, 0)


def _sagittal(volume: torch.Tensor) -> torch.Tensor:
    return volume.flip(3).permute(2, 0, 3, 1)


def _from_sagittal(slices: torch.Tensor) -> torch.Tensor:
    return slices.permute(1, 3, 0, 2).flip(3)


def _coronal(volume: torch.Tensor) -> torch.Tensor:
    return volume.flip(3).permute(1, 0, 3, 2)


def _from_coronal(slices: torch.Tensor) -> torch.Tensor:
    return slices.permute(1, 0, 3, 2).flip(3)


# From a volume (1, rows, columns, slices) in PLS to slices (slices, 1, rows, columns) and back.
# Sagittal slices are IPL and coronal ones ILP: upright, as in the configuration for training.
PLANES = {
    "axial": (_axial, _from_axial),
    "sagittal": (_sagittal, _from_sagittal),
    "coronal": (_coronal, _from_coronal),
}


def _require(name: str, known: Any, kind: str) -> None:
    if name not in known:
        raise ValueError(f"{kind} {name} is not one of {', '.join(sorted(known))}")
