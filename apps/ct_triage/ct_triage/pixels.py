"""Decode single images into Hounsfield units, with bounds on what a file may make a decoder do."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gdcm
import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import iter_pixels, pixel_array
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from ct_triage.errors import BrokenSeriesError
from ct_triage.scanning import require_bounded_inflation, text_of, value_of

AIR_HU = -1024
MAX_HU = 32767
# Scanners and workstations mark what lies outside the reconstruction with -2000 or so; a voxel
# of air and noise does not get there.
PADDING_BELOW_HU = -1500
# PS3.3 C.11.1.1.2: the values that are, or stand for, Hounsfield units; US is "unspecified".
HOUNSFIELD_TYPES = ("", "HU", "HU_MOD", "US")
_JPEG_FAMILY = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes)
# Frame headers of JPEG and JPEG-LS: FFC0 to FFCF without DHT, JPG and DAC, and FFF7.
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Slice:
    """One decoded image.

    Attributes
    ----------
    hu : int16 array (rows, columns)
        Hounsfield units, padding as air.
    has_rescale : bool
        Whether the image gives Rescale Slope and Intercept.
    has_unmarked_padding : bool
        Whether values far below air were found that no Pixel Padding Value explains.
    """

    hu: npt.NDArray[np.int16]
    has_rescale: bool
    has_unmarked_padding: bool


def decode_file(file: Path, rows: int, columns: int) -> Slice:
    """Decode a single-frame file.

    Raises
    ------
    BrokenSeriesError
        If it cannot be decoded, or is no grey image of that size.
    """
    try:
        dataset = _read(file)
        _require_shape(dataset, rows, columns)
        if value_of(dataset, "NumberOfFrames", 1) != 1:
            raise ValueError("several frames in a single-frame object")
        decode = _DECODERS.get(dataset.file_meta.TransferSyntaxUID)
        stored = decode(dataset, 0) if decode else dataset.pixel_array
        return to_hu(stored, dataset, dataset)
    except BrokenSeriesError:
        raise
    except Exception as error:  # decoders raise whatever their libraries do
        raise _undecodable(file, error) from error


def decode_frames(
    file: Path, frames: Sequence[int], headers: Sequence[Dataset], rows: int, columns: int
) -> Iterator[Slice]:
    """Decode frames of a multi-frame file one by one, without ever holding all of them.

    Parameters
    ----------
    file : Path
        The multi-frame instance.
    frames : sequence of int
        Numbers of the frames wanted, from 0.
    headers : sequence of Dataset
        Their flat headers, see :mod:`ct_triage.multiframe`.
    rows, columns : int
        Matrix that all of them must have.

    Raises
    ------
    BrokenSeriesError
        If the file cannot be decoded.
    """
    try:
        dataset = _read(file)
        for frame in frames:
            _require_shape(dataset, rows, columns, frame)
        decoded: Iterator[npt.NDArray[np.generic]]
        decode = _DECODERS.get(dataset.file_meta.TransferSyntaxUID)
        if decode:
            decoded = (decode(dataset, frame) for frame in frames)
        else:
            decoded = iter_pixels(dataset, indices=list(frames))
        for stored, header in zip(decoded, headers, strict=True):
            yield to_hu(stored, header, dataset)
    except BrokenSeriesError:
        raise
    except Exception as error:  # decoders raise whatever their libraries do
        raise _undecodable(file, error) from error


def to_hu(stored: npt.NDArray[np.generic], header: Dataset, pixel: Dataset) -> Slice:
    """Turn stored values into Hounsfield units (PS3.3 C.11.1), padding into air.

    Parameters
    ----------
    stored : integer array (rows, columns)
        What the decoder returned.
    header : Dataset
        Attributes of this image, with its rescale.
    pixel : Dataset
        Attributes of the pixel data, with its padding (C.7.5.1.1.2).

    Raises
    ------
    BrokenSeriesError
        If the values are said to be something else than Hounsfield units.
    """
    kind = text_of(header, "RescaleType").upper()
    if kind not in HOUNSFIELD_TYPES:
        raise BrokenSeriesError(
            "the Rescale Type says that the values are no Hounsfield units; send the series of"
            " conventional CT images"
        )
    values = _stored_values(stored, pixel)
    padding = _padding(values, pixel)
    slope, intercept = value_of(header, "RescaleSlope"), value_of(header, "RescaleIntercept")
    has_rescale = slope is not None and intercept is not None
    slope = 1.0 if slope is None else float(slope)
    intercept = 0.0 if intercept is None else float(intercept)
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise ValueError("rescale without meaning")
    if slope == 1.0 and intercept.is_integer() and abs(intercept) < MAX_HU:
        hu = np.add(values, np.int32(intercept), out=values)
    else:
        # Bounded before it becomes an integer again: floats beyond them would wrap.
        hu = np.rint(values * slope + intercept).clip(-MAX_HU, MAX_HU).astype(np.int32)
    if padding is not None:
        hu[padding] = AIR_HU
    has_unmarked_padding = bool(hu.min() < PADDING_BELOW_HU)
    np.clip(hu, AIR_HU, MAX_HU, out=hu)
    return Slice(hu.astype(np.int16), has_rescale, has_unmarked_padding)


def _stored_values(stored: npt.NDArray[np.generic], pixel: Dataset) -> npt.NDArray[np.int32]:
    """Leave only the stored bits: planes of overlays above them, and a sign that was cut off."""
    values = stored.astype(np.int32)
    n_bits = int(pixel.BitsStored)
    if n_bits >= 8 * stored.dtype.itemsize:
        return values
    if pixel.PixelRepresentation == 0 and "OverlayBitPosition" in str(pixel.dir("OverlayBit")):
        values &= (1 << n_bits) - 1
    if pixel.PixelRepresentation == 1 and values.min() >= 0:
        # Two's complement in the stored bits alone, as PS3.5 8.1.1 has it.
        values = np.where(values >= 1 << (n_bits - 1), values - (1 << n_bits), values)
    return values


def _padding(values: npt.NDArray[np.int32], pixel: Dataset) -> npt.NDArray[np.bool_] | None:
    first = value_of(pixel, "PixelPaddingValue")
    if first is None:
        return None
    last = value_of(pixel, "PixelPaddingRangeLimit", first)
    # Writers confuse the signed and the unsigned form of these two.
    low, high = sorted(_as_stored(int(limit), pixel) for limit in (first, last))
    return (values >= low) & (values <= high)


def _as_stored(value: int, pixel: Dataset) -> int:
    n_bits = int(pixel.BitsAllocated)
    value &= (1 << n_bits) - 1
    is_negative = pixel.PixelRepresentation == 1 and value >= 1 << (n_bits - 1)
    return value - (1 << n_bits) if is_negative else value


def _require_shape(dataset: Dataset, rows: int, columns: int, frame: int = 0) -> None:
    """Compare what the attributes and the compressed stream say of the size, before decoding."""
    if (int(dataset.Rows), int(dataset.Columns)) != (rows, columns):
        raise ValueError("another matrix than in its header")
    if dataset.SamplesPerPixel != 1 or dataset.BitsAllocated not in (8, 16, 32):
        raise ValueError("no grey image of whole numbers")
    syntax = UID(dataset.file_meta.get("TransferSyntaxUID", ""))
    if syntax not in (*_JPEG_FAMILY, *JPEG2000TransferSyntaxes):
        return
    if codestream_shape(_stream_of(dataset, frame)) != (rows, columns):
        raise ValueError("the compressed image has another size than its header")


def codestream_shape(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream will be decoded to; None if lost.

    A decoder allocates by these numbers, whatever the attributes around the stream say.
    """
    if stream[:4] == b"\xff\x4f\xff\x51":
        # SIZ: length and capabilities, then the far corner of the grid and its origin.
        if len(stream) < 24:
            return None
        right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
        return bottom - top, right - left
    position = 2
    while position + 9 <= len(stream):
        if stream[position] != 0xFF:
            return None
        marker = stream[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _START_OF_FRAME:
            return struct.unpack_from(">HH", stream, position + 5)
        (length,) = struct.unpack_from(">H", stream, position + 2)
        position += 2 + length
    return None


def _read(file: Path) -> Dataset:
    require_bounded_inflation(file)
    dataset = dcmread(file, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        # A bare data set is never compressed; the parser has seen which of these it is.
        implicit, little = dataset.original_encoding
        native = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else native
    return dataset


def _stream_of(dataset: Dataset, frame: int) -> bytes:
    """Compressed stream of a frame."""
    n_frames = int(value_of(dataset, "NumberOfFrames", 1))
    stream: bytes = get_frame(dataset.PixelData, frame, number_of_frames=n_frames)
    return stream


def _decode_lossless(dataset: Dataset, frame: int) -> npt.NDArray[np.generic]:
    """Decode lossless JPEG with libjpeg-turbo, which takes a third of the time that GDCM takes.

    It lets other threads run meanwhile, too. What it does not take, or takes for something else,
    goes to the decoders of pydicom.
    """
    size = (dataset.Rows, dataset.Columns)
    kind = np.dtype(f"{'i' if dataset.PixelRepresentation else 'u'}{dataset.BitsAllocated // 8}")
    try:
        stored = imagecodecs.jpeg8_decode(_stream_of(dataset, frame))
    except imagecodecs.Jpeg8Error:
        stored = None
    if stored is None or stored.shape != size or stored.dtype.itemsize != kind.itemsize:
        return pixel_array(dataset, index=frame)
    return stored.view(kind)


def _decode_extended(dataset: Dataset, frame: int) -> npt.NDArray[np.uint16]:
    """Decode 12-bit lossy JPEG, which pydicom leaves to nobody, with GDCM itself."""
    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(_stream_of(dataset, frame))
    fragments.AddFragment(fragment)
    pixels = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    pixels.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    grey = gdcm.PhotometricInterpretation.MONOCHROME2
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    syntax = gdcm.TransferSyntax.JPEGExtendedProcess2_4
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    bits = (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit)
    image.SetPixelFormat(gdcm.PixelFormat(1, *bits, dataset.PixelRepresentation))
    image.SetDataElement(pixels)
    # GDCM hands out bytes as text.
    content = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(content, "<u2").reshape(dataset.Rows, dataset.Columns)


# Transfer syntaxes that are not left to pydicom.
_DECODERS = {
    JPEGExtended12Bit: _decode_extended,
    JPEGLossless: _decode_lossless,
    JPEGLosslessSV1: _decode_lossless,
}


def _undecodable(file: Path, error: Exception) -> BrokenSeriesError:
    return BrokenSeriesError(
        f"{file.name}: the pixels cannot be decoded ({type(error).__name__}); export the file again"
    )
