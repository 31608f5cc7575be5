"""The measurements as they are published: one place for what report and ``result.json`` state."""

from highdicom.sr import Measurement
from pydicom.sr.coding import Code

from ct_triage import codes
from ct_triage.severity import Findings, Involvement

# A cubic millimetre, and less than a voxel of any lung: what is dropped means nothing.
VOLUME_DECIMALS = 3
PERCENT_DECIMALS = 4

# What the numbers are called inside a lung's group and inside the lesions' group: in each,
# "Volume" is that of the segment which the group refers to.
LUNG_MEASUREMENTS = {
    "lung_volume_ml": (codes.VOLUME, codes.CUBIC_CENTIMETRE),
    "lesion_volume_ml": (codes.LESION_VOLUME, codes.CUBIC_CENTIMETRE),
    "lesion_share_percent": (codes.LESION_SHARE, codes.PERCENT),
}
LESION_MEASUREMENTS = {
    "lung_volume_ml": (codes.LUNG_VOLUME, codes.CUBIC_CENTIMETRE),
    "lesion_volume_ml": (codes.VOLUME, codes.CUBIC_CENTIMETRE),
    "lesion_share_percent": (codes.LESION_SHARE, codes.PERCENT),
}


def involvement_numbers(involvement: Involvement) -> dict[str, float]:
    """Volumes and share of a lung, or of both, with the unit in each name."""
    return {
        "lung_volume_ml": round(involvement.lung_volume_ml, VOLUME_DECIMALS),
        "lesion_volume_ml": round(involvement.lesion_volume_ml, VOLUME_DECIMALS),
        "lesion_share_percent": round(involvement.lesion_share_percent, PERCENT_DECIMALS),
    }


def severity_score(findings: Findings) -> float:
    """Severity score in percent."""
    return round(findings.severity_score_percent, PERCENT_DECIMALS)


def measure(involvement: Involvement, names: dict[str, tuple[Code, Code]]) -> list[Measurement]:
    """Return the numbers of a lung, or of both, as measurements of a report."""
    numbers = involvement_numbers(involvement)
    return [Measurement(name, numbers[key], unit) for key, (name, unit) in names.items()]
