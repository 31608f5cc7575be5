"""MONAI's own commands, run as a user of a bundle runs them."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def monai(
    command: str, *options: object, cwd: Path, launcher: Sequence[str] = ("-m",)
) -> subprocess.CompletedProcess[str]:
    """Run a command of ``python -m monai.bundle``, by another launcher than -m if given."""
    return subprocess.run(
        [sys.executable, *launcher, "monai.bundle", command, *map(str, options)],
        cwd=cwd,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": "",
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def run(
    folder: Path, configs: str, *options: object, cwd: Path, processes: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run configs, such as "train" or "train evaluate", of a bundle folder."""
    files = [str(folder / "configs" / f"{name}.json") for name in configs.split()]
    launcher = ["-m"]
    if processes > 1:
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        launcher = ["-m", *torchrun, "-m"]
    named = ["--config_file", files, "--bundle_root", folder, *options]
    return monai("run", *named, cwd=cwd, launcher=launcher)


def losses(done: subprocess.CompletedProcess[str]) -> list[float]:
    """Return the losses that training printed, step by step."""
    return [float(v) for v in re.findall(r"loss: ([\d.]+)", done.stdout + done.stderr)]
