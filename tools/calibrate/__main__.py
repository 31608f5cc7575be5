"""Command line: ``python -m tools.calibrate COMMAND DATALIST -o FOLDER``."""

import argparse
import importlib
import logging
import sys
import warnings
from pathlib import Path

from tools.evaluate.masks import EvaluationError

COMMANDS = {
    "lesions": "probability from which a voxel counts as lesion, from CT or probability maps",
    "classes": "lesion shares at which CT-2, CT-3 and CT-4 begin, from a site's own readings",
    "identification": "temperature that makes a probability of the logit, from diagnosed studies",
    "quality": "features of studies that the application is known to work on",
}
OF_A_SITE = ("lesions", "classes")
RUN_MODELS = ("lesions", "identification", "quality")


def main(argv: list[str] | None = None) -> int:
    """Calibrate; 0 when report and result are written, 2 on input that cannot be used."""
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    parser = argparse.ArgumentParser(prog="python -m tools.calibrate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        add = command.add_argument
        add("datalist", type=Path, help="CSV or JSON of cases; see tools/calibrate/README.md")
        result = "site.yaml" if name in OF_A_SITE else "result"
        add("-o", "--output", type=Path, required=True, help=f"folder for report and {result}")
        add("--seed", type=int, default=0, help="of every random draw (default: 0)")
        add("--quiet", action="store_true", help="no progress bars")
        if name in OF_A_SITE:
            add("--site", required=True, help="name of the site, for the report")
        if name in RUN_MODELS:
            add(
                "-m",
                "--models",
                type=Path,
                default=Path("bundles"),
                help="bundles that are run on CT (default: bundles)",
            )
        if name == "lesions":
            add(
                "--default-threshold",
                type=float,
                default=0.5,
                help="what probability maps are cut at so far (default: 0.5)",
            )
        if name == "identification":
            add("--positive", default="covid19", help="class to identify (default: covid19)")
            add(
                "--temperature",
                type=float,
                default=1.0,
                help="that the datalist's probabilities were made with (default: 1)",
            )
        if name == "quality":
            add(
                "--phantoms",
                type=int,
                default=0,
                help="how many phantoms of wide variation to add (default: 0)",
            )
    arguments = parser.parse_args(argv)
    try:
        # pandas, torch and statistics take seconds to import; --help must not.
        module = importlib.import_module(f"tools.calibrate.{arguments.command}")
        report, file = module.run(arguments)
    except EvaluationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report.tables[0].markdown())
    print("\n".join(report.notes))
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
