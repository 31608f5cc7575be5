"""Write the results so that a reader finds all of them or none."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from ct_triage.errors import OutputError
from ct_triage.followup import LUNGS

SEG_FILE = "seg.dcm"
REPORT_FILE = "sr.dcm"
RESULT_FILE = "result.json"
FHIR_FILE = "result.fhir.json"
NO_RESULT_FILE = "no_result.json"
SERIES_FILE = "series.json"
RESULT_FILES = (SEG_FILE, REPORT_FILE, RESULT_FILE, FHIR_FILE, NO_RESULT_FILE, SERIES_FILE)


def write_results(
    folder: Path, results: Mapping[str, Dataset | dict[str, Any]]
) -> tuple[Path, ...]:
    """Write results into a folder: data sets as DICOM, dictionaries as JSON.

    Each file is written in full under another name and then renamed, so none is ever seen
    half-written. What an earlier run left under a name that this one does not write is removed:
    the files of a folder always belong together.

    Parameters
    ----------
    folder : Path
        Made if need be.
    results : mapping
        By file name, one of ``RESULT_FILES``, in the order in which they appear.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as scratch:
            partial = Path(scratch)
            for name, result in results.items():
                if isinstance(result, Dataset):
                    result.save_as(partial / name, enforce_file_format=True)
                else:
                    (partial / name).write_text(json.dumps(result, indent=2) + "\n")
            for name in RESULT_FILES:
                if name not in results:
                    (folder / name).unlink(missing_ok=True)
            for name in results:
                os.replace(partial / name, folder / name)
    except OSError as error:
        raise OutputError(f"{folder}: cannot write the results ({error.strerror})") from error
    return tuple(folder / name for name in results)


def summarise(result: dict[str, Any]) -> str:
    """Return the findings of a ``result.json`` as a small table for people."""
    findings = result["findings"]
    lines = [f"{'':<11} {'lung ml':>8} {'lesion ml':>10} {'share %':>8}"]
    for key in ("right_lung", "left_lung", "both_lungs"):
        lung = findings[key]
        lines.append(
            f"{key.replace('_', ' '):<11} {lung['lung_volume_ml']:>8.0f}"
            f" {lung['lesion_volume_ml']:>10.1f} {lung['lesion_share_percent']:>8.1f}"
        )
    lines.append(
        f"severity    {findings['severity_category']}"
        f" (larger share of the two lungs: {findings['severity_score_percent']:.1f} %)"
    )
    if "identification" in findings:
        percent = findings["identification"]["probability_percent"]
        told = "not told" if percent is None else f"{percent:.1f} %"
        lines.append(f"COVID-19    {told} (probability, {result['models'][-1]['name']})")
    lines += follow_up_lines(result.get("follow_up"))
    lines += [f"note        {note}" for note in result["notes"]]
    return "\n".join(lines)


def follow_up_lines(follow_up: dict[str, Any] | None) -> list[str]:
    """Return each change of a ``follow_up`` as a line for people."""
    if follow_up is None:
        return []
    points = follow_up["time_points"]
    lines = []
    for change in follow_up["changes"]:
        earlier, later = (points[change[f"{end}_time_point"]] for end in ("from", "to"))
        days = later["days_since_first"] - earlier["days_since_first"]
        told = [
            f"{lung.replace('_', ' ')} {change[lung]['response']}"
            f" ({change[lung]['lesion_share_change_percentage_points']:+.1f})"
            for lung in LUNGS
            if change[lung]
        ]
        lines.append(f"follow-up   after {days} days: {', '.join(told) or 'not comparable'}")
    return lines
