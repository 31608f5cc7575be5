"""``python -m tools.model_table --tree TREE``: measure the bundles and write README's table.

TREE is a training tree of ``python -m tools.datasets``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tools.bench.measure import REPOSITORY, BenchError, cost_of, told, worker
from tools.bench.suite import machine
from tools.bundles.generate import BUNDLE_NAMES

from .figures import evaluate, link_real, run_of
from .table import NO_WEIGHTS, NOT_MEASURED, empty_row, name_cell, read_rows, write_rows

# Nothing is trained on phantoms of seeds from here on (tools/datasets).
UNSEEN_SEED = 900_000


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 1 where something could not be measured, 2 on a wrong argument."""
    parser = argparse.ArgumentParser(prog="python -m tools.model_table", description=__doc__)
    parser.add_argument("--tree", type=Path, required=True, help="folder of the training tree")
    parser.add_argument("--only", nargs="+", choices=BUNDLE_NAMES, default=list(BUNDLE_NAMES))
    parser.add_argument("--bundles", type=Path, default=REPOSITORY / "bundles")
    parser.add_argument("--readme", type=Path, default=REPOSITORY / "README.md")
    parser.add_argument("--phantoms", type=int, default=5, help="how many to measure on (5)")
    parser.add_argument("--slices", type=int, default=150, help="of the study that is timed (150)")
    parser.add_argument("--matrix", type=int, default=512, help="its rows and columns (512)")
    parser.add_argument("--threads", type=int, default=2, help="for arithmetic (2)")
    options = parser.parse_args(arguments)
    try:
        rows = read_rows(options.readme)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        measured = [name for name in options.only if _has_weights(options.bundles / name)]
        try:
            if measured:
                _prepare(scratch, options)
        except BenchError as error:
            parser.error(str(error))
        failed = []
        for name in BUNDLE_NAMES:
            if not _has_weights(options.bundles / name):
                rows[name] = empty_row(name, NO_WEIGHTS)
            elif name not in measured:
                # What another run measured stays.
                if name not in rows or rows[name][1] == NO_WEIGHTS:
                    rows[name] = empty_row(name, NOT_MEASURED)
            else:
                try:
                    rows[name] = _row(options.bundles / name, scratch, options)
                except BenchError as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    failed.append(name)
                    rows[name] = empty_row(name, NOT_MEASURED)
                print(*rows[name], sep=" | ", flush=True)
    write_rows(options.readme, {name: rows[name] for name in BUNDLE_NAMES}, _note(options))
    return 1 if failed else 0


def _has_weights(bundle: Path) -> bool:
    return (bundle / "models" / "SHA256SUMS").is_file()


def _prepare(scratch: Path, options: argparse.Namespace) -> None:
    """Link the real patients, draw phantoms, and write the study that is timed."""
    link_real(options.tree, scratch / "real")
    count = options.phantoms
    cost_of(
        [
            *(sys.executable, "-m", "tools.datasets.diagnosed", scratch / "phantoms"),
            *("--count", count, "--unseen", count, "--first-seed", UNSEEN_SEED),
        ],
        scratch,
        options.threads,
    )
    studies = worker("studies", scratch / "studies", options.matrix, options.slices)
    cost_of(studies, scratch, options.threads)


def _row(bundle: Path, scratch: Path, options: argparse.Namespace) -> list[str]:
    threads = options.threads

    def folder(name: str) -> Path:
        path = scratch / bundle.name / name
        path.mkdir(parents=True)
        return path

    describe = [sys.executable, "-W", "ignore", "-m", "tools.model_table.describe", bundle]
    known = told(cost_of(describe, folder("describe"), threads))
    inference = run_of(bundle, ["inference"], scratch / "studies", folder("masks"))
    cost = cost_of(inference, folder("inference"), threads)
    figures = [
        evaluate(
            bundle,
            scratch / kind,
            folder(kind),
            threads,
            everything=kind == "phantoms",
            collections=kind == "real",
        )
        for kind in ("real", "phantoms")
    ]
    return [
        name_cell(bundle.name),
        f"{known['parameters'] / 1e6:.1f} M",
        f"{known['bytes'] / 1e6:.1f} MB",
        known["input"],
        *figures,
        f"{cost.wall_s:.0f}",
        f"{cost.peak_gb:.1f} GB",
    ]


def _note(options: argparse.Namespace) -> str:
    return (
        f"Seconds and memory are of a whole run of `inference.json`, start-up included, on a "
        f"phantom of {options.slices} slices of {options.matrix} x {options.matrix} pixels with "
        f"{options.threads} threads ({machine(options.threads)['processor']}). Figures are what "
        f"each bundle's own `evaluate.json` writes: Dice, with the number of studies that have "
        f"something to find, on the real patients that its training keeps out and on "
        f"{options.phantoms} phantoms of seeds that nothing was trained on. In brackets are 95 % "
        f"bootstrap intervals over patients, where three or more stand behind a figure."
    )


if __name__ == "__main__":
    sys.exit(main())
