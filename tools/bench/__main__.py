"""``python -m tools.bench [run|check]``: measure the application, or compare with the stored."""

import argparse
import sys
import tempfile
from pathlib import Path

from tools.bench.measure import REPOSITORY, BenchError
from tools.bench.report import check, read_results, write_results
from tools.bench.suite import measure_all

RESULTS = REPOSITORY / "docs" / "benchmarks"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["run", "check"], default="run")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for run's results")
    parser.add_argument("--stored", type=Path, default=RESULTS / "results.json")
    parser.add_argument("--models", type=Path, default=REPOSITORY / "bundles")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slices", type=int, nargs="+", default=[50, 150, 300, 1000])
    parser.add_argument("--stages-at", type=int, help="slices of the table of stages (default 300)")
    parser.add_argument(
        "--peers-at", type=int, help="slices that the peers get (default: as the stages)"
    )
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--scratch", type=Path, help="where the studies are made")
    options = parser.parse_args(arguments)
    stages_at = options.stages_at or min(300, max(options.slices))
    try:
        stored = read_results(options.stored) if options.command == "check" else None
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            results = measure_all(
                Path(scratch),
                models=options.models,
                counts=sorted(set(options.slices)),
                stages_at=stages_at,
                peers_at=options.peers_at or stages_at,
                matrix=options.matrix,
                repeats=options.repeats,
                threads=options.threads,
            )
    except (BenchError, OSError, ValueError) as error:
        print(f"tools.bench: {error}", file=sys.stderr)
        return 1
    if stored is not None:
        worse = check(results["ratios"], stored["ratios"])
        print("\n".join(worse) or "no ratio is clearly worse than the stored one")
        return 1 if worse else 0
    print(write_results(results, options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
