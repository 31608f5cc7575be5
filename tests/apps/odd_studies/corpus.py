"""Odd studies, made from a phantom's series, each with what is right for it.

A study is either read as the phantom, with what was repaired or assumed in the notes, or refused
with an exit code and a reason.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gdcm
import numpy as np
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from series_edits import edit, other_uid, with_gdcm

NO_SERIES, BROKEN = 3, 4
CHOSEN = "was chosen among 2 usable CT series"
# The phantom's air is at -1000 HU, padding becomes -1024.
PADDING_HU = 24
MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"


@dataclass(frozen=True)
class Odd:
    """What is done to a study, and what must come of it.

    Attributes
    ----------
    make : callable
        Changes the study folder, which holds the phantom's series in the folder ``series``.
    notes : tuple of str
        Patterns of the notes, in their order.
    exit_code : int
        0 where the study is read.
    reason : str
        Pattern of the refusal.
    """

    make: Callable[[Path], None]
    notes: tuple[str, ...] = ()
    exit_code: int = 0
    reason: str = ""
    tolerance_hu: int = 0


STUDIES: dict[str, Odd] = {}


def reads(
    *notes: str, tolerance_hu: int = 0
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Register a study that is read as the phantom."""

    def register(make: Callable[[Path], None]) -> Callable[[Path], None]:
        STUDIES[make.__name__] = Odd(make, notes, tolerance_hu=tolerance_hu)
        return make

    return register


def refused(
    exit_code: int, reason: str
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Register a study that is refused."""

    def register(make: Callable[[Path], None]) -> Callable[[Path], None]:
        STUDIES[make.__name__] = Odd(make, (), exit_code, reason)
        return make

    return register


def files_of(study: Path) -> list[Path]:
    """Files of the phantom's series in slice order."""
    return sorted((study / "series").glob("*.dcm"))


def set_all(study: Path, **values: object) -> None:
    """Give attributes another value in every file; None deletes them."""

    def change(_: int, dataset: Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)

    edit(study, change)


def restore(stored_of: Callable[[np.ndarray, Dataset], np.ndarray]) -> Callable[[Path], None]:
    """Make a change of the stored values and of the attributes that belong to them."""

    def make(study: Path) -> None:
        def change(_: int, dataset: Dataset) -> None:
            dataset.PixelData = stored_of(dataset.pixel_array.astype(int), dataset).tobytes()

        edit(study, change)

    return make


def second_stack(study: Path, change: Callable[[int, Dataset], None], hu_offset: int = 9) -> None:
    """Add a second image, not that of the phantom, at every position of the same series."""
    for index, file in enumerate(files_of(study)):
        dataset = dcmread(file)
        dataset.SOPInstanceUID = other_uid(dataset.SOPInstanceUID)
        dataset.PixelData = (dataset.pixel_array + hu_offset).astype("<u2").tobytes()
        change(index, dataset)
        dataset.save_as(file.with_name(f"second {file.name}"))


# --- Slices and positions


@refused(BROKEN, "1 slices are missing, the first gap is after position")
def missing_slice(study: Path) -> None:
    files_of(study)[9].unlink()


@refused(BROKEN, "the slice spacing varies between")
def variable_spacing(study: Path) -> None:
    def stretch(index: int, dataset: Dataset) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) - 0.1 * index**2]

    edit(study, stretch)


@refused(BROKEN, "32 slice positions occur more than once")
def every_position_twice(study: Path) -> None:
    second_stack(study, lambda *_: None)


@reads("2 stacks at the same positions, told apart by AcquisitionNumber; stack 1", CHOSEN)
def two_phases(study: Path) -> None:
    second_stack(study, lambda _, dataset: setattr(dataset, "AcquisitionNumber", 2))


@reads("2 stacks at the same positions, told apart by ConvolutionKernel; stack 1", CHOSEN)
def two_kernels(study: Path) -> None:
    second_stack(study, lambda _, dataset: setattr(dataset, "ConvolutionKernel", "B70f"))


@reads("2 stacks at the same positions, told apart by their instance numbers", CHOSEN)
def two_phases_told_by_their_order_alone(study: Path) -> None:
    second_stack(study, lambda i, dataset: setattr(dataset, "InstanceNumber", 33 + i))


@reads("2 stacks at the same positions, told apart by ReconstructionDiameter", CHOSEN)
def two_fields_of_view(study: Path) -> None:
    second_stack(study, lambda _, dataset: setattr(dataset, "ReconstructionDiameter", "500"))


