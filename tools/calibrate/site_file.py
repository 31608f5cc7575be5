"""Write the site file that the application reads."""

import os
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from tools.evaluate.masks import EvaluationError

SITE_FILE = "site.yaml"


def read_site_file(folder: Path, site: str) -> dict[str, Any]:
    """Return what an earlier calibration of the site wrote into a folder; empty without one.

    Raises
    ------
    EvaluationError
        If the folder holds a file of another site, or something else of that name.
    """
    file = folder / SITE_FILE
    if not file.exists():
        return {"site": site}
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{file}: cannot be read as YAML; choose another --output") from error
    if not isinstance(content, dict) or content.get("site") != site:
        raise EvaluationError(f"{file}: is not of site {site}; choose another --output")
    return content


def write_site_file(
    folder: Path, content: dict[str, Any], key: str, value: Any, record: dict[str, Any]
) -> Path:
    """Add a calibrated value and its record to a site file.

    Parameters
    ----------
    folder : Path
        Where to.
    content : dict
        What :func:`read_site_file` found there.
    key : str
        ``lesion_threshold`` or ``ct_class_bounds``.
    value : float or list of 3 floats
        What was chosen.
    record : dict
        How: cases, held_out_cases, trusted, change and, where known, model. The calibration is
        trusted when the records of all its values are.
    """
    dated = {"date": date.today().isoformat(), **record}
    earlier = content.get("calibration") or {}
    records = {
        name: earlier[name]
        for name in ("lesion_threshold", "ct_class_bounds")
        if name in content and name in earlier
    } | {key: dated}
    # The model is that of the lesion threshold, whichever value was calibrated last.
    model = dated.get("model") or earlier.get("model")
    summary = {
        "date": dated["date"],
        "cases": dated["cases"],
        "held_out_cases": dated["held_out_cases"],
        "trusted": all(record["trusted"] for record in records.values()),
        **({"model": model} if model else {}),
    }
    new = {**content, key: value, "calibration": {**summary, **records}}
    text = yaml.safe_dump(new, sort_keys=False, allow_unicode=True)
    return write_whole(folder / SITE_FILE, text)


def write_whole(file: Path, text: str) -> Path:
    """Write a file so that a reader finds all of it or what was there before; return it.

    Raises
    ------
    EvaluationError
        If it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=file.parent) as scratch:
            partial = Path(scratch, file.name)
            partial.write_text(text)
            os.replace(partial, file)
    except OSError as error:
        raise EvaluationError(f"{file}: cannot be written ({error.strerror})") from error
    return file
