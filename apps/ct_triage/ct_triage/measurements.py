"""The measurements as they are published: one place for what report and ``result.json`` state."""

from highdicom.sr import Measurement

from ct_triage import codes
from ct_triage.codes import PrivateCodes
from ct_triage.severity import Findings, Involvement, SliceClasses

# A cubic millimetre, and less than a voxel of any lung: what is dropped means nothing.
VOLUME_DECIMALS = 3
PERCENT_DECIMALS = 4


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


def covid19_probability_percent(findings: Findings) -> float | None:
    """Probability of COVID-19 in percent; None where it is not known."""
    probability = findings.covid19_probability
    return None if probability is None else round(100 * probability, PERCENT_DECIMALS)


def class_probabilities_percent(classes: SliceClasses) -> dict[str, float]:
    """Probability of each class of the study in percent."""
    return {
        name: round(100 * probability, PERCENT_DECIMALS)
        for name, probability in classes.probabilities.items()
    }


def measure_classes(classes: SliceClasses, private: PrivateCodes) -> list[Measurement]:
    """Return the probabilities of a study's classes as measurements of a group in a report."""
    return [
        Measurement(private.class_probabilities[name], percent, codes.PERCENT)
        for name, percent in class_probabilities_percent(classes).items()
    ]


# "Volume" is that of the segment which the group refers to, in a lung's group and in the lesions'.


def measure_lung(lung: Involvement, private: PrivateCodes) -> list[Measurement]:
    """Return the numbers of a lung as measurements of its group in a report."""
    numbers = involvement_numbers(lung)
    return [
        Measurement(codes.VOLUME, numbers["lung_volume_ml"], codes.CUBIC_CENTIMETRE),
        Measurement(private.lesion_volume, numbers["lesion_volume_ml"], codes.CUBIC_CENTIMETRE),
        Measurement(private.lesion_share, numbers["lesion_share_percent"], codes.PERCENT),
    ]


def measure_lesions(both_lungs: Involvement, private: PrivateCodes) -> list[Measurement]:
    """Return the numbers of both lungs as measurements of the lesions' group in a report."""
    numbers = involvement_numbers(both_lungs)
    return [
        Measurement(private.lung_volume, numbers["lung_volume_ml"], codes.CUBIC_CENTIMETRE),
        Measurement(codes.VOLUME, numbers["lesion_volume_ml"], codes.CUBIC_CENTIMETRE),
        Measurement(private.lesion_share, numbers["lesion_share_percent"], codes.PERCENT),
    ]
