"""What a resumable run was started with, so that it is never gone on with under other settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.evaluate.masks import EvaluationError

SETTINGS_FILE = "settings.json"


def keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a new run, or compare them with those of the run to go on with.

    Parameters
    ----------
    folder : Path
        The run's folder, made if need be.
    settings : dict
        What the results depend on; JSON types.

    Raises
    ------
    EvaluationError
        If the folder holds a run of other settings, or cannot be written.
    """
    file = folder / SETTINGS_FILE
    wanted = json.loads(json.dumps(settings))
    try:
        if file.exists():
            found = json.loads(file.read_text())
            other = [key for key in wanted if found.get(key) != wanted[key]]
            if other:
                raise EvaluationError(
                    f"{folder}: holds a run with other {', '.join(other)}; choose another --output"
                )
            return
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f"{SETTINGS_FILE}.writing"
        scratch.write_text(json.dumps(wanted, indent=2) + "\n")
        scratch.rename(file)
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{file}: cannot be read or written; choose another --output"
        ) from error
