"""A CT series of a few thousand voxels whose masks are known exactly, for tests of the outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from highdicom.seg import Segmentation
from highdicom.sr import Comprehensive3DSR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from ct_triage.configuration import Configuration
from ct_triage.fhir import build_fhir
from ct_triage.provenance import ModelIdentity, Origin
from ct_triage.quality import Quality, Reason
from ct_triage.quality_features import FEATURE_NAMES, Features
from ct_triage.report import build_report
from ct_triage.result_json import build_result
from ct_triage.seg import build_seg
from ct_triage.severity import Findings, Segments, assess_severity
from ct_triage.volume import Volume

SHAPE = (12, 20, 27)
MODELS = (
    ModelIdentity("lung_segmentation", "1.2.3", "a1" * 32),
    ModelIdentity("lesion_segmentation_2d", "4.5.6", "b2" * 32),
)

ORIGIN = Origin(MODELS, lung_threshold=0.5, lesion_threshold=0.45)

# Unit vectors to the next slice, row and column, in LPS.
_TILT = np.deg2rad(15.0)
_C, _S = np.cos(_TILT), np.sin(_TILT)
ORIENTATIONS: dict[str, list[list[float]]] = {
    "head first supine": [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
    "feet first supine": [[0, 0, 1], [0, 1, 0], [-1, 0, 0]],
    "feet first prone": [[0, 0, 1], [0, -1, 0], [1, 0, 0]],
    "slices downwards": [[0, 0, -1], [0, 1, 0], [1, 0, 0]],
    "oblique": [[0, -_S, _C], [0, _C, _S], [1, 0, 0]],
    "gantry tilt": [[0, 0, 1], [0, _C, _S], [1, 0, 0]],
}

FEATURES = Features(**dict.fromkeys(FEATURE_NAMES, 1.0))
ACCEPTABLE = Quality((), 2.5, 8.0, FEATURES)
NOISY = Reason("noise", "noise in soft tissue is 400 HU, at most 150 HU is known", 400.0, 150.0)
DISTANT = Reason("far_from_training", "the study is unlike the others", 12.0, 8.0)
INVERTED = Reason("hounsfield_scale", "air is at 1000 HU", 1000.0, -880.0)

UUID_TEXT = "b4a3f6d2-41c5-4d0e-9c79-6a1b6f0f8f11"


@dataclass(frozen=True)
class SmallStudy:
    """A volume with its masks, and what the application makes of it."""

    volume: Volume
    segments: Segments
    origin: Origin = ORIGIN
    covid19_probability: float | None = None
    quality: Quality = ACCEPTABLE

    @property
    def findings(self) -> Findings:
        findings = assess_severity(self.segments, self.volume.voxel_volume_ml)
        return replace(findings, covid19_probability=self.covid19_probability)

    def seg(self) -> Segmentation:
        return build_seg(self.volume, self.segments, self.origin)

    def report(self) -> Comprehensive3DSR:
        outputs = self.origin.configuration.outputs
        seg = self.seg() if outputs.seg else None
        return build_report(
            self.volume, self.segments, seg, self.findings, self.quality, self.origin
        )

    def result(self) -> dict[str, Any]:
        outputs = {"seg": self.seg(), "report": self.report()}
        return build_result(self.volume, outputs, self.findings, self.quality, self.origin)

    def fhir(self) -> dict[str, Any]:
        return build_fhir(self.volume, self.report(), self.origin)

    @property
    def masks(self) -> dict[int, np.ndarray]:
        """Masks by segment number."""
        s = self.segments
        return {1: s.right_lung, 2: s.left_lung, 3: s.lesion}

    def write_source(self, folder: Path) -> list[Path]:
        """Write the CT images that the volume stands for."""
        files = []
        for index, header in enumerate(self.volume.headers):
            image = Dataset()
            image.update(header)
            image.PixelData = (self.volume.voxels[index] + 1024).astype("<u2").tobytes()
            image["PixelData"].VR = "OW"
            image.file_meta = FileMetaDataset()
            image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            files.append(folder / f"ct{index}.dcm")
            image.save_as(files[-1], enforce_file_format=True)
        return files


def small_study(
    orientation: str = "head first supine",
    *,
    spacing_mm: tuple[float, float, float] = (5.0, 1.25, 0.8),
    lesions: bool = True,
    right_lung: bool = True,
    without: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    configuration: Configuration | None = None,
    covid19_probability: float | None = None,
    reasons: tuple[Reason, ...] = (),
    **attributes: object,
) -> SmallStudy:
    """Make a study.

    ``without`` names header attributes to leave out, ``attributes`` gives others another value.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.array(ORIENTATIONS[orientation]).T * spacing_mm
    affine[:3, 3] = (-101.5, 37.25, -412.125)
    headers = tuple(_header(i, affine, spacing_mm, without, attributes) for i in range(SHAPE[0]))
    volume = Volume(np.full(SHAPE, -700, np.int16), affine, headers, notes)
    origin = replace(ORIGIN, configuration=configuration or Configuration())
    quality = replace(ACCEPTABLE, reasons=reasons)
    return SmallStudy(volume, _masks(lesions, right_lung), origin, covid19_probability, quality)


