"""Lesion shares and severity of a case: from given numbers, a report, or masks, in this order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydicom.config import disable_value_validation

from ct_triage import codes
from ct_triage.codes import PrivateCodes
from ct_triage.followup_reading import UnusablePriorError, read_header, read_time_point
from tools.evaluate.cases import load_masks, progress, rows_of
from tools.evaluate.masks import EvaluationError, MaskFile, has_segment
from tools.evaluate.results import read_result

OPTIONAL = (
    "truth",
    "prediction",
    "truth_lung",
    "prediction_lung",
    "report",
    "truth_report",
    "severity_percent",
    "truth_severity_percent",
    "right_percent",
    "left_percent",
    "truth_right_percent",
    "truth_left_percent",
)


@dataclass(frozen=True, slots=True)
class Shares:
    """Lesion shares in percent of the lung; NaN where the sides are not known.

    ``severity`` is the larger of the two lungs' shares (multitask paper 2.2), or the share of
    both lungs together where the sides are not known.
    """

    right: float
    left: float
    severity: float


def lungs_of(row: dict[str, Any], side: str) -> MaskFile | None:
    """Return where the lungs of ``prediction`` or ``truth`` are, None where there are none."""
    given = row.get(f"{side}_lung")
    if given is not None:
        return given
    mask = row.get(side)
    return mask if mask is not None and has_segment(mask, "lung") else None


def shares_of(row: dict[str, Any], side: str) -> Shares | None:
    """Return the shares of a case by the system (``prediction``) or by the ``truth``.

    Returns
    -------
    Shares or None
        None where the row holds neither numbers, nor a report, nor lesions with lungs.
    """
    prefix = "" if side == "prediction" else "truth_"
    right, left, severity = (
        row.get(f"{prefix}{name}_percent", np.nan) for name in ("right", "left", "severity")
    )
    if not np.isnan([right, left]).any():
        return Shares(right, left, max(right, left) if np.isnan(severity) else severity)
    if not np.isnan(severity):
        return Shares(np.nan, np.nan, severity)
    report = row.get(f"{prefix}report")
    if report is not None:
        return _reported(report)
    lungs = lungs_of(row, side)
    if row.get(side) is None or lungs is None:
        return None
    return _measured(row, side, lungs)


def severities(frame: pd.DataFrame, quiet: bool = False) -> pd.DataFrame:
    """Return the shares of all cases.

    Returns
    -------
    pandas.DataFrame
        ``right``, ``left``, ``severity`` of the system and ``truth_right``, ``truth_left``,
        ``truth_severity``, in percent, NaN where unknown, with the index of ``frame``.
    """
    rows = []
    for row in progress(rows_of(frame), len(frame), "measuring severity", quiet):
        values = {}
        for side, prefix in (("prediction", ""), ("truth", "truth_")):
            found = shares_of(row, side) or Shares(np.nan, np.nan, np.nan)
            values[f"{prefix}right"] = found.right
            values[f"{prefix}left"] = found.left
            values[f"{prefix}severity"] = found.severity
        rows.append(values)
    return pd.DataFrame(rows, index=frame.index)


def _share(lesion: NDArray[np.bool_], lung: NDArray[np.bool_]) -> float:
    size = np.count_nonzero(lung)
    return 100.0 * np.count_nonzero(lesion & lung) / size if size else 0.0


def _measured(row: dict[str, Any], side: str, lungs: MaskFile) -> Shares:
    parts = {"case": row["case"], "lesion": row[side], "lungs": lungs}
    if has_segment(lungs, "right lung") and has_segment(lungs, "left lung"):
        lesion, right, left = load_masks(
            parts, ("lesion", "lungs", "lungs"), ("lesion", "right lung", "left lung")
        )
        shares = _share(lesion.array, right.array), _share(lesion.array, left.array)
        return Shares(*shares, max(shares))
    lesion, lung = load_masks(parts, ("lesion", "lungs"), ("lesion", "lung"))
    return Shares(np.nan, np.nan, _share(lesion.array, lung.array))


def _reported(file: Path) -> Shares:
    if file.suffix == ".json":
        findings = read_result(file)["findings"]
        return Shares(
            findings["right_lung"]["lesion_share_percent"],
            findings["left_lung"]["lesion_share_percent"],
            findings["severity_score_percent"],
        )
    try:
        with disable_value_validation():
            report = hd.sr.srread(file)
            content: Any = report.content
            groups = content.get_volumetric_roi_measurement_groups()
    except Exception as error:
        raise EvaluationError(f"{file}: cannot be read as a TID 1500 report") from error
    private = PrivateCodes.of(report)
    found: dict[str, float] = {}
    for group in groups:
        for name, key in ((private.lesion_share, "share"), (private.severity_score, "severity")):
            for measurement in group.get_measurements(name=name):
                sides = [str(s.laterality.value) for s in group.finding_sites if s.laterality]
                part = key if key == "severity" else f"share {sides[0]}"
                # Earlier studies of a follow-up come after the study itself.
                found.setdefault(part, measurement.value)
    try:
        return Shares(
            found[f"share {codes.RIGHT.value}"],
            found[f"share {codes.LEFT.value}"],
            found["severity"],
        )
    except KeyError:
        return _of_volumes(file)


def _of_volumes(file: Path) -> Shares:
    """Return the shares of another system's report, by its volumes of lungs and lesions."""
    try:
        lungs = read_time_point(file, read_header(file)).lungs
    except UnusablePriorError as error:
        raise EvaluationError(f"{file}: tells no lesion shares: {error}") from error
    right, left = (
        lungs[lung].lesion_share_percent if lung in lungs else np.nan
        for lung in ("right_lung", "left_lung")
    )
    both = lungs["both_lungs"].lesion_share_percent
    return Shares(right, left, both if np.isnan([right, left]).any() else max(right, left))
