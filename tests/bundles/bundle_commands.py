"""What tests of bundles share: MONAI's command, and reading what it wrote."""

import atexit
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.bundle import ConfigParser

WARM_PYTHON = Path(__file__).with_name("warm_python.py")
BUNDLES_FOLDER = Path(__file__).parents[2] / "bundles"
BUNDLE_NAMES = sorted(path.parents[1].name for path in BUNDLES_FOLDER.glob("*/configs/train.json"))
SEEDS = {"tiny-1": 11, "tiny-2": 12, "tiny-3": 13}
# Configs that each bundle trains by, and those that evaluate what was trained.
STAGES = {
    **dict.fromkeys(BUNDLE_NAMES, ("train", "train evaluate")),
    "lesion_ensemble": ("train", "train evaluate_member"),
    "mask_rcnn_classifier": ("train classify", "train classify evaluate"),
}
# What makes training quick on small phantoms, a few studies and steps in coarse pixels.
_SLICES = {
    "spacing_mm": [5.6, 5.6],
    "train#slice_size": [64, 64],
    "train#slices_per_patient": 1,
}
SMALL_TRAINING: dict[str, dict[str, Any]] = {
    "lung_segmentation": _SLICES,
    "lesion_segmentation_2d": _SLICES,
    "lesion_segmentation_3d": {
        "spacing_mm": [6.0, 6.0, 6.0],
        "train#patch_size": [32, 32, 32],
        "window_size": [64, 64, 64],
    },
    "lesion_ensemble": {**_SLICES, "spacing_mm": [5.6, 5.6, 5.6]},
    "multitask_triage": {
        "spacing_mm": [5.6, 5.6],
        "crop_margin": [1, 1, 0],
        "train#slice_size": [64, 64],
        "train#slices_per_study": 6,
        "train#samples_per_epoch": 8,
    },
    "mask_rcnn_classifier": {
        "spacing_mm": [5.6, 5.6],
        "slice_size": [64, 64],
        "smallest_lesion": 4,
        "train#slices_per_epoch": 8,
        "train#slices_per_batch": 4,
    },
}


def monai_command(command: str, *options: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of ``python -m monai.bundle``."""
    return run_warm_python("monai.bundle", command, *options, cwd=cwd)


def run_python(
    *words: object, cwd: Path, timeout_s: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run Python on one core, without a GPU and with installed packages alone."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def run_warm_python(
    *words: object, cwd: Path, timeout_s: int = 600
) -> subprocess.CompletedProcess[str]:
    """Run a module as ``run_python("-m", ...)`` does, with MONAI imported already."""
    with tempfile.TemporaryDirectory() as folder:
        streams = {name: Path(folder, name) for name in ("stdout", "stderr")}
        for file in streams.values():
            file.touch()
        command = {
            "words": list(map(str, words)),
            "folder": str(cwd),
            "timeout_s": timeout_s,
            **{name: str(file) for name, file in streams.items()},
        }
        python = _warm_python()
        assert python.stdin is not None
        assert python.stdout is not None
        print(json.dumps(command), file=python.stdin, flush=True)
        code = int(python.stdout.readline())
        return subprocess.CompletedProcess(
            command["words"], code, streams["stdout"].read_text(), streams["stderr"].read_text()
        )


@functools.cache
def _warm_python() -> subprocess.Popen[str]:
    python = subprocess.Popen(
        [sys.executable, WARM_PYTHON],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    # The end of its standard input ends it.
    atexit.register(python.communicate)
    return python


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""}


def as_options(values: dict[str, Any]) -> list[object]:
    """Return keys and values as words of a command."""
    return [word for key, value in values.items() for word in (f"--{key}", value)]


def config_files(folder: Path, configs: str) -> list[str]:
    """Return the paths of configs, such as "train" or "train variants/fpn", of a bundle folder."""
    return [str(folder / "configs" / f"{name}.json") for name in configs.split()]


def parsed(folder: Path, configs: str, **changes: Any) -> ConfigParser:
    """Lay configs of a bundle folder over each other, and change keys, to build parts of them."""
    parser = ConfigParser()
    parser.read_config(config_files(folder, configs))
    parser.update({"bundle_root": str(folder), **changes})
    return parser


def run_configs(
    folder: Path, configs: str, *options: object, cwd: Path, processes: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run configs, such as "train" or "train evaluate", of a bundle folder."""
    named = ("--config_file", config_files(folder, configs), "--bundle_root", folder, *options)
    if processes == 1:
        return monai_command("run", *named, cwd=cwd)
    torchrun = ("torch.distributed.run", "--standalone", f"--nproc_per_node={processes}")
    return run_python("-m", *torchrun, "-m", "monai.bundle", "run", *named, cwd=cwd)


def assert_refused_in_one_line(done: subprocess.CompletedProcess[str], named: object) -> None:
    """Assert that a command failed and named the culprit in its last line, without a traceback."""
    assert done.returncode != 0
    assert str(named) in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def printed_losses(done: subprocess.CompletedProcess[str]) -> list[float]:
    """Return the losses that training printed, step by step."""
    return [float(v) for v in re.findall(r"loss: ([\d.]+)", done.stdout + done.stderr)]


def has_weights(folder: Path) -> bool:
    return (folder / "models" / "model.pt").is_file()


def read_config(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / "configs" / f"{name}.json").read_text())


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def read_mask(file: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nibabel.Nifti1Image.from_filename(file)
    return np.asarray(image.dataobj).squeeze() > 0, image.affine
