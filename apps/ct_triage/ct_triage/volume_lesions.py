"""Lesion models that look at the lungs as a volume of cubic voxels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from ct_triage.errors import ConfigurationError, ModelError
from ct_triage.lesions import SliceLesionModel
from ct_triage.network import BATCH_SLICES, AxialView, Region, SliceNetwork
from ct_triage.provenance import hash_of_hashes

# As the bundles' own inference has it.
WINDOW_OVERLAP = 0.25
# The bundle's network, of 16 channels, takes 1.0 GB for one window.
MAX_WINDOW_VOXELS = 160**3


@dataclass(frozen=True, slots=True)
class VolumeLesionModel(SliceLesionModel):
    """A network that looks at patches in three dimensions (``lesion_segmentation_3d``).

    Its TorchScript takes (patches, 1, rows, columns, slices) and returns lesion logits of that
    shape. It sees the body through a sliding window, so that the memory it takes does not grow
    with the study (sections 2.2 and 4.3 of the paper).
    """

    @classmethod
    def load(cls, bundle: Path, threshold: float | None, min_lesion_ml: float) -> Self:
        """Load a bundle; see :meth:`SliceLesionModel.load`."""
        network = SliceNetwork.load(bundle).with_threshold(threshold)
        _require(network, "spacing_mm", _slice_mm)
        _require(network, "window_size", _window)
        return cls(network, min_lesion_ml)

    @torch.inference_mode()
    def predict(
        self, view: AxialView, region: Region
    ) -> tuple[npt.NDArray[np.float16], float | None]:
        """Lesion probabilities on the network's grid, 0 outside the region."""
        image = _cubic_image(self.network, view, region)
        return _on_slices(self.network, view, region, self.probabilities(image)), None

    def probabilities(self, image: torch.Tensor) -> torch.Tensor:
        """Lesion probabilities of cubic voxels, both (slices, rows, columns)."""
        # Takes a second to import, and no other model needs it.
        from monai.inferers import sliding_window_inference

        volume = image.permute(1, 2, 0)
        divisor = self.network.divisor
        # No larger than the body, of a size that the network takes.
        window = [
            min(size, n + -n % divisor)
            for size, n in zip(_window(self.network.config), volume.shape, strict=True)
        ]
        logits = sliding_window_inference(
            volume[None, None], window, 1, self.network.module, WINDOW_OVERLAP, mode="gaussian"
        )
        assert isinstance(logits, torch.Tensor)
        return logits[0, 0].sigmoid().permute(2, 0, 1)


@dataclass(frozen=True, slots=True)
class Member:
    """A slice network of an ensemble and the plane that it looks at: a key of ``PLANES``."""

    network: SliceNetwork
    plane: str


@dataclass(frozen=True, slots=True)
class EnsembleLesionModel(SliceLesionModel):
    """Several slice networks, each in its plane, merged by their bundle's rule.

    ``lesion_ensemble``; section 4.1 of CoRSAI. The bundle's ``model.ts`` is the rule: it takes
    probabilities (members, slices, rows, columns) and returns (2, slices, rows, columns), of
    which the first is 1 in lesions. Its ``inference.json`` lists the members with the file and the
    plane of each.
    """

    members: tuple[Member, ...] = ()
    sees_body: ClassVar[bool] = False

    @classmethod
    def load(cls, bundle: Path, threshold: float | None, min_lesion_ml: float) -> Self:
        """Load a bundle; see :meth:`SliceLesionModel.load`."""
        if threshold is not None:
            raise ConfigurationError(
                f"thresholds.lesion: {bundle.name} decides by vote and has no threshold; leave it"
                " out, also of the site file, or choose another lesion model"
            )
        rule = SliceNetwork.load(bundle)
        _require(rule, "spacing_mm", _slice_mm)
        files = _require(rule, "members", _member_planes)
        members = tuple(
            Member(SliceNetwork.load(bundle, name), plane) for name, plane in files.items()
        )
        hashes = [rule.identity.sha256, *(member.network.identity.sha256 for member in members)]
        identity = replace(rule.identity, sha256=hash_of_hashes(hashes))
        return cls(replace(rule, identity=identity), min_lesion_ml, members)

    @property
    def threshold(self) -> float | None:
        """None: the members vote."""
        return None

    @torch.inference_mode()
    def predict(
        self, view: AxialView, region: Region
    ) -> tuple[npt.NDArray[np.float16], float | None]:
        """1 in lesions and 0 elsewhere, on the network's grid."""
        image = _cubic_image(self.network, view, region)
        return _on_slices(self.network, view, region, self.lesions(image)), None

    def lesions(self, image: torch.Tensor) -> torch.Tensor:
        """1 in lesions, of cubic voxels, both (slices, rows, columns)."""
        probabilities = torch.stack([_member_probabilities(one, image) for one in self.members])
        merged: torch.Tensor = self.network.module(probabilities)
        return merged[0]


