"""Write the results so that a reader finds all of them or none."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from ct_triage.errors import OutputError
from ct_triage.fhir import ID_PREFIX as FHIR_ID_PREFIX
from ct_triage.followup import LUNGS
from ct_triage.provenance import APPLICATION
from ct_triage.scanning import values_of
from ct_triage.termination import scratch_folder, uninterrupted

SEG_FILE = "seg.dcm"
REPORT_FILE = "sr.dcm"
PICTURE_FILE = "picture.dcm"
RESULT_FILE = "result.json"
FHIR_FILE = "result.fhir.json"
NO_RESULT_FILE = "no_result.json"
SERIES_FILE = "series.json"
RESULT_FILES = (
    SEG_FILE,
    REPORT_FILE,
    PICTURE_FILE,
    RESULT_FILE,
    FHIR_FILE,
    NO_RESULT_FILE,
    SERIES_FILE,
)
LEFTOVER_SECONDS = 3600.0
_SCRATCH_PREFIX = ".ct_triage-writing-"


def require_free(folder: Path) -> None:
    """Refuse a folder whose files would be overwritten and are not results of this application.

    Raises
    ------
    OutputError
        If there is such a file, or the folder is none.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: cannot write the results (it is a file, not a folder)")
    for name in RESULT_FILES:
        file = folder / name
        is_ours = _is_our_dicom if file.suffix == ".dcm" else _is_our_json
        is_ours = _is_our_fhir if name == FHIR_FILE else is_ours
        if (file.exists() or file.is_symlink()) and not is_ours(file):
            raise OutputError(
                f"{file}: exists and is no result of this application; choose another output folder"
            )


def write_results(
    folder: Path, results: Mapping[str, Dataset | dict[str, Any]]
) -> tuple[Path, ...]:
    """Write results into a folder: data sets as DICOM, dictionaries as JSON.

    All are written under another name, read back, and then renamed: as a whole where the folder
    is new or empty, else one by one, with ``result.json`` removed first and renamed last. Whoever
    finds a ``result.json`` finds a complete set, whenever the writer was killed. What an earlier
    run left under a name that this one does not write is removed.

    Parameters
    ----------
    folder : Path
        Made if need be.
    results : mapping
        By file name, one of ``RESULT_FILES``.

    Raises
    ------
    OutputError
        If the folder cannot be written, or holds a file of that name that is not of this
        application.
    """
    require_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        is_new = not folder.exists() or not (
            any(folder.iterdir()) or folder.is_mount() or not os.access(folder.parent, os.W_OK)
        )
        parent = folder.parent if is_new else folder
        with scratch_folder(parent, _SCRATCH_PREFIX) as scratch:
            partial = scratch / "results"
            partial.mkdir()
            for name, result in results.items():
                if isinstance(result, Dataset):
                    _write_dicom(partial / name, result)
                else:
                    _write_json(partial / name, result)
            _synchronise(partial)
            with uninterrupted:
                if is_new:
                    partial.rename(folder)
                else:
                    _replace(partial, folder, tuple(results))
            _synchronise(parent)
        _remove_leftovers(parent)
    except OSError as error:
        raise OutputError(f"{folder}: cannot write the results ({_reason(error)})") from error
    return tuple(folder / name for name in results)


def _replace(partial: Path, folder: Path, names: tuple[str, ...]) -> None:
    """Move files into a folder in use; its result.json vouches for the others all the time."""
    for name in (RESULT_FILE, *RESULT_FILES):
        if name == RESULT_FILE or name not in names:
            (folder / name).unlink(missing_ok=True)
    _synchronise(folder)
    for name in sorted(names, key=RESULT_FILE.__eq__):
        os.replace(partial / name, folder / name)


def _write_dicom(file: Path, instance: Dataset) -> None:
    instance.save_as(file, enforce_file_format=True)
    _synchronise(file)
    stored = dcmread(file)
    if stored.SOPInstanceUID != instance.SOPInstanceUID or stored.get("PixelData") != instance.get(
        "PixelData"
    ):
        raise OSError(None, f"{file.name} reads back differently")


def _write_json(file: Path, result: dict[str, Any]) -> None:
    text = json.dumps(result, indent=2) + "\n"
    file.write_text(text)
    _synchronise(file)
    if file.read_text() != text:
        raise OSError(None, f"{file.name} reads back differently")


def _synchronise(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: BaseException | None) -> str:
    """Return the system's own words: what libraries wrap around them may quote patient data."""
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        error = error.__cause__ or error.__context__
    return "unknown reason"


def _is_our_dicom(file: Path) -> bool:
    try:
        header = dcmread(file, stop_before_pixels=True)
    except Exception:  # anything may lie there
        return False
    # The manufacturer's name is a setting, the software is not.
    versions = values_of(header, "SoftwareVersions")
    return any(version.startswith(f"{APPLICATION} ") for version in versions)


def _is_our_json(file: Path) -> bool:
    try:
        return bool(json.loads(file.read_text())["application"]["name"] == APPLICATION)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_our_fhir(file: Path) -> bool:
    try:
        return str(json.loads(file.read_text())["id"]).startswith(FHIR_ID_PREFIX)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed have left, an hour after their last sign of life."""
    for scratch in folder.glob(f"{_SCRATCH_PREFIX}*"):
        if time.time() - scratch.stat().st_mtime > LEFTOVER_SECONDS:
            shutil.rmtree(scratch, ignore_errors=True)


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
        lines.append(f"COVID-19    {told} (probability, {result['models'][1]['name']})")
    if "slice_classification" in findings:
        classes = findings["slice_classification"]
        percent = classes["probabilities_percent"][classes["class"]]
        model = result["models"][2]["name"]
        lines.append(f"slices      {classes['class']} ({percent:.1f} %, {model})")
    lines += follow_up_lines(result.get("follow_up"))
    lines.append(f"quality     {result['quality']['verdict']}")
    lines += [f"            {reason['text']}" for reason in result["quality"]["reasons"]]
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
