"""Where results come from: the software, its models and the source images, and UIDs of all that.

What the segmentation and the report share is here, so that the two always agree.
"""

import hashlib
import json
import math
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DA, TM

from ct_triage import __version__
from ct_triage.codes import PrivateCodes
from ct_triage.configuration import Configuration
from ct_triage.scanning import value_of
from ct_triage.volume import Volume

APPLICATION = "ct_triage"
# Algorithm parameter that tells a model's weights apart from all others.
WEIGHTS_PARAMETER = "weights_sha256"

# Any fixed UUID would do; this one is the namespace of this application's identifiers.
_NAMESPACE = uuid.UUID("5b4c6f0e-8a53-4c0e-9d0b-6d2f1f2f7a10")
UNKNOWN_MOMENT = datetime(1900, 1, 1)
_LARGEST_SOURCE_SERIES_NUMBER = 10_000_000
# What highdicom reads of a source image, besides its place in the patient.
COPIED_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "Modality",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
IDENTIFYING_KEYWORDS = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model a result was made with.

    Attributes
    ----------
    name : str
        Name of the bundle; of several, joined by +, 2*NAME of one that counts twice.
    version : str
        Version of the bundle; of several, joined by +.
    sha256 : str
        Hash of the weight file, 64 hexadecimal digits; of several files see `hash_of_hashes`.
    """

    name: str
    version: str
    sha256: str

    @classmethod
    def of_several(
        cls, identities: Sequence["ModelIdentity"], weights: Sequence[int]
    ) -> "ModelIdentity":
        """Return the identity of models that give one result together, each with its weight."""
        return cls(
            "+".join(
                identity.name if weight == 1 else f"{weight}*{identity.name}"
                for identity, weight in zip(identities, weights, strict=True)
            ),
            "+".join(identity.version for identity in identities),
            hash_of_hashes(identity.sha256 for identity in identities),
        )

    @property
    def labels(self) -> list[str]:
        """Name and version, of several models one by one."""
        names, versions = self.name.split("+"), self.version.split("+")
        # One model may have a + of its own in either.
        if len(names) != len(versions):
            return [f"{self.name} {self.version}"]
        names = [re.sub(r"^[1-9]\*", "", name) for name in names]
        return [f"{name} {version}" for name, version in zip(names, versions, strict=True)]


def hash_of_hashes(hashes: Iterable[str]) -> str:
    """Hash what ``sha256sum`` says of several files, one a line without the names."""
    return hashlib.sha256("".join(f"{one}\n" for one in hashes).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Origin:
    """What results are made with: the models, the settings, and the names they go under.

    Attributes
    ----------
    models : tuple of ModelIdentity
        The lung model, the lesion model and, if it ran, the slice classifier; none where results
        are made of other results.
    lung_threshold, lesion_threshold : float
        Probabilities from which a voxel counts, as they were applied; NaN without a model, and no
        lesion threshold where the members of an ensemble vote.
    configuration : Configuration
        Every setting of the run.
    """

    models: tuple[ModelIdentity, ...] = ()
    lung_threshold: float = math.nan
    lesion_threshold: float | None = math.nan
    configuration: Configuration = field(default_factory=Configuration)

    @property
    def codes(self) -> PrivateCodes:
        """The private codes of these results."""
        return PrivateCodes(self.configuration.private_scheme)

    @property
    def fingerprint(self) -> str:
        """Hash of the application's version, the models, their thresholds and all settings."""
        thresholds = (self.lung_threshold, self.lesion_threshold)
        models = [asdict(model) for model in self.models]
        return _digest(APPLICATION, __version__, models, thresholds, self.configuration.sha256)

    @property
    def lung_parameters(self) -> dict[str, str]:
        """Algorithm parameters of the lung model, for segmentation and report."""
        return {
            WEIGHTS_PARAMETER: self.models[0].sha256,
            "threshold": f"{self.lung_threshold:g}",
        }

    @property
    def lesion_parameters(self) -> dict[str, str]:
        """Algorithm parameters of the lesion model and of what is derived from its mask."""
        bounds = "/".join(f"{100 * bound:g}" for bound in self.configuration.ct_class_bounds)
        threshold = self.lesion_threshold
        return {
            WEIGHTS_PARAMETER: self.models[1].sha256,
            "threshold": "vote" if threshold is None else f"{threshold:g}",
            "min_lesion_ml": f"{self.configuration.thresholds.min_lesion_ml:g}",
            "ct_class_bounds_percent": bounds,
        }

    @property
    def slice_parameters(self) -> dict[str, str]:
        """Algorithm parameters of the slice classifier."""
        return {WEIGHTS_PARAMETER: self.models[2].sha256}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the site's calibration."""
        site = self.configuration.site
        if site is None:
            return ()
        notes = [f"thresholds of the site {site.site} were applied"]
        calibration = site.calibration
        if calibration is None:
            notes.append("the site file has no record of its calibration")
            return tuple(notes)
        if calibration.trusted is False:
            notes.append("the site's calibration is marked as not trusted")
        lesion = self.models[1]
        if calibration.model and lesion.sha256 not in calibration.model:
            notes.append(
                f"the site's thresholds were calibrated for another model than {lesion.name}"
            )
        return tuple(notes)


def derive_uid(purpose: str, volume: Volume, origin: Origin) -> str:
    """Derive a UID that a second run on the same images with the same origin gives again.

    A UUID-derived UID (PS3.5 B.2) of the application's version, the models, the configuration and
    every source instance. Results that are sent twice replace each other instead of adding up,
    and a late slice, another model, another setting or another version gives results of their own.
    """
    instances = [str(header.SOPInstanceUID) for header in volume.headers]
    if volume.frames:
        # One multi-frame instance may hold several stacks.
        instances += [str(frame) for frame in volume.frames]
    return uid_of(purpose, str(volume.headers[0].SeriesInstanceUID), instances, origin.fingerprint)


