"""Synthetic studies drawn while a network trains, without a tree of files.

In a training of your own, or laid over a bundle's ``configs/train.json`` from the repository's
root::

    dataset = SyntheticStudies([Path("TREE/lctsc")], seed=0, transform=transforms)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=2)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from .studies import (
    CONSOLIDATION,
    DIAGNOSES,
    GROUND_GLASS,
    draw_diagnosed_study,
    from_slices,
    healthy_patients,
)


class SyntheticStudies(IterableDataset):
    """Studies of `draw_diagnosed_study`, each patient and each diagnosis equally often.

    Study n is the same whatever the number of workers: they share the numbers between them.

    Parameters
    ----------
    folders
        Folders of NAME_ct, NAME_lung and NAME_lesion.nii.gz; patients with lesions are passed
        over.
    seed
        The same seed gives the same studies.
    length
        How many studies an epoch has, the same ones each time; None never ends, for trainings
        that count steps.
    leave_out
        Patients never to take.
    transform
        Applied to each study, as in MONAI a function of a dictionary.

    Yields
    ------
    dict
        ``image`` (HU), ``lung``, ``lesion`` and ``opacity`` (1 ground glass, 2 consolidation) as
        MetaTensor (1, right, anterior, superior) with the affine in mm, and ``name`` and
        ``diagnosis``.

    Raises
    ------
    ValueError
        When no patient is left to draw from.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        seed: int = 0,
        length: int | None = None,
        leave_out: Sequence[str] = (),
        transform: Callable[[Mapping[str, Any]], Any] | None = None,
    ) -> None:
        super().__init__()
        self.patients = [
            (Path(folder), patient)
            for folder in folders
            for patient in healthy_patients(Path(folder))
            if patient not in leave_out
        ]
        if not self.patients:
            raise ValueError(f"no patient without lesions in {', '.join(map(str, folders))}")
        self.seed = seed
        self.length = length
        self.transform = transform

    def __iter__(self) -> Iterator[Any]:
        """Yield this worker's studies."""
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in islice(count(), first, self.length, step):
            study = self.draw(number)
            yield study if self.transform is None else self.transform(study)

    def draw(self, number: int) -> dict[str, Any]:
        """Draw study `number`."""
        place, round_ = number % (len(self.patients) * len(DIAGNOSES)), number // len(DIAGNOSES)
        source, patient = self.patients[place // len(DIAGNOSES)]
        diagnosis = DIAGNOSES[number % len(DIAGNOSES)]
        # A number for the seeds of `write_diagnosed_study` would draw what lies on disk again.
        drawn = int(np.random.default_rng([self.seed, round_]).integers(1 << 20, 1 << 40))
        study = draw_diagnosed_study(source, patient, diagnosis, drawn)
        affine = np.diag([*study.spacing_mm[::-1], 1.0])
        opacity = GROUND_GLASS * study.ground_glass + CONSOLIDATION * study.consolidation
        return {
            "image": _tensor(study.ct_hu.astype(np.float32), affine),
            "lung": _tensor(study.lungs, affine),
            "lesion": _tensor(opacity > 0, affine),
            "opacity": _tensor(opacity, affine),
            "name": f"{patient}.streamed-{number}",
            "diagnosis": diagnosis,
        }


def _tensor(voxels: NDArray, affine: NDArray) -> MetaTensor:
    stored = voxels if voxels.dtype == np.float32 else voxels.astype(np.uint8)
    array = np.ascontiguousarray(from_slices(stored))[None]
    return MetaTensor(torch.from_numpy(array), affine=torch.from_numpy(affine))
