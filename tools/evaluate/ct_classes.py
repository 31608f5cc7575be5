"""CT classes from lesion shares, and the bounds that agree best with a reader's own classes.

CoRSAI, section 5.4 and table 6.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ct_triage.severity import CATEGORIES, ct_classes

DEFAULT_BOUNDS = (0.25, 0.5, 0.75)
# Breaks ties between equally accurate bounds without ever outweighing a case.
_TIE_WEIGHT = 1e-6


def classify(shares: ArrayLike, bounds: ArrayLike = DEFAULT_BOUNDS) -> NDArray[np.intp]:
    """Return CT classes as numbers 0 to 4.

    Parameters
    ----------
    shares : array
        Lesion share of the more affected lung, 0 to 1. CT-0 is exactly no lesion.
    bounds : array of 3
        Ascending shares above which CT-2, CT-3 and CT-4 begin, as in the application.
    """
    return ct_classes(shares, (0.0, *np.asarray(bounds, float)))


def fit_bounds(shares: ArrayLike, classes: ArrayLike) -> tuple[float, float, float]:
    """Return the bounds whose classes agree with the most of the given ones.

    All ascending bounds between the shares are compared, by dynamic programming over the sorted
    shares. Among equals the nearest to ``DEFAULT_BOUNDS`` win. The fit is on the sample itself:
    judge it on other cases.

    Parameters
    ----------
    shares : array
        Lesion shares, 0 to 1; those of 0 are CT-0 whatever the bounds.
    classes : array
        CT classes as numbers 0 to 4, one a share.
    """
    values, wanted = np.asarray(shares, float), np.asarray(classes)
    order = np.argsort(values[values > 0], kind="stable")
    values, wanted = values[values > 0][order], wanted[values > 0][order]
    # A bound before position i lies midway between its neighbours, the outer ones at 0 and 1.
    edges = np.concatenate([[0.0], values, [1.0]])
    cuts = (edges[:-1] + edges[1:]) / 2
    if not len(values):
        return DEFAULT_BOUNDS
    # No bound can part equal shares, nor reach 1.
    impossible = np.concatenate([[False], values[1:] == values[:-1], [values[-1] >= 1]])
    below = {c: np.concatenate([[0], np.cumsum(wanted == c)]) for c in range(1, len(CATEGORIES))}
    gains = [
        np.where(
            impossible,
            -np.inf,
            below[c] - below[c + 1] - _TIE_WEIGHT * np.abs(cuts - default),
        )
        for c, default in zip((1, 2, 3), DEFAULT_BOUNDS, strict=True)
    ]
    best, chosen = gains[0], []
    for gain in gains[1:]:
        reached = np.maximum.accumulate(best)
        chosen.append(best)
        best = reached + gain
    positions = [int(np.argmax(best))]
    for scores in reversed(chosen):
        positions.insert(0, int(np.argmax(scores[: positions[0] + 1])))
    low, middle, high = (float(cuts[i]) for i in positions)
    return low, middle, high
