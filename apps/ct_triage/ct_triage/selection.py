"""Series selection rules in the JSON form of MONAI Deploy's DICOMSeriesSelectorOperator.

The same rules match the same series there and here. Written anew because the SDK's own needs its
whole study in memory, writes descriptions to the log, and ends with an exception where a header
lacks what a rule asks for; here such a series just does not match.
"""

import difflib
from typing import Annotated, Any

import numpy as np
import regex
from pydantic import AfterValidator, Field
from pydicom.datadict import keyword_dict
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from ct_triage.errors import ConfigurationError
from ct_triage.scanning import value_of
from ct_triage.strict import StrictModel

ORIENTATION = "ImageOrientationPatient"
ORIENTATIONS = ("sagittal", "coronal", "axial")
COMPARISONS = {
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
    "!=": np.not_equal,
}

# Some expressions take longer than the universe is old on a text of 30 characters.
MAX_SECONDS = 1.0
MAX_EXPRESSION_LENGTH = 1000

Wanted = str | int | float | list[str | int | float] | None


def _checked(conditions: dict[str, Wanted]) -> dict[str, Wanted]:
    for keyword, wanted in conditions.items():
        if keyword not in keyword_dict:
            near = difflib.get_close_matches(keyword, keyword_dict, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{keyword} is no DICOM keyword{hint}")
        if keyword == ORIENTATION:
            if not isinstance(wanted, str) or wanted.strip().lower() not in ORIENTATIONS:
                raise ValueError(f"{keyword} must be axial, coronal or sagittal")
        elif isinstance(wanted, str):
            if len(wanted) > MAX_EXPRESSION_LENGTH:
                raise ValueError(f"{keyword}: over {MAX_EXPRESSION_LENGTH} characters long")
            try:
                regex.compile(wanted)
            except (regex.error, ValueError, OverflowError, RecursionError) as error:
                raise ValueError(f"{keyword}: no regular expression ({error})") from error
    return conditions


class Selection(StrictModel):
    """A named set of conditions that all have to be met."""

    name: str = ""
    """What the selection is called."""
    conditions: Annotated[dict[str, Wanted], AfterValidator(_checked)]
    """By DICOM keyword: a regular expression or equal text; a number, ``[low, high]`` or
    ``[number, ">"]``; for attributes of several values a list of those wanted, ``"!"`` before
    those unwanted; Axial, Coronal or Sagittal for ImageOrientationPatient."""

    def matches(self, header: Dataset) -> bool:
        """Tell whether a series' first instance meets every condition.

        Raises
        ------
        ConfigurationError
            If an expression takes longer than ``MAX_SECONDS``.
        """
        # An empty condition asks for nothing; a selection without any selects nothing.
        return bool(self.conditions) and all(
            _meets(header, keyword, wanted)
            for keyword, wanted in self.conditions.items()
            if wanted or wanted == 0
        )


class Rules(StrictModel):
    """Selections in order of preference."""

    selections: Annotated[list[Selection], Field(min_length=1)]

    def rank(self, header: Dataset) -> int | None:
        """Place of the first selection that a series matches; None where none does."""
        matching = (i for i, s in enumerate(self.selections) if s.matches(header))
        return next(matching, None)


def _meets(header: Dataset, keyword: str, wanted: Any) -> bool:
    value = value_of(header, keyword)
    if value is None or value in ("", []):
        return False
    if keyword == ORIENTATION:
        return _orientation(value) == wanted.strip().lower()
    if isinstance(value, MultiValue):
        return _meets_values(str([str(v) for v in value]).lower(), wanted)
    if isinstance(value, int | float):
        number = _number(value)
        return number is not None and _meets_number(keyword, number, str(value), wanted)
    text = str(value)
    return isinstance(wanted, str) and (
        text.casefold() == wanted.casefold() or _found(keyword, wanted, text, whole=False)
    )


def _found(keyword: str, wanted: str, text: str, *, whole: bool) -> bool:
    match = regex.fullmatch if whole else regex.search
    flags = 0 if whole else regex.IGNORECASE
    try:
        return bool(match(wanted, text, flags, timeout=MAX_SECONDS))
    except TimeoutError as error:
        raise ConfigurationError(
            f"series.rules: the expression for {keyword} takes over {MAX_SECONDS:g} s to match;"
            " simplify it"
        ) from error


def _orientation(value: Any) -> str:
    """Return the plane of direction cosines; '' where they are none."""
    try:
        normal = np.cross(*np.reshape(np.asarray(value, dtype=float), (2, 3)))
    except (TypeError, ValueError):
        return ""
    return ORIENTATIONS[int(np.argmax(np.abs(normal)))]


def _meets_values(values: str, wanted: Any) -> bool:
    terms = [str(term).lower() for term in (wanted if isinstance(wanted, list) else [wanted])]
    return all(term[1:] not in values if term.startswith("!") else term in values for term in terms)


def _meets_number(keyword: str, value: float, text: str, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return _found(keyword, wanted, text, whole=True)
    if not isinstance(wanted, list):
        return bool(value == wanted)
    if len(wanted) != 2:
        return False
    first, second = wanted
    number = _number(first)
    if number is None:
        return False
    if isinstance(second, str):
        compare = COMPARISONS.get(second)
        return compare is not None and bool(compare(value, number))
    return not isinstance(first, str) and number <= value <= second


def _number(value: str | float) -> float | None:
    """Return a value as a number; None where it is none that a float holds."""
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