@refused(BROKEN, "slice positions occur more than once")
def overlapping_halves_are_no_phases(study: Path) -> None:
    for index, file in enumerate(files_of(study)):
        dataset = dcmread(file)
        dataset.AcquisitionNumber = 1 + (index > 16)
        dataset.save_as(file)
        if index == 16:
            dataset.AcquisitionNumber = 2
            dataset.SOPInstanceUID = other_uid(dataset.SOPInstanceUID)
            dataset.save_as(file.with_name("overlap.dcm"))


@reads("1 images of another orientation in the same series were left out")
def localizer_inside_the_series_without_its_name(study: Path) -> None:
    dataset = dcmread(files_of(study)[0])
    dataset.SOPInstanceUID = other_uid(dataset.SOPInstanceUID)
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    dataset.save_as(study / "series" / "scout.dcm")


@reads("2 localizer images were left out")
def localizers_inside_the_series(study: Path) -> None:
    for index, file in enumerate(files_of(study)[:2]):
        dataset = dcmread(file)
        dataset.SOPInstanceUID = other_uid(dataset.SOPInstanceUID)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        dataset.save_as(study / "series" / f"scout{index}.dcm")


@refused(NO_SERIES, r"the CT images are of 2 patients; give one patient's study")
def two_patients(study: Path) -> None:
    second_stack(study, lambda _, dataset: setattr(dataset, "PatientID", "ANOTHER"))


@reads()
def reversed_and_missing_instance_numbers(study: Path) -> None:
    def number(index: int, dataset: Dataset) -> None:
        dataset.InstanceNumber = 1000 - index
        if index % 2:
            del dataset.InstanceNumber

    edit(study, number)


@refused(NO_SERIES, "has images of 2 studies; send each as its own series")
def one_image_of_another_study(study: Path) -> None:
    dataset = dcmread(files_of(study)[9])
    dataset.StudyInstanceUID = other_uid(dataset.StudyInstanceUID)
    dataset.save_as(files_of(study)[9])


@reads("32 images name no Modality; by their SOP class they are CT")
def no_modality(study: Path) -> None:
    set_all(study, Modality=None)


@refused(BROKEN, "2 frames of reference")
def two_frames_of_reference(study: Path) -> None:
    edit(study, lambda _, d: setattr(d, "FrameOfReferenceUID", other_uid("frame")), every=2)


@reads("no Frame of Reference UID; one was derived")
def no_frame_of_reference(study: Path) -> None:
    set_all(study, FrameOfReferenceUID=None)


@refused(NO_SERIES, "32 SOP Instance UIDs that stand for several images|1 SOP Instance UIDs")
def one_uid_for_all_images(study: Path) -> None:
    set_all(study, SOPInstanceUID="1.2.3")


@refused(NO_SERIES, "32 images without a SOPInstanceUID")
def no_instance_uid(study: Path) -> None:
    set_all(study, SOPInstanceUID=None)


@reads("32 images have geometry of the wrong value representation")
def geometry_of_wrong_value_representation(study: Path) -> None:
    def change(_: int, dataset: Dataset) -> None:
        position = "\\".join(str(v) for v in dataset.ImagePositionPatient)
        tag = dataset["ImagePositionPatient"].tag
        dataset[tag] = DataElement(tag, "LO", position)
        tag = dataset["Rows"].tag
        dataset[tag] = DataElement(tag, "IS", str(dataset.Rows))

    edit(study, change)


@refused(NO_SERIES, "0 slices with a position")
def orientation_without_meaning(study: Path) -> None:
    set_all(study, ImageOrientationPatient=[0, 0, 0, 0, 0, 0])


@refused(NO_SERIES, "0 slices with a position")
def infinite_spacing(study: Path) -> None:
    set_all(study, PixelSpacing=["inf", "2"])


# --- Values


@reads()
def rescale_per_slice(study: Path) -> None:
    def rescale(index: int, dataset: Dataset) -> None:
        intercept = -1024 - 10 * index
        stored = dataset.pixel_array.astype(int) + (int(dataset.RescaleIntercept) - intercept)
        dataset.PixelData = stored.astype("<u2").tobytes()
        dataset.RescaleIntercept = intercept

    edit(study, rescale)


