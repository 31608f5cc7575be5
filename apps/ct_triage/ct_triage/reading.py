"""Turn a CT series into a volume in Hounsfield units with the right geometry, or refuse."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from ct_triage.errors import BrokenSeriesError
from ct_triage.pixels import AIR_HU, MAX_HU, Slice, decode_file, decode_frames
from ct_triage.provenance import COPIED_KEYWORDS
from ct_triage.scanning import text_of, uid_of, value_of
from ct_triage.series import Series
from ct_triage.stacks import DUPLICATE_MM
from ct_triage.volume import Volume

logger = logging.getLogger(__name__)

# A slice this far from its even place, as a share of the spacing, would shift a mask visibly.
MAX_UNEVENNESS = 0.2
MAX_SPACING_MM = 25.0
DECODING_THREADS = 2
# Slices that are decoded and not yet in the volume.
DECODED_AHEAD = 32
# Every chest CT holds air, in the lungs if nowhere else, and soft tissue, and little of anything
# denser. A shift, a window or an inversion of the scale leaves one of them out.
AIR_BELOW_HU, MIN_AIR_SHARE = -500, 0.02
DENSE_ABOVE_HU, MAX_DENSE_SHARE = 600, 0.2
MIN_TISSUE_SHARE = 0.04


def read_volume(series: Series) -> Volume:
    """Read the pixels of a series and place them in the patient.

    Slices are ordered by their position along the slice normal, whatever their instance numbers
    and file names; Rescale Slope and Intercept are applied per slice (PS3.3 C.11.1); padding
    becomes air. What was repaired or assumed is in the volume's notes and in the log.

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
    frames = tuple(series.frames[i] for i in order) if series.frames else ()
    affine = _affine(series, headers, positions[order], normal)
    if _is_tilted(affine, normal):
        notes.append("the slices are sheared against their normal (gantry tilt)")
    headers = _with_modality(_without_unreadable(headers, notes), notes)
    headers = _with_frame_of_reference(series, headers, notes)

    voxels = np.empty((len(headers), headers[0].Rows, headers[0].Columns), dtype=np.int16)
    n_without_rescale = n_padded = 0
    try:
        for index, decoded in enumerate(_decode(series, order)):
            voxels[index] = decoded.hu
            n_without_rescale += not decoded.has_rescale
            n_padded += decoded.has_unmarked_padding
    except BrokenSeriesError as error:
        raise BrokenSeriesError(f"{series.label}: {error}") from error
    if any(text_of(header, "PhotometricInterpretation") == "MONOCHROME1" for header in headers):
        notes.append(_settle_monochrome1(series, headers[0], voxels))
    _require_hounsfield(series, voxels, n_without_rescale)
    if n_without_rescale:
        notes.append("Rescale Slope and Intercept are missing; the values were taken as HU")
    if n_padded:
        notes.append(
            f"{n_padded} slices hold values far below air without a Pixel Padding Value; they were"
            " taken as padding"
        )
    if any(text_of(header, "RescaleType").upper() == "US" for header in headers):
        notes.append("the Rescale Type is unspecified; the values were taken as HU")
    if any(text_of(header, "LossyImageCompression") == "01" for header in headers):
        notes.append("the source images were compressed with loss")
    for note in notes:
        logger.warning("%s", note)
    return Volume(voxels, affine, tuple(headers), tuple(notes), frames)


def _decode(series: Series, order: npt.NDArray[np.intp]) -> Iterator[Slice]:
    """Decode the slices of a series in the order of their positions."""
    rows, columns = int(series.headers[0].Rows), int(series.headers[0].Columns)
    if series.frames:
        yield from decode_frames(
            series.files[0],
            [series.frames[i] for i in order],
            [series.headers[i] for i in order],
            rows,
            columns,
        )
        return
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for start in range(0, len(order), DECODED_AHEAD):
            part = order[start : start + DECODED_AHEAD]
            yield from pool.map(lambda i: decode_file(series.files[i], rows, columns), part)


def _require_hounsfield(
    series: Series, voxels: npt.NDArray[np.int16], n_without_rescale: int
) -> None:
    """Refuse values that cannot be a chest in Hounsfield units."""
    if 0 < n_without_rescale < len(voxels):
        raise BrokenSeriesError(
            f"{series.label}: Rescale Slope and Intercept are missing in {n_without_rescale} of"
            f" {len(voxels)} images; export the series again with its rescale attributes"
        )
    if _looks_like_hounsfield(voxels):
        return
    if n_without_rescale:
        raise BrokenSeriesError(
            f"{series.label}: Rescale Slope and Intercept are missing and the values are not"
            " Hounsfield units; export the series again with its rescale attributes"
        )
    raise BrokenSeriesError(
        f"{series.label}: the values are not those of a chest in Hounsfield units; send the"
        " original CT images"
    )


