"""Damaged DICOM files against series selection and reading: a volume or a refusal, nothing else."""

import io
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from damage import HANG_SECONDS, TEXTS, spots, with_spots
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ct_triage.errors import TriageError
from ct_triage.reading import read_volume
from ct_triage.series import find_series

# Libraries warn of every oddity they meet.
pytestmark = pytest.mark.filterwarnings("ignore")

N_SLICES, ROWS, COLUMNS = 12, 8, 10
KEYWORDS = [
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "NumberOfFrames",
    "SOPInstanceUID",
    "SOPClassUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "SeriesNumber",
    "InstanceNumber",
    "AcquisitionNumber",
    "ImageType",
    "ConvolutionKernel",
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "SliceThickness",
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "PlanePositionSequence",
]
VRS = [
    "US",
    "SS",
    "UL",
    "SL",
    "DS",
    "IS",
    "LO",
    "CS",
    "UI",
    "PN",
    "SQ",
    "OB",
    "OW",
    "UN",
    "FD",
    "FL",
    "AT",
    "ST",
    "DA",
    "TM",
]


def _slice(index: int) -> Dataset:
    image = Dataset()
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = f"1.2.3.{index + 1}"
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.1", "1.2.2"
    image.FrameOfReferenceUID = "1.2.4"
    image.PatientID, image.PatientName = "FUZZ", "Fuzz^Case"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SeriesNumber, image.InstanceNumber, image.AcquisitionNumber = 1, index + 1, 1
    image.BodyPartExamined, image.ConvolutionKernel = "CHEST", "B40f"
    image.ImagePositionPatient = [-10, -10, 10.0 * index]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.PixelSpacing, image.SliceThickness = [2, 2], 10
    image.Rows, image.Columns, image.SamplesPerPixel = ROWS, COLUMNS, 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, -1024, "HU"
    image.PixelData = (np.arange(ROWS * COLUMNS, dtype="<u2") * 17).tobytes()
    image["PixelData"].VR = "OW"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def _enhanced() -> Dataset:
    whole = _slice(0)
    whole.SOPClassUID = EnhancedCTImageStorage
    whole.NumberOfFrames = N_SLICES
    whole.PixelData = N_SLICES * whole.PixelData
    shared, measures, orientation, rescale = (Dataset() for _ in range(4))
    measures.PixelSpacing = whole.PixelSpacing
    orientation.ImageOrientationPatient = whole.ImageOrientationPatient
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1024
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelValueTransformationSequence = [rescale]
    whole.SharedFunctionalGroupsSequence = [shared]
    whole.PerFrameFunctionalGroupsSequence = []
    for index in range(N_SLICES):
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 10.0 * index]
        frame.PlanePositionSequence = [position]
        whole.PerFrameFunctionalGroupsSequence.append(frame)
    del whole.ImagePositionPatient, whole.ImageOrientationPatient, whole.PixelSpacing
    return whole


def _bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


SLICES = [_bytes(_slice(index)) for index in range(N_SLICES)]
ENHANCED = _bytes(_enhanced())

elements = st.tuples(
    st.sampled_from(KEYWORDS),
    st.sampled_from(VRS) | st.none(),
    st.sampled_from(TEXTS) | st.text(max_size=20) | st.binary(max_size=40),
)
syntaxes = st.sampled_from([None, None, None, RLELossless, JPEGLSLossless, JPEGLosslessSV1])


def _with_elements(content: bytes, changes: list[tuple]) -> bytes:
    """Give attributes values and representations that they must not have."""
    dataset = dcmread(io.BytesIO(content))
    for keyword, vr, value in changes:
        # A writer reads the character set; it must not meet the damage that is for the reader.
        tag = (
            CHARACTER_SET_STAND_IN
            if keyword == "SpecificCharacterSet"
            else tag_for_keyword(keyword)
        )
        raw = value if isinstance(value, bytes) else value.encode("utf-8")
        raw += b" " * (len(raw) % 2)
        vr = vr or dictionary_VR(keyword)
        if vr == "SQ":
            item = Dataset()
            item.PatientName = "nested"
            dataset[tag] = DataElement(tag, "SQ", Sequence([item]))
        else:
            # The bytes as they are, under the name of the representation.
            with _unknown_representation_kept():
                dataset[tag] = DataElement(tag, "UN", raw)
        raw_vr[tag] = vr
    buffer = io.BytesIO()
    # Enforcing the format would copy a damaged UID into the file meta information, or refuse it.
    dcmwrite(buffer, dataset)
    return _rename_representations(buffer.getvalue())


