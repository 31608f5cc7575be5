"""Series selection and volume reading, on phantom series and on what archives do to them."""

import shutil
from pathlib import Path

import gdcm
import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, JPEGLSLossless, RLELossless
from series_edits import assert_is_phantom, close, edit, other_uid, with_gdcm

from ct_triage.errors import BrokenSeriesError, NoSeriesError
from ct_triage.pixels import decode_file
from ct_triage.reading import read_volume
from ct_triage.series import find_series
from ct_triage.volume import Volume
from tools.phantom import Phantom, write_dicom_series


@pytest.fixture
def study(covid_phantom: Phantom, tmp_path: Path) -> Path:
    write_dicom_series(covid_phantom, tmp_path / "study" / "series")
    return tmp_path / "study"


def _read(folder: Path) -> Volume:
    return read_volume(find_series(folder))


def test_the_volume_is_the_phantom(study: Path, covid_phantom: Phantom) -> None:
    volume = _read(study)
    assert_is_phantom(volume, covid_phantom)
    assert volume.spacing_mm == pytest.approx(covid_phantom.grid.spacing_mm)
    assert volume.voxel_volume_ml == pytest.approx(0.04)
    assert volume.notes == ()


def test_order_comes_from_positions_alone(covid_phantom: Phantom, tmp_path: Path) -> None:
    write_dicom_series(
        covid_phantom, tmp_path, reverse_instance_numbers=True, shuffle_file_names=True
    )
    assert_is_phantom(_read(tmp_path), covid_phantom)


