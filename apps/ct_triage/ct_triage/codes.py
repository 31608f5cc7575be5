"""Every code that the results use, each with the place it comes from.

Standard codes are those of PS3.16 and of SNOMED CT, LOINC and UCUM as PS3.16 lists them. No
standard code exists for the lesion share of a lung or for CT-0..CT-4: these are in a private
coding scheme (PS3.3 8.2), which is explained in every object that uses it.
"""

import uuid
from typing import Self

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from ct_triage.configuration import PrivateScheme

# --- Structures: CID 7150 for categories, CID 7151 and 7159 for types, CID 244 for laterality.
ANATOMICAL_STRUCTURE = codes.SCT.AnatomicalStructure
ABNORMAL_STRUCTURE = codes.SCT.MorphologicallyAbnormalStructure
LUNG = codes.SCT.Lung
LESION = codes.SCT.Lesion
RIGHT = codes.SCT.Right
LEFT = codes.SCT.Left
BOTH = codes.SCT.Bilateral

# --- Procedure: the only CT code in CID 100 that fits a chest.
CT_PROCEDURE = codes.LN.CTUnspecifiedBodyRegion

# --- Algorithms: CID 7162.
ARTIFICIAL_INTELLIGENCE = codes.DCM.ArtificialIntelligence

# --- Measurements and their units: CID 7469, CID 7181 (a cubic centimetre is a millilitre).
VOLUME = codes.SCT.Volume
CUBIC_CENTIMETRE = codes.UCUM.CubicCentimeter
PERCENT = codes.UCUM.Percent

# --- Evaluations: presence with CID 240, severity with CID 3716.
PRESENCE = codes.DCM.PresenceOfProperty
PRESENT = codes.SCT.Present
ABSENT = codes.SCT.Absent
# pydicom calls it "Severity (attribute)", PS3.16 does not.
SEVERITY = Code("246112005", "SCT", "Severity")
COMMENT = codes.DCM.Comment
# TID 1500 row 12; not in pydicom's dictionaries.
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")

# CID 7001.
PREVIOUS_FINDINGS = codes.LN.PreviousFindings

# --- Quality: CID 7036 for the verdict. Findings are of CID 6135 and CID 6315, written for other
# examinations in the same words; what they lack is in the private scheme.
SERIES_QUALITY = codes.DCM.ImagingSeriesQuality
QUALITY_VERDICTS = {
    "acceptable": codes.cid7036.DiagnosticQuality,
    "limited": codes.cid7036.LimitedQuality,
    "unreliable": codes.cid7036.NonDiagnosticQuality,
}
QUALITY_FINDING = codes.DCM.QualityFinding

# --- Identification; a probability has no context group of its own, percent is CID 7181's unit.
COVID_19 = Code("840539006", "SCT", "COVID-19")
PROBABILITY = codes.DCM.Probability

# --- Classes of slices; "Pneumonia" is what such a classification is about, too.
PNEUMONIA = Code("233604007", "SCT", "Pneumonia")

# --- Follow-up. No context group holds these three conditions of a patient.
CURRENT_RESPONSE = codes.DCM.CurrentResponse
CONDITIONS = {
    "positive response": Code("268910001", "SCT", "Patient condition improved"),
    "stable": Code("359746009", "SCT", "Patient condition stable"),
    "progression": Code("271299001", "SCT", "Patient condition worsened"),
}

# CID 3716 has nothing between severe and fatal, so the two highest categories share a code.
SEVERITIES = {
    "CT-0": codes.cid3716.None_,
    "CT-1": codes.cid3716.Mild,
    "CT-2": codes.cid3716.Moderate,
    "CT-3": codes.cid3716.Severe,
    "CT-4": codes.cid3716.Severe,
}

_SCHEME_NAMESPACE = uuid.UUID("0d6c1c1e-0f3c-4a38-8a2c-4d8f5f0d9f6b")


