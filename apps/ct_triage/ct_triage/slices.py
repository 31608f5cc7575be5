"""Slices through the lungs: COVID-19, common pneumonia or neither, and what that says of a study.

COVID-CT-Mask-Net (Ter-Sarkisov 2022), as the bundle ``mask_rcnn_classifier`` has it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.special import expit

from ct_triage.errors import ModelError
from ct_triage.network import AxialView, SliceNetwork, bounding_region
from ct_triage.provenance import ModelIdentity
from ct_triage.severity import BoolMask, SliceClasses
from ct_triage.volume import Volume

# In the order of the network's outputs.
CLASSES = ("COVID-19", "common pneumonia", "control")
CONTROL = CLASSES.index("control")
# Disease shows in some slices only: this share of them, those least like a control, speaks for
# the study.
SPEAKING_SHARE = 0.5
MAX_SLICE_SIZE = 1024


@dataclass(frozen=True, slots=True)
class SliceClassifier:
    """A network that tells the class of axial slices, each seen with its neighbours.

    Attributes
    ----------
    network : SliceNetwork
        (slices, channels, rows, columns) float32 in [0, 1] to logits (slices, 3).
    slice_size : tuple of 2 ints
        Rows and columns that it takes.
    """

    network: SliceNetwork
    slice_size: tuple[int, int]

    @classmethod
    def load(cls, bundle: Path) -> "SliceClassifier":
        """Load a bundle.

        Raises
        ------
        ModelError
            If it is missing or broken, or cannot be run here.
        """
        try:
            # Knows the operators that the TorchScript of a detector calls.
            import torchvision  # noqa: F401
        except ImportError as error:
            raise ModelError(
                f"{bundle}: needs torchvision, which is not installed here; set"
                " slice_classification to false"
            ) from error
        # It takes slices of one size and decides by the highest of its outputs.
        network = SliceNetwork.load(bundle, defaults={"divisor": 1, "threshold": 0.5})
        try:
            rows, columns = (int(size) for size in network.config["slice_size"])
            if not (1 <= rows <= MAX_SLICE_SIZE and 1 <= columns <= MAX_SLICE_SIZE):
                raise ValueError("slice_size")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelError(
                f"{bundle}: slice_size of its inference.json is missing or makes no sense; export"
                " it again"
            ) from error
        return cls(network, (rows, columns))

    @property
    def identity(self) -> ModelIdentity:
        """Name, version and weight hash."""
        return self.network.identity

    def classify(self, volume: Volume, lungs: BoolMask) -> SliceClasses:
        """Classify the slices through the lungs, which must not be empty, and the study by them."""
        probabilities = self.probabilities(volume, lungs)
        of_study = study_probabilities(probabilities)
        counts = np.bincount(probabilities.argmax(axis=1), minlength=len(CLASSES))
        return SliceClasses(
            CLASSES[int(of_study.argmax())],
            dict(zip(CLASSES, of_study.tolist(), strict=True)),
            dict(zip(CLASSES, counts.tolist(), strict=True)),
        )

    @torch.inference_mode()
    def probabilities(self, volume: Volume, lungs: BoolMask) -> npt.NDArray[np.float32]:
        """Return the probability of each class (slices, 3) of the slices through the lungs."""
        view = AxialView.of(volume)
        box = bounding_region(view.of_mask(lungs), self.network.grid_shape(view), np.zeros(3))
        if box is None:
            raise ValueError("there are no lungs to classify slices of")
        region = (box[0], slice(None), slice(None))
        logits = []
        for batch, image in self.network.images(view, region):
            output = self.network.run(_cut_or_padded(image, self.slice_size))
            if output.shape != (len(batch), len(CLASSES)):
                raise ModelError(
                    f"{self.identity.name}: does not return {len(CLASSES)} logits a slice; choose"
                    " another bundle for models.slices"
                )
            logits.append(output)
        smooth = self.network.smoothed(torch.cat(logits).cpu().numpy(), view)
        result: npt.NDArray[np.float32] = expit(smooth)
        return result


def study_probabilities(slices: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Probabilities of a study's classes (3,) from those of its slices (slices, 3).

    The mean over the ``SPEAKING_SHARE`` of slices, at least one, that look least like a control.
    """
    values = slices.astype(np.float64)
    count = max(1, round(SPEAKING_SHARE * len(values)))
    speaking = np.argsort(values[:, CONTROL], kind="stable")[:count]
    mean: npt.NDArray[np.float64] = values[speaking].mean(axis=0)
    return mean


def _cut_or_padded(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Cut or pad slices around their middle; what is added is 0."""
    top, bottom = _margins(image.shape[-2], size[0])
    left, right = _margins(image.shape[-1], size[1])
    # A negative margin is cut off.
    return F.pad(image, (left, right, top, bottom))


def _margins(size: int, wanted: int) -> tuple[int, int]:
    missing = wanted - size
    before = missing // 2 if missing > 0 else -(-missing // 2)
    return before, missing - before
