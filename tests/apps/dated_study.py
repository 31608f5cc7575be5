"""The small study at other dates and with other lesions, and as other systems segment it."""

import dataclasses
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.sr.coding import Code
from small_study import SmallStudy, small_study

from ct_triage import provenance

CT_ROOT = "1.2.826.0.1.3680043.8.498.8"
LUNG = Code("39607008", "SCT", "Lung")
VOLUME = Code("118565006", "SCT", "Volume")
CM3 = Code("cm3", "UCUM", "cubic centimetre")
ANATOMY = Code("91723000", "SCT", "Anatomical structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically abnormal structure")


def study_on(
    day: str, lesion_rows: int = 7, orientation: str = "head first supine", **attributes: Any
) -> SmallStudy:
    """Return the small study as another study of the patient: more rows are more right lesion."""
    study = small_study(
        orientation,
        **{
            "StudyDate": day,
            "ContentDate": day,
            "StudyInstanceUID": f"{CT_ROOT}.{day}.1",
            "SeriesInstanceUID": f"{CT_ROOT}.{day}.2",
            "FrameOfReferenceUID": f"{CT_ROOT}.{day}.3",
            **attributes,
        },
    )
    for index, header in enumerate(study.volume.headers):
        header.SOPInstanceUID = f"{CT_ROOT}.{day}.4.{index + 1}"
    lesion = np.zeros_like(study.segments.lesion)
    lesion[4:7, 8 : 8 + lesion_rows, 4:8] = True
    lesion &= study.segments.right_lung
    lesion |= study.segments.lesion & study.segments.left_lung
    return SmallStudy(study.volume, dataclasses.replace(study.segments, lesion=lesion))


def save(dataset: Any, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)
    return file


def foreign_seg(
    study: SmallStudy,
    masks: list[tuple[np.ndarray, Code, Code | None, Code | None]],
    segmentation_type: str = "BINARY",
) -> hd.seg.Segmentation:
    """Segment a study as another system: masks with property type, its modifier, and region."""
    descriptions = []
    for number, (_, kind, modifier, region) in enumerate(masks, 1):
        description = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"label {number}",
            segmented_property_category=ABNORMAL if region else ANATOMY,
            segmented_property_type=kind,
            algorithm_type="MANUAL",
        )
        if modifier:
            item = description.SegmentedPropertyTypeCodeSequence[0]
            item.SegmentedPropertyTypeModifierCodeSequence = [
                hd.sr.CodedConcept.from_code(modifier)
            ]
        if region:
            description.AnatomicRegionSequence = [hd.sr.CodedConcept.from_code(region)]
        descriptions.append(description)
    if segmentation_type == "LABELMAP":
        pixels = np.zeros(study.volume.voxels.shape, np.uint8)
        for number, (mask, *_) in enumerate(masks, 1):
            pixels[mask] = number
    else:
        pixels = np.stack([mask for mask, *_ in masks], axis=-1).astype(np.uint8)
    if segmentation_type == "FRACTIONAL":
        pixels = np.where(pixels, 0.8, 0.2).astype(np.float32)
    seg = hd.seg.Segmentation(
        source_images=provenance.source_images(study.volume),
        pixel_array=pixels,
        segmentation_type=segmentation_type,
        segment_descriptions=descriptions,
        series_instance_uid=f"{CT_ROOT}.9.1",
        series_number=77,
        sop_instance_uid=f"{CT_ROOT}.9.2",
        instance_number=1,
        manufacturer="Another",
        manufacturer_model_name="system",
        software_versions="1",
        device_serial_number="1",
    )
    seg.copy_patient_and_study_information(study.volume.headers[0])
    return seg


def foreign_report(study: SmallStudy, groups: list[tuple]) -> hd.sr.Comprehensive3DSR:
    """Write a TID 1500 report of groups: finding, site, laterality, volume and its unit."""
    report = study.report()
    measurements = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_device_context=hd.sr.ObserverContext(
                Code("121007", "DCM", "Device"),
                hd.sr.DeviceObserverIdentifyingAttributes(uid="1.2.3"),
            )
        ),
        procedure_reported=Code("25045-6", "LN", "CT unspecified body region"),
        imaging_measurements=[
            hd.sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=hd.sr.TrackingIdentifier(f"1.2.{i}", f"group {i}"),
                finding_type=finding,
                finding_sites=[hd.sr.FindingSite(site, laterality)] if site else None,
                measurements=[hd.sr.Measurement(VOLUME, value, unit)],
            )
            for i, (finding, site, laterality, value, unit) in enumerate(groups, 1)
        ],
    )
    report.ContentSequence = measurements[0].ContentSequence
    return report
