"""Series selection rules in the JSON form of MONAI Deploy's DICOMSeriesSelectorOperator.

The same rules match the same series there and here. Written anew because the SDK's own needs its
whole study in memory, writes descriptions to the log, and ends with an exception where a header
lacks what a rule asks for; here such a series just does not match.
"""

import difflib
import re
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field
from pydicom.datadict import keyword_dict
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

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
            try:
                re.compile(wanted)
            except re.error as error:
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
        """Tell whether a series' first instance meets every condition."""
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
        normal = np.cross(*np.reshape(np.asarray(value, dtype=float), (2, 3)))
        return ORIENTATIONS[int(np.argmax(np.abs(normal)))] == wanted.strip().lower()
    if isinstance(value, MultiValue):
        return _meets_values(str([str(v) for v in value]).lower(), wanted)
    if isinstance(value, int | float):
        return _meets_number(float(value), str(value), wanted)
    text = str(value)
    return isinstance(wanted, str) and (
        text.casefold() == wanted.casefold() or bool(re.search(wanted, text, re.IGNORECASE))
    )


def _meets_values(values: str, wanted: Any) -> bool:
    terms = [str(term).lower() for term in (wanted if isinstance(wanted, list) else [wanted])]
    return all(term[1:] not in values if term.startswith("!") else term in values for term in terms)


def _meets_number(value: float, text: str, wanted: Any) -> bool:
    if isinstance(wanted, list) and len(wanted) == 2:
        first, second = wanted
        if isinstance(second, str):
            compare = COMPARISONS.get(second)
            return compare is not None and bool(compare(value, float(first)))
        return not isinstance(first, str) and first <= value <= second
    if isinstance(wanted, str):
        return bool(re.fullmatch(wanted, text))
    return isinstance(wanted, int | float) and value == wanted
