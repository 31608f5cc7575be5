"""A published collection as a training tree, which every bundle reads as ``dataset_dir``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import nibabel
import numpy as np
from monai.data import ITKReader, NibabelReader, PydicomReader
from monai.transforms import LoadImage

from .base import Case, DatasetError, PublishedSet

EFFUSION = "pleural effusion"


def write_tree(
    collection: PublishedSet, cases: Iterable[Case], folder: Path
) -> Iterator[tuple[Case, str]]:
    """Write NAME_ct.nii.gz, and NAME_lung.nii.gz and NAME_lesion.nii.gz where there are masks.

    CT of compressed NIfTI is linked, any other volume is converted. Masks become 0 and 1: lungs
    are every value of the collection's lung masks, lesions every value but pleural effusion. A
    patient's second case is NAME.1, so that a bundle's ``held_out`` with NAME keeps out both.

    Parameters
    ----------
    collection
        What the cases are of.
    cases
        What its reader yielded.
    folder
        Where the files go; made where it does not exist.

    Yields
    ------
    tuple
        Each case, after it was written, and its NAME.

    Raises
    ------
    DatasetError
        On a case that is no volume, or a mask that does not have its CT's shape.
    """
    cases = list(cases)
    if any(isinstance(case.image, tuple) or "slice" in case.extra for case in cases):
        raise DatasetError(
            f"{collection.name} holds slices, not volumes, and the bundles train on volumes in "
            "HU; use its datalist (--output)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "lung": set(collection.lung_values),
        "lesion": {v for v, name in collection.lesion_values.items() if name != EFFUSION},
    }
    seen: Counter[str] = Counter()
    for case in cases:
        patient = re.sub(r"[^A-Za-z0-9-]+", "-", f"{collection.name}-{case.patient}")
        number = seen[patient]
        seen[patient] += 1
        name = f"{patient}.{number}" if number else patient
        ct = folder / f"{name}_ct.nii.gz"
        assert isinstance(case.image, Path)
        shape = _write_ct(case.image, ct)
        for key in ("lung", "lesion"):
            mask = getattr(case, key)
            if mask is not None:
                _write_mask(mask, values[key], shape, folder / f"{name}_{key}.nii.gz")
        yield case, name


def _write_ct(image: Path, file: Path) -> tuple[int, ...]:
    """Link or convert a volume; return its shape."""
    file.unlink(missing_ok=True)
    if image.name.endswith(".nii.gz"):
        file.symlink_to(image.resolve())
        return nibabel.Nifti1Image.from_filename(file).shape
    volume, affine = _read(image)
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.int16), affine), file)
    return volume.shape


def _write_mask(mask: Path, values: Collection[int], shape: tuple[int, ...], file: Path) -> None:
    labels, affine = _read(mask)
    if labels.shape != shape:
        raise DatasetError(f"{mask} has the shape {labels.shape}, its CT {shape}")
    nibabel.save(nibabel.Nifti1Image(np.isin(labels, list(values)).astype(np.uint8), affine), file)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a volume in its own axis order, and its affine to RAS+ millimetres."""
    kind = PydicomReader if path.is_dir() else ITKReader if path.suffix == ".mhd" else NibabelReader
    try:
        volume = LoadImage(reader=kind())(path)
    except (OSError, RuntimeError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        raise DatasetError(f"{path} cannot be read as a volume") from error
    return volume.numpy(), volume.affine.numpy()
