"""The rule that merges the groups of an ensemble (CoRSAI, section 4.1.6)."""

from __future__ import annotations

from collections.abc import Mapping
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
                votes.append((members > self.unanimous[group]).all(0).to(torch.int8))
            if group in self.mean:
                mean, thresholds = members.mean(0), self.mean[group]
                votes.append((mean > thresholds.above).to(torch.int8))
                votes.append(-(mean < thresholds.below).to(torch.int8))
        if not votes:
            raise ValueError("no member votes")
        return torch.stack(votes).sum(0, dtype=torch.int8)

    def positive(self, score: torch.Tensor) -> torch.Tensor:
        """Return True where a score means lesion."""
        return score > self.positive_above
