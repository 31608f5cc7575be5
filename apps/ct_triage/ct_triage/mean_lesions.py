"""Lesions by the mean of several models."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from ct_triage.errors import ConfigurationError
from ct_triage.lesions import Lesions, SliceLesionModel, lesion_mask
from ct_triage.network import AxialView
from ct_triage.provenance import ModelIdentity, hash_of_hashes
from ct_triage.severity import BoolMask
from ct_triage.volume import Volume

# Chosen on lesions drawn into lungs, for the slice and the multitask network
# (docs/configuration.md).
MEAN_THRESHOLD = 0.25


@dataclass(frozen=True, slots=True)
class MeanLesionModel:
    """Several models; lesion is where the mean of their probabilities reaches a threshold.

    Attributes
    ----------
    models : tuple of SliceLesionModel
        Two or more, of one pixel spacing.
    threshold : float
        Mean probability from which a voxel counts as lesion.
    min_lesion_ml : float
        Smaller connected pieces are left out as noise.
    """

    models: tuple[SliceLesionModel, ...]
    threshold: float
    min_lesion_ml: float = 0.0

    @classmethod
    def of(
        cls, models: tuple[SliceLesionModel, ...], threshold: float | None, min_lesion_ml: float
    ) -> Self:
        """Put models together; see the class.

        Raises
        ------
        ConfigurationError
            If a model gives no probabilities, or their pixels differ.
        """
        for model in models:
            if model.threshold is None:
                raise ConfigurationError(
                    f"models.lesions: {model.identity.name} decides by vote and has no"
                    " probabilities to average; leave it out, or take it alone"
                )
        if len({model.network.spacing_mm for model in models}) > 1:
            names = ", ".join(model.identity.name for model in models)
            raise ConfigurationError(
                f"models.lesions: the pixels of {names} differ in size; leave all but one out"
            )
        return cls(models, MEAN_THRESHOLD if threshold is None else threshold, min_lesion_ml)

    @property
    def identity(self) -> ModelIdentity:
        """Names and versions joined by +, and the hash of their hashes."""
        identities = [model.identity for model in self.models]
        return ModelIdentity(
            "+".join(identity.name for identity in identities),
            "+".join(identity.version for identity in identities),
            hash_of_hashes(identity.sha256 for identity in identities),
        )

    def find(self, volume: Volume, lungs: BoolMask) -> Lesions:
        """Find the lesions inside the lungs, both on the volume's grid."""
        view = AxialView.of(volume)
        lungs_on_view = view.of_mask(lungs)
        network = self.models[0].network.with_threshold(self.threshold)
        total = np.zeros(network.grid_shape(view), dtype=np.float32)
        covid19_probability = None
        for model in self.models:
            seen = model.look(view, lungs_on_view)
            if seen is None:
                return Lesions(np.zeros_like(lungs))
            total += seen[0]
            covid19_probability = covid19_probability if seen[1] is None else seen[1]
        mean = (total / len(self.models)).astype(np.float16)
        mask = lesion_mask(mean, view, network, self.min_lesion_ml)
        mask &= lungs_on_view
        return Lesions(view.on_source_grid(mask), covid19_probability)
