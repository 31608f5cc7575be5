"""``python -m tools.overlay STUDY RESULT PNG``: picture a result of the application."""

import argparse
import sys
from pathlib import Path

from ct_triage.errors import TriageError
from ct_triage.reading import read_volume
from ct_triage.results import SEG_FILE
from ct_triage.series import find_series
from tools.overlay import draw_overlay, read_segments


def main() -> int:
    """Draw the segments of a result folder over its study."""
    parser = argparse.ArgumentParser(prog="tools.overlay", description=__doc__)
    parser.add_argument("study", type=Path, help="folder with the CT study")
    parser.add_argument("result", type=Path, help="folder with seg.dcm")
    parser.add_argument("picture", type=Path, help="PNG file to write")
    arguments = parser.parse_args()
    try:
        volume = read_volume(find_series(arguments.study))
        segments = read_segments(arguments.result / SEG_FILE, volume)
    except (TriageError, OSError) as error:
        print(f"tools.overlay: {error}", file=sys.stderr)
        return 1
    draw_overlay(volume, segments, arguments.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