@reads()
def slope_of_a_half(study: Path) -> None:
    def half(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
        dataset.RescaleSlope = "0.5"
        dataset.BitsStored, dataset.HighBit = 16, 15
        return (2 * stored).astype("<u2")

    restore(half)(study)


@refused(BROKEN, "Rescale Slope and Intercept are missing and the values are not Hounsfield")
def no_rescale(study: Path) -> None:
    set_all(study, RescaleSlope=None, RescaleIntercept=None)


@reads("Rescale Slope and Intercept are missing; the values were taken as HU")
def no_rescale_but_hounsfield_units(study: Path) -> None:
    def signed(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
        del dataset.RescaleSlope, dataset.RescaleIntercept
        dataset.PixelRepresentation = 1
        return (stored - 1024).astype("<i2")

    restore(signed)(study)


@refused(BROKEN, "Rescale Slope and Intercept are missing in 16 of 32 images")
def no_rescale_in_every_other_image(study: Path) -> None:
    edit(study, lambda _, d: d.__delattr__("RescaleSlope"), every=2)


@refused(BROKEN, "Rescale Type says that the values are no Hounsfield units")
def effective_atomic_numbers(study: Path) -> None:
    set_all(study, RescaleType="Z_EFF")


@reads("MONOCHROME1, which changes their display only")
def monochrome1(study: Path) -> None:
    set_all(study, PhotometricInterpretation="MONOCHROME1")


@reads("inverted together with MONOCHROME1; they were inverted back")
def monochrome1_with_inverted_values(study: Path) -> None:
    def invert(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
        dataset.PhotometricInterpretation = "MONOCHROME1"
        return (4095 - stored).astype("<u2")

    restore(invert)(study)


def _pad(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    """Pad the phantom's border, which is air, at -2000 HU."""
    dataset.PixelRepresentation = 1
    dataset.BitsStored, dataset.HighBit = 16, 15
    hu = stored - 1024
    dataset.RescaleIntercept = 0
    hu[:3] = -2000
    return hu.astype("<i2")


@reads(tolerance_hu=PADDING_HU)
def padding_with_its_tag(study: Path) -> None:
    def pad(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        return _pad(dataset, stored)

    restore(pad)(study)


@reads(tolerance_hu=PADDING_HU)
def padding_with_its_tag_as_unsigned(study: Path) -> None:
    def pad(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
        dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
        return _pad(dataset, stored)

    restore(pad)(study)


@reads("32 slices hold values far below air without a Pixel Padding Value", tolerance_hu=PADDING_HU)
def padding_without_its_tag(study: Path) -> None:
    restore(lambda stored, dataset: _pad(dataset, stored))(study)


@reads()
def signed_values_cut_to_the_stored_bits(study: Path) -> None:
    def cut(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
        dataset.PixelRepresentation = 1
        dataset.RescaleIntercept = 0
        return ((stored - 1024) & 0xFFF).astype("<u2")

    restore(cut)(study)


@reads()
def overlay_in_the_upper_bits(study: Path) -> None:
    def overlay(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
        dataset.add_new(0x60000100, "US", 16)
        dataset.add_new(0x60000102, "US", 15)
        return (stored | 0x8000).astype("<u2")

    restore(overlay)(study)


@refused(NO_SERIES, "none of the 32 DICOM files is a CT image")
def eight_bit_secondary_capture(study: Path) -> None:
    def capture(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
        dataset.SOPClassUID = SecondaryCaptureImageStorage
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        return (stored // 16).astype("u1")

    restore(capture)(study)


@refused(BROKEN, "the pixels cannot be decoded")
def colour_pictures_of_ct_class(study: Path) -> None:
    def colour(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
        dataset.PhotometricInterpretation = "RGB"
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        return np.repeat((stored // 16).astype("u1")[..., None], 3, axis=-1)

    restore(colour)(study)


# --- Files


@reads()
def no_preamble(study: Path) -> None:
    for file in files_of(study):
        file.write_bytes(file.read_bytes()[132:])


@reads()
def no_preamble_and_no_meta_information(study: Path) -> None:
    for file in files_of(study):
        dataset = dcmread(file)
        del dataset.file_meta
        dcmwrite(file, dataset, implicit_vr=True, little_endian=True, enforce_file_format=False)


@refused(BROKEN, "CT0008.dcm: the pixels cannot be decoded")
def truncated_pixels(study: Path) -> None:
    file = files_of(study)[7]
    file.write_bytes(file.read_bytes()[:-5000])


@refused(BROKEN, "1 slices are missing")
def truncated_header(study: Path) -> None:
    file = files_of(study)[7]
    file.write_bytes(file.read_bytes()[:700])


@refused(BROKEN, "1 slices are missing")
def zero_bytes(study: Path) -> None:
    files_of(study)[7].write_bytes(b"")


@reads("1 files of the study are damaged and were left out")
def a_damaged_file_beside_the_series(study: Path) -> None:
    (study / "export.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 400)


@reads()
def uuid_text_as_uids(study: Path) -> None:
    def change(index: int, dataset: Dataset) -> None:
        dataset.SeriesInstanceUID = "7f1c0f0e-29f5-4f7e-8a4b-0d7b5a3a9b11"
        dataset.SOPInstanceUID = f"{index:08x}-29f5-4f7e-8a4b-0d7b5a3a9b11"

    edit(study, change)


def _compress(study: Path, syntax: str) -> None:
    edit(study, lambda _, dataset: dataset.compress(syntax, generate_instance_uid=False))


@reads()
def rle(study: Path) -> None:
    _compress(study, RLELossless)


@reads()
def jpeg_ls(study: Path) -> None:
    _compress(study, JPEGLSLossless)


def _all_with_gdcm(study: Path, syntax: int) -> None:
    for file in files_of(study):
        with_gdcm(file, syntax)


@reads()
def jpeg_lossless(study: Path) -> None:
    _all_with_gdcm(study, gdcm.TransferSyntax.JPEGLosslessProcess14_1)


@reads()
def jpeg_2000(study: Path) -> None:
    _all_with_gdcm(study, gdcm.TransferSyntax.JPEG2000Lossless)


@reads("compressed with loss", tolerance_hu=60)
def jpeg_extended_12_bit(study: Path) -> None:
    _all_with_gdcm(study, gdcm.TransferSyntax.JPEGExtendedProcess2_4)
    set_all(study, LossyImageCompression="01")


@reads()
def deflated(study: Path) -> None:
    def deflate(_: int, dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    edit(study, deflate)


@reads()
def big_endian(study: Path) -> None:
    for file in files_of(study):
        dataset = dcmread(file)
        dataset.PixelData = dataset.pixel_array.astype(">u2").tobytes()
        # Decoded before the byte order of the whole changes.
        for element in dataset.iterall():
            _ = element.value
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        dcmwrite(file, dataset, implicit_vr=False, little_endian=False)


@reads()
def implicit_little_endian(study: Path) -> None:
    for file in files_of(study):
        dataset = dcmread(file)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dcmwrite(file, dataset, implicit_vr=True, little_endian=True)


# --- Multi-frame


def to_multi_frame(study: Path, storage: str, order: list[int] | None = None) -> None:
    """Turn the series into one instance, with the frames in an order that is not the slices'."""
    datasets = [dcmread(file) for file in files_of(study)]
    datasets = [datasets[i] for i in order or reversed(range(len(datasets)))]
    whole = Dataset()
    whole.update(datasets[0])
    whole.SOPClassUID = storage
    whole.SOPInstanceUID = other_uid("multi-frame")
    whole.NumberOfFrames = len(datasets)
    whole.PixelData = b"".join(dataset.PixelData for dataset in datasets)
    shared, measures, orientation, transformation, kind = (Dataset() for _ in range(5))
    measures.PixelSpacing = whole.PixelSpacing
    measures.SliceThickness = whole.SliceThickness
    orientation.ImageOrientationPatient = whole.ImageOrientationPatient
    transformation.RescaleSlope, transformation.RescaleIntercept = "1", "-1024"
    transformation.RescaleType = "HU"
    kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelValueTransformationSequence = [transformation]
    shared.CTImageFrameTypeSequence = [kind]
    whole.SharedFunctionalGroupsSequence = [shared]
    whole.PerFrameFunctionalGroupsSequence = []
    for dataset in datasets:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = dataset.ImagePositionPatient
        frame.PlanePositionSequence = [position]
        whole.PerFrameFunctionalGroupsSequence.append(frame)
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "RescaleSlope",
        "RescaleIntercept",
        "RescaleType",
    ):
        del whole[keyword]
    whole.file_meta = datasets[0].file_meta
    whole.file_meta.MediaStorageSOPClassUID = storage
    whole.file_meta.MediaStorageSOPInstanceUID = whole.SOPInstanceUID
    shutil.rmtree(study / "series")
    (study / "series").mkdir()
    whole.save_as(study / "series" / "whole.dcm", enforce_file_format=True)


@reads()
def enhanced_multi_frame(study: Path) -> None:
    to_multi_frame(study, EnhancedCTImageStorage)


@reads()
def enhanced_multi_frame_in_disorder(study: Path) -> None:
    order = np.random.default_rng(1).permutation(32).tolist()
    to_multi_frame(study, EnhancedCTImageStorage, order)


@reads()
def legacy_converted_multi_frame(study: Path) -> None:
    to_multi_frame(study, LegacyConvertedEnhancedCTImageStorage)


@reads()
def legacy_converted_by_highdicom(study: Path) -> None:
    slices = [dcmread(file) for file in files_of(study)]
    whole = LegacyConvertedEnhancedCTImage(
        slices,
        series_instance_uid=other_uid("legacy"),
        series_number=7,
        sop_instance_uid=other_uid("whole"),
        instance_number=1,
    )
    shutil.rmtree(study / "series")
    (study / "series").mkdir()
    whole.save_as(study / "series" / "whole.dcm")


@reads("compressed with loss", tolerance_hu=60)
def enhanced_multi_frame_jpeg_extended_12_bit(study: Path) -> None:
    to_multi_frame(study, EnhancedCTImageStorage)
    jpeg_extended_12_bit(study)


@reads()
def enhanced_multi_frame_jpeg_ls(study: Path) -> None:
    to_multi_frame(study, EnhancedCTImageStorage)
    _compress(study, JPEGLSLossless)


@refused(NO_SERIES, "whole.dcm is a multi-frame CT without usable frames")
def enhanced_multi_frame_with_a_lying_count(study: Path) -> None:
    to_multi_frame(study, EnhancedCTImageStorage)
    set_all(study, NumberOfFrames=2_000_000_000)


# --- What else lies in the folder


@reads()
def dicomdir(study: Path) -> None:
    folder = study / "media"
    file_set = FileSet()
    for file in files_of(study):
        file_set.add(file)
    file_set.write(folder)
    shutil.rmtree(study / "series")


@reads()
def symlink_loops_and_pipes(study: Path) -> None:
    (study / "loop").symlink_to(study, target_is_directory=True)
    (study / "series" / "up").symlink_to("..", target_is_directory=True)
    os.mkfifo(study / "pipe")


@reads("2 files of the study are damaged and were left out")
def dangling_and_circular_links(study: Path) -> None:
    (study / "self.dcm").symlink_to(study / "self.dcm")
    (study / "nowhere.dcm").symlink_to(study / "missing")


@reads()
def a_hundred_thousand_unrelated_files(study: Path) -> None:
    for number in range(100):
        folder = study / f"backup {number}"
        folder.mkdir()
        first = folder / "0.tmp"
        first.write_bytes(b"no DICOM here")
        for other in range(1, 1000):
            (folder / f"{other}.tmp").hardlink_to(first)


# --- What is no chest CT


@refused(NO_SERIES, "is of another part of the body than the chest by its description")
def head_ct(study: Path) -> None:
    set_all(
        study,
        BodyPartExamined="HEAD",
        SeriesDescription="Head 1.0 H31s",
        StudyDescription="CT brain",
    )


@refused(NO_SERIES, "none of the 32 DICOM files is a CT image")
def mr(study: Path) -> None:
    set_all(study, SOPClassUID=MR_STORAGE, Modality="MR")


@refused(NO_SERIES, "covers 90 mm, at least 100 mm are needed")
def a_few_slices_of_the_chest(study: Path) -> None:
    for file in files_of(study)[10:]:
        file.unlink()


@refused(BROKEN, "another matrix, pixel spacing or orientation")
def two_matrices(study: Path) -> None:
    def crop(_: int, dataset: Dataset) -> None:
        dataset.PixelData = dataset.pixel_array[:100].tobytes()
        dataset.Rows = 100

    edit(study, crop, every=2)


@refused(NO_SERIES, "more than any chest CT")
def a_matrix_beyond_every_limit(study: Path) -> None:
    set_all(study, Rows=60000, Columns=60000)


# --- Patients' names in several character sets; odd and missing values beside them

NAMES = {
    "cyrillic": ("ISO_IR 144", "Люксембург^Роза"),
    "greek": ("ISO_IR 126", "Διονυσιος"),
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    "chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
    "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞"),
    "arabic": ("ISO_IR 127", "قباني^لنزار"),
    "utf-8": ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
    "unknown": ("ISO_IR 999", "Name^Some"),
}
