"""Datalists: which prediction belongs to which truth, and the checks before anything is computed.

A datalist is a CSV table, or JSON: a list of objects, or an object with such a list under
``cases``. Paths are relative to its folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pandas as pd
from tqdm import tqdm

from tools.evaluate.masks import EvaluationError, MaskFile, on_common_grid, read_mask

TEXT, NUMBER, MASK, FILE = "text", "number", "mask", "file"
COLUMNS = {
    "case": (TEXT, "name of the study; required"),
    "patient": (TEXT, "whose study; by default the case"),
    "training": (TEXT, "seed or run that the prediction comes from"),
    "fold": (TEXT, "fold of a cross-validation that the case was held out in"),
    "class": (TEXT, "diagnosis: covid19, bacterial, nodules, normal, or names of your own"),
    "predicted_class": (TEXT, "diagnosis by the system"),
    "image": (FILE, "CT for pictures: NIfTI in HU or a DICOM folder"),
    "truth": (MASK, "true mask: NIfTI, or DICOM SEG"),
    "prediction": (MASK, "predicted mask: NIfTI, or DICOM SEG"),
    "truth_lung": (MASK, "lungs to take the true share of; by default those of the truth's SEG"),
    "prediction_lung": (MASK, "lungs to take the predicted share of; likewise"),
    "probability": (NUMBER, "predicted probability of the positive class, 0..1"),
    "severity_percent": (NUMBER, "predicted severity score"),
    "truth_severity_percent": (NUMBER, "true severity score"),
    "right_percent": (NUMBER, "lesion share of the right lung by the system"),
    "left_percent": (NUMBER, "lesion share of the left lung by the system"),
    "truth_right_percent": (NUMBER, "lesion share of the right lung by the reader"),
    "truth_left_percent": (NUMBER, "lesion share of the left lung by the reader"),
    "report": (FILE, "sr.dcm (TID 1500) or result.json that gives the system's numbers"),
    "truth_report": (FILE, "sr.dcm or result.json that gives the true numbers"),
    "rater": (TEXT, "who read the case: a reader or the model"),
    "mask": (MASK, "the rater's mask"),
    "ct_class": (TEXT, "CT class by the rater, CT-0 to CT-4"),
    "reference_class": (TEXT, "CT class to agree with (hospital report), CT-0 to CT-4"),
}


def read_datalist(
    file: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    key: Sequence[str] = ("case", "training"),
) -> pd.DataFrame:
    """Read a datalist and check all of it.

    Parameters
    ----------
    file : Path
        ``.csv`` or ``.json``.
    required : sequence of str
        Columns, out of ``COLUMNS``, that every case must fill.
    optional : sequence of str
        Columns that are read where they are there; empty cells are None or NaN.
    key : sequence of str
        Columns that together name a row; those that are absent are left out.

    Returns
    -------
    pandas.DataFrame
        One row a case with the columns asked for, and always ``case`` and ``patient``. Masks are
        MaskFile, files Path, numbers float, everything else str.

    Raises
    ------
    EvaluationError
        On the first thing that is missing, doubled, not a number, not a file, or a patient who
        is in two folds.
    """
    required = list(dict.fromkeys(["case", *required]))
    rows = _read_rows(file)
    known = list(dict.fromkeys([*required, "patient", *optional]))
    table: dict[str, list[Any]] = {
        column: []
        for column in known
        if column in required or column == "patient" or any(column in row for row in rows)
    }
    for number, row in enumerate(rows, 1):
        name = str(row.get("case") or f"row {number}")
        for column, values in table.items():
            text = row.get(column)
            if column == "patient" and text in (None, ""):
                text = row.get("case")
            if text in (None, "") and column in required:
                raise EvaluationError(f"{file}: case {name} has no {column}; every case needs one")
            values.append(_parsed(text, column, file, name))
    frame = pd.DataFrame(table)
    named = [column for column in key if column in frame]
    doubled = frame[frame.duplicated(named)]
    if len(doubled):
        name = " ".join(str(doubled.iloc[0][column]) for column in named)
        raise EvaluationError(f"{file}: {name} is listed twice")
    _check_folds(frame, file)
    return frame


def load_masks(row: Any, columns: Sequence[str], segments: Sequence[str]) -> list[hd.Volume]:
    """Read masks of one case onto one grid; see :func:`tools.evaluate.masks.on_common_grid`.

    Parameters
    ----------
    row : mapping of column to MaskFile
        A row of a datalist.
    columns : sequence of str
        Which masks.
    segments : sequence of str
        What to look for in each, if it is a DICOM SEG.

    Raises
    ------
    EvaluationError
        Naming the case and the file that is unreadable, not binary, or on another grid.
    """
    sources = [row[column] for column in columns]
    try:
        volumes = [read_mask(s, segment) for s, segment in zip(sources, segments, strict=True)]
        return on_common_grid(volumes, sources)
    except EvaluationError as error:
        raise EvaluationError(f"case {row['case']}: {error}") from error


def check_masks(
    frame: pd.DataFrame, columns: Sequence[str], segments: Sequence[str], quiet: bool = False
) -> None:
    """Read every mask once, so that a bad one is refused before anything is computed.

    Raises
    ------
    EvaluationError
        See :func:`load_masks`.
    """
    for row in progress(rows_of(frame), len(frame), "checking masks", quiet):
        load_masks(row, columns, segments)


def rows_of(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the rows as dictionaries."""
    yield from frame.to_dict("records")


