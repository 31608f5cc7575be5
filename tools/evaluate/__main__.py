"""Command line: ``python -m tools.evaluate COMMAND ... --output FOLDER``."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from pathlib import Path

from tools.evaluate.bootstrap import add_resamples
from tools.evaluate.masks import EvaluationError

COMMANDS = {
    "segmentation": "Dice, IoU, accuracy, HD95 and volume error of masks, over folds and trainings",
    "folds": "k-fold training of a bundle and the evaluation of all its folds; resumable",
    "triage": "identification (ROC AUC) and severity ranking (Spearman) of whole studies",
    "slices": "detection per slice, percentage of infection, severity classes",
    "classes": "per-class table of predicted and true classes",
    "detection": "COCO average precision of lesion instances",
    "readers": "readers and a model against panels of readers",
    "correlation": "Pearson correlation of severity per lung",
    "cohort": "phantom studies through the application to all of the above; resumable",
    "goals": "lungs and lesions of patients against the project's goals, failing ones pictured",
    "application": "the same, of what the application finds in the CT of a training tree",
    "graded": "severity and identification on graded phantoms and unseen real lungs; resumable",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    int
        0 when the report is written, 2 on input that cannot be evaluated, 130 when interrupted.
    """
    # Libraries talk of their own future; what concerns the user is an error of this program's.
    for library in ("holoscan", "monai"):
        warnings.filterwarnings("ignore", module=library)
    parser = argparse.ArgumentParser(prog="python -m tools.evaluate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = next((a for a in (argv or sys.argv[1:]) if a in COMMANDS), None)
    for name, what in COMMANDS.items():
        added = commands.add_parser(name, help=what, description=what)
        # The libraries take seconds to import: only those of the command at hand are.
        if name == command:
            module = importlib.import_module(f"tools.evaluate.{name}")
            module.add_arguments(added)
            added.add_argument("--output", type=Path, required=True, help="folder of the report")
            add_resamples(added)
            added.add_argument("--quiet", action="store_true", help="no progress bars")
    arguments = parser.parse_args(argv)
    try:
        report = module.run(arguments)
        file = report.write(arguments.output)
    except EvaluationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: stopped; what is done of folds or a cohort is kept", file=sys.stderr)
        return 130
    print(report.tables[0].markdown())
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