def test_other_files_and_series_do_not_disturb(study: Path, covid_phantom: Phantom) -> None:
    (study / "readme.txt").write_text("not DICOM")
    (study / "empty.dcm").touch()
    (study / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    files = sorted((study / "series").glob("*.dcm"))
    shutil.copytree(study / "series", study / "copy of the same files")
    for n_kept, name in ((1, "MR"), (5, "LOCALIZER")):
        (study / name).mkdir()
        for file in files[:n_kept]:
            dataset = dcmread(file)
            if name == "MR":
                dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
            dataset.ImageType = ["ORIGINAL", "PRIMARY", name]
            dataset.SOPInstanceUID = other_uid(dataset.SOPInstanceUID)
            dataset.save_as(study / name / file.name)
    volume = _read(study)
    assert_is_phantom(volume, covid_phantom)
    assert volume.notes == (
        "5 localizer images were left out",
        "1 files of the study are damaged and were left out",
    )


def test_a_folder_that_cannot_be_read_is_told_of_without_its_name(
    study: Path,
    covid_phantom: Phantom,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (study / "more" / "DOE^JANE").mkdir(parents=True)
    close(study / "more" / "DOE^JANE", monkeypatch)
    volume = _read(study)
    assert_is_phantom(volume, covid_phantom)
    assert volume.notes == ("1 folders of the study cannot be read and were left out",)
    assert "a folder 2 levels below the study's: skipped, it cannot be read" in caplog.text
    assert "JANE" not in caplog.text


def test_a_study_that_cannot_be_read_is_refused_in_one_line(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close(study / "series", monkeypatch)
    with pytest.raises(NoSeriesError) as refusal:
        find_series(study)
    assert str(refusal.value) == (
        f"{study} (1 folders of it cannot be read): no DICOM files here; give the folder of a CT"
        " study"
    )


def test_thin_slices_are_preferred_and_it_is_said(study: Path, covid_phantom: Phantom) -> None:
    def thicken(_: int, dataset: Dataset) -> None:
        dataset.SeriesInstanceUID = other_uid(dataset.SeriesInstanceUID)
        dataset.SOPInstanceUID = other_uid(dataset.SOPInstanceUID)

    shutil.copytree(study / "series", study / "thick")
    for file in sorted((study / "thick").glob("*.dcm"))[1::2]:
        file.unlink()
    edit(study / "thick", thicken)
    volume = _read(study)
    assert_is_phantom(volume, covid_phantom)
    assert "was chosen among 2 usable CT series" in volume.notes[0]


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=["RLE", "JPEG-LS"])
def test_compressed_series(study: Path, covid_phantom: Phantom, syntax: str) -> None:
    edit(study, lambda _, dataset: dataset.compress(syntax, generate_instance_uid=False))
    assert_is_phantom(_read(study), covid_phantom)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg_is_decoded_bit_for_bit(
    bits: int, signed: bool, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = min((study / "series").glob("*.dcm"))
    dataset = dcmread(file)
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    kind = np.dtype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    stored = np.random.default_rng(bits).integers(low, high, (dataset.Rows, dataset.Columns))
    dataset.BitsAllocated = 8 * kind.itemsize
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
    dataset.RescaleSlope, dataset.RescaleIntercept = 0.25, 0
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    dataset.PixelData = stored.astype(kind).tobytes()
    dataset.save_as(file)
    with_gdcm(file, gdcm.TransferSyntax.JPEGLosslessProcess14_1)
    expected = np.rint(stored * 0.25).clip(-1024, None)
    assert np.array_equal(decode_file(file, dataset.Rows, dataset.Columns).hu, expected)

    # What libjpeg-turbo does not take is left to GDCM.
    def refuse(_stream: bytes) -> None:
        raise imagecodecs.Jpeg8Error("jpeg8_decode", "not this one")

    monkeypatch.setattr(imagecodecs, "jpeg8_decode", refuse)
    assert np.array_equal(decode_file(file, dataset.Rows, dataset.Columns).hu, expected)


def test_rescale_is_per_slice(study: Path, covid_phantom: Phantom) -> None:
    def rescale(index: int, dataset: Dataset) -> None:
        intercept = -1024 - 10 * index
        stored = dataset.pixel_array + (int(dataset.RescaleIntercept) - intercept)
        dataset.PixelData = stored.astype(np.uint16).tobytes()
        dataset.PixelRepresentation = 0
        dataset.RescaleIntercept = intercept

    edit(study, rescale)
    assert_is_phantom(_read(study), covid_phantom)


def test_padding_becomes_air(study: Path) -> None:
    def pad(_: int, dataset: Dataset) -> None:
        stored = dataset.pixel_array.astype(np.int16)
        stored[:5] = -2000
        dataset.PixelData = stored.tobytes()
        dataset.PixelRepresentation = 1
        dataset.add_new("PixelPaddingValue", "SS", -2000)

    edit(study, pad)
    volume = _read(study)
    assert (volume.voxels[:, :5] == -1024).all()


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_uuid_text_as_uids_is_kept_to_the_letter(study: Path) -> None:
    uid = "7f1c0f0e-29f5-4f7e-8a4b-0d7b5a3a9b11"

    def replace(_: int, dataset: Dataset) -> None:
        dataset.SeriesInstanceUID = uid

    edit(study, replace)
    assert find_series(study).uid == uid
    assert _read(study).headers[0].SeriesInstanceUID == uid


def test_a_frame_of_reference_is_derived_and_it_is_said(study: Path) -> None:
    def forget(_: int, dataset: Dataset) -> None:
        del dataset.FrameOfReferenceUID

    edit(study, forget)
    first, second = _read(study), _read(study)
    assert first.headers[0].FrameOfReferenceUID == second.headers[-1].FrameOfReferenceUID
    assert "no Frame of Reference UID" in first.notes[0]


def test_gantry_tilt_is_a_sheared_grid(study: Path) -> None:
    def tilt(index: int, dataset: Dataset) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y + 0.5 * index, z]

    edit(study, tilt)
    volume = _read(study)
    assert abs(volume.affine[1, 0]) == pytest.approx(0.5)
    assert volume.voxel_volume_ml == pytest.approx(0.04)
    assert "gantry tilt" in volume.notes[0]


# Each refusal names the series or file, what is wrong and what to do.


def test_no_dicom(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(NoSeriesError, match=f"{tmp_path}: no DICOM files"):
        find_series(tmp_path)


def test_no_ct(study: Path) -> None:
    def to_mr(_: int, dataset: Dataset) -> None:
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"

    edit(study, to_mr)
    with pytest.raises(NoSeriesError, match="none of the 32 DICOM files is a CT image"):
        find_series(study)


def test_a_multi_frame_ct_without_frames_is_refused_by_name(study: Path) -> None:
    def to_enhanced(_: int, dataset: Dataset) -> None:
        dataset.SOPClassUID = EnhancedCTImageStorage

    edit(study, to_enhanced)
    reason = r"CT0001\.dcm is a multi-frame CT without usable frames;.* and 24 more"
    with pytest.raises(NoSeriesError, match=reason):
        find_series(study)


def test_too_few_slices(study: Path) -> None:
    for file in sorted(study.rglob("*.dcm"))[9:]:
        file.unlink()
    with pytest.raises(NoSeriesError, match="has 9 slices with a position, at least 10"):
        find_series(study)


def test_missing_slices(study: Path) -> None:
    for file in sorted(study.rglob("*.dcm"))[10:12]:
        file.unlink()
    with pytest.raises(BrokenSeriesError, match=r"series 2 .*: 2 slices are missing"):
        _read(study)


def test_doubled_positions(study: Path) -> None:
    for file in sorted(study.rglob("*.dcm")):
        dataset = dcmread(file)
        dataset.SOPInstanceUID = other_uid(dataset.SOPInstanceUID)
        dataset.save_as(file.with_suffix(".phase2.dcm"))
    with pytest.raises(BrokenSeriesError, match="32 slice positions occur more than once"):
        _read(study)


def test_uneven_spacing(study: Path) -> None:
    def stretch(index: int, dataset: Dataset) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z - 0.1 * index**2]

    edit(study, stretch)
    with pytest.raises(BrokenSeriesError, match="slice spacing varies"):
        _read(study)


def test_mixed_matrix(study: Path) -> None:
    def crop(_: int, dataset: Dataset) -> None:
        dataset.PixelData = dataset.pixel_array[:100].tobytes()
        dataset.Rows = 100

    edit(study, crop, every=2)
    with pytest.raises(BrokenSeriesError, match="another matrix"):
        _read(study)


def test_truncated_file(study: Path) -> None:
    file = sorted(study.rglob("*.dcm"))[7]
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(BrokenSeriesError, match=f"{file.name}: the pixels cannot be decoded"):
        _read(study)


def test_unreadable_position(study: Path) -> None:
    file = sorted(study.rglob("*.dcm"))[7]
    # With the separator before it: the digits alone may stand in a UID too.
    place = b"\\" + str(dcmread(file).ImagePositionPatient[2]).encode()
    file.write_bytes(file.read_bytes().replace(place, b"\\" + b"x" * (len(place) - 1)))
    assert find_series(study).notes == ("1 images without a readable position were left out",)
    with pytest.raises(BrokenSeriesError, match="1 slices are missing"):
        _read(study)


def test_no_hounsfield_scale(study: Path) -> None:
    def forget(_: int, dataset: Dataset) -> None:
        del dataset.RescaleSlope, dataset.RescaleIntercept

    edit(study, forget)
    with pytest.raises(BrokenSeriesError, match="Rescale Slope and Intercept are missing"):
        _read(study)