@contextmanager
def _unknown_representation_kept() -> Iterator[None]:
    """Keep pydicom from giving UN the representation of its dictionary."""
    before = config.replace_un_with_known_vr
    config.replace_un_with_known_vr = False
    try:
        yield
    finally:
        config.replace_un_with_known_vr = before


raw_vr: dict[int, str] = {}
_LONG = {"OB", "OW", "UN", "SQ"}
# No attribute; stands beside Specific Character Set (0008,0005).
CHARACTER_SET_STAND_IN = 0x00080004


def _rename_representations(content: bytes) -> bytes:
    """Replace UN, which has a long length field, by the wanted representation."""
    for tag, vr in raw_vr.items():
        name = _name(tag)
        if tag == CHARACTER_SET_STAND_IN:
            name = _name(tag_for_keyword("SpecificCharacterSet"))
            stored = b"SQ" if vr == "SQ" else b"UN"
            content = content.replace(_name(tag) + stored, name + stored, 1)
        at = content.find(name + b"UN\0\0")
        if at < 0 or vr in _LONG:
            continue
        size = int.from_bytes(content[at + 8 : at + 12], "little")
        head = name + vr.encode() + size.to_bytes(2, "little")
        content = content[:at] + head + content[at + 12 :]
    raw_vr.clear()
    return content


def _name(tag: int) -> bytes:
    """Four bytes that a data element begins with."""
    return (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")


def _compressed(content: bytes, syntax: str | None) -> bytes:
    if syntax is None:
        return content
    dataset = dcmread(io.BytesIO(content))
    if syntax == JPEGLosslessSV1:
        # pydicom writes no lossless JPEG.
        stream = imagecodecs.jpeg8_encode(dataset.pixel_array, lossless=True, bitspersample=16)
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.compress(syntax, generate_instance_uid=False)
    return _bytes(dataset)


def _read(contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(contents):
            Path(folder, f"{number}.dcm").write_bytes(content)
        signal.alarm(HANG_SECONDS)
        try:
            volume = read_volume(find_series(Path(folder)))
        except TriageError:
            return
        finally:
            signal.alarm(0)
    assert volume.voxels.dtype == np.int16
    assert volume.voxels.min() >= -1024
    assert np.isfinite(volume.affine).all()
    assert abs(np.linalg.det(volume.affine)) > 0
    assert len(volume.headers) == len(volume.voxels) >= 10


@given(
    changes=st.lists(elements, max_size=4),
    damage=st.lists(spots, max_size=3),
    which=st.integers(0, N_SLICES - 1),
    everywhere=st.booleans(),
    syntax=syntaxes,
)
def test_a_damaged_series(
    changes: list[tuple], damage: list[tuple], which: int, everywhere: bool, syntax: str | None
) -> None:
    contents = [_compressed(content, syntax) for content in SLICES]
    for index in range(N_SLICES):
        if everywhere or index == which:
            contents[index] = with_spots(_with_elements(contents[index], changes), damage)
    _read(contents)


@given(changes=st.lists(elements, max_size=4), damage=st.lists(spots, max_size=4))
def test_a_damaged_multi_frame_file(changes: list[tuple], damage: list[tuple]) -> None:
    _read([with_spots(_with_elements(ENHANCED, changes), damage)])


@given(content=st.binary(max_size=2000), prefix=st.sampled_from([b"", b"\0" * 128 + b"DICM"]))
def test_noise(content: bytes, prefix: bytes) -> None:
    _read([prefix + content])