def uid_of(*parts: object) -> str:
    """Derive a UID of this version of the application from anything that JSON can hold."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, _digest(APPLICATION, __version__, *parts)).int}"


def device_uid(origin: Origin) -> str:
    """UID of the observer: this version of the application with these models and settings."""
    return uid_of("device", origin.fingerprint)


def device_serial_number(origin: Origin) -> str:
    """Sixteen hexadecimal digits that stand for a version, its models and its settings."""
    return origin.fingerprint[:16]


def software_versions(origin: Origin) -> tuple[str, ...]:
    """Name and version of the application and of each model."""
    return (f"{APPLICATION} {__version__}", *(label for m in origin.models for label in m.labels))


def instance_attributes(
    volume: Volume, origin: Origin, kind: str, series_number_offset: int, *parts: str
) -> dict[str, Any]:
    """Give what highdicom asks of every result: its series, its instance, and the equipment.

    Parameters
    ----------
    volume : Volume
        The source images.
    origin : Origin
        What the result was made with.
    kind : str
        Names the result among those of one run, in what its UIDs are derived from.
    series_number_offset : int
        See :func:`series_number`.
    parts : str
        What else the instance, but not its series, depends on.
    """
    manufacturer = origin.configuration.manufacturer
    return {
        "series_instance_uid": derive_uid(f"{kind} series", volume, origin),
        "series_number": series_number(volume, series_number_offset),
        "sop_instance_uid": derive_uid(" ".join([kind, *parts]), volume, origin),
        "instance_number": 1,
        "manufacturer": manufacturer.name,
        "manufacturer_model_name": manufacturer.model_name,
        "software_versions": software_versions(origin),
        "device_serial_number": device_serial_number(origin),
        "transfer_syntax_uid": ExplicitVRLittleEndian,
    }


def series_number(volume: Volume, offset: int) -> int:
    """Return the number of a series of results: hundred times the source's, plus an offset."""
    try:
        source = int(volume.headers[0].SeriesNumber)
    except (AttributeError, TypeError, ValueError):
        source = 0
    if not 0 < source < _LARGEST_SOURCE_SERIES_NUMBER:
        source = 0
    return 100 * source + offset


def content_moment(volume: Volume) -> datetime:
    """Content Date and Time of the results: when the source images were made.

    The time of the run would make two runs on the same study differ in nothing but this, under
    the same SOP Instance UID. Findings describe the patient when the images were taken, so that
    moment stands for them. 1900-01-01 if the source gives no date.
    """
    header = volume.headers[0]
    for kind in ("Content", "Acquisition", "Series", "Study"):
        try:
            date = DA(header[f"{kind}Date"].value)
        except (KeyError, ValueError):
            continue
        if not date:
            continue
        try:
            time = TM(header[f"{kind}Time"].value) or UNKNOWN_MOMENT.time()
        except (KeyError, ValueError):
            time = UNKNOWN_MOMENT.time()
        return datetime.combine(date, time)
    return UNKNOWN_MOMENT


def source_images(volume: Volume) -> list[Dataset]:
    """Describe the source images by nothing but what objects derived from them need.

    Real headers may lack, misspell or jitter what highdicom asks of them. Here the orientation is
    the volume's, thickness and spacing are always given, UIDs are as in the source whether they
    are valid or not, and patient and study are left to :func:`finish`.

    Returns
    -------
    list of Dataset
        One per slice; of a multi-frame source a single one, with its frames in slice order.
    """
    _, row_mm, column_mm = volume.spacing_mm
    # Along the slice normal, which on a tilted stack is less than from origin to origin.
    slice_spacing_mm = round(1000 * volume.voxel_volume_ml / (row_mm * column_mm), 6)
    orientation = volume.headers[0].ImageOrientationPatient
    images = []
    for header in volume.headers:
        image = Dataset()
        for keyword in COPIED_KEYWORDS:
            if keyword in header:
                image[keyword] = header[keyword]
        for keyword in IDENTIFYING_KEYWORDS:
            setattr(image, keyword, None)
        image.ImageOrientationPatient = orientation
        thickness = value_of(header, "SliceThickness")
        known = isinstance(thickness, int | float) and 0 < thickness < math.inf
        image.SliceThickness = thickness if known else slice_spacing_mm
        image.SpacingBetweenSlices = slice_spacing_mm
        images.append(image)
    return [_multi_frame(images)] if volume.frames else images


def _multi_frame(slices: Sequence[Dataset]) -> Dataset:
    """Describe the slices as frames of the one instance that they come from."""
    image = slices[0].copy()
    image.NumberOfFrames = len(slices)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    for keyword in ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"):
        measures[keyword] = image[keyword]
    orientation.ImageOrientationPatient = image.ImageOrientationPatient
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = []
    for one in slices:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = one.ImagePositionPatient
        frame.PlanePositionSequence = [position]
        image.PerFrameFunctionalGroupsSequence.append(frame)
    return image


def finish(instance: SOPClass, volume: Volume) -> None:
    """Give a result the patient and study of its source, as written there, and no time of its own.

    See :func:`content_moment` for why no time of the run is kept.
    """
    finish_for(instance, volume.headers[0])


def finish_for(instance: SOPClass, header: Dataset) -> None:
    """Do the same with one header that stands for patient and study."""
    instance.copy_patient_and_study_information(header)
    if "SpecificCharacterSet" in header:
        instance["SpecificCharacterSet"] = header["SpecificCharacterSet"]
    del instance.InstanceCreationDate
    del instance.InstanceCreationTime
    for equipment in instance.ContributingEquipmentSequence:
        del equipment.ContributionDateTime


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
