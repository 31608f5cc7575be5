"""Turn a CT series into a volume in Hounsfield units with the right geometry, or refuse."""

from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from ct_triage.errors import BrokenSeriesError
from ct_triage.series import Series
from ct_triage.volume import Volume

AIR_HU = -1024
MAX_HU = 32767
# Positions are written with a few decimals, so neighbours never agree to the last digit.
DUPLICATE_MM = 0.01
# A slice this far from its even place, as a share of the spacing, would shift a mask visibly.
MAX_UNEVENNESS = 0.2
DECODING_THREADS = 2


def read_volume(series: Series) -> Volume:
    """Read the pixels of a series and place them in the patient.

    Slices are ordered by their position along the slice normal, whatever their instance numbers
    and file names; Rescale Slope and Intercept are applied per slice (PS3.3 C.11.1); padding
    becomes air.

    Raises
    ------
    BrokenSeriesError
        If slices are missing, doubled, uneven or of different geometry, a file cannot be decoded,
        or the Hounsfield scale is not given.
    """
    notes = list(series.notes)
    normal = series.slice_normal
    _require_same_geometry(series)
    positions = np.array([h.ImagePositionPatient for h in series.headers], dtype=float)
    order = np.argsort(positions @ normal, kind="stable")
    headers = [series.headers[i] for i in order]
    files = [series.files[i] for i in order]
    affine = _affine(series, headers, positions[order], normal)
    if _is_tilted(affine, normal):
        notes.append("the slices are sheared against their normal (gantry tilt)")

    if "FrameOfReferenceUID" not in headers[0] or not headers[0].FrameOfReferenceUID:
        notes.append("the source has no Frame of Reference UID; one was derived from the series")
        uid = generate_uid(entropy_srcs=[series.uid, "frame of reference"])
        headers = [_with_frame_of_reference(header, uid) for header in headers]

    voxels = np.empty((len(files), headers[0].Rows, headers[0].Columns), dtype=np.int16)

    def decode_into(index: int) -> bool:
        voxels[index], has_rescale = _decode(files[index])
        return has_rescale

    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        has_rescale = list(pool.map(decode_into, range(len(files))))
    if not all(has_rescale):
        if voxels.min() > AIR_HU / 2:
            raise BrokenSeriesError(
                f"{series.label}: Rescale Slope and Intercept are missing and the values are not"
                " Hounsfield units; export the series again with its rescale attributes"
            )
        notes.append("Rescale Slope and Intercept are missing; the values were taken as HU")
    return Volume(voxels, affine, tuple(headers), tuple(notes))


def _require_same_geometry(series: Series) -> None:
    first = series.headers[0]
    for file, header in zip(series.files, series.headers, strict=True):
        same = (
            (header.Rows, header.Columns) == (first.Rows, first.Columns)
            and np.allclose(header.PixelSpacing, first.PixelSpacing, atol=1e-4)
            and np.allclose(
                header.ImageOrientationPatient, first.ImageOrientationPatient, atol=1e-3
            )
        )
        if not same:
            raise BrokenSeriesError(
                f"{series.label}: {file.name} has another matrix, pixel spacing or orientation"
                " than the rest; send one reconstruction per series"
            )


def _affine(
    series: Series,
    headers: list[Dataset],
    positions: npt.NDArray[np.float64],
    normal: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Index (slice, row, column) to LPS mm, from sorted positions; refuse uneven stacks."""
    steps_mm = np.diff(positions @ normal)
    spacing_mm = float(np.median(steps_mm))
    if steps_mm.min() < DUPLICATE_MM:
        raise BrokenSeriesError(
            f"{series.label}: {int((steps_mm < DUPLICATE_MM).sum())} slice positions occur more"
            " than once; send each phase or reconstruction as a series of its own"
        )
    missing = int(np.rint(steps_mm / spacing_mm - 1).clip(min=0).sum())
    if missing:
        at_mm = float((positions @ normal)[int(np.argmax(steps_mm))])
        raise BrokenSeriesError(
            f"{series.label}: {missing} slices are missing, the first gap is after position"
            f" {at_mm:.1f} mm; send the complete series"
        )
    mean_step = (positions[-1] - positions[0]) / (len(positions) - 1)
    even = positions[0] + np.arange(len(positions))[:, None] * mean_step
    if np.linalg.norm(positions - even, axis=1).max() > MAX_UNEVENNESS * spacing_mm:
        raise BrokenSeriesError(
            f"{series.label}: the slice spacing varies between {steps_mm.min():.2f} and"
            f" {steps_mm.max():.2f} mm; send a series with even spacing"
        )
    row_mm, column_mm = (float(value) for value in headers[0].PixelSpacing)
    orientation = np.asarray(headers[0].ImageOrientationPatient, dtype=float)
    affine = np.eye(4)
    affine[:3, 0] = mean_step
    # The first three cosines point along a row, that is, the way the column index grows.
    affine[:3, 1] = orientation[3:] * row_mm
    affine[:3, 2] = orientation[:3] * column_mm
    affine[:3, 3] = positions[0]
    return affine


def _is_tilted(affine: npt.NDArray[np.float64], normal: npt.NDArray[np.float64]) -> bool:
    step = affine[:3, 0]
    return bool(abs(step @ normal) < np.cos(np.deg2rad(0.5)) * np.linalg.norm(step))


def _with_frame_of_reference(header: Dataset, uid: str) -> Dataset:
    header = copy(header)
    header.FrameOfReferenceUID = uid
    return header


def _decode(file: Path) -> tuple[npt.NDArray[np.int16], bool]:
    """Return one slice in HU, padding as air, and whether the file gives the HU scale."""
    try:
        dataset = dcmread(file, force=True)
        stored = dataset.pixel_array
    except Exception as error:  # decoders raise whatever their libraries do
        raise BrokenSeriesError(
            f"{file.name}: the pixels cannot be decoded ({type(error).__name__}); export the file"
            " again"
        ) from error
    if stored.ndim != 2:
        raise BrokenSeriesError(f"{file.name}: expected one grey image, found {stored.shape}")
    has_rescale = "RescaleSlope" in dataset and "RescaleIntercept" in dataset
    slope = float(dataset.get("RescaleSlope", 1))
    intercept = float(dataset.get("RescaleIntercept", 0))
    hu = np.rint(stored.astype(np.float32) * slope + intercept)
    if dataset.get("PixelPaddingValue") is not None:
        padding = dataset.PixelPaddingValue
        limit = dataset.get("PixelPaddingRangeLimit", padding)
        low, high = min(padding, limit), max(padding, limit)
        hu[(stored >= low) & (stored <= high)] = AIR_HU
    return hu.clip(AIR_HU, MAX_HU).astype(np.int16), has_rescale
