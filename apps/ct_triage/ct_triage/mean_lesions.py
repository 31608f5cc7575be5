"""Lesions by the mean of several models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ct_triage.errors import ConfigurationError
from ct_triage.lesions import SliceLesionModel
from ct_triage.network import AxialView
from ct_triage.provenance import ModelIdentity
from ct_triage.severity import BoolMask

# Algorithm Name (0066,0036) is a Long String (PS3.5 6.2).
MAX_NAME_LENGTH = 64


@dataclass(frozen=True, slots=True)
class MeanLesionModel(SliceLesionModel):
    """Several models; lesion is where the mean of their probabilities reaches a threshold.

    Its network is the first model's, with the names, versions and hashes of all and the threshold
    of the mean.

    Attributes
    ----------
    models : tuple of SliceLesionModel
        Two or more, of one pixel spacing.
    weights : tuple of int
        How often each counts in the mean.
    """

    models: tuple[SliceLesionModel, ...] = ()
    weights: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        models: Sequence[SliceLesionModel],
        weights: Sequence[int],
        threshold: float | None,
        min_lesion_ml: float,
    ) -> "MeanLesionModel":
        """Put models together.

        Parameters
        ----------
        models, weights : sequences
            See the class.
        threshold : float or None
            Mean probability from which a voxel counts as lesion; None: the mean of their
            thresholds, with the same weights.
        min_lesion_ml : float
            See the class.

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
        identity = ModelIdentity.of_several([model.identity for model in models], weights)
        if len({model.network.spacing_mm for model in models}) > 1:
            raise ConfigurationError(
                f"models.lesions: the pixels of {identity.name} differ in size; leave all but one"
                " out"
            )
        if len(identity.name) > MAX_NAME_LENGTH:
            raise ConfigurationError(
                f"models.lesions: the names {identity.name} are together longer than the"
                f" {MAX_NAME_LENGTH} characters that DICOM allows; leave one out"
            )
        network = replace(
            models[0].network,
            identity=identity,
            threshold=float(
                np.average([model.network.threshold for model in models], weights=weights)
            ),
        ).with_threshold(threshold)
        return cls(network, min_lesion_ml, tuple(models), tuple(weights))

    def look(
        self, view: AxialView, lungs_on_view: BoolMask
    ) -> tuple[npt.NDArray[np.float16], float | None] | None:
        """Return the mean of what the models see; see :meth:`SliceLesionModel.look`.

        The probability of COVID-19 is that of the last model that tells one.
        """
        total = np.zeros(self.network.grid_shape(view), dtype=np.float32)
        covid19_probability = None
        for model, weight in zip(self.models, self.weights, strict=True):
            seen = model.look(view, lungs_on_view)
            if seen is None:
                return None
            total += np.multiply(seen[0], weight, dtype=np.float32)
            covid19_probability = covid19_probability if seen[1] is None else seen[1]
        return (total / sum(self.weights)).astype(np.float16), covid19_probability
