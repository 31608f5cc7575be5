"""``python -m tools.bench.studies FOLDER MATRIX COUNT...``: phantom studies in JPEG Lossless.

All are of one patient over the same 310 mm: more slices are thinner ones. The phantom is computed
once and its slices are interpolated, which costs little and changes nothing that is timed.
"""

import dataclasses
import sys
from pathlib import Path

import gdcm
import numpy as np

from tools.phantom import Grid, build_phantom, write_dicom_series

LENGTH_MM, WIDTH_MM = 310.0, 400.0
COMPUTED_SLICES = 120


def main(folder: Path, matrix: int, counts: list[int]) -> None:
    """Write one study for each number of slices, named by it."""
    phantom = build_phantom(_grid(min(COMPUTED_SLICES, max(counts)), matrix), "covid19", seed=7)
    for count in counts:
        places = np.linspace(0, len(phantom.hu) - 1, count)
        lower = np.floor(places).astype(int)
        upper = np.minimum(lower + 1, len(phantom.hu) - 1)
        hu = np.empty((count, matrix, matrix), np.int16)
        for index, share in enumerate(places - lower):
            hu[index] = np.rint(
                (1 - share) * phantom.hu[lower[index]] + share * phantom.hu[upper[index]]
            )
        study = dataclasses.replace(phantom, grid=_grid(count, matrix), hu=hu)
        for file in write_dicom_series(study, folder / str(count)):
            _compress(file)


def _grid(count: int, matrix: int) -> Grid:
    return Grid.axial((count, matrix, matrix), (LENGTH_MM / count, *(WIDTH_MM / matrix,) * 2))


def _compress(file: Path) -> None:
    reader, change = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(file))
    syntax = gdcm.TransferSyntax.JPEGLosslessProcess14_1
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    if not reader.Read():
        raise OSError(f"{file}: cannot be read back")
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise OSError(f"{file}: cannot be compressed")
    # Naming the file empties it.
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        raise OSError(f"{file}: cannot be written")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [int(count) for count in sys.argv[3:]])
