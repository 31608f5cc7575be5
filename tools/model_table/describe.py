"""``python -m tools.model_table.describe BUNDLE``: parameters, file size and input, as JSON.

A command of its own, because PyTorch makes a process large (`tools.bench.measure`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser


def main(bundle: Path) -> dict[str, Any]:
    """Describe the network that a bundle's inference.json runs.

    Returns
    -------
    dict
        "parameters", their number; "bytes" of the weights that inference reads; "input", what a
        network takes.
    """
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser["bundle_root"] = str(bundle)
    network = parser.get_parsed_content("network_def")
    members = parser.get("members", [{"weights": "model.pt"}])
    files = [bundle / "models" / member["weights"] for member in members]
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "bytes": sum(file.stat().st_size for file in files),
        "input": _input(parser),
    }


def _input(parser: ConfigParser) -> str:
    spacing = " x ".join(f"{float(size):g}" for size in parser["spacing_mm"])
    if "window_size" in parser:
        window = " x ".join(str(size) for size in parser["window_size"])
        return f"{window} voxels of {spacing} mm"
    size = " x ".join(str(size) for size in parser["slice_size"]) if "slice_size" in parser else ""
    return f"slices{' of ' * bool(size)}{size} at {' x '.join(spacing.split(' x ')[:2])} mm"


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
