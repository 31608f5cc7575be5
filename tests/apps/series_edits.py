"""Change the files of a phantom's series, and compare what is read with the phantom."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from ct_triage.volume import Volume
from tools.phantom import Phantom


def edit(study: Path, change: Callable[[int, Dataset], None], every: int = 1) -> None:
    """Rewrite each n-th file of a study after a change."""
    for index, file in enumerate(sorted(study.rglob("*.dcm"))):
        if index % every == 0:
            dataset = dcmread(file)
            change(index, dataset)
            dataset.save_as(file)


def close(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look into a folder, as its permissions would for anyone but root."""
    scandir = os.scandir

    def closed_to_all(path: os.PathLike | str) -> object:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed_to_all)


def other_uid(uid: str) -> str:
    """A valid UID that is a function of another."""
    return generate_uid(entropy_srcs=[uid])


def assert_is_phantom(volume: Volume, phantom: Phantom, tolerance_hu: int = 0) -> None:
    """The same HU at the same place in the patient, whichever way the slices are sorted."""
    index = np.linalg.inv(volume.affine) @ phantom.grid.affine
    first, last = (index @ (s, 0, 0, 1) for s in (0, phantom.hu.shape[0] - 1))
    assert np.allclose(sorted([first[0], last[0]]), [0, phantom.hu.shape[0] - 1], atol=1e-3)
    in_order = phantom.hu if first[0] < last[0] else phantom.hu[::-1]
    assert np.abs(volume.voxels.astype(int) - in_order).max() <= tolerance_hu


def with_gdcm(file: Path, syntax: int) -> None:
    """Compress a file by GDCM, which can what pydicom's encoders cannot."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(file))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
