"""Command line: ``python -m tools.suspects --bundle DIR --dataset TREE --output DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .suspects import SuspectsError, rank


def main(argv: list[str] | None = None) -> int:
    """Rank the labels and print the first; 2 when the procedure cannot go on."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.suspects",
        description="Train a bundle on one half of the patients, measure its Dice with the labels "
        "of the other half, swap the halves, and list the labels that agree least: the ones to "
        "look at again. Further options go to MONAI's training, such as --max_epochs 50.",
    )
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--dataset", type=Path, required=True, help="its training tree")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--variant", help="a config of the bundle's configs/variants")
    parser.add_argument("--count", type=int, default=20, help="how many to print (20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (0)")
    arguments, overrides = parser.parse_known_args(argv)
    try:
        ranked = rank(
            arguments.bundle,
            arguments.dataset,
            arguments.output,
            variant=arguments.variant,
            seed=arguments.seed,
            overrides=overrides,
        )
    except SuspectsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for one in ranked[: arguments.count]:
        print(f"{one.dice:.3f}  {one.name}  {one.label}")
    print(f"all {len(ranked)}: {arguments.output / 'suspects.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
