"""Every code that the results use, each with the place it comes from.

Standard codes are those of PS3.16 and of SNOMED CT, LOINC and UCUM as PS3.16 lists them. No
standard code exists for the lesion share of a lung or for CT-0..CT-4: these are in a private
coding scheme (PS3.3 8.2), which is explained in every object that uses it.
"""

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

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

# --- Follow-up. No context group holds these three conditions of a patient.
CURRENT_RESPONSE = codes.DCM.CurrentResponse
CONDITIONS = {
    "positive response": Code("268910001", "SCT", "Patient condition improved"),
    "stable": Code("359746009", "SCT", "Patient condition stable"),
    "progression": Code("271299001", "SCT", "Patient condition worsened"),
}

# --- Private.
SCHEME = "99CTTRIAGE"
LUNG_VOLUME = Code("LUNG_VOLUME", SCHEME, "Volume of both lungs")
LESION_VOLUME = Code("LESION_VOLUME", SCHEME, "Volume of the lesions in the lung")
LESION_SHARE = Code("LESION_SHARE", SCHEME, "Lesion share of the lung volume")
SEVERITY_SCORE = Code(
    "SEVERITY_SCORE", SCHEME, "Severity score: larger lesion share of the two lungs"
)
SEVERITY_CATEGORY = Code("SEVERITY_CT", SCHEME, "CT severity category")
CATEGORIES = {
    "CT-0": Code("CT-0", SCHEME, "CT-0 (none)"),
    "CT-1": Code("CT-1", SCHEME, "CT-1 (mild)"),
    "CT-2": Code("CT-2", SCHEME, "CT-2 (moderate)"),
    "CT-3": Code("CT-3", SCHEME, "CT-3 (severe)"),
    "CT-4": Code("CT-4", SCHEME, "CT-4 (critical)"),
}
LESION_SHARE_CHANGE = Code(
    "SHARE_CHANGE", SCHEME, "Lesion share since the previous study, percentage points"
)
CORRECTED_LESION_VOLUME = Code(
    "CORR_VOLUME", SCHEME, "Lesion volume corrected to the lung volume of the previous study"
)
CORRECTED_LESION_VOLUME_CHANGE = Code(
    "CORR_CHANGE", SCHEME, "Change of the lesion volume corrected for lung volume"
)
RESPONSE = Code("RESPONSE", SCHEME, "Response since the previous study")
RESPONSES = {
    "positive response": Code("POSITIVE", SCHEME, "Positive response"),
    "stable": Code("STABLE", SCHEME, "Stable (change below 1 %)"),
    "progression": Code("PROGRESSION", SCHEME, "Progression"),
}
# CID 3716 has nothing between severe and fatal, so the two highest categories share a code.
SEVERITIES = {
    "CT-0": codes.cid3716.None_,
    "CT-1": codes.cid3716.Mild,
    "CT-2": codes.cid3716.Moderate,
    "CT-3": codes.cid3716.Severe,
    "CT-4": codes.cid3716.Severe,
}


def private_scheme() -> CodingSchemeIdentificationItem:
    """Describe the private scheme (Coding Scheme Identification Sequence, PS3.3 C.12.1)."""
    return CodingSchemeIdentificationItem(
        designator=SCHEME,
        name="CT triage: lesion share, CT severity categories and response",
        version="1",
        responsible_organization="ct-triage-bundles",
    )
