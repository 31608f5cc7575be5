"""Find the lung mask that goes with a CT."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

NIFTI, CT, LUNG = ".nii.gz", "_ct", "_lung.nii.gz"


class FindLungMaskd(MapTransform):
    """Add the path of the lung mask of a CT as ``lung``.

    The mask lies beside the CT or in `lung_dir`, as ``NAME_lung.nii.gz`` for ``NAME_ct.nii.gz``,
    ``NAME.nii.gz`` or the DICOM folder ``NAME``; ``NAME_ct_lung.nii.gz``, as the bundle
    lung_segmentation names it, is found too.

    Parameters
    ----------
    keys : KeysCollection
        The one key of the CT's path.
    lung_dir : str, optional
        Folder of the masks; None looks beside the CT.
    """

    def __init__(self, keys: KeysCollection, lung_dir: str | None = None) -> None:
        super().__init__(keys)
        self.lung_dir = lung_dir

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the path.

        Raises
        ------
        SystemExit
            If there is no mask; a line that names the CT, for the one who gave the command.
        """
        return {**data, "lung": str(self._mask(Path(data[self.keys[0]])))}

    def _mask(self, image: Path) -> Path:
        folder = Path(self.lung_dir) if self.lung_dir else image.parent
        stem = image.name.removesuffix(NIFTI)
        for name in (stem.removesuffix(CT), stem):
            if (folder / (name + LUNG)).is_file():
                return folder / (name + LUNG)
        raise SystemExit(
            f"error: no lung mask {stem.removesuffix(CT)}{LUNG} for {image} in {folder}: make it "
            "with the bundle lung_segmentation and give its output folder as --lung_dir"
        )
