"""``python -m tools.followup RESULT RESULT ... -o OUTPUT``: follow a patient over studies."""

import argparse
import json
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

from ct_triage.followup import follow_up_numbers
from ct_triage.results import follow_up_lines
from tools.followup import FollowUpError, build_follow_up_report, draw_follow_up, read_studies

JSON_FILE, REPORT_FILE, PLOT_FILE = "followup.json", "followup.dcm", "followup.png"


def main(argv: list[str] | None = None) -> int:
    """Compare the studies; 0 when the files were written, 1 on input or output errors."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.followup",
        description="Positive response, progression or stable (change below 1 %), per lung, from"
        " two or more studies of a patient. Not for clinical use.",
    )
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        metavar="RESULT",
        help="result folder of the application, DICOM SEG or TID 1500 report of any system",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for the results, made if need be"
    )
    arguments = parser.parse_args(argv)
    # Libraries quote the values they complain of, and those can be a patient's.
    for library in ("pydicom", "highdicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        studies = read_studies(arguments.results)
        numbers = follow_up_numbers(studies.follow_up)
        numbers["notes"] = list(studies.follow_up.notes)
        report = build_follow_up_report(studies)
        arguments.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=arguments.output) as scratch:
            partial = Path(scratch)
            (partial / JSON_FILE).write_text(json.dumps(numbers, indent=2) + "\n")
            report.save_as(partial / REPORT_FILE, enforce_file_format=True)
            draw_follow_up(studies.follow_up, partial / PLOT_FILE)
            for name in (JSON_FILE, REPORT_FILE, PLOT_FILE):
                os.replace(partial / name, arguments.output / name)
    except FollowUpError as error:
        print(f"tools.followup: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"tools.followup: {arguments.output}: {error.strerror}", file=sys.stderr)
        return 1
    print("\n".join([*follow_up_lines(numbers), *studies.follow_up.notes]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
