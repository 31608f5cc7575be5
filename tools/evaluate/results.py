"""The application's ``result.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.evaluate.masks import EvaluationError


def read_result(file: Path) -> dict[str, Any]:
    """Read a ``result.json``.

    Raises
    ------
    EvaluationError
        If it is none.
    """
    try:
        result = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{file}: cannot be read as JSON; check or replace it") from error
    if not isinstance(result, dict) or "severity_score_percent" not in result.get("findings", {}):
        raise EvaluationError(f"{file}: is no result.json of the application")
    return result