def _member_probabilities(member: Member, image: torch.Tensor) -> torch.Tensor:
    to_plane, from_plane = PLANES[member.plane]
    slices = to_plane(image)[:, None]
    rows, columns = slices.shape[-2:]
    padding = (0, -columns % member.network.divisor, 0, -rows % member.network.divisor)
    probabilities = [
        member.network.run(F.pad(batch, padding))[:, 0, :rows, :columns].sigmoid()
        for batch in slices.split(BATCH_SLICES)
    ]
    return from_plane(torch.cat(probabilities))


def _axial(volume: torch.Tensor) -> torch.Tensor:
    return volume


def _sagittal(volume: torch.Tensor) -> torch.Tensor:
    return volume.flip(0).permute(2, 0, 1)


def _from_sagittal(slices: torch.Tensor) -> torch.Tensor:
    return slices.permute(1, 2, 0).flip(0)


def _coronal(volume: torch.Tensor) -> torch.Tensor:
    return volume.flip(0).permute(1, 0, 2)


def _from_coronal(slices: torch.Tensor) -> torch.Tensor:
    return slices.permute(1, 0, 2).flip(0)


# From (slices, rows, columns) to upright slices of a plane, the head at the top, and back.
PLANES = {
    "axial": (_axial, _axial),
    "sagittal": (_sagittal, _from_sagittal),
    "coronal": (_coronal, _from_coronal),
}


def _member_planes(config: Mapping[str, Any]) -> dict[str, str]:
    """Plane of each member by its file."""
    planes = {}
    for member in config["members"]:
        file, plane = member["weights"], member["plane"]
        if plane not in PLANES or file in planes or Path(file).name != file:
            raise ValueError(file)
        planes[file] = plane
    if not planes:
        raise ValueError("no members")
    return planes


def _window(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Rows, columns and slices of the sliding window."""
    rows, columns, slices = (int(size) for size in config["window_size"])
    if min(rows, columns, slices) < 1 or rows * columns * slices > MAX_WINDOW_VOXELS:
        raise ValueError("window_size")
    return rows, columns, slices


def _slice_mm(config: Mapping[str, Any]) -> float:
    """Distance of the slices, which stands after those of rows and columns."""
    slice_mm = float(config["spacing_mm"][2])
    if not 0.1 <= slice_mm <= 10:
        raise ValueError("spacing_mm")
    return slice_mm


def _require(network: SliceNetwork, key: str, read: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Read something of a network's configuration, and name what is wrong with it."""
    try:
        return read(network.config)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(
            f"{network.identity.name}: {key} of its inference.json is missing or makes no sense;"
            " export it again"
        ) from error


def _cubic_image(network: SliceNetwork, view: AxialView, region: Region) -> torch.Tensor:
    """Return a region as (slices, rows, columns) with the network's spacing in all directions.

    Slices that come closer are smoothed as they are brought apart, like pixels.
    """
    _, images = zip(*network.images(view, region), strict=True)
    image = torch.cat(images)[:, 0]
    length_mm = len(image) * view.spacing_of_grid_mm(network.grid_shape(view))[0]
    return _with_slices(image, max(1, round(length_mm / _slice_mm(network.config))))


def _on_slices(
    network: SliceNetwork, view: AxialView, region: Region, probabilities: torch.Tensor
) -> npt.NDArray[np.float16]:
    """Bring probabilities (slices, rows, columns) back to the slices of a view."""
    result = np.zeros(network.grid_shape(view), dtype=np.float16)
    target = result[region]
    n_slices, rows, columns = target.shape
    # Each slice gets what was found at its own place, however thick it is.
    back = _with_slices(probabilities, n_slices, antialias=False)
    target[:] = back[:, :rows, :columns].cpu().numpy()
    return result


def _with_slices(volume: torch.Tensor, number: int, antialias: bool = True) -> torch.Tensor:
    """Resample (slices, rows, columns) to another number of slices over the same length."""
    by_row = volume.permute(1, 0, 2)[None]
    size = (number, by_row.shape[-1])
    resampled = F.interpolate(by_row, size, mode="bilinear", antialias=antialias)
    return resampled[0].permute(1, 0, 2)
