"""Phantoms as files: a DICOM CT series, or NIfTI volumes for training."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from .phantom import Phantom

_NAMES = {
    "covid19": "Phantom^Covid19",
    "bacterial": "Phantom^Bacterial",
    "nodules": "Phantom^Nodules",
    "normal": "Phantom^Normal",
}
_KERNEL_CODES = {"soft": "B31f", "standard": "B40f", "sharp": "B70f"}
_DATE = "20200401"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_dicom_series(
    phantom: Phantom,
    folder: str | os.PathLike[str],
    *,
    series_number: int = 2,
    series_description: str | None = None,
    patient_id: str | None = None,
    reverse_instance_numbers: bool = False,
    shuffle_file_names: bool = False,
) -> list[Path]:
    """Write a phantom as a CT Image Storage series, Explicit VR Little Endian.

    Parameters
    ----------
    phantom
        What to write.
    folder
        Where to; created when missing.
    series_number
        Series Number; another number is another series of the same study and frame of
        reference.
    series_description
        Series Description; by default the kernel and the slice thickness.
    patient_id
        Patient ID; by default PHANTOM and disease and seed.
    reverse_instance_numbers
        Number the instances from the last slice to the first.
    shuffle_file_names
        Give the files names whose order is not the slices' order.

    Returns
    -------
    list of Path
        Files in slice order.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    grid = phantom.grid
    count, rows, columns = grid.shape
    _, row_mm, column_mm = grid.spacing_mm
    along_row = grid.affine[:3, 2] / column_mm
    along_column = grid.affine[:3, 1] / row_mm
    patient_id = patient_id or f"PHANTOM-{phantom.disease.upper()}-{phantom.seed}"
    geometry = np.array2string(grid.affine, precision=6) + str(grid.shape)
    study = ["phantom study", patient_id, phantom.disease, str(phantom.seed)]
    series = [*study, "series", str(series_number), phantom.kernel, geometry]

    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 100"
    common.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    common.SOPClassUID = CTImageStorage
    common.StudyDate = common.SeriesDate = common.AcquisitionDate = common.ContentDate = _DATE
    common.StudyTime = common.SeriesTime = "120000"
    common.AcquisitionTime = common.ContentTime = "120100"
    common.AccessionNumber = f"P{phantom.seed}"
    common.Modality = "CT"
    common.Manufacturer = "Chest CT phantom"
    common.ManufacturerModelName = "tools.phantom"
    common.DeviceSerialNumber = "1"
    common.SoftwareVersions = "1"
    common.InstitutionName = "Phantom"
    common.ReferringPhysicianName = ""
    common.StudyDescription = "Chest CT phantom"
    common.SeriesDescription = (
        series_description or f"Thorax {grid.thickness_mm:g} mm {phantom.kernel}"
    )
    common.PatientName = _NAMES[phantom.disease]
    common.PatientID = patient_id
    common.PatientBirthDate = f"{int(_DATE[:4]) - phantom.age}0101"
    common.PatientSex = phantom.sex
    common.PatientAge = f"{phantom.age:03d}Y"
    common.BodyPartExamined = "CHEST"
    common.ScanOptions = "HELICAL MODE"
    common.SliceThickness = _decimal(grid.thickness_mm)
    common.KVP = "120"
    common.DataCollectionDiameter = "500"
    common.ReconstructionDiameter = _decimal(columns * column_mm)
    common.GantryDetectorTilt = "0"
    common.RotationDirection = "CW"
    common.ExposureTime = "500"
    common.XRayTubeCurrent = "200"
    common.Exposure = "100"
    common.FilterType = "NONE"
    common.ConvolutionKernel = _KERNEL_CODES[phantom.kernel]
    common.PatientPosition = grid.patient_position
    common.StudyInstanceUID = _uid(study)
    common.SeriesInstanceUID = _uid(series)
    common.StudyID = "1"
    common.SeriesNumber = series_number
    common.AcquisitionNumber = 1
    common.FrameOfReferenceUID = _uid([*study, "frame of reference"])
    common.PositionReferenceIndicator = ""
    common.ImageOrientationPatient = [_decimal(v) for v in (*along_row, *along_column)]
    common.SamplesPerPixel = 1
    common.PhotometricInterpretation = "MONOCHROME2"
    common.Rows, common.Columns = rows, columns
    common.PixelSpacing = [_decimal(row_mm), _decimal(column_mm)]
    common.BitsAllocated, common.BitsStored, common.HighBit = 16, 12, 11
    common.PixelRepresentation = 0
    common.RescaleIntercept, common.RescaleSlope, common.RescaleType = "-1024", "1", "HU"
    common.WindowCenter, common.WindowWidth = ["-600", "40"], ["1500", "400"]

    order = np.random.default_rng(phantom.seed).permutation(count)
    paths = []
    for i in range(count):
        instance = Dataset()
        instance.update(common)
        instance.SOPInstanceUID = _uid([*series, "instance", str(i)])
        instance.InstanceNumber = count - i if reverse_instance_numbers else i + 1
        position = grid.to_patient((i, 0, 0))
        instance.ImagePositionPatient = [_decimal(v) for v in position]
        instance.SliceLocation = _decimal(position[2])
        stored = np.clip(phantom.hu[i].astype(np.int32) + 1024, 0, 4095).astype("<u2")
        instance.PixelData = stored.tobytes()
        instance["PixelData"].VR = "OW"
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        instance.file_meta = meta
        number = order[i] if shuffle_file_names else i
        path = folder / f"CT{number + 1:04d}.dcm"
        instance.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_nifti(phantom: Phantom, folder: str | os.PathLike[str], name: str) -> list[Path]:
    """Write NAME_ct.nii.gz (int16 HU), NAME_lung.nii.gz and NAME_lesion.nii.gz (uint8, 0 or 1).

    Arrays are stored (column, row, slice), the NIfTI affine is RAS mm.

    Returns
    -------
    list of Path
        The three files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    affine = _LPS_TO_RAS @ phantom.grid.affine[:, [2, 1, 0, 3]]
    paths = []
    for part, array in (
        ("ct", phantom.hu),
        ("lung", phantom.lung.astype(np.uint8)),
        ("lesion", phantom.lesion.astype(np.uint8)),
    ):
        image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
        image.header.set_xyzt_units("mm")
        path = folder / f"{name}_{part}.nii.gz"
        nibabel.save(image, path)
        paths.append(path)
    return paths


def _decimal(value: float) -> str:
    """Format a number as a DICOM decimal string of at most 16 characters."""
    rounded = float(value) if abs(value) > 1e-9 else 0.0
    for digits in range(16, 0, -1):
        text = f"{rounded:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(f"{value} does not fit a decimal string")


def _uid(sources: list[str]) -> str:
    # pydicom's own prefix: without one it ignores the sources and draws a random UID.
    return generate_uid(entropy_srcs=sources)
