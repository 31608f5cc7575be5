"""The grid search that chooses the numbers of the threshold baseline."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from tqdm import tqdm

from .threshold import ThresholdBaseline, bounding_box, dense_regions

AXES = ("hu_min", "hu_max", "sigma_mm", "min_lung_share")


class GridSearch:
    """Choose the numbers with the highest mean Dice over the training patients with lesions.

    It stands where a trainer stands in the other configs.

    Parameters
    ----------
    network : ThresholdBaseline
        Gets the chosen numbers.
    dataset : sequence of dict
        ``image``, shape (2, X, Y, Z): HU, and the lung mask; ``label``, shape (1, X, Y, Z): the
        lesions.
    grid : mapping
        Values to try, by the names in `AXES`.
    output_dir : str
        Where ``model.pt`` and ``grid_search.csv`` go.
    """

    def __init__(
        self,
        network: ThresholdBaseline,
        dataset: Sequence[Mapping[str, Any]],
        grid: Mapping[str, Sequence[float]],
        output_dir: str,
    ) -> None:
        self.network = network
        self.dataset = dataset
        self.grid = grid
        self.output_dir = Path(output_dir)

    def run(self) -> None:
        """Search; write the state dict and a table of every combination, the best first.

        Raises
        ------
        SystemExit
            If no patient has lesions.
        """
        rows = [row for case in tqdm(self.dataset, "grid search") if (row := self._dice(case))]
        if not rows:
            raise SystemExit("error: the grid search needs patients with lesions, and got none")
        combinations = list(itertools.product(*(self.grid[axis] for axis in AXES)))
        means = np.mean(rows, axis=0)
        # The first of equals: a grid lists what is tried first.
        order = np.argsort(-means, kind="stable")
        for axis, value in zip(AXES, combinations[order[0]], strict=True):
            getattr(self.network, axis).fill_(value)

        self.output_dir.mkdir(parents=True, exist_ok=True)
        with (self.output_dir / "grid_search.csv").open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow([*AXES, "mean_dice"])
            table.writerows([*combinations[i], f"{means[i]:.4f}"] for i in order)
        torch.save(self.network.state_dict(), self.output_dir / "model.pt")
        chosen = ", ".join(f"{a} {v:g}" for a, v in zip(AXES, combinations[order[0]], strict=True))
        print(f"{chosen}: mean Dice {means[order[0]]:.3f} over {len(rows)} patients")

    def _dice(self, case: Mapping[str, Any]) -> list[float]:
        """Return Dice for every combination, in their order; nothing where no lesion is."""
        hu, lung_mask = np.asarray(case["image"])
        truth = np.asarray(case["label"])[0] > 0.5
        if not truth.any():
            return []
        lungs = lung_mask > 0.5
        box = bounding_box(lungs)
        found_by_size = (
            _found_by_size(
                dense_regions(
                    hu[box],
                    lungs[box],
                    hu_min,
                    hu_max,
                    [sigma_mm / spacing for spacing in self.network.spacing_mm],
                ),
                truth[box],
            )
            for hu_min, hu_max, sigma_mm in itertools.product(
                *(self.grid[axis] for axis in AXES[:3])
            )
        )
        smallest = [share * lungs.sum() for share in self.grid["min_lung_share"]]
        return list(_dice(found_by_size, smallest, int(truth.sum())))


def _found_by_size(dense: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each component's voxels, and how many of them are lesion."""
    components, count = ndimage.label(dense)
    sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
    hits = np.bincount(components[truth], minlength=count + 1)[1:]
    return sizes, hits


def _dice(
    found_by_size: Iterable[tuple[np.ndarray, np.ndarray]],
    smallest: Sequence[float],
    truth_voxels: int,
) -> Iterable[float]:
    """Yield Dice for each set of components and each smallest size that is kept."""
    for sizes, hits in found_by_size:
        for size in smallest:
            kept = sizes >= size
            yield 2.0 * hits[kept].sum() / (sizes[kept].sum() + truth_voxels)
