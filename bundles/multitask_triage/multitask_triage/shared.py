"""What packages of bundles have in common; written from tools/bundles/modules, edit it there."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from torch import distributed

DIAGNOSES = "diagnoses.csv"


def held_out(studies: Iterable[Mapping[str, Any]], patterns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the studies whose name is in `patterns`, which may hold wildcards."""
    return [dict(s) for s in studies if any(fnmatch(s["name"], pattern) for pattern in patterns)]


def read_diagnoses(folder: Path) -> dict[str, str]:
    """Read ``diagnoses.csv`` of a folder, if there is one: diagnosis by name of the study.

    Raises
    ------
    SystemExit
        With one line where the table lacks a column or a name stands in it twice.
    """
    table = folder / DIAGNOSES
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if rows and not {"name", "diagnosis"} <= rows[0].keys():
        raise SystemExit(f"error: {table}: its first line must be name,diagnosis")
    result: dict[str, str] = {}
    for row in rows:
        if row["name"] in result:
            raise SystemExit(f"error: {table}: {row['name']} stands in it twice; keep one line")
        result[row["name"]] = (row["diagnosis"] or "").strip()
    return result


def gathered(rows: list[Any]) -> list[Any]:
    """Collect what every process of a distributed run has, process by process."""
    if not distributed.is_initialized():
        return rows
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def is_first_process() -> bool:
    """Tell whether this process writes the results of a distributed run, or is alone."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def write_table(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of equal keys as CSV; only the first process writes."""
    if not rows or not is_first_process():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
