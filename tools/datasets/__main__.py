"""Command line: ``python -m tools.datasets --source ../shared/data --output DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .tree import NAMES, DatasetError, build_tree


def main(argv: list[str] | None = None) -> int:
    """Build the training tree; 0 when it is complete, 2 when a source is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.datasets",
        description="Build the tree of NAME_ct, NAME_lung and NAME_lesion volumes that the "
        "bundles train on. The collections are linked, not copied.",
    )
    parser.add_argument("--source", type=Path, required=True, help="folder of the collections")
    parser.add_argument("--output", type=Path, required=True, help="folder of the tree")
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=list(NAMES), help="parts to build (all)"
    )
    parser.add_argument("--phantoms", type=int, default=12, help="number of phantoms (12)")
    parser.add_argument(
        "--variants", type=int, default=4, help="synthetic studies from each real patient (4)"
    )
    args = parser.parse_args(argv)
    try:
        build_tree(
            args.source,
            args.output,
            args.only,
            phantoms=args.phantoms,
            variants=args.variants,
        )
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
