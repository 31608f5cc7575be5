"""Slice networks: TorchScript files of MONAI bundles, run on the axial slices of a volume.

A bundle's ``models/model.ts`` carries its own ``inference.json`` and ``metadata.json``. The
application reads from there how the network wants its input, so it knows no model by name.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel.orientations as orientations
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d

from ct_triage.errors import ModelError
from ct_triage.provenance import ModelIdentity
from ct_triage.volume import Volume, spacing_mm

# Columns to the patient's left, rows to the back, slices to the head: the radiological picture.
CANONICAL = np.array([[2, 1], [1, 1], [0, 1]])
REQUIRED_KEYS = ("spacing_mm", "hu_window", "threshold", "divisor")
# More at a time need larger arrays, and with them pages that the system has to clear first.
BATCH_SLICES = 4
# Slices closer than this share of the network's pixel are taken together: the networks were made
# for pixels and slices of 2 mm and more, and thinner slices are noisier.
THIN_SLICE_SHARE = 0.75
MAX_WINDOW_HU = 32768
MAX_DIVISOR = 1024
MIN_TEMPERATURE = 0.01
MIN_LENGTH_MM, MAX_LENGTH_MM = 0.1, 50.0
# Slices, rows and columns of a network's grid.
Region = tuple[slice, slice, slice]
CPU = torch.device("cpu")


def device_of_run() -> torch.device:
    """Where networks run: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, slots=True)
