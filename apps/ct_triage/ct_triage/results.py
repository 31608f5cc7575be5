"""Write the results so that a reader finds all of them or none."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from ct_triage.errors import OutputError
from ct_triage.termination import removed_on_sigterm, uninterrupted

SEG_FILE = "seg.dcm"
REPORT_FILE = "sr.dcm"
RESULT_FILE = "result.json"


def write_results(
    folder: Path, seg: Dataset, report: Dataset, result: dict[str, Any]
) -> tuple[Path, ...]:
    """Write ``seg.dcm``, ``sr.dcm`` and, last, ``result.json`` into a folder.

    Each file is written in full under another name and then renamed, so none is ever seen
    half-written.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as scratch,
            removed_on_sigterm(Path(scratch)) as partial,
        ):
            seg.save_as(partial / SEG_FILE, enforce_file_format=True)
            report.save_as(partial / REPORT_FILE, enforce_file_format=True)
            (partial / RESULT_FILE).write_text(json.dumps(result, indent=2) + "\n")
            names = (SEG_FILE, REPORT_FILE, RESULT_FILE)
            with uninterrupted:
                for name in names:
                    os.replace(partial / name, folder / name)
    except OSError as error:
        raise OutputError(f"{folder}: cannot write the results ({error.strerror})") from error
    return tuple(folder / name for name in names)


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
    lines += [f"note        {note}" for note in result["notes"]]
    return "\n".join(lines)