def _looks_like_hounsfield(voxels: npt.NDArray[np.int16]) -> bool:
    sample = voxels[:, ::4, ::4]
    air, dense = (sample < AIR_BELOW_HU).mean(), (sample > DENSE_ABOVE_HU).mean()
    tissue = 1 - air - dense
    return bool(air >= MIN_AIR_SHARE and dense <= MAX_DENSE_SHARE and tissue >= MIN_TISSUE_SHARE)


def _settle_monochrome1(series: Series, header: Dataset, voxels: npt.NDArray[np.int16]) -> str:
    """Find out what MONOCHROME1 means here, repair the values in place, and say what was done.

    By PS3.3 C.7.6.3.1.2 it concerns the display alone and the rescaled values are Hounsfield
    units as ever. Some writers store inverted values with it.
    """
    if _looks_like_hounsfield(voxels):
        return "the images are MONOCHROME1, which changes their display only; values are as stored"
    # The inverse of a stored value is what it lacks to the largest one, or to -1 where signed.
    unsigned = value_of(header, "PixelRepresentation", 0) == 0
    largest = (1 << int(value_of(header, "BitsStored", 16))) - 1 if unsigned else -1
    slope = float(value_of(header, "RescaleSlope", 1))
    intercept = float(value_of(header, "RescaleIntercept", 0))
    for voxel_slice in voxels:
        inverse = slope * largest + 2 * intercept - voxel_slice.astype(np.float32)
        voxel_slice[:] = np.rint(inverse).clip(AIR_HU, MAX_HU).astype(np.int16)
    if not _looks_like_hounsfield(voxels):
        raise BrokenSeriesError(
            f"{series.label}: the values are not Hounsfield units, neither as stored nor inverted"
            " as MONOCHROME1 suggests; send the original CT images"
        )
    return "the stored values were inverted together with MONOCHROME1; they were inverted back"


def _without_unreadable(headers: list[Dataset], notes: list[str]) -> list[Dataset]:
    """Leave out attributes whose values no reader can make sense of."""
    damaged: set[str] = set()
    for index, header in enumerate(headers):
        # Results take the patient and the study from the first one, from the others their place.
        keywords = header.dir() if index == 0 else COPIED_KEYWORDS
        unreadable = [k for k in keywords if k in header and not _is_readable(header, k)]
        if unreadable:
            # A slice is a data set of its own; a copy would share its elements.
            header = headers[index] = header[:]
            for keyword in unreadable:
                del header[keyword]
            damaged.update(unreadable)
    if damaged:
        notes.append(f"unreadable attributes were left out: {', '.join(sorted(damaged))}")
    return headers


def _is_readable(header: Dataset, keyword: str) -> bool:
    try:
        str(header[keyword].value)
    except Exception:  # values are converted on access, and raise whatever the converter meets
        return False
    return True


def _with_modality(headers: list[Dataset], notes: list[str]) -> list[Dataset]:
    """Say that the images are CT where they do not; their SOP class does."""
    silent = [index for index, header in enumerate(headers) if not text_of(header, "Modality")]
    if silent:
        notes.append(f"{len(silent)} images name no Modality; by their SOP class they are CT")
    for index in silent:
        headers[index] = headers[index][:]
        headers[index].add_new("Modality", "CS", "CT")
    return headers


def _with_frame_of_reference(
    series: Series, headers: list[Dataset], notes: list[str]
) -> list[Dataset]:
    """Give all slices one Frame of Reference UID; derive it where the source has none."""
    uids = [uid_of(header, "FrameOfReferenceUID") for header in headers]
    if len(set(uids)) == 1 and uids[0]:
        return headers
    if len(set(uids) - {""}) > 1:
        raise BrokenSeriesError(
            f"{series.label}: the slices are in {len(set(uids) - {''})} frames of reference, so"
            " their positions cannot be compared; send one acquisition per series"
        )
    notes.append("the source has no Frame of Reference UID; one was derived from the series")
    derived = generate_uid(entropy_srcs=[series.uid, "frame of reference"])
    uid = next(filter(None, uids), derived)
    if uid != derived:
        notes[-1] = "some slices have no Frame of Reference UID; that of the others was taken"
    changed = [header[:] for header in headers]
    for header in changed:
        header.add_new("FrameOfReferenceUID", "UI", uid)
    return changed


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
    if spacing_mm > MAX_SPACING_MM:
        raise BrokenSeriesError(
            f"{series.label}: the slices are {spacing_mm:.1f} mm apart, too far for volumes; send"
            " a series with thinner slices"
        )
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