class AxialView:
    """A volume turned, by flips and axis swaps only, into canonical axial slices.

    Attributes
    ----------
    voxels : int16 array (slices, rows, columns)
        A view of the source: slices to the head, rows to the back, columns to the left.
    affine : float64 array (4, 4)
        Maps a (slice, row, column) index of the view to LPS mm.
    """

    voxels: npt.NDArray[np.int16]
    affine: npt.NDArray[np.float64]
    _from_source: npt.NDArray[np.float64]
    _to_source: npt.NDArray[np.float64]

    @classmethod
    def of(cls, volume: Volume) -> "AxialView":
        """Turn a volume of any axis-aligned or oblique orientation."""
        source = orientations.io_orientation(volume.affine)
        to_view = orientations.ornt_transform(source, CANONICAL)
        affine = volume.affine @ orientations.inv_ornt_aff(to_view, volume.voxels.shape)
        return cls(
            orientations.apply_orientation(volume.voxels, to_view),
            affine,
            to_view,
            orientations.ornt_transform(CANONICAL, source),
        )

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along the view's (slices, rows, columns) in mm."""
        return spacing_mm(self.affine)

    def spacing_of_grid_mm(self, grid: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Do the same for a grid of that shape over the same field of view."""
        return np.array(self.spacing_mm) * self.voxels.shape / grid

    def of_mask(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Turn a mask on the source grid to this view."""
        return orientations.apply_orientation(mask, self._from_source)

    def on_source_grid(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Turn a mask on this view back to the source's order of axes."""
        return np.ascontiguousarray(orientations.apply_orientation(mask, self._to_source))


@dataclass(frozen=True, slots=True)
class SliceNetwork:
    """A two-dimensional segmentation network with what it needs to know of its input.

    Attributes
    ----------
    identity : ModelIdentity
        Name, version and weight hash, for the report.
    module : torch.jit.ScriptModule
        (n, channels, height, width) float32 in [0, 1] to (n, 1, height, width) logits.
    spacing_mm : tuple of 2 floats
        Pixel spacing (rows, columns) the network was trained at.
    hu_window : tuple of 2 floats
        Hounsfield units that become 0 and 1.
    threshold : float
        Probability from which a voxel is positive.
    divisor : int
        Height and width must be multiples of it.
    temperature : float
        What an identification logit is divided by, so that its sigmoid is a probability (Guo et
        al. 2017, "On Calibration of Modern Neural Networks").
    context_mm : float or None
        About how far below and above a slice the two further slices lie that it sees beside it, as
        channels in that order; None where it sees each slice alone.
    smooth_slices_mm : float
        Deviation of the Gaussian that smooths what is told of slices along them; 0 for none.
    device : torch.device
        Where the module is.
    config : mapping
        The whole ``inference.json``, for what only some kinds of model need to know.
    """

    identity: ModelIdentity
    module: torch.jit.ScriptModule
    spacing_mm: tuple[float, float]
    hu_window: tuple[float, float]
    threshold: float
    divisor: int
    config: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    context_mm: float | None = None
    smooth_slices_mm: float = 0.0
    device: torch.device = CPU

    @classmethod
    def load(
        cls,
        bundle: Path,
        name: str = "model.ts",
        defaults: Mapping[str, Any] | None = None,
    ) -> "SliceNetwork":
        """Load a file of a bundle's ``models`` onto the GPU, or the CPU, after checking its hash.

        Parameters
        ----------
        bundle : Path
            The bundle's folder.
        name : str
            The file.
        defaults : mapping, optional
            What the configuration of such a bundle may leave out.

        Raises
        ------
        ModelError
            If the file is missing, differs from ``models/SHA256SUMS``, or does not say how to
            prepare its input.
        """
        file = bundle / "models" / name
        content, sha256 = _checked_content(file)
        extra: dict[str, Any] = {"inference.json": "", "metadata.json": ""}
        device = device_of_run()
        try:
            # From the bytes that were hashed: the file could be another one by now.
            module = torch.jit.load(io.BytesIO(content), map_location=device, _extra_files=extra)
            config, metadata = (json.loads(text) for text in extra.values())
        except (RuntimeError, ValueError, RecursionError) as error:
            raise ModelError(f"{file}: not a TorchScript bundle; export it again") from error
        try:
            config = {**(defaults or {}), **config}
            return cls(
                ModelIdentity(str(metadata["name"]), str(metadata["version"]), sha256),
                # Weights may be stored in half precision.
                _ready_to_run(module.eval().float()),
                *_specification(config),
                config=config,
                temperature=_temperature(config),
                context_mm=_length_mm(config, "context_mm"),
                smooth_slices_mm=_length_mm(config, "smooth_slices_mm", shortest=0.0) or 0.0,
                device=device,
            )
        except KeyError as error:
            raise ModelError(f"{file}: its inference.json lacks {error.args[0]}") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise ModelError(
                f"{file}: its inference.json does not say how to prepare the input; export it again"
            ) from error

    def with_threshold(self, threshold: float | None) -> "SliceNetwork":
        """Return the same network with another threshold; None keeps its own."""
        return self if threshold is None else replace(self, threshold=threshold)

    def grid_shape(self, view: AxialView) -> tuple[int, int, int]:
        """Shape (slices, rows, columns) of a view at the network's spacing.

        The slices are the view's own, unless they are thin: then they are sampled like the pixels.
        """
        n_slices, rows, columns = view.voxels.shape
        if view.spacing_mm[0] < THIN_SLICE_SHARE * self.spacing_mm[0]:
            n_slices = max(1, round(n_slices * view.spacing_mm[0] / self.spacing_mm[0]))
        return (
            n_slices,
            max(1, round(rows * view.spacing_mm[1] / self.spacing_mm[0])),
            max(1, round(columns * view.spacing_mm[2] / self.spacing_mm[1])),
        )

    @torch.inference_mode()
    def probabilities(
        self, view: AxialView, region: Region | None = None
    ) -> npt.NDArray[np.float16]:
        """Run the network on every slice, or on a region of them.

        Parameters
        ----------
        view : AxialView
            The volume.
        region : tuple of 3 slices, optional
            Slices, rows and columns of the network's grid to look at; elsewhere the result is 0.

        Returns
        -------
        float16 array ``grid_shape(view)``
            Probabilities at the network's spacing. Half precision keeps a study of 1000 slices
            within 100 MB.
        """
        result = np.zeros(self.grid_shape(view), dtype=np.float16)
        for batch, image in self.images(view, region):
            self.put_probabilities(result, self.run(image), batch, region)
        self.smooth(result, view, region)
        return result

    def smooth(
        self, probabilities: npt.NDArray[np.float16], view: AxialView, region: Region | None
    ) -> None:
        """Smooth probabilities ``grid_shape(view)`` along the slices of a region, in place."""
        if self.smooth_slices_mm:
            seen = probabilities[region or ...]
            seen[:] = self.smoothed(seen.astype(np.float32), view)

    def smoothed(self, values: npt.NDArray[np.float32], view: AxialView) -> npt.NDArray[np.float32]:
        """Smooth values (slices, ...) of successive slices of the network's grid along them."""
        if not self.smooth_slices_mm:
            return values
        sigma = self.smooth_slices_mm / view.spacing_of_grid_mm(self.grid_shape(view))[0]
        result: npt.NDArray[np.float32] = gaussian_filter1d(values, sigma, axis=0, mode="nearest")
        return result

    def run(self, image: torch.Tensor) -> Any:
        """Return what the module makes of images (slices, channels, rows, columns)."""
        return self.module(image.to(memory_format=torch.channels_last))

    def images(
        self, view: AxialView, region: Region | None = None
    ) -> Iterator[tuple[range, torch.Tensor]]:
        """Prepare a view, or a region of it, for the network, a few slices at a time.

        Yields
        ------
        slices : range
            Which slices of the network's grid.
        image : float32 tensor (slices, channels, rows, columns)
            In [0, 1] at the network's spacing, padded to its divisor at the bottom and right.
        """
        n_slices = self.grid_shape(view)[0]
        indices = range(n_slices)[region[0] if region else slice(None)]
        offsets = self._context(view)
        prepared: dict[int, torch.Tensor] = {}
        for start in range(0, len(indices), BATCH_SLICES):
            batch = indices[start : start + BATCH_SLICES]
            context = [[min(max(i + offset, 0), n_slices - 1) for offset in offsets] for i in batch]
            # Each slice is prepared once and kept as long as later ones look at it.
            needed = range(context[0][0], context[-1][-1] + 1)
            if new := range(max([needed.start - 1, *prepared]) + 1, needed.stop):
                prepared |= zip(new, self._prepared(view, new, region), strict=True)
            prepared = {index: prepared[index] for index in needed}
            yield batch, torch.stack([torch.cat([prepared[i] for i in seen]) for seen in context])

    def _context(self, view: AxialView) -> tuple[int, ...]:
        """Distances from a slice to those that the network sees with it, in slices of its grid."""
        if self.context_mm is None:
            return (0,)
        slice_mm = view.spacing_of_grid_mm(self.grid_shape(view))[0]
        step = max(1, round(self.context_mm / slice_mm))
        return (-step, 0, step)

    def _prepared(self, view: AxialView, slices: range, region: Region | None) -> torch.Tensor:
        """Return slices of the network's grid as (slices, 1, rows, columns), see `images`."""
        shape = self.grid_shape(view)
        _, rows, columns = region or (slice(None), slice(None), slice(None))
        low, high = self.hu_window
        hu = _sampled_slices(view, slices, shape[0]).to(self.device)
        image = F.interpolate(hu[:, None], shape[1:], mode="bilinear", antialias=True)
        image = ((image[..., rows, columns] - low) / (high - low)).clamp(0, 1)
        bottom, right = (-size % self.divisor for size in image.shape[-2:])
        return F.pad(image, (0, right, 0, bottom))

    @staticmethod
    def put_probabilities(
        result: npt.NDArray[np.float16],
        logits: torch.Tensor,
        slices: range,
        region: Region | None,
    ) -> None:
        """Write the probabilities of logits (slices, 1, rows, columns), without their padding.

        ``result`` has the shape of the network's grid.
        """
        _, rows, columns = region or (slice(None), slice(None), slice(None))
        target = result[slices.start : slices.stop, rows, columns]
        _, n_rows, n_columns = target.shape
        probabilities = logits[:, 0, :n_rows, :n_columns].sigmoid()
        target[:] = probabilities.to(torch.float16).cpu().numpy()

    def mask_on_view(
        self, probabilities: npt.NDArray[np.float16], view: AxialView
    ) -> npt.NDArray[np.bool_]:
        """Threshold probabilities at a view's full resolution, a few slices at a time.

        Interpolating before the threshold keeps contours smooth; only a batch of slices is ever
        held at full resolution.
        """
        mask = np.zeros(view.voxels.shape, dtype=np.bool_)
        lower, upper, weight = _neighbours(len(mask), len(probabilities))
        for start in range(0, len(mask), BATCH_SLICES):
            batch = slice(start, start + BATCH_SLICES)
            known = slice(lower[batch][0], upper[batch][-1] + 1)
            if not (probabilities[known] >= self.threshold).any():
                continue
            coarse = torch.from_numpy(probabilities[known]).to(self.device, torch.float32)
            between = torch.from_numpy(weight[batch]).to(coarse)[:, None, None]
            sampled = torch.lerp(
                coarse[lower[batch] - known.start], coarse[upper[batch] - known.start], between
            )
            full = F.interpolate(sampled[:, None], mask.shape[1:], mode="bilinear")
            mask[batch] = (full[:, 0] >= self.threshold).cpu().numpy()
        return mask


def bounding_region(
    mask: npt.NDArray[np.bool_],
    grid: tuple[int, int, int],
    margin: npt.NDArray[np.float64],
) -> Region | None:
    """Box of a mask with a margin on another grid over the same field of view; None if empty.

    Parameters
    ----------
    mask : bool array (slices, rows, columns)
        On a grid of its own.
    grid : tuple of 3 ints
        Shape of the grid that the box is on.
    margin : array (3,)
        What is added on each side along each axis, in voxels of that grid.
    """
    box = box_of(mask)
    if box is None:
        return None
    first, second, third = (
        slice(
            max(0, int(np.floor(side.start * n / m - extra))),
            min(n, int(np.ceil(side.stop * n / m + extra))),
        )
        for side, n, m, extra in zip(box, grid, mask.shape, margin, strict=True)
    )
    return first, second, third


def box_of(mask: npt.NDArray[np.bool_]) -> Region | None:
    """Bounding box of a mask (slices, rows, columns), None if it is empty.

    ``ndimage.find_objects`` takes seven times as long, which is a lot at full resolution.
    """
    in_plane = np.logical_or.reduce(mask, axis=0)
    sides = [
        np.flatnonzero(line)
        for line in (mask.any(axis=(1, 2)), in_plane.any(axis=1), in_plane.any(axis=0))
    ]
    if not len(sides[0]):
        return None
    first, second, third = (slice(int(side[0]), int(side[-1]) + 1) for side in sides)
    return first, second, third


def _sampled_slices(view: AxialView, wanted: range, n_sampled: int) -> torch.Tensor:
    """Slices of a view as float32 (slices, rows, columns), sampled along their axis.

    With ``n_sampled`` slices over the length of the view, each is the mean of those around it with
    weights that fall off linearly, as in-plane; with as many as the view has, they are its own.
    """
    n_slices = len(view.voxels)
    if n_sampled == n_slices:
        return torch.from_numpy(view.voxels[wanted.start : wanted.stop].astype(np.float32))
    ratio = n_slices / n_sampled
    centres = (np.asarray(wanted) + 0.5) * ratio - 0.5
    first = max(0, int(np.ceil(centres[0] - ratio)))
    last = min(n_slices - 1, int(np.floor(centres[-1] + ratio)))
    distances = np.abs(np.arange(first, last + 1) - centres[:, None]) / ratio
    weights = np.maximum(0, 1 - distances)
    weights /= weights.sum(axis=1, keepdims=True)
    thin = torch.from_numpy(view.voxels[first : last + 1].astype(np.float32))
    return torch.tensordot(torch.from_numpy(weights.astype(np.float32)), thin, dims=1)


def _neighbours(
    n_slices: int, n_sampled: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """For each slice, the sampled ones below and above it, and how far it is to the upper one."""
    place = ((np.arange(n_slices) + 0.5) * n_sampled / n_slices - 0.5).clip(0, n_sampled - 1)
    lower = np.floor(place).astype(np.intp)
    return lower, np.minimum(lower + 1, n_sampled - 1), (place - lower).astype(np.float32)


def _ready_to_run(module: Any) -> Any:
    """Prepare a module so that its first batches cost what the later ones do.

    Weights are brought into the order that convolutions want, others are reordered at each use.
    Freezing folds batch normalisation into the convolutions; the interpreter would otherwise spend
    half a second on its own optimisation while the first two batches run.
    """
    volumes = any(weight.ndim == 5 for weight in module.parameters())
    ordered = torch.channels_last_3d if volumes else torch.channels_last
    return torch.jit.freeze(module.to(memory_format=ordered))


def _specification(
    config: dict[str, Any],
) -> tuple[tuple[float, float], tuple[float, float], float, int]:
    """Spacing, window, threshold and divisor of an ``inference.json``.

    Raises
    ------
    KeyError, TypeError, ValueError, OverflowError
        If one is missing or makes no sense.
    """
    missing = [key for key in REQUIRED_KEYS if key not in config]
    if missing:
        raise KeyError(", ".join(missing))
    # Networks that look at volumes name the distance of their slices too.
    row_mm, column_mm, *_ = (float(value) for value in config["spacing_mm"])
    low, high = (float(value) for value in config["hu_window"])
    threshold, divisor = float(config["threshold"]), int(config["divisor"])
    # Written so that what is not a number is refused too.
    if not (0.1 <= row_mm <= 10 and 0.1 <= column_mm <= 10):
        raise ValueError("spacing")
    if not (-MAX_WINDOW_HU <= low < high <= MAX_WINDOW_HU):
        raise ValueError("window")
    if not (0 <= threshold <= 1 and 1 <= divisor <= MAX_DIVISOR):
        raise ValueError("threshold or divisor")
    return (row_mm, column_mm), (low, high), threshold, divisor


def _temperature(config: dict[str, Any]) -> float:
    """Temperature of an ``inference.json``, 1 where it has none.

    Raises
    ------
    TypeError, ValueError
        If it makes no sense.
    """
    temperature = float(config.get("temperature", 1.0))
    if not MIN_TEMPERATURE <= temperature <= 1 / MIN_TEMPERATURE:
        raise ValueError("temperature")
    return temperature


def _length_mm(config: dict[str, Any], key: str, shortest: float = MIN_LENGTH_MM) -> float | None:
    """Return a length of an ``inference.json``, None where it has none.

    Raises
    ------
    TypeError, ValueError
        If it makes no sense.
    """
    if config.get(key) is None:
        return None
    length_mm = float(config[key])
    if not shortest <= length_mm <= MAX_LENGTH_MM:
        raise ValueError(key)
    return length_mm


def _checked_content(file: Path) -> tuple[bytes, str]:
    """Read a weight file, hash it, and compare the hash with the SHA256SUMS beside it."""
    sums = file.parent / "SHA256SUMS"
    for needed in (file, sums):
        if not needed.is_file():
            raise ModelError(f"{needed}: not found; give the folder that holds the bundles with -m")
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    # sha256sum's own format: the hash, two blanks, the name.
    if f"{sha256}  {file.name}" not in sums.read_text().splitlines():
        raise ModelError(f"{file}: does not match SHA256SUMS; restore the released file")
    return content, sha256
