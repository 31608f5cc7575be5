"""Build the container image from the command line."""

import argparse
import sys

from .engine import EngineError, find_engine
from .image import build_image


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.map",
        description="Build the container image of apps/ct_triage (a MONAI Application Package).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--variant", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--base", help="image to build on; by default Debian bookworm")
    parser.add_argument("--engine", choices=("podman", "docker"), help="by default the first found")
    options = parser.parse_args(arguments)
    try:
        engine = find_engine(options.engine)
        tag = build_image(engine, options.variant, options.base)
    except EngineError as error:
        print(f"tools.map: {error}", file=sys.stderr)
        return 1
    size = int(engine.run("image", "inspect", "--format", "{{.Size}}", tag).stdout)
    print(f"{tag}  {size / 1e9:.2f} GB, in {engine.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
