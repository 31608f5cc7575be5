"""Command line: ``python -m tools.bundles write | check | release BUNDLE CHECKPOINT...``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .generate import BUNDLE_NAMES, REPOSITORY, outdated, write

BUNDLES = REPOSITORY / "bundles"


def main(argv: list[str] | None = None) -> int:
    """Run a command; 1 where ``check`` finds a file out of date, 2 on a wrong argument."""
    parser = argparse.ArgumentParser(prog="python -m tools.bundles", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write", help="write the generated files of all bundles")
    commands.add_parser("check", help="name the generated files that are out of date")
    release_parser = commands.add_parser("release", help="put a checkpoint into its bundle")
    release_parser.add_argument("bundle", choices=BUNDLE_NAMES)
    release_parser.add_argument(
        "checkpoints",
        type=Path,
        nargs="+",
        metavar="CHECKPOINT",
        help="what training saved; of several the mean of the weights is taken",
    )
    release_parser.add_argument(
        "--member", help="name of an ensemble's member, which gets a file of its own"
    )
    arguments = parser.parse_args(argv)

    if arguments.command == "release":
        for checkpoint in arguments.checkpoints:
            if not checkpoint.is_file():
                parser.error(f"{checkpoint} is no file")
        if arguments.member and len(arguments.checkpoints) > 1:
            parser.error("--member takes one checkpoint")
        # PyTorch takes seconds to import.
        from .release import release, release_member

        bundle = BUNDLES / arguments.bundle
        try:
            if arguments.member:
                written = release_member(bundle, arguments.checkpoints[0], arguments.member)
            else:
                written = release(bundle, *arguments.checkpoints)
        except ValueError as error:
            parser.error(str(error))
        print(*written, sep="\n")
        return 0
    files = write(BUNDLES) if arguments.command == "write" else outdated(BUNDLES)
    print(*files, sep="\n")
    if arguments.command == "check" and files:
        print(
            "out of date: edit tools/bundles, then python -m tools.bundles write", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