def _masks(lesions: bool, right_lung: bool) -> Segments:
    right, left, lesion = (np.zeros(SHAPE, dtype=bool) for _ in range(3))
    right[2:10, 4:15, 3:11] = right_lung
    left[3:11, 5:16, 15:24] = True
    # Not symmetric in any axis, so that no flip goes unseen.
    right[2, 4, 3:6] = left[10, 5, 15:19] = False
    lesion[4:7, 8:15, 4:8] = lesions
    lesion[5:7, 9:12, 19:22] = lesions
    return Segments(right, left, lesion & (right | left))


def _header(
    index: int,
    affine: np.ndarray,
    spacing_mm: tuple[float, float, float],
    without: tuple[str, ...],
    attributes: Mapping[str, object],
) -> Dataset:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.7.4.{index + 1}"
    header.StudyDate = header.ContentDate = "20200311"
    header.StudyTime, header.ContentTime = "101500", "102030.25"
    header.AccessionNumber = "A7"
    header.Modality = "CT"
    header.Manufacturer = "Small study"
    header.ReferringPhysicianName = ""
    header.StudyDescription = "Chest"
    header.PatientName = "Small^Study"
    header.PatientID = "SMALL"
    header.PatientBirthDate = "19500102"
    header.PatientSex = "F"
    header.PatientAge = "070Y"
    header.SliceThickness = "5"
    header.KVP = "120"
    header.PatientPosition = "HFS"
    header.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.7.1"
    header.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.7.2"
    header.StudyID = "7"
    header.SeriesNumber = 4
    header.AcquisitionNumber = 1
    header.InstanceNumber = index + 1
    header.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.7.3"
    header.PositionReferenceIndicator = ""
    position = affine @ (index, 0, 0, 1)
    header.ImagePositionPatient = [round(float(v), 6) for v in position[:3]]
    directions = affine[:3, :3] / spacing_mm
    header.ImageOrientationPatient = [round(float(v), 9) for v in directions[:, [2, 1]].T.ravel()]
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    _, header.Rows, header.Columns = SHAPE
    header.PixelSpacing = list(spacing_mm[1:])
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelRepresentation = 0
    header.RescaleIntercept, header.RescaleSlope = "-1024", "1"
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    for keyword in without:
        del header[keyword]
    return header


def study_with_uuid_text() -> SmallStudy:
    """Return a study whose UIDs are UUID text, as some real archives send them."""
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    study = small_study(**dict.fromkeys(keywords, UUID_TEXT))
    for index, header in enumerate(study.volume.headers):
        header.SOPInstanceUID = f"{UUID_TEXT}-{index}"
    return study
