"""The rule that merges the groups of an ensemble (CoRSAI, section 4.1.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class MeanThresholds:
    """A group votes for a lesion where its mean is above ``above``, against it below ``below``."""

    above: float
    below: float


class VotingRule:
    """Votes of groups of networks, added up voxel by voxel.

    Parameters
    ----------
    unanimous : Mapping[str, float]
        Group to threshold: +1 where the probability of each of its members is above it.
    mean : Mapping[str, MeanThresholds]
        Group to thresholds of the mean probability of its members, for +1 and -1.
    positive_above : int
        A voxel is lesion where the sum of votes is above this.
    """

    def __init__(
        self,
        unanimous: Mapping[str, float],
        mean: Mapping[str, MeanThresholds | Mapping[str, float]],
        positive_above: int = 0,
    ) -> None:
        self.unanimous = dict(unanimous)
        self.mean = {
            group: value if isinstance(value, MeanThresholds) else MeanThresholds(**value)
            for group, value in mean.items()
        }
        self.positive_above = positive_above

    @property
    def groups(self) -> set[str]:
        """Names of the groups that have a say."""
        return {*self.unanimous, *self.mean}

    def score(self, probabilities: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the sum of votes of each voxel.

        Parameters
        ----------
        probabilities : Mapping[str, torch.Tensor]
            Group to the probabilities of its members, (members, ...), 0..1. A group of the rule
            that is missing or without members does not vote.

        Returns
        -------
        torch.Tensor
            int8, shape (...).

        Raises
        ------
        ValueError
            If no group votes, or one that the rule does not know.
        """
        unknown = sorted(set(probabilities) - self.groups)
        if unknown:
            raise ValueError(f"group {unknown[0]} has no vote in the rule: {sorted(self.groups)}")
        votes = []
        for group, members in probabilities.items():
            if not len(members):
                continue
            if group in self.unanimous:
                votes.append(unanimous_vote(members, self.unanimous[group]))
            if group in self.mean:
                votes.append(mean_vote(members, self.mean[group].above, self.mean[group].below))
        if not votes:
            raise ValueError("no member votes")
        return torch.stack(votes).sum(0, dtype=torch.int8)

    def positive(self, score: torch.Tensor) -> torch.Tensor:
        """Return True where a score means lesion."""
        return score > self.positive_above


class Vote(torch.nn.Module):
    """Merge the probabilities of an ensemble's members; it can become TorchScript.

    What runs the members somewhere else, such as an application that has a TorchScript file of
    each, merges them with this.

    Parameters
    ----------
    rule : VotingRule
        How groups vote.
    groups : Sequence[str]
        The group of each member.
    """

    def __init__(self, rule: VotingRule, groups: Sequence[str]) -> None:
        super().__init__()
        # Members, whether they vote together, and their thresholds: types that TorchScript infers.
        self.votes = []
        for group in dict.fromkeys(groups):
            members = [index for index, one in enumerate(groups) if one == group]
            if group in rule.unanimous:
                self.votes.append((members, True, rule.unanimous[group], 0.0))
            if group in rule.mean:
                self.votes.append((members, False, rule.mean[group].above, rule.mean[group].below))
        self.positive_above = rule.positive_above

    def forward(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Merge (members, ...) in 0..1 to (2, ...): 1 in lesions; the disagreement, 0..0.5."""
        score = torch.zeros_like(probabilities[0], dtype=torch.int8)
        for members, unanimous, above, below in self.votes:
            if unanimous:
                score = score + unanimous_vote(probabilities[members], above)
            else:
                score = score + mean_vote(probabilities[members], above, below)
        lesion = (score > self.positive_above).to(probabilities.dtype)
        return torch.stack([lesion, probabilities.std(0, correction=0)])


def unanimous_vote(members: torch.Tensor, above: float) -> torch.Tensor:
    """Return +1 (int8) where the probability of each member (members, ...) is above a threshold."""
    return (members > above).all(0).to(torch.int8)


def mean_vote(members: torch.Tensor, above: float, below: float) -> torch.Tensor:
    """Return +1 (int8) where the members' mean is above one threshold, -1 where below another."""
    mean = members.mean(0)
    return (mean > above).to(torch.int8) - (mean < below).to(torch.int8)
