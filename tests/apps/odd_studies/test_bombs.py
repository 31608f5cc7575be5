"""Small files that ask for a machine's whole memory are refused before they get it."""

import resource
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import gdcm
import pytest
from corpus import files_of
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filewriter import write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless
from series_edits import assert_is_phantom, with_gdcm

from ct_triage.errors import BrokenSeriesError
from ct_triage.limits import MAX_INFLATED_BYTES
from ct_triage.pixels import decode_file
from ct_triage.reading import read_volume
from ct_triage.scanning import read_header
from ct_triage.series import find_series
from tools.phantom import Phantom

MAX_GROWTH_KIB = 128 * 1024
HUGE = 65_000


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start < MAX_GROWTH_KIB


def test_a_file_that_inflates_without_end_is_left_out(study: Path, covid_phantom: Phantom) -> None:
    dataset = dcmread(files_of(study)[0])
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    # Full flushes make pieces that can be said again.
    piece = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = study / "bomb.dcm"
    with bomb.open("wb") as stream:
        stream.write(bytes(128) + b"DICM")
        write_file_meta_info(stream, dataset.file_meta)
        stream.write(piece * (MAX_INFLATED_BYTES // 2**20 + 1) + packer.flush())
    assert bomb.stat().st_size < 4 * 2**20
    with pytest.raises(ValueError, match="inflates beyond every limit"):
        read_header(bomb)
    volume = read_volume(find_series(study))
    assert volume.notes == ("1 files of the study are damaged and were left out",)
    assert_is_phantom(volume, covid_phantom)


def _jpeg_ls(file: Path) -> None:
    dataset = dcmread(file)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    dataset.save_as(file)


def _by_gdcm(syntax: int) -> Callable[[Path], None]:
    return lambda file: with_gdcm(file, syntax)


@pytest.mark.parametrize(
    ("compress", "marker", "at", "layout"),
    [
        # Where rows and columns stand behind the marker of the frame header or of SIZ.
        pytest.param(_jpeg_ls, b"\xff\xf7", 5, ">HH", id="JPEG-LS"),
        pytest.param(
            _by_gdcm(gdcm.TransferSyntax.JPEGLosslessProcess14_1),
            b"\xff\xc3", 5, ">HH", id="JPEG Lossless",
        ),
        pytest.param(
            _by_gdcm(gdcm.TransferSyntax.JPEGExtendedProcess2_4),
            b"\xff\xc1", 5, ">HH", id="JPEG Extended",
        ),
        pytest.param(
            _by_gdcm(gdcm.TransferSyntax.JPEG2000Lossless),
            b"\xff\x51", 6, ">II", id="JPEG 2000",
        ),
    ],
)  # fmt: skip
def test_a_compressed_image_larger_than_its_header_says_is_not_decoded(
    compress: Callable[[Path], None], marker: bytes, at: int, layout: str, study: Path
) -> None:
    file = files_of(study)[7]
    compress(file)
    dataset = dcmread(file)
    stream = bytearray(get_frame(dataset.PixelData, 0, number_of_frames=1))
    struct.pack_into(layout, stream, stream.index(marker) + at, HUGE, HUGE)
    dataset.PixelData = encapsulate([bytes(stream)])
    dataset.save_as(file)
    with pytest.raises(BrokenSeriesError, match=f"{file.name}: the pixels cannot") as refusal:
        decode_file(file, int(dataset.Rows), int(dataset.Columns))
    assert str(refusal.value.__cause__) == "the compressed image has another size than its header"


def test_sequences_nested_beyond_every_depth_are_left_out(
    study: Path, covid_phantom: Phantom
) -> None:
    dataset = dcmread(files_of(study)[0], stop_before_pixels=True)
    # A sequence of undefined length with an item of undefined length, as often as fits.
    opening = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    item = Dataset()
    item.ReferencedSOPClassUID = dataset.SOPClassUID
    dataset.ReferencedSeriesSequence = Sequence([item])
    dataset.save_as(study / "nested.dcm")
    content = (study / "nested.dcm").read_bytes()
    at = content.index(opening[:6])
    (study / "nested.dcm").write_bytes(content[:at] + opening * 20_000)
    volume = read_volume(find_series(study))
    assert volume.notes == ("1 files of the study are damaged and were left out",)
    assert_is_phantom(volume, covid_phantom)
