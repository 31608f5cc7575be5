"""Branching trees of pulmonary vessels and bronchi."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .shapes import Capsules


@dataclass(frozen=True)
class Tree:
    """A rooted tree: (n, 3) points in mm, (n,) parents (the root is its own) and (n,) radii."""

    points: NDArray[np.float64]
    parent: NDArray[np.int64]
    radius: NDArray[np.float64]

    def capsules(self, smallest: float = 0.0) -> Capsules:
        """Return the tree's segments whose far radius is at least `smallest` mm."""
        child = np.flatnonzero(self.radius >= smallest)
        child = child[child != 0]
        parent = self.parent[child]
        # A branch is as thick as itself at its root, not as the trunk that it leaves.
        start = np.minimum(self.radius[parent], 1.25 * self.radius[child])
        return Capsules(
            self.points[parent],
            self.points[child],
            start,
            self.radius[child],
            np.ones((len(child), 3)),
        )

    def companion(self, smallest: float, ratio: float, direction: NDArray[np.float64]) -> Tree:
        """Return the airway that runs beside an artery, down to an artery of `smallest` mm."""
        keep = np.flatnonzero(self.radius >= smallest)
        renumber = np.zeros(len(self.points), dtype=np.int64)
        renumber[keep] = np.arange(len(keep))
        offset = (self.radius[keep] * (1 + ratio) * 0.95)[:, None] * direction
        return Tree(
            self.points[keep] + offset,
            renumber[self.parent[keep]],
            self.radius[keep] * ratio,
        )


def grow(
    root: NDArray[np.float64],
    targets: NDArray[np.float64],
    tip_radius: float,
    directness: float = 0.15,
) -> Tree:
    """Grow a tree from a root to all targets.

    Each target, nearest first, joins the point that costs least in new length and in length
    back to the root (Cuntz et al. 2010); radii follow Murray's law from the tips.

    Parameters
    ----------
    root
        (3,) where the tree enters the lung, mm.
    targets
        (n, 3) points to supply, mm.
    tip_radius
        Radius of a tip in mm.
    directness
        Weight of the way back to the root: 0 gives a shortest network, 1 nearly a star.
    """
    order = np.argsort(np.linalg.norm(targets - root, axis=1), kind="stable")
    points = np.vstack([root, targets[order]])
    count = len(points)
    parent = np.zeros(count, dtype=np.int64)
    path = np.zeros(count)
    for i in range(1, count):
        distance = np.linalg.norm(points[:i] - points[i], axis=1)
        best = int(np.argmin(distance + directness * path[:i]))
        parent[i] = best
        path[i] = path[best] + distance[best]
    tips = np.ones(count)
    has_child = np.zeros(count, dtype=bool)
    has_child[parent[1:]] = True
    tips[has_child] = 0
    children = np.zeros((count, 3))
    number = np.zeros(count)
    for i in range(count - 1, 0, -1):
        tips[parent[i]] += tips[i]
        children[parent[i]] += points[i]
        number[parent[i]] += 1
    smooth = points.copy()
    inner = has_child.copy()
    inner[0] = False
    smooth[inner] = (
        0.5 * points[inner]
        + 0.25 * points[parent[inner]]
        + 0.25 * children[inner] / number[inner, None]
    )
    return Tree(smooth, parent, tip_radius * tips**0.37)
