"""What other systems call lungs and lesions in their segmentations and reports.

pydicom holds the codes of the retired SRT scheme equal to those of SNOMED CT that replaced them.
"""

from collections.abc import Iterable
from enum import Enum

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from ct_triage import codes


class Side(Enum):
    """Side of the patient."""

    RIGHT = "right_lung"
    LEFT = "left_lung"


LUNG = codes.LUNG
# The left column says what is part of the lungs, the right one its side, where the code tells.
_LUNG_PARTS: tuple[tuple[Code, Side | None], ...] = (
    (LUNG, None),
    (Code("74101002", "SCT", "Both lungs"), None),
    (Code("3341006", "SCT", "Right lung"), Side.RIGHT),
    (Code("T-28100", "SRT", "Right lung"), Side.RIGHT),
    (Code("44029006", "SCT", "Left lung"), Side.LEFT),
    (Code("T-28500", "SRT", "Left lung"), Side.LEFT),
    (Code("31094006", "SCT", "Lobe of lung"), None),
    (Code("45653009", "SCT", "Upper lobe of lung"), None),
    (Code("42400003", "SCT", "Upper lobe of right lung"), Side.RIGHT),
    (Code("44714003", "SCT", "Upper lobe of left lung"), Side.LEFT),
    (Code("72481006", "SCT", "Middle lobe of right lung"), Side.RIGHT),
    (Code("40020002", "SCT", "Middle lobe of lung"), None),
    (Code("90572001", "SCT", "Lower lobe of lung"), None),
    (Code("266005", "SCT", "Lower lobe of right lung"), Side.RIGHT),
    (Code("41224006", "SCT", "Lower lobe of left lung"), Side.LEFT),
)
# Any lesion is one of the lungs only where its region says so.
ANY_LESION = codes.LESION
_LUNG_DISEASES = (
    Code("233604007", "SCT", "Pneumonia"),
    Code("205237003", "SCT", "Pneumonitis"),
    Code("840539006", "SCT", "COVID-19"),
    Code("882784691000119100", "SCT", "Pneumonia caused by SARS-CoV-2"),
)
_LUNG_OPACITIES = (
    Code("112120", "DCM", "Ground glass opacity"),
    Code("112001", "DCM", "Opacity"),
    Code("95436008", "SCT", "Pulmonary consolidation"),
)
_REGIONS = (Code("51185008", "SCT", "Thorax"), Code("43799004", "SCT", "Thoracic cavity"))


def code_of(sequence: Iterable[Dataset] | None) -> Code | None:
    """Return the first code of a code sequence; None where it holds none that can be compared."""
    for item in sequence or ():
        value = item.get("CodeValue") or item.get("LongCodeValue")
        if value and item.get("CodingSchemeDesignator"):
            # Without a version: that of the code lists is not given either.
            return Code(str(value), str(item.CodingSchemeDesignator), "")
    return None


def side_of(laterality: Code | None) -> Side | None:
    """Return the side that a laterality code names; None for both sides and for none."""
    if laterality is not None and laterality == codes.RIGHT:
        return Side.RIGHT
    if laterality is not None and laterality == codes.LEFT:
        return Side.LEFT
    return None


def is_lung(code: Code | None) -> bool:
    """Tell whether a code names a lung, both, or a lobe."""
    return code is not None and any(code == part for part, _ in _LUNG_PARTS)


def lung_side(code: Code, laterality: Code | None) -> Side | None:
    """Return the side of a lung or lobe, from its own code or from its laterality."""
    own = next((side for part, side in _LUNG_PARTS if code == part), None)
    return own or side_of(laterality)


def is_opacity(code: Code) -> bool:
    """Tell whether a code names a kind of opacity, which is a part of the disease."""
    return any(code == opacity for opacity in _LUNG_OPACITIES)


def is_lung_lesion(code: Code | None, region: Code | None) -> bool:
    """Tell whether a finding is pneumonia, or what it looks like, in a lung."""
    if code is None:
        return False
    if region is not None and not is_lung(region) and not any(region == r for r in _REGIONS):
        return False
    if code == ANY_LESION:
        return region is not None
    return is_opacity(code) or any(code == disease for disease in _LUNG_DISEASES)
