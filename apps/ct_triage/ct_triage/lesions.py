"""Lesions: a model run on the lungs' slices or bounding box, and only what lies inside the lungs.

Sections 2.2 and 4.1 of "CT-based COVID-19 Triage" (arXiv 2006.01441).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from ct_triage.errors import ModelError
from ct_triage.lungs import body_region
from ct_triage.network import AxialView, Region, SliceNetwork, bounding_region
from ct_triage.provenance import ModelIdentity
from ct_triage.severity import BoolMask
from ct_triage.volume import Volume

# Consolidation and effusion hide the border of a lung, so the box must not cut them.
MARGIN_MM = 10.0


@dataclass(frozen=True, slots=True)
class Lesions:
    """What a lesion model finds in a study.

    Attributes
    ----------
    mask : bool array (slices, rows, columns)
        Lesions inside the lungs, on the volume's grid.
    covid19_probability : float or None
        Probability that the study shows COVID-19, 0 to 1; None where the model does not tell or
        there is no lung to look at.
    """

    mask: BoolMask
    covid19_probability: float | None = None


class LesionModel(Protocol):
    """One way to find lesions; each kind of bundle has a class of its own."""

    @property
    def identity(self) -> ModelIdentity:
        """Name, version and weight hash."""

    @property
    def threshold(self) -> float | None:
        """Probability from which a voxel counts as lesion; None where another rule decides."""

    def find(self, volume: Volume, lungs: BoolMask) -> Lesions:
        """Find the lesions inside the lungs, both on the volume's grid."""


@dataclass(frozen=True, slots=True)
class SliceLesionModel:
    """A network that looks at one axial slice at a time (``lesion_segmentation_2d``).

    Attributes
    ----------
    network : SliceNetwork
        Image to lesion logits.
    min_lesion_ml : float
        Smaller connected pieces are left out as noise.
    """

    network: SliceNetwork
    min_lesion_ml: float = 0.0
    identifies: ClassVar[bool] = False
    """Whether it gives a probability of COVID-19."""
    sees_body: ClassVar[bool] = True
    """Whether it looks at the whole body in the lungs' slices, as in its training.

    Cut to the lungs' bounding box, it marked 5 % of the lungs of a nearly healthy patient, 1 %
    otherwise.
    """

    @classmethod
    def load(cls, bundle: Path, threshold: float | None, min_lesion_ml: float) -> Self:
        """Load a bundle.

        Parameters
        ----------
        bundle : Path
            Its folder.
        threshold : float or None
            Probability from which a voxel counts as lesion; None: the bundle's own.
        min_lesion_ml : float
            See the class.

        Raises
        ------
        ConfigurationError
            If this kind of model has no use for a threshold.
        ModelError
            If the bundle is missing or broken.
        """
        return cls(SliceNetwork.load(bundle).with_threshold(threshold), min_lesion_ml)

    @property
    def identity(self) -> ModelIdentity:
        """Name, version and weight hash."""
        return self.network.identity

    @property
    def threshold(self) -> float | None:
        """Probability from which a voxel counts as lesion."""
        return self.network.threshold

    def find(self, volume: Volume, lungs: BoolMask) -> Lesions:
        """Find the lesions inside the lungs, both on the volume's grid."""
        view = AxialView.of(volume)
        lungs_on_view = view.of_mask(lungs)
        seen = self.look(view, lungs_on_view)
        if seen is None:
            return Lesions(np.zeros_like(lungs))
        probabilities, covid19_probability = seen
        return Lesions(self.mark(probabilities, view, lungs_on_view), covid19_probability)

    def mark(
        self, probabilities: npt.NDArray[np.float16], view: AxialView, lungs_on_view: BoolMask
    ) -> BoolMask:
        """Return the lesions inside the lungs on the volume's grid; see `lesion_mask`."""
        mask = lesion_mask(probabilities, view, self.network, self.min_lesion_ml)
        mask &= lungs_on_view
        return view.on_source_grid(mask)

    def look(
        self, view: AxialView, lungs_on_view: BoolMask
    ) -> tuple[npt.NDArray[np.float16], float | None] | None:
        """Look at what the lungs need, and return what `predict` does; None without lungs."""
        region = lung_region(view, lungs_on_view, self.network)
        if region is None:
            return None
        if self.sees_body and (body := body_region(view, self.network)):
            region = (region[0], *body[1:])
        return self.predict(view, region)

    def predict(
        self, view: AxialView, region: Region
    ) -> tuple[npt.NDArray[np.float16], float | None]:
        """Lesion probabilities on the network's grid, 0 outside the region."""
        return self.network.probabilities(view, region), None