def progress(items: Iterable[Any], total: int, what: str, quiet: bool = False) -> Iterable[Any]:
    """Show how far a loop is, on a terminal's error stream."""
    return tqdm(items, desc=what, total=total, unit="case", disable=quiet or None)


def check_two_groups(frame: pd.DataFrame, column: str, positive: str, file: Path) -> None:
    """Refuse a datalist whose cases are all, or none of them, of the positive class.

    Raises
    ------
    EvaluationError
        If there is nothing to tell apart.
    """
    classes = sorted(frame[column].unique())
    if positive not in classes:
        raise EvaluationError(
            f"{file}: no case of class {positive}, only {', '.join(classes)}; "
            "name the positive class with --positive"
        )
    if len(classes) == 1:
        raise EvaluationError(
            f"{file}: one class only ({positive}); there is nothing to tell apart"
        )


def _read_rows(file: Path) -> list[dict[str, Any]]:
    try:
        if file.suffix == ".csv":
            read = pd.read_csv(file, dtype=str, keep_default_na=False, skipinitialspace=True)
            rows: Any = read.to_dict("records")
        elif file.suffix == ".json":
            content = json.loads(file.read_text())
            rows = content.get("cases") if isinstance(content, dict) else content
        else:
            raise EvaluationError(f"{file}: a datalist is a .csv or .json file")
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{file}: cannot be read as a datalist; check or replace it"
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise EvaluationError(f"{file}: holds no list of cases")
    if not rows:
        raise EvaluationError(f"{file}: the list of cases is empty")
    for row in rows:
        for column in row:
            if column not in COLUMNS:
                raise EvaluationError(
                    f"{file}: unknown column {column!r}; known are {', '.join(COLUMNS)}"
                )
    return rows


def _parsed(text: Any, column: str, file: Path, name: str) -> Any:
    kind = COLUMNS[column][0]
    if text is None or text == "":
        return np.nan if kind == NUMBER else None
    readers: dict[str, Callable[[Any], Any]] = {
        TEXT: str,
        NUMBER: float,
        MASK: lambda value: MaskFile.parse(str(value), file.parent),
        FILE: lambda value: file.parent / str(value),
    }
    try:
        value = readers[kind](text)
    except (TypeError, ValueError):
        raise EvaluationError(f"{file}: case {name}: {column} {text!r} is not a number") from None
    path = value.file if kind == MASK else value
    if kind in (MASK, FILE) and not path.exists():
        raise EvaluationError(f"{file}: case {name}: {column} {path} does not exist")
    if kind == NUMBER and not np.isfinite(value):
        raise EvaluationError(f"{file}: case {name}: {column} {text!r} is not a number")
    return value


def _check_folds(frame: pd.DataFrame, file: Path) -> None:
    if "fold" not in frame:
        return
    trainings = frame["training"].fillna("") if "training" in frame else ""
    folds = frame.assign(training=trainings).groupby(["training", "patient"])["fold"]
    split = folds.nunique(dropna=False)
    if (split > 1).any():
        patient = split[split > 1].index[0][1]
        raise EvaluationError(
            f"{file}: patient {patient} is in two folds; split by patient, not by study"
        )
