"""What tests of bundles share: MONAI's command, and reading what it wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

BUNDLES_FOLDER = Path(__file__).parents[2] / "bundles"
BUNDLE_NAMES = sorted(path.parents[1].name for path in BUNDLES_FOLDER.glob("*/configs/train.json"))
SEEDS = {"tiny-1": 11, "tiny-2": 12, "tiny-3": 13}


def monai_command(command: str, *options: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monai.bundle", command, *map(str, options)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def config_files(folder: Path, configs: str) -> list[str]:
    """Return the paths of configs, such as "train" or "train variants/fpn", of a bundle folder."""
    return [str(folder / "configs" / f"{name}.json") for name in configs.split()]


def run_configs(
    folder: Path, configs: str, *options: object, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run configs, such as "train" or "train evaluate", of a bundle folder."""
    files = config_files(folder, configs)
    return monai_command("run", "--config_file", files, "--bundle_root", folder, *options, cwd=cwd)


def read_config(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / "configs" / f"{name}.json").read_text())


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def read_mask(file: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nibabel.Nifti1Image.from_filename(file)
    return np.asarray(image.dataobj).squeeze() > 0, image.affine