class PrivateCodes:
    """The codes of the private scheme, under the designator that the configuration gives it.

    Parameters
    ----------
    scheme : PrivateScheme
        Designator, name, version and who is responsible.
    """

    def __init__(self, scheme: PrivateScheme) -> None:
        def code(value: str, meaning: str) -> Code:
            return Code(value, scheme.designator, meaning)

        self.scheme = scheme
        self.lung_volume = code("LUNG_VOLUME", "Volume of both lungs")
        self.lesion_volume = code("LESION_VOLUME", "Volume of the lesions in the lung")
        self.lesion_share = code("LESION_SHARE", "Lesion share of the lung volume")
        self.severity_score = code(
            "SEVERITY_SCORE", "Severity score: larger lesion share of the two lungs"
        )
        self.severity_category = code("SEVERITY_CT", "CT severity category")
        self.categories = {
            "CT-0": code("CT-0", "CT-0 (none)"),
            "CT-1": code("CT-1", "CT-1 (mild)"),
            "CT-2": code("CT-2", "CT-2 (moderate)"),
            "CT-3": code("CT-3", "CT-3 (severe)"),
            "CT-4": code("CT-4", "CT-4 (critical)"),
        }
        # The keys are the classes of ``ct_triage.slices``.
        self.study_class = code("STUDY_CLASS", "Class of the study, told from its slices")
        self.study_classes = {
            "COVID-19": COVID_19,
            "common pneumonia": PNEUMONIA,
            "control": code("CONTROL", "Neither COVID-19 nor common pneumonia"),
        }
        self.class_probabilities = {
            "COVID-19": code("P_COVID19", "Probability of COVID-19, told from slices"),
            "common pneumonia": code("P_PNEUMONIA", "Probability of pneumonia, told from slices"),
            "control": code("P_CONTROL", "Probability of neither, told from slices"),
        }
        self.lesion_share_change = code(
            "SHARE_CHANGE", "Lesion share since the previous study, percentage points"
        )
        self.corrected_lesion_volume = code(
            "CORR_VOLUME", "Lesion volume corrected to the lung volume of the previous study"
        )
        self.corrected_lesion_volume_change = code(
            "CORR_CHANGE", "Change of the lesion volume corrected for lung volume"
        )
        self.response = code("RESPONSE", "Response since the previous study")
        self.quality_findings = {
            "lungs_incomplete": codes.cid6315.AnatomyCoverageIncomplete,
            "field_of_view": codes.cid6315.PoorFOVSelection,
            "noise": codes.cid6315.PoorSNR,
            "hounsfield_scale": codes.cid6135.InappropriateImageProcessing,
            "slice_spacing": code("SLICE_SPACING", "Slices too far apart"),
            "odd_slices": code("ODD_SLICES", "Slices empty, repeated or out of place"),
            "lungs_implausible": code("NO_LUNGS", "What was found does not look like lungs"),
            "far_from_training": code("UNKNOWN_KIND", "Unlike the studies the models know"),
        }
        self.responses = {
            "positive response": code("POSITIVE", "Positive response"),
            "stable": code("STABLE", "Stable (change below 1 %)"),
            "progression": code("PROGRESSION", "Progression"),
        }

    @classmethod
    def of(cls, report: Dataset) -> Self:
        """Return the codes under the designator that a report of this application declares.

        Sites name their scheme as they like; its UID tells that it is this one. A report that
        declares no such scheme is read with the default designator.
        """
        for item in report.get("CodingSchemeIdentificationSequence") or ():
            scheme = PrivateScheme.model_construct(
                designator=str(item.get("CodingSchemeDesignator")),
                version=str(item.get("CodingSchemeVersion")),
                responsible_organization=str(item.get("CodingSchemeResponsibleOrganization")),
            )
            private = cls(scheme)
            if item.get("CodingSchemeUID") == private.uid:
                return private
        return cls(PrivateScheme())

    @property
    def uid(self) -> str:
        """Coding Scheme UID (0008,010C): one for each designator, version and organization."""
        parts = (self.scheme.designator, self.scheme.version, self.scheme.responsible_organization)
        return f"2.25.{uuid.uuid5(_SCHEME_NAMESPACE, repr(parts)).int}"

    @property
    def identification(self) -> CodingSchemeIdentificationItem:
        """Describe the scheme (Coding Scheme Identification Sequence, PS3.3 C.12.1)."""
        item = CodingSchemeIdentificationItem(
            designator=self.scheme.designator,
            name=self.scheme.name,
            version=self.scheme.version,
            responsible_organization=self.scheme.responsible_organization,
        )
        # highdicom writes it for registered schemes only.
        item.CodingSchemeUID = self.uid
        return item