@dataclass(frozen=True, slots=True)
class MultitaskLesionModel(SliceLesionModel):
    """A network that looks at all slices together and also identifies (``multitask_triage``).

    Its TorchScript takes the lungs' bounding box, (slices, channels, rows, columns), and returns
    lesion logits (slices, 1, rows, columns) and one identification logit (sections 2.3 and 2.4 of
    the paper).
    """

    identifies: ClassVar[bool] = True
    sees_body: ClassVar[bool] = False

    @classmethod
    def load(cls, bundle: Path, threshold: float | None, min_lesion_ml: float) -> Self:
        """Load a bundle; see :meth:`SliceLesionModel.load`."""
        # It takes slices of any size.
        network = SliceNetwork.load(bundle, defaults={"divisor": 1})
        return cls(network.with_threshold(threshold), min_lesion_ml)

    @torch.inference_mode()
    def predict(
        self, view: AxialView, region: Region
    ) -> tuple[npt.NDArray[np.float16], float | None]:
        """Lesion probabilities as above, and the probability of COVID-19."""
        batches, images = zip(*self.network.images(view, region), strict=True)
        image = torch.cat(images)
        del images  # They would lie beside it in memory while the network runs.
        outputs = self.network.run(image)
        try:
            logits, identification = outputs
            logit = identification / self.network.temperature
            covid19_probability = float(logit.sigmoid().item())
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ModelError(
                f"{self.identity.name}: does not return lesion logits and one identification"
                " logit; choose a multitask bundle or another lesion model"
            ) from error
        result = np.zeros(self.network.grid_shape(view), dtype=np.float16)
        slices = range(batches[0].start, batches[-1].stop)
        self.network.put_probabilities(result, logits, slices, region)
        self.network.smooth(result, view, region)
        return result, covid19_probability


def lesion_mask(
    probabilities: npt.NDArray[np.float16],
    view: AxialView,
    network: SliceNetwork,
    min_lesion_ml: float,
) -> BoolMask:
    """Return the lesions on a view, without pieces that are too small.

    Parameters
    ----------
    probabilities : float16 array ``network.grid_shape(view)``
        Becomes 0 in those pieces.
    view : AxialView
        The volume.
    network : SliceNetwork
        Has the threshold.
    min_lesion_ml : float
        Smaller connected pieces are left out as noise.
    """
    spacing_mm = view.spacing_of_grid_mm(probabilities.shape)
    min_voxels = min_lesion_ml * 1000.0 / float(spacing_mm.prod())
    probabilities[_small_pieces(probabilities >= network.threshold, min_voxels)] = 0
    return network.mask_on_view(probabilities, view)


def lung_region(view: AxialView, lungs_on_view: BoolMask, network: SliceNetwork) -> Region | None:
    """Bounding box of the lungs, with a margin, on a network's grid; None where there is none."""
    grid = network.grid_shape(view)
    margin = np.ceil(MARGIN_MM / view.spacing_of_grid_mm(grid))
    # The slices outside the lungs hold nothing to see; the margin is for rows and columns.
    margin[0] = 0
    return bounding_region(lungs_on_view, grid, margin)


def _small_pieces(mask: BoolMask, min_voxels: float) -> BoolMask:
    pieces, _ = ndimage.label(mask)
    small = np.bincount(pieces.ravel()) < min_voxels
    small[0] = False
    return small[pieces]
