"""Which of several usable series suits the models best."""

import re
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from ct_triage.scanning import text_of, values_of

if TYPE_CHECKING:
    from ct_triage.series import Series

CHEST_WORDS = re.compile(r"chest|thor|lung|pulmo|covid|грудн|легк", re.IGNORECASE)
OTHER_BODY_WORDS = re.compile(
    r"head|brain|skull|neck|spine|pelvis|\bleg|knee|foot|sinus|orbit", re.IGNORECASE
)
# Lungs are measured at full inspiration.
EXPIRATION_WORDS = re.compile(r"\bexp(ir|\b)|выдох", re.IGNORECASE)
THIN_MM = 3.0
MEDIUM_MM = 5.0
# Edge-enhancing kernels raise noise and contours. Siemens B60f or Bl57, GE, Philips, Canon.
SHARP_KERNEL = re.compile(
    r"^(?:[BIHQ][A-Z]?[5-9]\d|LUNG|BONE|EDGE|ULTRA|SHARP|DETAIL|Y[A-D]$|[DEL]$|FC(?:3|5|8)\d)",
    re.IGNORECASE,
)


def preference(series: "Series") -> tuple[float, ...]:
    """Sort key, larger is better.

    In this order: the chest before other regions, original before derived images, inspiration
    before expiration, full coverage, slices of at most 3 mm before 5 mm before thicker ones, soft
    kernels before sharp ones, and then thin slices.
    """
    first = series.headers[0]
    original = "ORIGINAL" in values_of(first, "ImageType")
    inspiration = not EXPIRATION_WORDS.search(_words(first))
    # Coverage counts in steps, so that one slice more does not outweigh the slice thickness.
    coverage = round(series.coverage_mm / 50)
    spacing_mm = series.coverage_mm / max(1, len(series.files) - 1)
    thinness = (spacing_mm <= THIN_MM) + (spacing_mm <= MEDIUM_MM)
    return (
        region(first),
        original,
        inspiration,
        coverage,
        thinness,
        not has_sharp_kernel(first),
        -spacing_mm,
    )


def region(header: Dataset) -> int:
    """1 for a chest by its description, -1 for another part of the body alone, else 0."""
    words = _words(header)
    if CHEST_WORDS.search(words):
        return 1
    return -1 if OTHER_BODY_WORDS.search(words) else 0


def has_sharp_kernel(header: Dataset) -> bool:
    """Tell whether a series was reconstructed with an edge-enhancing kernel."""
    name = next(iter(values_of(header, "ConvolutionKernel")), "")
    return bool(SHARP_KERNEL.match(name.strip()))


def _words(header: Dataset) -> str:
    keywords = ("BodyPartExamined", "SeriesDescription", "ProtocolName", "StudyDescription")
    return " ".join(text_of(header, keyword) for keyword in keywords)
